package engine

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/unknot/unknot/engine/internal/placement"
	"github.com/unknot/unknot/internal/osthread"
)

// masksEvery is how soon the controller looks again at the CPU masks of targets.
const masksEvery = int64(500 * time.Millisecond)

// sourceSeen is what the controller saw of a listener.
type sourceSeen struct {
	mu       sync.Mutex
	received uint64
	rate     float64 // calls/s between the last two looks
	cpus     []int   // where the target that called last may run; nil: not known
	warned   bool    // that it cannot be served on its CPU
	hopeless bool    // its wait target cannot be met; the controller's
}

// load is what placement is told of the listener.
func (s *sourceSeen) load() placement.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return placement.Listener{Rate: s.rate, CPUs: s.cpus}
}

func (s *sourceSeen) look(src *Source, since time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := src.received.Load()
	s.rate, s.received = float64(n-s.received)/since.Seconds(), n
}

// An affinity is what is known of where the targets of a receiver may run.
type affinity struct {
	at        int64      // of the last look,
	listeners *[]*Source // at these
	is        found      // as it counts
	last      found      // as it was seen last
}

type found struct {
	affinity placement.Affinity
	cpu      int // for placement.Elsewhere
	other    int // for placement.Here
}

// nothing is found of targets at the beginning.
var nothing = found{cpu: placement.Anywhere, other: placement.Anywhere}

// lookAtMasks sees where the targets that called last may run. It looks now and then; while it
// sees none, all is as it was.
func (e *Engine) lookAtMasks(pilots []*pilot) {
	at := now()
	for _, p := range pilots {
		a, table := &p.affinity, p.rx.listeners.Load()
		if table != a.listeners {
			*a = affinity{listeners: table, is: nothing}
		}
		if at-a.at < masksEvery {
			continue
		}
		is, any := e.affinityOf(*table, p.rx)
		if !any {
			continue
		}
		// Targets may differ; two looks must agree, or it is the first.
		if a.at == 0 || a.last == is {
			a.is = is
		}
		a.at, a.last = at, is
	}
}

// affinityOf is where the targets of a receiver may run that called last, if any did.
func (e *Engine) affinityOf(table []*Source, rx *receiver) (is found, any bool) {
	is = nothing
	is.affinity = placement.Everywhere
	home, elsewhere := rx.seat.cpu, 0
	common, free := e.cpus, slices.Clone(e.cpus)
	for _, s := range table {
		// Taken away: a listener whose targets have become silent has no say.
		tid := int(s.caller.Swap(0))
		if tid == 0 {
			continue // none, or of another PID namespace
		}
		cpus, err := osthread.AllowedTo(tid)
		if err != nil {
			continue // it has ended; the next window of calls names another
		}
		s.seen.mu.Lock()
		s.seen.cpus = cpus
		s.seen.mu.Unlock()
		any = true
		if slices.ContainsFunc(e.cpus, func(c int) bool { return !slices.Contains(cpus, c) }) && is.affinity == placement.Everywhere {
			is.affinity = placement.Here
		}
		if home != placement.Anywhere && !slices.Contains(cpus, home) {
			elsewhere++
			e.warn(s, tid, cpus, home)
		}
		free = slices.DeleteFunc(free, func(c int) bool { return slices.Contains(cpus, c) })
		common = slices.DeleteFunc(slices.Clone(common), func(c int) bool { return !slices.Contains(cpus, c) })
	}
	if elsewhere > 0 {
		is.affinity = placement.Elsewhere
		if len(common) > 0 {
			is.cpu = common[len(common)-1]
		}
	} else if is.affinity == placement.Here && len(free) > 0 {
		is.other = free[len(free)-1]
	}
	return is, any
}

// warn says, once for each listener, that a target cannot come to a receive thread, and what is done instead.
func (e *Engine) warn(s *Source, tid int, cpus []int, home int) {
	reachable := slices.ContainsFunc(cpus, func(c int) bool { return slices.Contains(e.cpus, c) })
	all := e.receivers.all()
	moves := e.cfg.CPU == AutoCPU && e.cfg.Placement == AutoPlacement && reachable && len(all) == 1 && len(*all[0].listeners.Load()) == 1
	goes := len(all) > 1 && slices.ContainsFunc(all, func(rx *receiver) bool { return slices.Contains(cpus, rx.seat.cpu) })
	if s.seen.warned || moves || goes {
		return
	}
	s.seen.warned = true
	e.cfg.Logger.Warn("a CPU mask defeats SYNC_WAKE_UP: this target may not run on a receive thread's CPU, so that each call and each answer wakes a thread on another one. Put the receive thread on a CPU that the target may use, or let the target run on this one",
		"target", tid, "its CPUs", cpus, "receive thread's CPU", home)
}

// usableCPUs is how many CPUs the process may use at once: Go's own GOMAXPROCS, which knows of a cgroup's quota.
func usableCPUs() int { return min(osthread.OwnProcs(), runtime.NumCPU()) }
