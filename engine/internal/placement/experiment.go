package placement

import "time"

// An experiment finds out which of two ways serves more calls, where only the machine can tell: it
// does them in turn, counts the calls of each, and keeps to the better one for a while. One way is
// to have targets and the receive thread together on a CPU, the other to leave them apart.
type experiment struct {
	apart bool // the verdict
	about question
	arm   int   // from 1; 0: none is under way. Odd ones are together
	open  int64 // when the arm began
	from  int64 // when it was settled; 0: not yet
	calls uint64
	sums  [2]sum // together, apart
	hold  time.Duration
	next  int64 // when the next experiment may begin
}

// A question is what a verdict holds for.
type question struct {
	Concurrency
	Affinity
	State
	asked bool
}

type sum struct {
	calls uint64
	ns    int64
}

const (
	// experimentArms is how many arms there are at most, half of them apart.
	experimentArms = 4
	// SettleFor is the part of an arm that does not count, MeasureFor that which does.
	SettleFor, MeasureFor = 5 * time.Millisecond, 20 * time.Millisecond
	// A verdict holds for a second, or twice as long as the same one before, up to holdMost.
	holdFirst, holdMost = time.Second, 16 * time.Second
	// Apart must serve so many times the calls to begin with, and not less to stay.
	beginApart, stayApart = 1.06, 1
	// After the first two arms this much more, or less, is enough.
	plainGain, plainLoss = 1.3, 0.8
)

// step tells of the calls received so far, and reports whether it shall be apart.
func (x *experiment) step(now int64, calls uint64, q question) bool {
	if q != x.about {
		next := min(x.next, now+int64(holdFirst))
		if x.arm > 1 { // loads that take turns must not make for an experiment each
			next = now + int64(holdFirst)
		}
		*x = experiment{about: q, next: next}
	}
	if !q.asked {
		return false
	}
	switch {
	case x.arm == 0:
		if now < x.next {
			return x.apart
		}
		x.sums = [2]sum{}
		x.begin(1, now)
	case x.from == 0:
		if now-x.open >= int64(SettleFor) {
			x.from, x.calls = now, calls
		}
	case now-x.from >= int64(MeasureFor):
		s := &x.sums[1-x.arm%2]
		s.calls += calls - x.calls
		s.ns += now - x.from
		gain := x.gain()
		if x.arm == experimentArms || x.arm == 2 && (gain > plainGain || gain < plainLoss) {
			x.judge(now, gain)
			return x.apart
		}
		x.begin(x.arm+1, now)
	}
	return x.arm%2 == 0
}

func (x *experiment) begin(arm int, now int64) { x.arm, x.open, x.from = arm, now, 0 }

// gain is how many calls were served apart for one that was together, in the same time.
func (x *experiment) gain() float64 {
	t, a := x.sums[0], x.sums[1]
	if t.calls == 0 || a.ns == 0 {
		return 0
	}
	return float64(a.calls) / float64(a.ns) * float64(t.ns) / float64(t.calls)
}

func (x *experiment) judge(now int64, gain float64) {
	need := beginApart
	if x.apart {
		need = stayApart
	}
	apart := gain > need
	if apart == x.apart && x.hold != 0 {
		x.hold = min(2*x.hold, holdMost)
	} else {
		x.hold = holdFirst
	}
	x.apart, x.arm, x.next = apart, 0, now+int64(x.hold)
}
