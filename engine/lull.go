package engine

import (
	"time"

	"github.com/unknot/unknot/engine/osthread"
)

// Lulls are short sleeps of the receive thread, while it receives from a lone listener without
// epoll, for crowds of targets that answers outrun.
//
// An answered call stays in the kernel's list until its target has run. Where the
// targets' CPU is the slower side, hundreds pile up there; RECV and SEND walk past them, and
// the walk holds the lock (notify_lock) that the targets need to go on. A receive thread
// that sleeps now and then gets more done. But where targets may run on its own CPU, or
// are fewer, it gets less. Measured on two CPUs, inline, with a sleep in each
// lullCalls calls, times what is served without: targets on another CPU 0.90 to 1.13 at
// 256, 1.18 to 1.3 at 1,024, by how the machine felt; targets anywhere 0.92 and 0.93; 64
// targets on another CPU 0.94, with which they are not even tried. As nothing told the one from the
// other beforehand, the lulls find out by trial: of storms of half a second and a second,
// trials included, 1.02 to 1.13 times the calls at 256 targets on another CPU, 1.08 to 1.29 at
// 1,024, inline and by the queue; at targets anywhere 0.96 to 1.04, so that what the trials
// cost is not shown.
//
// Not taken, at 1,024 targets on another CPU: half as much sleep for half as many calls
// (the same), as much sleep for half as many calls (1.07), four times as much for four
// times as many (1.01), and spinning instead (1.0).
type lulls struct {
	on    bool
	calls int           // since the last look
	last  int64         // when that was
	hold  time.Duration // how long the last verdict holds
	next  int64         // when the next trial begins

	window int // of the trial, from 1; 0: there is none
	opened int64
	from   int64 // when the window's settling was over; 0: not yet
	n      int   // calls since
	sums   [2]lullSum
}

// lullSum is what a trial's windows without lulls, or with, had together.
type lullSum struct {
	calls int
	ns    int64
}

const (
	lullCalls = 128
	lullSleep = 60 * time.Microsecond
	// lullSlow is for how long lullCalls calls may come: if for longer, the receive thread waits
	// for calls as it is.
	lullSlow = int64(10 * time.Millisecond)

	// A trial has lullWindows windows, without lulls and with lulls in turn. The first part of
	// each is for the list to get as long as it gets.
	lullWindows = 6
	lullWindow  = int64(40 * time.Millisecond)
	lullSettles = int64(20 * time.Millisecond)

	// lullGain is what makes the receive thread begin with lulls; to go on they need only
	// do no harm.
	lullGain = 1.03
	// Less than lullHarm or more than lullSure ends a trial early.
	lullHarm, lullSure = 0.95, 1.08

	lullHold, lullHoldMost = time.Second, 4 * time.Second
)

// called tells of a call that was received at the given time, from a crowd or not, and
// reports whether a lull is due.
func (l *lulls) called(at int64, crowd bool) bool {
	if l.calls++; l.calls < lullCalls {
		return false
	}
	l.calls = 0
	took := at - l.last
	l.last = at
	if !crowd {
		*l = lulls{last: at}
		return false
	}
	if took > lullSlow { // also after a silence
		if l.window != 0 { // which says nothing about lulls
			l.window, l.next = 0, at+int64(l.hold)
		}
		return false
	}
	if l.window == 0 {
		if at < l.next {
			return l.on
		}
		l.sums = [2]lullSum{}
		l.open(1, at)
	}
	if l.from != 0 {
		l.n += lullCalls
	} else if at-l.opened >= lullSettles {
		l.from = at
	}
	if at-l.opened >= lullWindow {
		s := &l.sums[1-l.window%2]
		s.calls += l.n
		s.ns += at - l.from
		l.open(l.window+1, at)
		if gain := l.gain(); l.window > lullWindows || l.window%2 == 1 && (gain < lullHarm || gain > lullSure) {
			l.judge(at, gain)
			return l.on
		}
	}
	return l.lulled()
}

// lulled reports whether the trial's window is one with lulls.
func (l *lulls) lulled() bool { return l.window%2 == 0 }

func (l *lulls) open(window int, at int64) {
	l.window, l.opened, l.from, l.n = window, at, 0, 0
}

// gain is how many calls there were with lulls, in a time in which there was one without; 0
// where calls were too few to tell.
func (l *lulls) gain() float64 {
	without, with := l.sums[0], l.sums[1]
	if without.calls == 0 || with.calls == 0 {
		return 0
	}
	return float64(with.calls) / float64(with.ns) * float64(without.ns) / float64(without.calls)
}

// judge ends the trial, in which the lulls had that gain.
func (l *lulls) judge(at int64, gain float64) {
	need := lullGain
	if l.on {
		need = 1
	}
	on := gain > need
	if on == l.on && l.hold != 0 {
		l.hold = min(2*l.hold, lullHoldMost)
	} else {
		l.hold = lullHold
	}
	l.on, l.window, l.next = on, 0, at+int64(l.hold)
}

// lull sleeps for the length of a lull.
func (rx *receiver) lull() {
	rx.e.lulled.Add(1)
	osthread.FutexWait(&rx.e.never, 0, lullSleep)
}
