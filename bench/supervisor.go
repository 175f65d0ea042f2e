package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/policy"
	"github.com/unknot/unknot/internal/mono"
	"golang.org/x/sys/unix"
)

// A Supervisor is one run of one engine.
type Supervisor interface {
	// Serve takes ownership of the listeners and supervises them until Stop. It returns at once.
	Serve(ls ...*notify.Listener) error
	// Waits are the times from receive to dispatch so far, in ns, by the
	// engine's own clock; nil if it has none.
	Waits() *hist.Snapshot
	// Stats are the engine's own counts so far.
	Stats() Stats
	// Stop receives nothing more, answers what is held and closes the listeners.
	// A receiver that is blocked in RECV notices at the next notification:
	// silence the targets (storm.Storm.Halt), then ring until Stop returns.
	Stop(ctx context.Context) error
}

// Stats are an engine's own counts, each call under the result of its own answer.
type Stats struct {
	Served  uint64 // answered by the handler
	Dropped uint64 // answered EINTR because the queue was full
	Stale   uint64 // gone before dispatch or answer
}

func (s *Stats) sub(before Stats) {
	s.Served -= before.Served
	s.Dropped -= before.Dropped
	s.Stale -= before.Stale
}

// tally is the counts of an engine that has none of its own.
type tally struct{ served, dropped, stale atomic.Uint64 }

func (t *tally) Stats() Stats {
	return Stats{Served: t.served.Load(), Dropped: t.dropped.Load(), Stale: t.stale.Load()}
}

// Spec is what an engine is asked to be.
type Spec struct {
	Engine  string
	Path    string // PathInline, PathQueue
	Targets int    // of each listener
	// Listeners is how many target processes there are, each with a listener of its own; 0 is 1, of which
	// the name and the units say nothing.
	Listeners int
	Work      Work
	Workers   int
	Queue     int
	DropBatch int
	TargetCPU storm.CPU
	Policy    policy.Kind   // of engine unknot, as are the following; the others drop the oldest
	Pace      time.Duration // as engine.Config's
	// WaitTarget is engine.Config's.
	WaitTarget time.Duration
	// CheckAfter is engine.Config's. [Once] has every dispatch checked in a
	// traced run, because that is what a tracer sees of it.
	CheckAfter time.Duration
	Confine    Confiner // of the engine unknot; nil: its receive thread is not confined
	// RaisePriority is engine.Config's.
	RaisePriority bool

	Load Load
	Seed uint64 // of what the targets draw: arrivals, think times, calls
	// Stall holds up one handler for so long, once, a quarter into what is
	// measured. The calls of an open loop that are late because of it do not make
	// the result void: counting them is what the corrected latency is for.
	Stall time.Duration
	stall *stall     // of this run
	clock *clockwork // of this run, of a Work with steps
}

// work is the handler of every engine; arg is the call's sixth argument.
func (s *Spec) work(arg uint64) {
	s.stall.maybe()
	if s.Work.Tagged {
		doTag(arg)
		return
	}
	if s.clock != nil {
		s.clock.do()
		return
	}
	s.Work.Do()
}

// A Confiner has the receive thread of an engine confine itself. Package confine
// is joined with the engine by whoever runs both.
type Confiner interface {
	// Confine adds to cfg what the thread shall do.
	Confine(cfg *engine.Config) error
	// String names the level, for the benchmark's name.
	String() string
}

// The paths of a notification.
const (
	PathInline = "inline"
	PathQueue  = "queue"
)

func (s *Spec) listeners() int { return max(1, s.Listeners) }

type engineKind struct {
	name  string
	paths []string
	make  func(Spec) (Supervisor, error)
	many  bool // it is another one only where there are many listeners
}

// engines in the order in which they are reported.
var engines = []engineKind{
	{"unknot", []string{PathInline, PathQueue}, newUnknot, false},
	{"chan", []string{PathQueue}, newChan, false},
	{"seed", []string{PathQueue}, newSeed, false},
	{"bare", []string{PathInline}, newBare, false},
	{"bare-pool", []string{PathInline}, newBarePool, true},
}

// EngineNames lists the engines; with many, also those that differ from another only with several listeners.
func EngineNames(many bool) (names []string) {
	for _, e := range engines {
		if many || !e.many {
			names = append(names, e.name)
		}
	}
	return names
}

func findEngine(name string) (engineKind, error) {
	for _, e := range engines {
		if e.name == name {
			return e, nil
		}
	}
	return engineKind{}, fmt.Errorf("no engine %q: the engines are %s", name, strings.Join(EngineNames(true), ", "))
}

// New makes the supervisor that s describes.
func New(s Spec) (Supervisor, error) {
	e, err := findEngine(s.Engine)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(e.paths, s.Path) {
		return nil, fmt.Errorf("engine %s has no path %q: it has %s", s.Engine, s.Path, strings.Join(e.paths, ", "))
	}
	return e.make(s)
}

// answerVal is what handlers return to the targets.
const answerVal = 42

func now() int64 { return mono.Now() }

// peerClock is by what the engines that are compared take the waits: it costs them as little as package engine's does.
func peerClock() *mono.Line { return mono.NewLine(mono.Take()) }

// Paths lists the paths of an engine.
func Paths(name string) ([]string, error) {
	e, err := findEngine(name)
	return e.paths, err
}

func closeListeners(ls []*notify.Listener) (err error) {
	for _, l := range ls {
		err = errors.Join(err, l.Close())
	}
	return err
}

// hungUp reports whether no target is left.
func hungUp(l *notify.Listener) bool {
	p := []unix.PollFd{{Fd: int32(l.FD()), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLHUP != 0
}
