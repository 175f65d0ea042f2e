package record

import (
	"errors"
	"fmt"
	"time"
)

// A Recording is the calls that a supervisor got in a span of time, in the order
// in which they were made. It holds no arguments, paths, values or names.
type Recording struct {
	Start   time.Time     // when it began, to the second
	Elapsed time.Duration // how long it lasted
	CPUs    int           // of the machine that were online
	// Threads is how many threads made the calls. A thread that ended and
	// another that got its number count as one.
	Threads  int
	Syscalls []Syscall
	Calls    []Call
	Lost     Lost

	atOnce int // of Join; 0: Threads
}

// A Syscall is a system call of one architecture.
type Syscall struct {
	Arch uint32 // AUDIT_ARCH_…
	NR   int32
}

// A Call is one notification: trap → receive → dispatch → answer. Times are in
// ns of the kernel's monotonic clock.
type Call struct {
	// Arrival is when the target trapped, counted from the recording's start: its
	// thread's switch away from the CPU. Calls with !Trapped are put at their
	// receive instead, which a supervisor with a backlog reaches late.
	Arrival int64
	Receive int64 // arrival → RECV returned; 0 if !Trapped
	Wait    int64 // receive → dispatch; 0 without a dispatch
	// Service is dispatch (ID_VALID returned) → answer (SEND entered); without a dispatch receive → answer, and so
	// no service time but an upper bound of it.
	Service int64
	// Away is the part of Service in which the handler's thread had no CPU: it was
	// preempted, or it slept if Blocked. 0 if it is not known: where another thread answered.
	Away    int64
	Thread  int32 // 0 to Threads-1, by first appearance
	Syscall int32 // index of Recording.Syscalls

	Outcome  Outcome
	Dispatch Dispatch
	Trapped  bool // the trap was seen
	// Blocked says that the handler gave up its CPU of its own accord: it slept
	// or waited, instead of computing.
	Blocked bool
	// Slept says that the target gave up its CPU of its own accord after its call
	// before this one: the time between was no computing.
	Slept bool
}

// Response is the time from arrival to answer, in ns.
func (c *Call) Response() int64 { return c.Receive + c.Wait + c.Service }

// An Outcome is how a call ended.
type Outcome uint8

const (
	Served  Outcome = iota // answered
	Dropped                // answered EINTR (or the errno that drops have) and never dispatched
	Stale                  // its target was gone
)

// A Dispatch is how a handler's start was seen.
type Dispatch uint8

const (
	Unseen  Dispatch = iota
	Checked          // the supervisor asked ID_VALID
	Inline           // the thread that received it answered it, and received nothing in between
)

// Lost is what a recording lacks.
type Lost struct {
	Unfinished uint64 // received and not answered when it ended
	Unmatched  uint64 // answered, and received before it began
	Overrun    uint64 // finished faster than they were read
	Missed     uint64 // that the kernel's programs could not follow
}

// Add adds what another recording lacks.
func (l *Lost) Add(m Lost) {
	l.Unfinished += m.Unfinished
	l.Unmatched += m.Unmatched
	l.Overrun += m.Overrun
	l.Missed += m.Missed
}

// MaxCalls bounds a recording.
const MaxCalls = 1 << 24

// ErrEmpty is that of a recording without calls.
var ErrEmpty = errors.New("the recording has no calls")

// A versionError says that a file is of another version.
type versionError struct{ Version uint32 }

func (e *versionError) Error() string {
	if e.Version > version {
		return fmt.Sprintf("it is a recording of version %d, and this program reads version %d: use a newer one", e.Version, version)
	}
	return fmt.Sprintf("it is a recording of version %d, and this program reads version %d: record anew", e.Version, version)
}

// check says what in r contradicts itself; nobody who recorded gets there.
func (r *Recording) check() error {
	switch {
	case len(r.Calls) == 0:
		return ErrEmpty
	case len(r.Calls) > MaxCalls:
		return fmt.Errorf("%d calls: at most %d", len(r.Calls), MaxCalls)
	case r.Elapsed <= 0 || r.Elapsed > maxElapsed:
		return fmt.Errorf("a length of %v: must be more than 0 and at most %v", r.Elapsed, maxElapsed)
	case r.CPUs < 1 || r.CPUs > maxCPUs:
		return fmt.Errorf("%d CPUs: must be 1 to %d", r.CPUs, maxCPUs)
	case r.Threads < 1 || r.Threads > len(r.Calls):
		return fmt.Errorf("%d threads that made %d calls", r.Threads, len(r.Calls))
	case len(r.Syscalls) < 1 || len(r.Syscalls) > len(r.Calls):
		return fmt.Errorf("%d system calls in %d calls", len(r.Syscalls), len(r.Calls))
	}
	return nil
}

// Bounds of what a recording may say, so that no sum of times overflows.
const (
	maxElapsed = 366 * 24 * time.Hour
	maxCPUs    = 1 << 16
)
