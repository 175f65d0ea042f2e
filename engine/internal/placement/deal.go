package placement

import "slices"

// MaxAuto bounds the receivers that an engine has unasked: more than were tried, under emulation, are not
// begun for somebody who did not ask for them.
const MaxAuto = 4

// Receivers is how many receivers there shall be for so many listeners, where CPUs is how many the
// process may use at once: by its mask and its cgroup's quota. One serves a lone listener; one on each CPU
// serves several, since a target that wakes a thread on its own CPU pays least.
func Receivers(listeners, cpus int) int {
	return max(1, min(listeners, cpus, MaxAuto))
}

// A Listener is what is known of one, for dealing it out.
type Listener struct {
	Rate float64 // calls/s, lately
	CPUs []int   // where its targets may run; nil: not known
}

// A Receiver is where listeners are dealt to.
type Receiver struct {
	CPU       int // or Anywhere
	Listeners []Listener
}

func (r *Receiver) rate() (sum float64) {
	for _, l := range r.Listeners {
		sum += l.Rate
	}
	return sum
}

// serves reports whether targets with that mask may run on the receiver's CPU.
func (r *Receiver) serves(cpus []int) bool {
	return cpus == nil || r.CPU == Anywhere || slices.Contains(cpus, r.CPU)
}

// Deal says which receiver gets a listener: the one with the fewest, and of these the least loaded, among those on
// a CPU that its targets may use; among all, where there is none.
func Deal(rs []Receiver, l Listener) int {
	best := -1
	for i := range rs {
		if !rs[i].serves(l.CPUs) {
			continue
		}
		if best < 0 || len(rs[i].Listeners) < len(rs[best].Listeners) ||
			len(rs[i].Listeners) == len(rs[best].Listeners) && rs[i].rate() < rs[best].rate() {
			best = i
		}
	}
	if best < 0 {
		return Deal(rs, Listener{Rate: l.Rate})
	}
	return best
}

// A Move takes a listener of one receiver to another.
type Move struct{ From, Listener, To int }

const (
	// uneven is by how much the busiest receiver must have more calls than the least busy one.
	uneven = 1.5
	// worthMoving is how many calls/s the busiest must have: below, all are idle.
	worthMoving = 1000
	// agree is how many looks in a row must find the same receivers uneven.
	agree = 3
)

// A Balancer finds listeners that would be better off with another receiver. The zero Balancer is ready.
type Balancer struct {
	from, to int
	looks    int
}

// Look says which listener to move, if any. It is called now and then with what receivers have.
func (b *Balancer) Look(rs []Receiver) (m Move, move bool) {
	// First those whose targets cannot come to their receiver, at once.
	for i := range rs {
		for k, l := range rs[i].Listeners {
			if rs[i].serves(l.CPUs) {
				continue
			}
			if to := Deal(rs, l); rs[to].serves(l.CPUs) {
				return Move{i, k, to}, true
			}
		}
	}
	if len(rs) < 2 {
		return Move{}, false
	}
	from, to := 0, 0
	for i := range rs {
		if rs[i].rate() > rs[from].rate() {
			from = i
		}
		if rs[i].rate() < rs[to].rate() {
			to = i
		}
	}
	high, low := rs[from].rate(), rs[to].rate()
	pick := -1
	if high > worthMoving && high > uneven*low {
		pick = pickListener(rs[from].Listeners, &rs[to], high, low)
	}
	if pick < 0 || b.looks > 0 && (from != b.from || to != b.to) {
		b.looks = 0
		return Move{}, false
	}
	b.from, b.to = from, to
	if b.looks++; b.looks < agree {
		return Move{}, false
	}
	b.looks = 0
	return Move{from, pick, to}, true
}

// pickListener is the listener whose move leaves both sides most even; -1 if none makes them
// less uneven by half.
func pickListener(ls []Listener, to *Receiver, high, low float64) int {
	pick, best := -1, (high-low)/2
	for i, l := range ls {
		if !to.serves(l.CPUs) {
			continue
		}
		if d := high - low - 2*l.Rate; max(d, -d) < best {
			pick, best = i, max(d, -d)
		}
	}
	return pick
}
