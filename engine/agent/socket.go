package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"

	"github.com/unknot/unknot/internal/unixsocket"
	"golang.org/x/sys/unix"
)

// ErrLive says that another process listens at the path.
var ErrLive = unixsocket.ErrLive

// listen makes the socket.
func listen(path string, mode fs.FileMode) (*net.UnixListener, error) {
	if path == "" {
		return nil, errors.New("no path for the socket: runtimes are told one as linux.seccomp.listenerPath")
	}
	return unixsocket.Listen(path, mode)
}

// ErrNotActivated says that no socket was handed to this process at its start.
var ErrNotActivated = errors.New("no socket was passed by activation (LISTEN_PID, LISTEN_FDS)")

// Activated returns the listening socket that a service manager opened and this process inherited
// (sd_listen_fds(3)), for [Config.Listener]. Call it once, before children are started, which then do not
// see the variables. More than one socket is an error, and so is one of another kind.
func Activated() (*net.UnixListener, error) {
	pid, fds := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid != strconv.Itoa(os.Getpid()) || fds == "" {
		return nil, fmt.Errorf("agent: %w", ErrNotActivated)
	}
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(v)
	}
	n, err := strconv.Atoi(fds)
	const first = 3 // SD_LISTEN_FDS_START
	if err != nil || n < 1 || n > 1<<16 {
		return nil, fmt.Errorf("agent: LISTEN_FDS=%s: must be 1", fds)
	}
	for fd := first; fd < first+n; fd++ {
		unix.CloseOnExec(fd)
	}
	if n > 1 {
		return nil, fmt.Errorf("agent: %d sockets were passed by activation: an agent has one (ListenStream= once)", n)
	}
	f := os.NewFile(first, "activated socket")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("agent: activated socket: %w", err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok || ul.Addr().Network() != "unix" {
		_ = l.Close()
		return nil, fmt.Errorf("agent: activated socket: it is %s, not a UNIX stream socket (ListenStream=/PATH)", l.Addr().Network())
	}
	ul.SetUnlinkOnClose(false) // it is the service manager's
	return ul, nil
}
