package record

import (
	"cmp"
	"math"
	"slices"

	"github.com/unknot/unknot/engine/hist"
)

// Rate is how many calls were made per second, dropped ones included.
func (r *Recording) Rate() float64 { return float64(len(r.Calls)) / r.Elapsed.Seconds() }

// Count returns how many calls ended so.
func (r *Recording) Count(o Outcome) (n int) {
	for i := range r.Calls {
		if r.Calls[i].Outcome == o {
			n++
		}
	}
	return n
}

// Trapped returns of how many calls the trap itself was seen; the arrival of the
// others is their receive.
func (r *Recording) Trapped() (n int) {
	for i := range r.Calls {
		if r.Calls[i].Trapped {
			n++
		}
	}
	return n
}

// Gaps are the times between arrivals in ns, one for each call; the first counts
// from the recording's start, so that they add up to the last arrival.
func (r *Recording) Gaps() []int64 {
	gaps, last := make([]int64, len(r.Calls)), int64(0)
	for i := range r.Calls {
		gaps[i] = r.Calls[i].Arrival - last
		last = r.Calls[i].Arrival
	}
	return gaps
}

// A Service is how long handlers took.
type Service struct {
	Times *hist.Snapshot // ns; dispatch → answer; nil if none is known
	// Computing are the times without those in which the handlers' threads had no CPU.
	Computing *hist.Snapshot
	// Known of Served calls were seen dispatched: Times is of these.
	Known, Served int
	Dispatch      Dispatch // how they were seen
	// Blocked is the part of the time that was spent in handlers that gave up
	// their CPU of their own accord. Above a half the service is sleep, not
	// computing.
	Blocked float64
	// BySyscall are the times of each of Recording.Syscalls; nil where none is known.
	BySyscall []*hist.Snapshot
}

// inlineShare is the part of the served calls that must have been answered by
// the thread that received them before that is taken for how the supervisor
// works. One whose goroutines share threads does it now and then.
const inlineShare = .9

// Service returns the service times, of the calls whose dispatch was seen: by
// ID_VALID if there are any, else of calls that were answered by the thread that
// received them, if nearly all were. Times is nil if there is neither: then
// nobody can tell from outside how long the handlers took.
func (r *Recording) Service() Service {
	s := Service{BySyscall: make([]*hist.Snapshot, len(r.Syscalls))}
	var by [Inline + 1]int
	for i := range r.Calls {
		if c := &r.Calls[i]; c.Outcome == Served {
			s.Served++
			by[c.Dispatch]++
		}
	}
	switch {
	case by[Checked] > 0:
		s.Dispatch = Checked
	case by[Inline] > 0 && float64(by[Inline]) >= inlineShare*float64(s.Served):
		s.Dispatch = Inline
	default:
		return s
	}
	s.Known, s.Times, s.Computing = by[s.Dispatch], new(hist.Snapshot), new(hist.Snapshot)
	blocked, all := 0., 0.
	for i := range r.Calls {
		c := &r.Calls[i]
		if c.Outcome != Served || c.Dispatch != s.Dispatch {
			continue
		}
		s.Times.Add(c.Service, 1)
		s.Computing.Add(c.Service-c.Away, 1)
		if s.BySyscall[c.Syscall] == nil {
			s.BySyscall[c.Syscall] = new(hist.Snapshot)
		}
		s.BySyscall[c.Syscall].Add(c.Service, 1)
		all += float64(c.Service)
		if c.Blocked {
			blocked += float64(c.Service)
		}
	}
	if all > 0 {
		s.Blocked = blocked / all
	}
	return s
}

// A Think is what threads did between the answer to a call and their next call.
type Think struct {
	Times *hist.Snapshot // ns; answer → next arrival of the same thread, its wake-up included
	// Slept is the part of these times that threads gave up their CPU in, of
	// their own accord. Below a half, they computed.
	Slept float64
}

// Think returns the times between a thread's served calls and its next ones. It
// is a think time in the sense of a closed loop only if the loop is closed.
func (r *Recording) Think() Think {
	t := Think{Times: new(hist.Snapshot)}
	free := make([]int64, r.Threads) // when the last call was answered; 0: not known
	slept, all := 0., 0.
	for i := range r.Calls {
		c := &r.Calls[i]
		if at := free[c.Thread]; at > 0 && c.Trapped && c.Arrival >= at {
			t.Times.Add(c.Arrival-at, 1)
			all += float64(c.Arrival - at)
			if c.Slept {
				slept += float64(c.Arrival - at)
			}
		}
		free[c.Thread] = 0
		if c.Outcome == Served {
			free[c.Thread] = c.Arrival + c.Response()
		}
	}
	if all > 0 {
		t.Slept = slept / all
	}
	return t
}

// InFlight is how many calls were in flight, from arrival to answer.
type InFlight struct {
	Mean float64
	Max  int
	// Time is the time in ns that n calls were in flight, for n from 0 to Max, and
	// Arrivals how many calls were made meanwhile.
	Time, Arrivals []int64
}

// InFlight follows the calls in flight through the recording.
func (r *Recording) InFlight() InFlight { return inFlight(r.events(), 0, int64(r.Elapsed)) }

// An event is the arrival or the end of a call.
type event struct {
	at  int64
	end bool
}

func (r *Recording) events() []event {
	es := make([]event, 0, 2*len(r.Calls))
	for i := range r.Calls {
		c := &r.Calls[i]
		es = append(es, event{c.Arrival, false}, event{c.Arrival + c.Response(), true})
	}
	slices.SortFunc(es, func(a, b event) int {
		if a.at == b.at && a.end != b.end {
			if a.end {
				return -1 // a thread's answer before its next call
			}
			return 1
		}
		return cmp.Compare(a.at, b.at)
	})
	return es
}

// inFlight looks at the time from one moment to another.
func inFlight(es []event, from, to int64) (f InFlight) {
	n, last := 0, from
	spend := func(until int64) {
		for len(f.Time) <= n {
			f.Time, f.Arrivals = append(f.Time, 0), append(f.Arrivals, 0)
		}
		f.Time[n] += until - last
		last = until
	}
	for _, e := range es {
		if e.at >= to {
			break
		}
		if e.at >= from {
			spend(e.at)
			if !e.end {
				f.Arrivals[n]++
			}
		}
		if e.end {
			n = max(n-1, 0) // ended at the moment that it came: sorted before its arrival
		} else {
			n++
		}
		if e.at >= from {
			f.Max = max(f.Max, n)
		}
	}
	if to > last {
		spend(to)
	}
	for k, t := range f.Time {
		f.Mean += float64(k) * float64(t) / float64(to-from)
	}
	return f
}

// A Loop says whether calls wait for answers.
type Loop uint8

const (
	// Unclear: too few calls, or it changed while it was recorded.
	Unclear Loop = iota
	// openLoop: calls come at the same rate however many are in flight.
	openLoop
	// ClosedLoop: the more calls are in flight, the fewer come, because the
	// threads that would make them wait for answers.
	ClosedLoop
)

func (l Loop) String() string { return [...]string{"unclear", "open", "closed"}[l] }

// A Feedback is how much the arrivals depend on the answers.
type Feedback struct {
	Loop Loop
	// Fall is the part of the arrival rate that is gone when as many calls are in
	// flight as ever were: 1 in a closed loop whose threads all wait at times, 0
	// in an open one; below 0 when calls come in bursts. Err is its standard error.
	Fall, Err float64
}

// The recording is cut into slices, whose spread tells how sure Fall is.
const (
	slicesOfTime = 10
	callsToTell  = 200
	t9           = 2.262 // Student's t, 9 degrees of freedom, two-sided 95%
)

// Feedback tells a closed loop from an open one. With n calls in flight, N
// threads that think for Z make (N-n)/Z calls per second; those who call whatever
// the answers make as many at any n. So the rate at each n, where it was for long
// enough, is fitted by a line. Which of the two it was matters only where calls in
// flight were many; a closed loop that never comes near its number of threads
// cannot be told from an open one, and need not be.
func (r *Recording) Feedback() Feedback {
	if len(r.Calls) < callsToTell {
		return Feedback{}
	}
	es := r.events()
	first, last := es[0].at, r.Calls[len(r.Calls)-1].Arrival
	most := float64(inFlight(es, first, last).Max)
	var falls []float64
	for i := range int64(slicesOfTime) {
		f := inFlight(es, first+(last-first)*i/slicesOfTime, first+(last-first)*(i+1)/slicesOfTime)
		if x, ok := f.fall(most); ok {
			falls = append(falls, x)
		}
	}
	if len(falls) < slicesOfTime {
		return Feedback{}
	}
	var sum, squares float64
	for _, x := range falls {
		sum += x
	}
	mean := sum / slicesOfTime
	for _, x := range falls {
		squares += (x - mean) * (x - mean)
	}
	f := Feedback{Fall: mean, Err: math.Sqrt(squares / (slicesOfTime - 1) / slicesOfTime)}
	switch {
	case mean-t9*f.Err > .5:
		f.Loop = ClosedLoop
	case mean+t9*f.Err < .5:
		f.Loop = openLoop
	}
	return f
}

// fall fits arrivals per ns to a line over n, each n weighted by its time.
func (f InFlight) fall(most float64) (float64, bool) {
	var w, n, a float64
	for k, t := range f.Time {
		w += float64(t)
		n += float64(k) * float64(t)
		a += float64(f.Arrivals[k])
	}
	if w == 0 || a == 0 {
		return 0, false
	}
	n /= w
	var nn, na float64
	for k, t := range f.Time {
		nn += (float64(k) - n) * (float64(k) - n) * float64(t)
		na += (float64(k) - n) * float64(f.Arrivals[k])
	}
	if nn == 0 {
		return 0, false
	}
	slope := na / nn
	at0 := a/w - slope*n
	if at0 <= 0 {
		return math.Inf(-1), false
	}
	return -slope * most / at0, true
}

// A Burst is how uneven arrivals are over windows of one length.
type Burst struct {
	Window int64 // ns
	// Dispersion is the variance over the mean of the numbers of arrivals in a
	// window: 1 for Poisson arrivals, 0 for a clock's, more for bursts.
	Dispersion float64
	Peak       float64 // calls per second in the fullest window
}

// Burstiness looks at windows of 1, 10 and 100 ms, where the recording has at
// least ten of them.
func (r *Recording) Burstiness() (bs []Burst) {
	for _, w := range []int64{1e6, 1e7, 1e8} {
		n := int64(r.Elapsed) / w
		if n < 10 {
			break
		}
		var sum, squares, most float64
		add := func(k float64) { // empty windows add nothing
			sum += k
			squares += k * k
			most = max(most, k)
		}
		window, k := int64(0), 0.
		for i := range r.Calls {
			at := r.Calls[i].Arrival / w
			if at >= n {
				break // of the window that is not whole
			}
			if at != window {
				add(k)
				window, k = at, 0
			}
			k++
		}
		add(k)
		mean := sum / float64(n)
		if mean == 0 {
			continue
		}
		bs = append(bs, Burst{w, (squares/float64(n) - mean*mean) / mean, most / (float64(w) / 1e9)})
	}
	return bs
}
