package engine

import "time"

// The receive thread may join its targets, on the CPU that they are kept to.
//
// Targets whose CPU masks leave out the receive thread's CPU cannot come to it, as few
// targets otherwise do by SYNC_WAKE_UP: each call then wakes a thread on another CPU, and each
// answer does. Measured with a bare supervisor in C on two CPUs, targets kept to one, thousands of
// calls/s on the other CPU and on theirs: 20 and 250 at 1 target, 75 to 105 and 267 at 4, 315 and 256
// at 16, 355 and 258 at 64, 270 and 241 at 256, 265 and 218 at 1,024; and in spells in which all that
// crosses from one CPU to another takes twice as long, 162 and 255 at 16, 160 and 252 at 64. Handlers
// and targets that compute are a reason to stay away, too. So it is found out by trial.
//
// A confined thread may not set its mask, so the keeper does. A lone worker comes along.
//
// Targets that may run on every CPU come to the receive thread's by SYNC_WAKE_UP. A few always do;
// whether many do is found out in the same way, inline: in such spells 1.15 and 1.14 times the calls/s
// at 16 and 64 targets, else 1.0 at 16, 64 and 256, trials included.

// Few targets are better off together even where it makes no difference to what gets done, as where
// calls come at a rate of their own: each takes less time. The numbers of rare calls vary by themselves.
var joinsFew = trialKind{
	windows: 4, settle: int64(8 * time.Millisecond), measured: int64(12 * time.Millisecond),
	slow: int64(400 * time.Millisecond),
	gain: 0.9, stay: 0.85, sure: 1.5, holdMost: joinHold,
}

var joinsMany = trialKind{
	windows: 4, settle: int64(8 * time.Millisecond), measured: int64(12 * time.Millisecond),
	slow: int64(10 * time.Millisecond),
	gain: 1.05, stay: 1, sure: 1.25, holdMost: joinHold,
}

// With a throng a wrong verdict costs more than a trial: the queue path had 0.4 to 0.7 times the calls
// at 1,024 targets.
var joinsThrong = trialKind{
	windows: 4, settle: int64(20 * time.Millisecond), measured: int64(20 * time.Millisecond),
	slow: int64(10 * time.Millisecond),
	gain: 1.1, stay: 1, holdMost: joinHold,
}

const joinHold = 8 * time.Second

// mayJoin reports whether the configuration leaves the engine to choose.
func (e *Engine) mayJoin() bool {
	c := &e.cfg
	return (c.Inline || c.Placement == AutoPlacement && c.Kind != GoroutineWorkers) &&
		c.CPU == AutoCPU && c.WakeUp == AutoWakeUp && len(e.cpus) > 1
}

// joined reports whether the receive thread is on its targets' CPU, not its own.
func (e *Engine) joined() bool { return e.rxCPU.Load() != e.home.Load() }

// tryOut goes on with the trials, after trialCalls calls more from a listener.
func (rx *receiver) tryOut(src *Source) {
	e, s, at := rx.e, &src.rx, rx.last
	few, many := src.targets.agreed <= -agreement, src.targets.agreed >= agreement
	kind := &joinsMany
	switch {
	case few:
		kind = &joinsFew
	case rx.throng:
		kind = &joinsThrong
	}
	away := e.away.Load()
	if away == roam && (few || !e.cfg.Inline || e.async.Load()) {
		away = nowhere // for all that is to be tried
	}
	if away != s.triedAt || kind != s.tried {
		s.tried, s.triedAt = kind, away
		s.join.forget(at)
	}
	together := false
	switch {
	case away >= 0:
		together = s.join.batch(kind, at, e.joined() == s.join.with())
	case away == roam && (many || s.join.window != 0):
		together = s.join.batch(kind, at, WakeUp(src.applied.Load()) == gathers(s.join.with()))
	case away == roam:
		together = s.join.on
	}
	rx.bring(src, together)
	sleeps := false
	switch {
	case s.join.window != 0: // one at a time
		sleeps = s.lull.on && rx.throng && !together
	case rx.throng && !together:
		sleeps = s.lull.batch(&lulls, at, true)
	default:
		s.lull = trial{last: at}
	}
	if sleeps {
		rx.lull()
	}
}

// endTrial leaves it at the last verdict, since nobody will go on with the trial for now.
func (rx *receiver) endTrial(src *Source) {
	if s := &src.rx; s.join.window != 0 {
		s.join.stop(rx.last)
		rx.bring(src, s.join.on)
	}
}

// bring has the receive thread and a lone listener's targets on one CPU, or apart.
func (rx *receiver) bring(src *Source, together bool) {
	e, s := rx.e, &src.rx
	if joins := together && s.triedAt >= 0; joins != e.joins.Load() {
		e.joins.Store(joins)
		e.ask()
	}
	gather := together && s.triedAt == roam
	if gather == s.gather {
		return
	}
	if s.gather = gather; gather {
		e.gathered.Add(1)
	}
	if s.triedAt == roam {
		src.wakeUp.Store(uint32(gathers(gather)))
		e.ask()
	}
}

// gathers is the wake-up mode that has targets come to the receive thread's CPU, or not.
func gathers(is bool) WakeUp {
	if is {
		return Sync
	}
	return Async
}

// setJoin has the receive thread on its targets' CPU, or its own. Only the keeper calls it.
func (e *Engine) setJoin() {
	if !e.mayJoin() || e.kept || e.roams {
		return
	}
	is, want := e.rxCPU.Load(), e.home.Load()
	if is < 0 {
		return
	}
	if away := e.away.Load(); e.joins.Load() && away >= 0 {
		want = away
	}
	if want == is {
		return
	}
	if err := e.allow([]int{int(is)}, []int{int(want)}); err != nil {
		e.keepPut(err)
		return
	}
	e.rxCPU.Store(want)
	if e.joined() {
		e.joinings.Add(1)
	}
}

// bringWorker has a lone worker on the receive thread's CPU.
func (e *Engine) bringWorker() {
	if cpu := e.rxCPU.Load(); e.bench.up() == alone && e.placement.Load() != cpu {
		e.arrange(alone, alone, cpu)
	}
}
