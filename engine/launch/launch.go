package launch

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// A Command is a program to start under a filter. The zero value of each field
// passes on what this process was started with.
type Command struct {
	// Paths are tried in this order as execvp(3) does it, byte for byte; [Find]
	// makes them of a name. At least one.
	Paths []string
	// Args begins with the command's own name. Without any it is Paths[0].
	Args []string
	// Env is the environment. Nil is the one that this process was started with,
	// entry by entry; Go's own copy lacks empty and repeated ones.
	Env []string
	// Dir is the working directory, "" for ours.
	Dir string
	// Files become the descriptors 0, 1, 2 and so on; they stay the caller's.
	// Nil has the command inherit every descriptor that is not close-on-exec.
	Files []*os.File
	// NoNewPrivs sets no_new_privs in any case. Otherwise it is set only where the
	// kernel installs no filter without it: where CAP_SYS_ADMIN is missing.
	// Where it is set, set-user-ID programs such as sudo get no privilege.
	NoNewPrivs bool
	// Leave has the command go on when this process dies. Its trapped calls then
	// fail with ENOSYS. Otherwise the guard kills the command and its descendants.
	Leave bool
	// Notify, if set, is told of what happens, one event after the other, from
	// within Start and then from a goroutine of the process. It must not block.
	Notify func(Event)
}

// An Event is something that happened to a command or its guard.
type Event struct {
	Kind   EventKind
	Signal syscall.Signal // of Stopped and Saw
	// InGroup says, with Saw, whether the command was in the guard's process
	// group. A signal for that group has then reached the command as well.
	InGroup bool
	Code    int // of Saw: si_code, such as SI_USER, or SI_KERNEL for a terminal's
}

// EventKind is what happened.
type EventKind uint8

// The kinds of events. The end of the command is [Process.Wait]'s to tell.
const (
	Stopped   EventKind = iota + 1 // the command is stopped, by Signal
	Continued                      // it goes on
	Saw                            // the guard itself was sent Signal, which goes no further
)

var (
	// ErrGuard says that the guard died before the command, which was killed then.
	ErrGuard = errors.New("the guard of the command was killed")
	// ErrOver says that the command has ended.
	ErrOver = errors.New("the command has ended")
)

// A StartError says which step of a start failed, and why.
type StartError struct {
	Op  string // a system call or what it was for: "execve", "seccomp(2)"
	Err error  // an errno in most cases
}

func (e *StartError) Error() string { return e.Op + ": " + e.Err.Error() }

func (e *StartError) Unwrap() error { return e.Err }

// startError names who may refuse a call that no kernel refuses.
func startError(op string, errno syscall.Errno) error {
	var err error = errno
	if op != opExec && (errno == unix.EPERM || errno == unix.ENOSYS) {
		err = fmt.Errorf("%w (does a container's seccomp profile refuse it? allow it there)", errno)
	}
	return &StartError{op, err}
}

// NotRun reports whether err says that everything was ready but the program
// itself could not be run, and the errno for it.
func NotRun(err error) (syscall.Errno, bool) {
	var start *StartError
	var errno syscall.Errno
	if errors.As(err, &start) && start.Op == opExec && errors.As(start.Err, &errno) {
		return errno, true
	}
	return 0, false
}

const opExec = "execve"

const maxInstructions = 4096 // BPF_MAXINSNS, include/uapi/linux/bpf_common.h

// A Process is a started command with its guard. Its methods may be called from
// any goroutine.
type Process struct {
	notify func(Event)
	pid    int

	ended  chan struct{} // closed when the command has ended
	status syscall.WaitStatus
	err    error
	alone  chan struct{} // closed when nothing is left of it

	impl
}

// Start starts a command under the filter prog, whose listener it hands to add
// before the command has run a single instruction. It returns when the command
// runs. What add returns as an error ends the start; the listener is add's from
// the beginning.
//
// The guard stays when the command has ended; [Process.Close] ends it.
//
// Flags are those of [notify.Install], but TSync: the filter is the command's
// alone. A command that ends by a signal before it runs is no error; Wait tells.
// An error of the last step, running the program, is told by [NotRun].
func Start(c *Command, prog []unix.SockFilter, flags notify.InstallFlags, add func(*notify.Listener) error) (*Process, error) {
	fail := func(err error) (*Process, error) { return nil, fmt.Errorf("launch: %w", err) }
	if len(c.Paths) == 0 {
		return fail(errors.New("no path to run"))
	}
	args := c.Args
	if len(args) == 0 {
		args = c.Paths[:1]
	}
	for _, list := range [][]string{c.Paths, args, c.Env, {c.Dir}} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return fail(fmt.Errorf("%q has a zero byte, which no program can be given: %w", s, unix.EINVAL))
			}
		}
	}
	if len(prog) == 0 || len(prog) > maxInstructions {
		return fail(fmt.Errorf("a filter of %d instructions: must be 1 to %d", len(prog), maxInstructions))
	}
	if flags&notify.TSync != 0 {
		return fail(errors.New("TSYNC: the filter is the command's, which has one thread"))
	}
	if err := notify.CheckSizes(); err != nil {
		return fail(err)
	}
	p := &Process{notify: c.Notify, ended: make(chan struct{}), alone: make(chan struct{})}
	if p.notify == nil {
		p.notify = func(Event) {}
	}
	if err := p.start(c, args, prog, flags, add); err != nil {
		return fail(err)
	}
	return p, nil
}

// PID is the command's process id; 0 if it ended before it ran. The guard has
// not collected the process before Wait returns.
func (p *Process) PID() int { return p.pid }

// Wait waits until the command has ended, and returns its wait status. It may
// be called more than once. The error is [ErrGuard].
func (p *Process) Wait() (syscall.WaitStatus, error) {
	<-p.ended
	return p.status, p.err
}

// Ended is closed when the command has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Alone is closed when the command has ended, and all its descendants too.
// Without a guard it is closed with the command's end.
func (p *Process) Alone() <-chan struct{} { return p.alone }

// Inherited is what this process was started with, where the Go runtime changes
// it at its start. Signal n is in a set whose bit n-1 is set.
type Inherited struct {
	Ignored, Blocked uint64
}

// Has reports whether sig is in a set of signals.
func (Inherited) has(set uint64, sig syscall.Signal) bool { return set>>(uint(sig)-1)&1 != 0 }

// Ignores reports whether sig was ignored.
func (in Inherited) Ignores(sig syscall.Signal) bool { return in.has(in.Ignored, sig) }

// Blocks reports whether sig was blocked.
func (in Inherited) Blocks(sig syscall.Signal) bool { return in.has(in.Blocked, sig) }
