package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/unknot/unknot/engine/osthread"
)

// What the keeper knows of CPU masks: the targets', and the receive thread's, which it sets.

// masksEvery is how soon the keeper looks again at the CPU masks of targets.
const masksEvery = int64(500 * time.Millisecond)

// lookAtMasks sees whether the targets that called last may run wherever we may, and whether a
// lone listener's may not where the receive thread is at home. It looks now and then; while it
// sees none, all is as it was.
func (e *Engine) lookAtMasks() {
	table := e.sources.Load()
	if table != e.masksOf {
		e.masksOf, e.masksAt, e.farSeen = table, 0, unseen
		e.away.Store(nowhere)
	}
	at := now()
	if at-e.masksAt < masksEvery {
		return
	}
	seen, roaming, away := false, true, nowhere
	for _, s := range *table {
		if s == nil {
			continue
		}
		// Taken away: a listener whose targets have become silent has no say.
		tid := int(s.caller.Swap(0))
		if tid == 0 {
			continue // none, or of another PID namespace
		}
		cpus, err := osthread.AllowedTo(tid)
		if err != nil {
			continue // it has ended; the next window of calls names another
		}
		seen, away = true, e.farFrom(cpus)
		for _, c := range e.cpus {
			roaming = roaming && slices.Contains(cpus, c)
		}
	}
	if !seen {
		return
	}
	switch {
	case lone(*table) == nil:
		away = nowhere
	case away == nowhere && roaming:
		away = roam
	}
	e.masksAt, e.roaming = at, roaming
	// Targets may differ; two looks must agree, or it is the first.
	if e.farSeen == unseen || e.farSeen == away {
		e.away.Store(int32(away))
	}
	e.farSeen = away
}

// Values of Engine.away that are no CPU.
const (
	nowhere = -1 // there are none, or some may run where it is
	unseen  = -2 // only of farSeen: nobody has looked
	roam    = -3 // they may run on every CPU
)

// farFrom is a CPU on which both targets with such a mask and we may run; nowhere if they may where
// the receive thread is at home, or there is none.
func (e *Engine) farFrom(targets []int) int {
	if home := int(e.home.Load()); home < 0 || slices.Contains(targets, home) {
		return nowhere
	}
	for _, c := range slices.Backward(e.cpus) {
		if slices.Contains(targets, c) {
			return c
		}
	}
	return nowhere
}

// checkMasks warns, once for each listener, when a target may not run on the
// receive thread's CPU while SYNC_WAKE_UP is to keep the two together.
func (e *Engine) checkMasks() {
	cpu := int(e.home.Load())
	if cpu < 0 {
		return // not pinned: it follows its targets
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	table := *e.sources.Load()
	for _, s := range table {
		if s == nil || s.masked || s.applied.Load() != uint32(Sync) {
			continue
		}
		tid := int(s.caller.Load())
		if tid == 0 {
			continue
		}
		cpus, err := osthread.AllowedTo(tid)
		if err != nil {
			continue // it has ended; the next time the keeper is asked
		}
		if lone(table) == s && e.mayJoin() && !e.kept && e.farFrom(cpus) >= 0 {
			continue // for as long as it is alone
		}
		s.masked = true
		if !slices.Contains(cpus, cpu) {
			e.cfg.Logger.Warn("a CPU mask defeats SYNC_WAKE_UP: this target may not run on the receive thread's CPU. Put the receive thread on a CPU that the target may use, or let the target run on this one",
				"target", tid, "its CPUs", cpus, "receive thread's CPU", cpu)
		}
	}
}

// allow lets the receive thread run on those CPUs, if it now may on the ones that it was let: a
// mask that somebody else has set stays. nil: whatever it was let.
func (e *Engine) allow(let, cpus []int) error {
	tid := int(e.rxTID.Load())
	if let != nil {
		at, err := osthread.AllowedTo(tid)
		if err != nil {
			return err
		}
		if !slices.Equal(at, let) {
			return fmt.Errorf("it was put on CPUs %v", at)
		}
	}
	if err := osthread.Allow(tid, cpus...); err != nil {
		return err
	}
	e.cfg.Logger.Debug("the receive thread's CPUs follow the load", "CPUs", cpus)
	return nil
}

// keepPut leaves the receive thread where it is, for good.
func (e *Engine) keepPut(why error) {
	e.cfg.Logger.Info("the receive thread's CPUs no longer follow the load", "err", why)
	e.kept = true
	e.away.Store(nowhere)
}
