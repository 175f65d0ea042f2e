package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// maxFDs is what the kernel takes in one message (SCM_MAX_FD, include/net/scm.h). A state is one message.
const maxFDs = 253

// An inbox reads a connection and keeps the descriptors that come, in their order. Whoever has it closes them.
type inbox struct {
	c   *net.UnixConn
	fds []int // noFD: it is somebody else's by now
	oob []byte
}

// ancillary is room for maxFDs descriptors, and for what an activated socket may be set to add: credentials
// (SO_PASSCRED), a pidfd (SO_PASSPIDFD), a security label (SO_PASSSEC), a time stamp.
const ancillary = 4096

// Read reads data. A message whose descriptors are not all there is an error.
func (in *inbox) Read(p []byte) (int, error) {
	if in.oob == nil {
		in.oob = make([]byte, ancillary)
	}
	n, oobn, flags, _, err := in.c.ReadMsgUnix(p, in.oob) // the net package sets MSG_CMSG_CLOEXEC
	if errors.Is(err, io.EOF) {
		return 0, io.EOF // without the net package's words
	}
	if err != nil {
		return 0, err
	}
	if err := in.keep(in.oob[:oobn]); err != nil {
		return n, err
	}
	switch {
	case flags&unix.MSG_CTRUNC != 0:
		return n, errors.New("descriptors were lost on their way (MSG_CTRUNC): raise RLIMIT_NOFILE if this process has as many open as it may")
	case len(in.fds) > maxFDs:
		return n, fmt.Errorf("more than %d descriptors came, the most that one message has", maxFDs)
	}
	return n, nil
}

// keep keeps every descriptor that control messages hold.
func (in *inbox) keep(oob []byte) error {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("control message: %w", err)
	}
	for i := range msgs {
		m := &msgs[i]
		if m.Header.Level != unix.SOL_SOCKET {
			continue
		}
		switch m.Header.Type {
		case unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(m)
			in.fds = append(in.fds, fds...)
			if err != nil {
				return fmt.Errorf("control message: %w", err)
			}
		case unix.SCM_PIDFD:
			if len(m.Data) >= 4 {
				if fd := int32(binary.NativeEndian.Uint32(m.Data)); fd >= 0 {
					_ = unix.Close(int(fd))
				}
			}
		}
	}
	return nil
}

// close closes what nobody took.
func (in *inbox) close() {
	closeAll(in.fds)
	in.fds = nil
}
