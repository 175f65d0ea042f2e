package confine

import (
	"fmt"
	"slices"
	"syscall"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// A Level says how much of the process's file table the thread keeps.
type Level uint8

const (
	// Private gives the thread a file table of its own with little more than its
	// listener, and binds the filter to that listener. It is for one listener
	// that is known when the thread starts.
	Private Level = iota
	// Shared leaves the file table as it is, since a private one would not have
	// the listeners that come later. The filter then bounds what may be asked of
	// a descriptor, not which one: with the cookies a notification ioctl works on
	// any listener of the process.
	Shared
)

var levelNames = []string{"private", "shared"}

func (l Level) String() string { return levelNames[l] }

// ParseLevel is the inverse of [Level.String].
func ParseLevel(name string) (Level, error) {
	if i := slices.Index(levelNames, name); i >= 0 {
		return Level(i), nil
	}
	return 0, fmt.Errorf("no confinement level %q: the levels are private, shared", name)
}

// A SignalMode says which signals the thread still takes.
type SignalMode uint8

const (
	// Masked leaves the signals of faults (SEGV, BUS, FPE, ILL, TRAP, SYS), of
	// Go's preemption and profiling (URG, PROF), the C library's own (33) and
	// [Thread.Signal]. Others, such as TERM, go to other threads.
	Masked SignalMode = iota
	// Strict leaves out URG and PROF too, and rt_sigreturn with them, so that a
	// forged signal frame is of no use (SROP). A nil dereference on the thread
	// then kills without a trace, profiles have no samples of it, and the engine
	// must not use a signal.
	Strict
	// Open masks nothing. A signal that kills the process, if this thread gets
	// it, kills it as SIGSYS.
	Open
)

var signalNames = []string{"masked", "strict", "open"}

func (m SignalMode) String() string { return signalNames[m] }

// An Action is what becomes of a call that is not in the table.
type Action uint8

const (
	// Kill ends the process by SIGSYS (SECCOMP_RET_KILL_PROCESS).
	Kill Action = iota
	// Trap has Go throw and print the stack of the call. For tests: code that
	// handles SIGSYS could go on.
	Trap
	// Log allows the call, and the kernel logs it. For finding out what a thread
	// needs; nothing is confined.
	Log
)

var actionNames = []string{"kill", "trap", "log"}

func (a Action) String() string { return actionNames[a] }

// ret is the seccomp return value.
func (a Action) ret() uint32 {
	return [...]uint32{unix.SECCOMP_RET_KILL_PROCESS, unix.SECCOMP_RET_TRAP, unix.SECCOMP_RET_LOG}[a]
}

// An IDPair is a transition of the process's user or group ids.
type IDPair struct {
	From uint32 // the pair counts if this is the real, effective or saved id when [Prepare] runs
	To   uint32 // not 0
}

// A Config says how a thread is confined. The zero value is the strictest that
// works with all of package engine at level [Private].
type Config struct {
	Level       Level
	Signals     SignalMode
	OnViolation Action

	// LogFD is where [Plan.LogWriter] writes; 0: standard error. Another
	// descriptor must stay open.
	LogFD int

	// Requests are the ioctls of the listener; nil: NOTIF_RECV, NOTIF_SEND and
	// NOTIF_ID_VALID.
	Requests []uint32

	// RequireLandlock makes a kernel without landlock an error. Any other
	// failure of landlock is one anyway, unless Best says otherwise, and with
	// both it is.
	RequireLandlock bool

	// Best goes on without what the kernel refuses, as under a container's
	// seccomp profile: no_new_privs, the thread's own file table (the level is
	// then [Shared], see [Plan.Level]), landlock. [Plan.Missing] says what. The
	// seccomp filter itself is never done without.
	Best bool

	// SpecAllow leaves speculative store bypass to the thread.
	SpecAllow bool

	// Profiling gives the thread a CPU profile timer of its own. Without, Go
	// profiles it by the process's timer.
	Profiling bool

	// UIDs and GIDs allow set*id calls that go to the ids named. Such a call
	// runs on every thread of the process, so it kills the process unless it is
	// allowed here. The price: whoever controls the thread can make the change
	// too, for this thread alone; and signal handlers must return, so that
	// [Strict] excludes them. setgroups is never allowed.
	UIDs, GIDs []IDPair

	without []string // tests: rules left out, by key
}

// A Thread is the receive thread as [Plan.Confine] finds it. Descriptors that
// it does not have are -1.
type Thread struct {
	Listeners []int          // exactly one at level Private; ignored at level Shared
	Epoll     int            // the instance on which it waits
	Wake      int            // the eventfd that it reads
	Signal    syscall.Signal // that interrupts its receive; 0: none
}

func (c *Config) fill() error {
	if int(c.Level) >= len(levelNames) || int(c.Signals) >= len(signalNames) || int(c.OnViolation) >= len(actionNames) {
		return fmt.Errorf("confine: level %d, signals %d, on violation %d: no such setting", c.Level, c.Signals, c.OnViolation)
	}
	if c.LogFD == 0 {
		c.LogFD = stderr
	}
	if c.LogFD < 0 {
		return fmt.Errorf("confine: log descriptor %d: must be open", c.LogFD)
	}
	if c.Requests == nil {
		c.Requests = []uint32{notify.IoctlRecv, notify.IoctlSend, notify.IoctlIDValid}
	}
	if (len(c.UIDs) > 0 || len(c.GIDs) > 0) && c.Signals == Strict {
		return fmt.Errorf("confine: changes of user or group ids reach the thread by a signal, which strict signals exclude: use masked")
	}
	for _, p := range slices.Concat(c.UIDs, c.GIDs) {
		if p.To == 0 || p.To == ^uint32(0) {
			return fmt.Errorf("confine: transition of ids %d to %d: to root, or to no id, is not allowed", p.From, p.To)
		}
	}
	return nil
}

// check says whether t can be confined by c.
func (c *Config) check(t Thread) error {
	if c.Level == Private && len(t.Listeners) != 1 {
		return fmt.Errorf("confine: level private takes exactly one listener, here are %d: add it before the thread starts, or use level shared", len(t.Listeners))
	}
	if t.Signal != 0 && c.Signals == Strict {
		return fmt.Errorf("confine: the thread is interrupted by signal %d, which strict signals exclude: have it wait by epoll only, or use masked", t.Signal)
	}
	return nil
}
