package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// A State is what a runtime tells of a process whose listener it hands over: ContainerProcessState of the OCI runtime
// specification. Only FDs is sure to say something.
type State struct {
	OCIVersion string    `json:"ociVersion"`
	FDs        []string  `json:"fds"`                // the names of the descriptors that come with it
	PID        int       `json:"pid"`                // of the process; 0 from crun's exec
	Metadata   string    `json:"metadata,omitempty"` // linux.seccomp.listenerMetadata, as the container's author wrote it
	Container  Container `json:"state"`
}

// LogValue is the container's id: what else there is may be megabytes.
func (s State) LogValue() slog.Value { return slog.StringValue(s.Container.ID) }

// A Container is the state of a container, of the OCI runtime specification.
type Container struct {
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Status      string            `json:"status"`
	PID         int               `json:"pid,omitempty"`
	Bundle      string            `json:"bundle"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// listenerName is how State.FDs calls the listener (SeccompFdName of the specification).
const listenerName = "seccompFd"

// A TooLargeError says that a state has more bytes than [Config] allows.
type TooLargeError struct{ Max int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the state is larger than %d bytes: raise the limit (MaxState), or have fewer annotations", e.Max)
}

// parse reads one JSON object, and nothing after its end.
func parse(r io.Reader, maxBytes int) (*State, error) {
	lim := &limited{r: r, left: maxBytes, max: maxBytes}
	dec := json.NewDecoder(lim)
	s := new(State)
	if err := dec.Decode(s); err != nil {
		switch {
		case lim.err != nil && lim.err != io.EOF:
			return nil, lim.err // the decoder may say it in other words
		case lim.left == maxBytes:
			return nil, errors.New("the client closed the connection and sent nothing")
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
			return nil, fmt.Errorf("the client closed the connection after %d bytes, in the middle of the state", maxBytes-lim.left)
		}
		return nil, fmt.Errorf("the state is not what the OCI runtime specification says: %w", err)
	}
	// What came was enough for the decoder, and something was wrong with it all the same.
	if lim.err != nil && lim.err != io.EOF {
		return nil, lim.err
	}
	// Nobody waits for more than the value. What came with it must be its white space.
	rest, _ := io.ReadAll(dec.Buffered())
	if rest = bytes.TrimLeft(rest, " \t\r\n"); len(rest) > 0 {
		return nil, fmt.Errorf("%.20q follows the state, and a connection is for one", rest)
	}
	return s, nil
}

// A limited reader fails past so many bytes, and before it has read any if they cannot be an object.
type limited struct {
	r         io.Reader
	left, max int
	begun     bool
	err       error
}

func (l *limited) Read(p []byte) (n int, err error) {
	if l.err != nil {
		return 0, l.err
	}
	if l.left == 0 {
		l.err = &TooLargeError{l.max}
		return 0, l.err
	}
	n, err = l.r.Read(p[:min(len(p), l.left)])
	l.left -= n
	if !l.begun {
		// A number or a word has no end of its own: without this look it would take the deadline to refuse them.
		if first := bytes.TrimLeft(p[:n], " \t\r\n"); len(first) > 0 {
			if l.begun = true; first[0] != '{' {
				err = fmt.Errorf("what came is no JSON object: it begins with %.20q", first)
			}
		}
	}
	l.err = err
	return n, err
}

// listener takes the listener out of the descriptors that came with s. On success it is no longer among them.
func (s *State) listener(in *inbox) (*notify.Listener, error) {
	at := -1
	for i, name := range s.FDs {
		if name != listenerName {
			continue
		}
		if at >= 0 {
			return nil, fmt.Errorf("the state names %s twice", listenerName)
		}
		at = i
	}
	switch {
	case at < 0:
		return nil, fmt.Errorf("the state names no %s among its %d fds", listenerName, len(s.FDs))
	case len(in.fds) == 0:
		return nil, fmt.Errorf("no descriptor came with the state, which names %d", len(s.FDs))
	case len(in.fds) != len(s.FDs):
		return nil, fmt.Errorf("%d descriptors came with the state, which names %d", len(in.fds), len(s.FDs))
	}
	fd := in.fds[at]
	l, err := listenerOf(fd)
	if err != nil {
		return nil, fmt.Errorf("the descriptor that came as %s: %w", listenerName, err)
	}
	in.fds[at] = noFD
	return l, nil
}

// listenerOf makes a listener of a descriptor that came, which is then the listener's.
func listenerOf(fd int) (*notify.Listener, error) {
	// An ioctl on a stranger's file, as one of FUSE, may block for as long as the stranger likes.
	if is := fileName(fd); is != "" && is != listenerFile {
		return nil, fmt.Errorf("it is no seccomp listener but %q", is)
	}
	return notify.NewListener(fd)
}

const (
	noFD         = -1
	listenerFile = "anon_inode:seccomp notify"
)

// fileName is what /proc says a descriptor is; "" if there is no telling.
func fileName(fd int) string {
	var b [128]byte
	n, err := unix.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd), b[:])
	if err != nil {
		return ""
	}
	return string(b[:n])
}
