package engine

import "time"

// The pair: two workers, and no thread is kept to a CPU, while some targets call all the time, who
// may run on every CPU, and handlers are short.
//
// A lone worker and the receive thread on one CPU waste least, which counts where a few targets
// take turns with them. With more targets there is always a next call, so two workers do
// not sleep, and more than half of both CPUs can go into answers, if the scheduler may move the
// receive thread and is told that who answers is about to sleep (SYNC_WAKE_UP): it then leaves the
// target that was woken on this CPU, behind who answers, instead of having it preempt somebody.
//
// Measured on two CPUs, handlers that do nothing, calls/s relative to the lone worker: 1.10 at 6
// targets, 1.27 at 8 and 12, 1.28 at 16, 1.33 at 24, 1.39 at 64, 1.14 at 256, 0.65 at 512 and 0.34 at
// 1,024, where the list of what is outstanding, which every worker walks, is long. p99 of the
// round trip: 1.07 at 6, 0.93 to 0.70 from 8 to 24, 0.88 at 64, 1.19 at 256. CPU per call: 1.6 at 6, 1.4
// at 8, 1.0 from 12 on. Handlers that compute for 2, 5 and 15 µs at 16 targets: 1.29, 1.52, 1.32.
// In spells in which all that crosses from one CPU to another takes twice as long: 1.13 at 16,
// 1.07 at 32, 1.01 at 128. The parts alone do not do it: receive thread not pinned, 0.97 at 16
// and 0.79 at 64; one worker, 0.80 and 0.77; four, 0.79 and 0.83; without SYNC_WAKE_UP 0.96 at 16,
// 0.89 at 64. Where the targets are pinned to one CPU it is 0.55 at 16 and 0.67 at 64.
//
// The price is paid by others. Three threads and the targets keep two CPUs busy and sleep little: a
// thread of another process that wakes every 10 ms on one of them waited for up to 6 ms (p99; 0.15
// beside a lone worker, with 64 targets). A caller every 10 ms on another listener of the same
// engine had 0.5 times the p50 and 1.4 times the p99, 0.4 ms.
const (
	pairFrom  = 11  // marked bits of a census: a pair from there on
	pairBelow = 9   // none below
	pairUpTo  = 100 // a pair up to there: some 125 targets
	pairAbove = 120 // none above; 160 targets
	// What lies between two calls, on average. With fewer calls the workers sleep in between,
	// and a lone one is less to wake.
	pairCloser  = int64(20 * time.Microsecond)
	pairFarther = int64(33 * time.Microsecond)
	// pairFor is how long what a window said holds, if none comes to confirm it.
	pairFor = int64(50 * time.Millisecond)
)

// mayPair reports whether the configuration leaves the engine to choose.
func (e *Engine) mayPair() bool {
	return e.mayJoin() && !e.cfg.Inline && e.cfg.Workers >= pair
}

// crowd follows how many targets call. It is called for each call.
func (rx *receiver) crowd(tid uint32, at int64) {
	e := rx.e
	marks, full := rx.census.count(tid)
	if !full {
		return
	}
	rx.throngs.add(marks < throngBelow, marks > multitude)
	if is, agreed := rx.throngs.agree(crowdAgreeOn); agreed {
		rx.throng = is
	}
	if !rx.crowds {
		return
	}
	took := at - rx.censusFrom
	rx.censusFrom = at
	rx.some.add(marks < pairBelow || marks > pairAbove || took > wide*pairFarther,
		marks >= pairFrom && marks <= pairUpTo && took < wide*pairCloser)
	is, agreed := rx.some.agree(crowdAgreeOn)
	was := e.pairUntil.Load() > at
	switch {
	case agreed && is, rx.some == 0 && was:
		e.pairUntil.Store(at + pairFor)
	case agreed:
		e.pairUntil.Store(0)
	}
	if agreed && is != was {
		e.ask()
	}
	if e.cfg.RaisePriority {
		rx.crowded(marks)
	}
}

// setPair has the pair run, or end, as the load wants it. Only the keeper calls it.
func (e *Engine) setPair() {
	if !e.mayPair() || e.kept {
		return
	}
	want := e.pairUntil.Load() > now() && !e.async.Load() && e.roaming && !e.joined()
	switch {
	case want && e.bench.up() == alone:
		e.arrange(alone, pair, anywhere)
	case !want && e.bench.up() == pair:
		e.arrange(pair, alone, e.rxCPU.Load())
	}
	if roams := e.bench.up() == pair; roams != e.roams {
		if err := e.move(roams); err != nil {
			e.keepPut(err)
			e.arrange(pair, alone, e.rxCPU.Load())
		}
	}
}

// move lets the receive thread run on all CPUs, or on its own only.
func (e *Engine) move(roams bool) error {
	home := []int{int(e.rxCPU.Load())}
	var err error
	if roams {
		err = e.allow(home, e.cpus)
	} else {
		err = e.allow(nil, home)
	}
	if err != nil {
		return err
	}
	if e.roams = roams; roams {
		e.paired.Add(1)
	}
	return nil
}
