// Package systemd is the service's end of what systemd, or who speaks like it, offers a service: sockets and stored
// descriptors at its start (sd_listen_fds(3)), and a socket to say things to (sd_notify(3)), among them descriptors to store.
//
// It is written out here, because github.com/coreos/go-systemd sends text only: descriptors (FDSTORE) and barriers need
// SCM_RIGHTS.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A File is a descriptor that came with the process.
type File struct {
	Name string // of FileDescriptorName= or FDNAME=; "unknown" if the manager said none
	FD   int    // the caller's to close
}

// Files returns what the manager handed to this process, close-on-exec. Call it once, before children are started,
// which then do not see the variables. It is empty for a process that was started otherwise.
func Files() ([]File, error) {
	pid, n, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	if pid != strconv.Itoa(os.Getpid()) || n == "" {
		return nil, nil
	}
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		_ = os.Unsetenv(v)
	}
	count, err := strconv.Atoi(n)
	const first = 3 // SD_LISTEN_FDS_START
	if err != nil || count < 0 || count > 1<<20 {
		return nil, fmt.Errorf("LISTEN_FDS=%s: want how many descriptors were passed", n)
	}
	said := strings.Split(names, ":")
	if names != "" && len(said) != count {
		return nil, fmt.Errorf("LISTEN_FDNAMES has %d names for the %d descriptors of LISTEN_FDS", len(said), count)
	}
	files := make([]File, count)
	for i := range files {
		unix.CloseOnExec(first + i)
		files[i] = File{"unknown", first + i}
		if names != "" {
			files[i].Name = said[i]
		}
	}
	return files, nil
}

// A Manager is who this process reports to.
type Manager struct {
	c        *net.UnixConn
	env      []string
	watchdog time.Duration
	mu       sync.Mutex // of a message and its write deadline
	storing  sync.Mutex // of the probe's name
}

// ErrNone says that there is no manager: NOTIFY_SOCKET is not set.
var ErrNone = errors.New("no service manager listens to this process (NOTIFY_SOCKET)")

// sendFor bounds how long a message may wait for the manager to read those before it.
const sendFor = 10 * time.Second

// Connect returns the manager that NOTIFY_SOCKET names, and removes the variables, so that children do not speak for us.
// parent says that the process that started this one is who the manager watches: its watchdog is then ours.
func Connect(parent bool) (*Manager, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, ErrNone
	}
	m := &Manager{}
	if usec := os.Getenv("WATCHDOG_USEC"); usec != "" {
		pid := os.Getenv("WATCHDOG_PID")
		if pid == "" || pid == strconv.Itoa(os.Getpid()) || parent && pid == strconv.Itoa(os.Getppid()) {
			n, err := strconv.ParseInt(usec, 10, 64)
			if err != nil || n <= 0 {
				return nil, fmt.Errorf("WATCHDOG_USEC=%s: want microseconds", usec)
			}
			m.watchdog = time.Duration(n) * time.Microsecond
		}
	}
	if path[0] != '/' && path[0] != '@' {
		return nil, fmt.Errorf("NOTIFY_SOCKET=%s: want a path or an abstract name", path)
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	m.c = c
	for _, v := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if value, ok := os.LookupEnv(v); ok {
			m.env = append(m.env, v+"="+value)
			_ = os.Unsetenv(v)
		}
	}
	return m, nil
}

// Environ are the variables that Connect removed, for a child that shall speak for us.
func (m *Manager) Environ() []string { return m.env }

// Watchdog is within what time the manager wants to hear "WATCHDOG=1" again; 0: never.
func (m *Manager) Watchdog() time.Duration { return m.watchdog }

// Close ends the connection. What was sent arrives.
func (m *Manager) Close() error { return m.c.Close() }

// Notify says something, one assignment a line: "READY=1".
func (m *Manager) Notify(lines ...string) error { return m.send(lines, nil) }

func (m *Manager) send(lines []string, fds []int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.c.SetWriteDeadline(time.Now().Add(sendFor))
	raw, err := m.c.SyscallConn()
	if err == nil { // package net takes no descriptors for a datagram socket that is connected
		var serr error
		err = raw.Write(func(fd uintptr) bool {
			for {
				serr = unix.Sendmsg(int(fd), []byte(strings.Join(lines, "\n")), oob, nil, unix.MSG_NOSIGNAL)
				if !errors.Is(serr, unix.EINTR) {
					return !errors.Is(serr, unix.EAGAIN)
				}
			}
		})
		err = errors.Join(err, serr)
	}
	if err != nil {
		return fmt.Errorf("tell the service manager %s: %w", lines[0], err)
	}
	return nil
}

// Monotonic is the line by which RELOADING=1 says when the reload began.
func Monotonic() string {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return "MONOTONIC_USEC=" + strconv.FormatInt(t.Nano()/1000, 10)
}

// Barrier waits until the manager has acted on all that was said before: since systemd 246.
func (m *Manager) Barrier(ctx context.Context) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	defer r.Close()
	err = m.send([]string{"BARRIER=1"}, []int{int(w.Fd())})
	_ = w.Close()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("barrier: the service manager did not answer: %w", ctx.Err())
	}
	return nil // the end of the file: the manager has closed it
}

// ErrNotStored says that the manager took no descriptor: its store for this service has no room.
var ErrNotStored = errors.New("the service manager stores no more descriptors for this service: set or raise FileDescriptorStoreMax= in its unit")

// probeName is the name under which a descriptor is stored for a moment.
const probeName = "unknot-probe"

// Probe reports whether the manager stores descriptors: nil, or [ErrNotStored]. A manager does not say; but it closes
// what it does not store, and that can be seen from the other end.
func (m *Manager) Probe(ctx context.Context) error {
	m.storing.Lock()
	defer m.storing.Unlock()
	return m.probe(ctx)
}

// Store has the manager keep copies of fds under a name, until [Manager.Forget], the service is stopped, or this process
// is started again: then they are among [Files]. It does not watch them (FDPOLL=0): systemd's own loop would wake up for
// every notification of a listener. It fails with ErrNotStored where they are not kept.
func (m *Manager) Store(ctx context.Context, name string, fds ...int) error {
	m.storing.Lock()
	defer m.storing.Unlock()
	if err := m.send([]string{"FDSTORE=1", "FDNAME=" + name, "FDPOLL=0"}, fds); err != nil {
		return err
	}
	err := m.probe(ctx)
	if err != nil {
		_ = m.Forget(name)
	}
	return err
}

// probe stores one end of a socket after all else, and looks from the other end whether it is kept: if it
// is, so is what came before.
func (m *Manager) probe(ctx context.Context) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("probe the descriptor store: %w", err)
	}
	defer unix.Close(pair[0])
	err = m.send([]string{"FDSTORE=1", "FDNAME=" + probeName, "FDPOLL=0"}, pair[1:])
	_ = unix.Close(pair[1])
	if err != nil {
		return err
	}
	defer m.Forget(probeName)
	if err := m.Barrier(ctx); err != nil {
		return err
	}
	p := []unix.PollFd{{Fd: int32(pair[0])}}
	if _, err := unix.Poll(p, 0); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("probe the descriptor store: %w", err)
	}
	if p[0].Revents&unix.POLLHUP != 0 {
		return ErrNotStored
	}
	return nil
}

// Forget has the manager close what it keeps under a name.
func (m *Manager) Forget(name string) error {
	return m.Notify("FDSTOREREMOVE=1", "FDNAME="+name)
}
