package engine

import "time"

// A trial finds out which of two ways of doing things gets more done, where nothing else tells:
// by turns of the one and the other, "without" and "with", whose calls it counts. The better one
// is then kept to for a while. It is a pure state machine over (time, calls), of the receive thread.
type trial struct {
	on   bool          // the verdict is "with"
	last int64         // when the last batch ended
	hold time.Duration // how long the last verdict holds
	next int64         // when the next trial begins

	window int   // of the trial, from 1; 0: there is none
	opened int64 // when it was
	from   int64 // when the window's settling was over; 0: not yet
	n      int   // calls since
	sums   [2]trialSum
}

// trialSum is what the windows without, or with, had together.
type trialSum struct {
	calls int
	ns    int64
}

// A trialKind says how to try.
type trialKind struct {
	windows  int   // even, without and with in turn
	settle   int64 // ns of each window that do not count
	measured int64 // ns of each window that do
	// slow is for how long a batch of calls may come: if for longer, the receive thread waits for
	// calls as it is.
	slow  int64
	idles bool // then it does without
	// gain is what makes it begin with it, stay what makes it go on: the calls with it, in a time in
	// which there is one without.
	gain, stay float64
	// sure is what ends a trial at once; 0: nothing does. Plain harm always does.
	sure     float64
	holdMost time.Duration
}

const (
	// trialCalls is how many calls a trial is told of at a time.
	trialCalls = 128
	// plainHarm is a gain that ends a trial early.
	plainHarm = 0.95
	// holdFirst is for how long a verdict holds that is not the one before.
	holdFirst = time.Second
)

// batch tells of trialCalls calls more, the last of which was received at the given time, and
// reports whether to do it with. Done says whether it is done as the last report wanted it: if
// that takes its time.
func (l *trial) batch(k *trialKind, at int64, done bool) (with bool) {
	took := at - l.last
	l.last = at
	if took > k.slow { // also after a silence
		l.stop(at) // it says nothing about the one or the other
		return l.on && !k.idles
	}
	if l.window == 0 {
		if at < l.next {
			return l.on
		}
		l.sums = [2]trialSum{}
		l.open(1, at)
		return l.with()
	}
	switch {
	case l.from != 0:
		l.n += trialCalls
	case at-l.opened >= k.settle && done:
		l.from = at
	}
	if l.from != 0 && at-l.from >= k.measured {
		s := &l.sums[1-l.window%2]
		s.calls += l.n
		s.ns += at - l.from
		l.open(l.window+1, at)
		if gain := l.gain(); l.window > k.windows || l.window%2 == 1 && (gain < plainHarm || k.sure != 0 && gain > k.sure) {
			l.judge(k, at, gain)
		}
	}
	return l.with()
}

// with reports whether to do it with, as things are.
func (l *trial) with() bool {
	if l.window == 0 {
		return l.on
	}
	return l.window%2 == 0
}

// stop ends the trial, if there is one, without a verdict. One that has not come to do
// otherwise than before has cost nothing: the next may begin at once.
func (l *trial) stop(at int64) {
	if l.window > 1 || l.window == 1 && l.on {
		l.next = at + int64(max(l.hold, holdFirst))
	}
	l.window = 0
}

// forget forgets the verdict, as it was on something else. The next trial is not before a first
// verdict would have held, so that loads which take turns do not make for one each.
func (l *trial) forget(at int64) {
	next := int64(0)
	if l.hold != 0 || l.next > at {
		next = at + int64(holdFirst)
	}
	*l = trial{last: at, next: next}
}

func (l *trial) open(window int, at int64) {
	l.window, l.opened, l.from, l.n = window, at, 0, 0
}

// gain is how many calls there were with, in a time in which there was one without; 0
// where calls were too few to tell.
func (l *trial) gain() float64 {
	without, with := l.sums[0], l.sums[1]
	if without.calls == 0 || with.calls == 0 {
		return 0
	}
	return float64(with.calls) / float64(with.ns) * float64(without.ns) / float64(without.calls)
}

// judge ends the trial, which showed that gain.
func (l *trial) judge(k *trialKind, at int64, gain float64) {
	need := k.gain
	if l.on {
		need = k.stay
	}
	on := gain > need
	if on == l.on && l.hold != 0 {
		l.hold = min(2*l.hold, k.holdMost)
	} else {
		l.hold = holdFirst
	}
	l.on, l.window, l.next = on, 0, at+int64(l.hold)
}
