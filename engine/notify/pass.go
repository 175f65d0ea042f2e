package notify

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// SendListener passes a copy of the listener to the process at the other end of
// c (SCM_RIGHTS, with one byte of data). Ours stays open: close it, or targets
// stay blocked instead of getting ENOSYS when the receiver dies.
func SendListener(c *net.UnixConn, l *Listener) error {
	fd := l.FD()
	if _, _, err := c.WriteMsgUnix([]byte{'L'}, unix.UnixRights(fd), nil); err != nil {
		return fmt.Errorf("pass listener: %w", err)
	}
	return nil
}

// RecvListener takes a listener that SendListener passed; the descriptor is
// close-on-exec from the start. Whatever else arrives is closed and refused.
func RecvListener(c *net.UnixConn) (*Listener, error) {
	var data [1]byte
	oob := make([]byte, 256)                              // some descriptors too many, and credentials if c asks for them
	n, oobn, flags, _, err := c.ReadMsgUnix(data[:], oob) // the net package sets MSG_CMSG_CLOEXEC
	if err != nil {
		return nil, fmt.Errorf("take listener: %w", err)
	}
	fds, err := rights(oob[:oobn])
	if err == nil {
		switch {
		case n == 0 && len(fds) == 0:
			err = errors.New("the sender closed the connection without one")
		case flags&unix.MSG_CTRUNC != 0 || len(fds) != 1:
			err = fmt.Errorf("got %d descriptors, want 1", len(fds))
		}
	}
	if err == nil {
		var l *Listener
		if l, err = NewListener(fds[0]); err == nil {
			return l, nil
		}
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	return nil, fmt.Errorf("take listener: %w", err)
}

func rights(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range msgs {
		if msgs[i].Header.Level != unix.SOL_SOCKET || msgs[i].Header.Type != unix.SCM_RIGHTS {
			continue // credentials (SO_PASSCRED), a timestamp
		}
		got, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, got...)
	}
	return fds, nil
}
