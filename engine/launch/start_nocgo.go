//go:build !cgo

package launch

import (
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// Guarded reports whether commands have a guard in this build.
const Guarded = false

// impl is a process without a guard: the launcher itself becomes the command.
type impl struct{ launcher int }

// launcherName is argv[0] of the launcher: this program run again to become the
// command, on a thread that installs the filter and calls execve. A second
// thread, without the filter, passes the listener on.
//
// The filter may trap whatever those two need: sendmsg, futex, mmap, execve.
// So the first thread's last system call before the supervisor has the
// listener is seccomp(2), after which it only spins on a word in memory; the
// second depends on no wake-up by the first and polls that word. Once
// supervised, the first may trap as it likes.
const launcherName = "unknot-launch"

// A plan is what the supervisor sends to the launcher.
type plan struct {
	Prog  []unix.SockFilter
	Flags notify.InstallFlags
	Paths []string
	Args  []string
	Env   []string
	Dir   string
}

// A failure is what the launcher sends back.
type failure struct {
	Op    string
	Errno syscall.Errno
}

// Init is the launcher's main function; it returns at once in every other process.
func Init() {
	if len(os.Args) != 2 || os.Args[0] != launcherName {
		return
	}
	fd, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return
	}
	debug.SetGCPercent(-1) // a stop of the world would wait for a trapped thread
	runtime.GOMAXPROCS(4)  // two threads that hold on to their processor, and the runtime
	unix.CloseOnExec(fd)
	conn, err := net.FileConn(os.NewFile(uintptr(fd), "supervisor"))
	var p plan
	if err == nil {
		err = gob.NewDecoder(conn).Decode(&p)
	}
	if err != nil {
		os.Exit(1) // the supervisor sees the end of the connection
	}
	var l launcher
	go l.pass(conn.(*net.UnixConn))
	runtime.LockOSThread()
	l.become(&p)
}

// launcher is what its two threads share. All are polled, none is waited for.
type launcher struct {
	listener atomic.Int64 // descriptor plus 1
	failed   atomic.Pointer[failure]
	released atomic.Bool
}

// become is the first thread.
func (l *launcher) become(p *plan) {
	fail := func(op string, err error) {
		f := &failure{Op: op}
		if !errors.As(err, &f.Errno) {
			f.Errno = unix.EINVAL
		}
		l.failed.Store(f)
		select {}
	}
	if p.Dir != "" {
		if err := unix.Chdir(p.Dir); err != nil {
			fail("chdir", err)
		}
	}
	fd, err := notify.InstallFD(p.Prog, p.Flags) // which sets no_new_privs
	if err != nil {
		fail("seccomp(2)", err)
	}
	l.listener.Store(int64(fd) + 1)
	for !l.released.Load() {
	}
	err = unix.ENOENT
	denied := false // which execvp tells rather than what came later
	for _, path := range p.Paths {
		// syscall.Exec also gives back the limit of open files that Go raised.
		err = syscall.Exec(path, p.Args, p.Env)
		if err == unix.ENOEXEC {
			err = syscall.Exec("/bin/sh", append([]string{"/bin/sh", path}, p.Args[1:]...), p.Env)
		}
		denied = denied || err == unix.EACCES
		if err != unix.ENOENT && err != unix.ENOTDIR && err != unix.EACCES {
			fail(opExec, err)
		}
	}
	if denied {
		err = unix.EACCES
	}
	fail(opExec, err)
}

// nap waits without the Go scheduler, so that nothing needs to wake us.
func nap() {
	ts := unix.NsecToTimespec(50_000)
	_ = unix.Nanosleep(&ts, nil)
}

// pass is the second thread: it takes the listener to the supervisor, and
// reports what fails.
func (l *launcher) pass(conn *net.UnixConn) {
	runtime.LockOSThread()
	tell := func(f *failure) {
		_, _ = conn.Write([]byte{'e'}) // in the place of the listener or of the end
		_ = gob.NewEncoder(conn).Encode(f)
		os.Exit(1)
	}
	for l.listener.Load() == 0 {
		if f := l.failed.Load(); f != nil {
			tell(f)
		}
		nap()
	}
	ln, err := notify.NewListener(int(l.listener.Load() - 1))
	if err == nil {
		err = notify.SendListener(conn, ln)
	}
	if err == nil {
		err = ln.Close()
	}
	var b [1]byte
	if err == nil {
		_, err = conn.Read(b[:])
	}
	if err != nil {
		os.Exit(1)
	}
	l.released.Store(true)
	for l.failed.Load() == nil { // execve ends this thread
		nap()
	}
	tell(l.failed.Load())
}

// start runs the launcher, and waits for its execve.
func (p *Process) start(c *Command, args []string, prog []unix.SockFilter, flags notify.InstallFlags, add func(*notify.Listener) error) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return &StartError{"socketpair", err}
	}
	ours := os.NewFile(uintptr(fds[0]), "launcher")
	fc, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		_ = unix.Close(fds[1])
		return &StartError{"socketpair", err}
	}
	conn := fc.(*net.UnixConn)
	defer conn.Close()
	env := c.Env
	if env == nil {
		env = os.Environ()
	}
	self, control := "/proc/self/exe", fds[1]
	files := c.files(control)
	if c.Files != nil {
		control = len(files) - 1
	}
	pid, err := syscall.ForkExec(self, []string{launcherName, strconv.Itoa(control)}, &syscall.ProcAttr{
		Env:   append(os.Environ(), "GODEBUG=asyncpreemptoff=1"), // SIGURG must not meet a thread that spins
		Files: files,
	})
	_ = unix.Close(fds[1])
	if err != nil {
		return &StartError{"run the launcher, " + self, err}
	}
	p.launcher = pid
	fail := func(err error) error {
		_ = unix.Kill(p.launcher, unix.SIGKILL)
		p.wait()
		return err
	}
	if err := gob.NewEncoder(conn).Encode(plan{prog, flags, c.Paths, args, env, c.Dir}); err != nil {
		return fail(&StartError{"launcher", err})
	}
	l, err := notify.RecvListener(conn)
	if err != nil {
		var f failure
		if gob.NewDecoder(conn).Decode(&f) == nil {
			err = startError(f.Op, f.Errno)
		}
		return fail(err)
	}
	if err := add(l); err != nil {
		return fail(err)
	}
	if _, err := conn.Write([]byte{'g'}); err != nil {
		return fail(&StartError{"launcher", err})
	}
	// The socket closes when execve succeeds, else it brings the errno.
	var f failure
	var b [1]byte
	if n, _ := conn.Read(b[:]); n == 1 && gob.NewDecoder(conn).Decode(&f) == nil {
		return fail(startError(f.Op, f.Errno))
	}
	p.pid = pid
	go p.wait()
	return nil
}

// files are the launcher's descriptors: the command's, and the control socket.
func (c *Command) files(control int) []uintptr {
	var files []uintptr
	if c.Files != nil {
		for _, f := range c.Files {
			files = append(files, f.Fd())
		}
		return append(files, uintptr(control))
	}
	for fd := range control {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			files = append(files, uintptr(fd))
		} else {
			files = append(files, ^uintptr(0))
		}
	}
	return append(files, uintptr(control))
}

// wait collects the command.
func (p *Process) wait() {
	var ws syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(p.launcher, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	p.status = ws
	close(p.ended)
	close(p.alone)
}

// Signal sends the command a signal. The error is [ErrOver] once it has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	select {
	case <-p.ended:
		return ErrOver
	default:
	}
	if err := unix.Kill(p.pid, sig); err != nil {
		return fmt.Errorf("signal the command: %w", err)
	}
	return nil
}

// Queue is Signal, without the value in this build.
func (p *Process) Queue(sig syscall.Signal, _ uint64) error { return p.Signal(sig) }

// Sync does nothing in this build: there is no guard that could have seen anything.
func (p *Process) Sync() {}

var errNoGuard = fmt.Errorf("no guard, because unknot was built without cgo: %w", errors.ErrUnsupported)

// SetLeave fails in this build: without a guard a command always goes on.
func (p *Process) SetLeave(leave bool) error {
	if leave {
		return nil
	}
	return errNoGuard
}

// Control fails in this build.
func (p *Process) Control() (*os.File, error) { return nil, errNoGuard }

// Leave does nothing in this build.
func (p *Process) Leave() {}

// Close waits until the command has ended.
func (p *Process) Close() error {
	<-p.ended
	return nil
}

// Started knows, in this build, only of HUP and INT whether they were ignored:
// of others the Go runtime keeps no trace.
func Started() (in Inherited) {
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGINT} {
		if signal.Ignored(sig) {
			in.Ignored |= 1 << (uint(sig) - 1)
		}
	}
	return in
}

// Orphans says, in this build, that there is no guard whose children they could be.
func (p *Process) Orphans() error { return errNoGuard }

// Guard is 0 in this build.
func (p *Process) Guard() int { return 0 }
