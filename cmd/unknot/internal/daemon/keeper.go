package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unknot/unknot/cmd/unknot/internal/systemd"
	"github.com/unknot/unknot/engine/agent"
	"golang.org/x/sys/unix"
)

// A daemon that dies within shortLife of its start is started again only after a pause, which doubles from leastPause to
// mostPause.
const (
	shortLife  = 5 * time.Second
	leastPause = 50 * time.Millisecond
	mostPause  = time.Second
)

// An ExitError is the end of a daemon that said itself what was wrong.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return fmt.Sprintf("exit status %d", e.Code) }

// A keeper is the parent of daemons, of one at a time.
type keeper struct {
	cfg *Config
	*agent.Keeper
	env     []string
	signals chan os.Signal
	asked   bool        // to end
	ready   atomic.Bool // there was a daemon that served

	activated bool // the socket is the service manager's
}

// keep starts a daemon, and another one when it has died, until one ends as it was asked to.
func keep(c *Config, env []string) error {
	k := &keeper{cfg: c, Keeper: agent.NewKeeper(c.Log), env: env, signals: make(chan os.Signal, 8)}
	defer k.Close()
	signal.Notify(k.signals, unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	defer signal.Stop(k.signals)
	files, err := systemd.Files()
	if err != nil {
		return err
	}
	in, err := sort(files)
	if err != nil {
		return err
	}
	if in.socket != nil {
		_ = k.AddSocket(in.socket, in.socket.Addr().String())
	}
	k.activated = in.socket != nil
	pause := time.Duration(0)
	for {
		begun := time.Now()
		status, err := k.one()
		switch {
		case err != nil:
			return err
		case status.Exited() && status.ExitStatus() == 0:
			return nil
		case !k.ready.Load() || k.asked:
			if status.Exited() {
				return &ExitError{status.ExitStatus()}
			}
			return fmt.Errorf("the daemon was ended by %v", status.Signal())
		}
		if time.Since(begun) > shortLife {
			pause = 0
		}
		how := fmt.Sprintf("exit status %d", status.ExitStatus())
		if status.Signaled() {
			how = unix.SignalName(status.Signal())
		}
		c.Log.Error("the daemon died; another one takes its containers", "of", how, "listeners", k.Len(), "after", pause)
		select {
		case <-time.After(pause):
		case s := <-k.signals:
			if s != unix.SIGHUP {
				return fmt.Errorf("ended by %v while no daemon ran: %d listeners are let go", s, k.Len())
			}
		}
		pause = min(max(2*pause, leastPause), mostPause)
	}
}

// one runs a daemon from its start to its end.
func (k *keeper) one() (unix.WaitStatus, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("link to the daemon: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "link")
	link, err := linkOf(os.NewFile(uintptr(pair[0]), "link"))
	if err != nil {
		_ = theirs.Close()
		return 0, err
	}
	defer link.Close()
	// The daemon sees the end of alive when this process is gone, and we see a beat when it is well.
	alive, ours, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("pipe to the daemon: %w", err)
	}
	defer ours.Close()
	beats, beating, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("pipe to the daemon: %w", err)
	}
	defer beats.Close()
	cmd := k.cfg.Again()
	var numbers []string
	for _, f := range []*os.File{theirs, alive, beating} {
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		numbers = append(numbers, strconv.Itoa(2+len(cmd.ExtraFiles)))
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	said := strings.Join(numbers, ",")
	if k.activated {
		said += activatedSuffix
	}
	cmd.Env = append(append(cmd.Env, k.env...), Env+"="+said)
	// What a terminal sends to its foreground is passed on, once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	for _, f := range []*os.File{theirs, alive, beating} {
		_ = f.Close()
	}
	if err != nil {
		return 0, fmt.Errorf("start the daemon: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		err := k.Give(ctx, link)
		if err == nil {
			err = k.Keep(ctx, link)
		}
		if err != nil && ctx.Err() == nil {
			k.cfg.Log.Debug("the link to the daemon ended", "err", err)
		}
	}()
	beat := make(chan struct{}, 1)
	go func() {
		for b := make([]byte, 1); ; {
			if n, err := beats.Read(b); n == 0 || err != nil {
				return
			}
			if b[0] == beatReady {
				k.ready.Store(true)
			}
			select {
			case beat <- struct{}{}:
			default:
			}
		}
	}()
	return k.wait(cmd, beat, func() {
		// What it gave us and we have not taken yet is all that there is of a container's listener.
		select {
		case <-kept:
		case <-time.After(takeFor):
			cancel()
			<-kept
		}
	}), nil
}

// deadAfter is for how long a daemon may not be well. It says so each beatEvery, from its start on.
const (
	beatEvery = 5 * time.Second
	deadAfter = 30 * time.Second
)

// takeFor bounds how long what a dead daemon has sent is waited for. Its end of the link is closed by then, so only
// a process that has a copy of it makes the wait last.
const takeFor = time.Minute

// What a daemon writes: once that it serves, and that it is well.
const (
	beatReady = 'r'
	beatWell  = 'w'
)

// wait passes signals on until the daemon has ended. One that is not well is killed. It also reaps what the kernel gives
// to the first process of a container.
func (k *keeper) wait(cmd *exec.Cmd, beat <-chan struct{}, over func()) (status unix.WaitStatus) {
	pid := cmd.Process.Pid
	done := make(chan unix.WaitStatus, 1)
	go func() {
		for {
			var ws unix.WaitStatus
			got, err := unix.Wait4(-1, &ws, 0, nil)
			if got == pid && (ws.Exited() || ws.Signaled()) {
				done <- ws
				return
			}
			if err != nil && !errors.Is(err, unix.EINTR) { // there are none: it cannot be told how it ended
				done <- unix.WaitStatus(1 << 8)
				return
			}
		}
	}()
	defer over()
	defer cmd.Process.Release()
	dead := cmp.Or(k.cfg.deadAfter, deadAfter)
	well, since := time.NewTimer(dead), time.Now()
	defer well.Stop()
	again := func() {
		well.Reset(dead)
		since = time.Now()
	}
	var aborting <-chan time.Time
	for {
		select {
		case status = <-done:
			return status
		case s := <-k.signals:
			k.asked = k.asked || s != unix.SIGHUP
			_ = cmd.Process.Signal(s)
		case <-beat:
			again()
		case <-well.C:
			select {
			case <-beat: // which came first, to one who was not looking
				again()
				continue
			default:
			}
			if stopped(time.Since(since), dead) {
				again()
				continue
			}
			k.cfg.Log.Error("the daemon does not say that it is well, and is killed", "pid", pid, "for", dead)
			_ = cmd.Process.Signal(unix.SIGABRT) // which says what its goroutines do
			aborting = time.After(shortLife)
		case <-aborting:
			_ = cmd.Process.Kill()
		}
	}
}

// stopped reports whether who waited for dead, and saw its end so late, did not run meanwhile. Nor did the daemon then, if all
// of the container was stopped.
func stopped(waited, dead time.Duration) bool { return waited > dead+dead/6 }

// linkOf makes a link of one end of a socket pair.
func linkOf(f *os.File) (*agent.Link, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("link: it is no UNIX socket")
	}
	return agent.NewLink(u)
}
