package status

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/metrics"
)

// form is the version of a Snapshot's form, which both sides must have.
const form = 1

// A Snapshot is an engine at a moment: /status, for `unknot top`. Counters and histograms are cumulative.
type Snapshot struct {
	Form      int             `json:"form"`
	Time      time.Time       `json:"time"`
	Info      Info            `json:"info"`
	Unhealthy string          `json:"unhealthy,omitempty"`
	WakeUp    string          `json:"wakeUp"`
	Counters  engine.Counters `json:"counters"`
	Wait      Histogram       `json:"wait"`
	Service   Histogram       `json:"service"`
	Drop      Histogram       `json:"drop"`
	Sources   []Source        `json:"sources"`
	Calls     []Call          `json:"calls"`
	Receivers []Receiver      `json:"receivers"`
}

// A Source is a listener.
type Source struct {
	ID        uint64          `json:"id"` // never another one's
	Name      string          `json:"name"`
	Queue     int             `json:"queue,omitempty"` // capacity; 0: inline
	HighWater int             `json:"highWater"`
	Counters  engine.Counters `json:"counters"`
	Target    *WaitTarget     `json:"waitTarget,omitempty"`
	// The histograms are nil without [engine.Config.BySource], and where there are more listeners than manyListeners.
	Wait    *Histogram `json:"wait,omitempty"`
	Service *Histogram `json:"service,omitempty"`
}

// A WaitTarget is one, and what it has come to.
type WaitTarget struct {
	Target  time.Duration `json:"target"`
	Limit   int           `json:"limit"`   // calls that may wait now
	Service time.Duration `json:"service"` // of a call while workers are busy; 0: not known yet
	Changes uint64        `json:"changes"` // of the limit
}

// manyListeners are so many that the histograms of each would be megabytes each time.
const manyListeners = 512

// A Call is a system call.
type Call struct {
	Name      string    `json:"name"`
	ABI       string    `json:"abi"`
	Received  uint64    `json:"received"`
	Answered  uint64    `json:"answered"`
	Dropped   uint64    `json:"dropped"`
	Stale     uint64    `json:"stale"`
	Wait      Histogram `json:"wait"`
	RoundTrip Histogram `json:"roundTrip"`
}

// A Receiver is a receive thread.
type Receiver struct {
	TID       int           `json:"tid"`
	CPU       int           `json:"cpu"`  // where it is kept, or -1
	Home      int           `json:"home"` // its own CPU, or -1
	Direct    bool          `json:"direct"`
	State     string        `json:"state"`
	Plan      string        `json:"plan"`
	CPUTime   time.Duration `json:"cpuTime"`
	Received  uint64        `json:"received"`
	Listeners int           `json:"listeners"`
}

// A Histogram is one of package hist, written by the buckets that have values.
type Histogram struct{ hist.Snapshot }

type histogramJSON struct {
	Sum    int64          `json:"sum"`
	Max    int64          `json:"max"`
	Counts map[int]uint64 `json:"counts"`
}

// MarshalJSON implements json.Marshaler.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	j := histogramJSON{h.Sum, h.Max, map[int]uint64{}}
	for i, n := range h.Counts {
		if n > 0 {
			j.Counts[i] = n
		}
	}
	return json.Marshal(j)
}

// UnmarshalJSON implements json.Unmarshaler.
func (h *Histogram) UnmarshalJSON(b []byte) error {
	var j histogramJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*h = Histogram{hist.Snapshot{Sum: j.Sum, Max: j.Max}}
	for i, n := range j.Counts {
		if i < 0 || i >= hist.Buckets {
			return fmt.Errorf("a histogram has bucket %d of %d", i, hist.Buckets)
		}
		h.Counts[i] = n
		h.Count += n
	}
	return nil
}

// An observer makes snapshots.
type observer struct {
	cfg Config

	mu   sync.Mutex
	ids  map[*engine.Source]uint64
	last uint64
}

// id numbers the listeners, and forgets those that are gone.
func (o *observer) id(all []*engine.Source) map[*engine.Source]uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := make(map[*engine.Source]uint64, len(all))
	for _, s := range all {
		id := o.ids[s]
		if id == 0 {
			o.last++
			id = o.last
		}
		now[s] = id
	}
	o.ids = now
	return now
}

func (o *observer) snapshot() *Snapshot {
	c := &o.cfg
	e := c.Engine
	d, l := e.Debug(), e.Latencies()
	s := &Snapshot{
		Form: form, Time: time.Now(), Info: c.Info, WakeUp: d.WakeUp.String(), Counters: d.Counters,
		Wait: Histogram{*l.Wait}, Service: Histogram{*l.Service}, Drop: Histogram{*l.Drop},
		Sources: []Source{}, Calls: []Call{}, Receivers: []Receiver{},
	}
	if err := c.healthy(); err != nil {
		s.Unhealthy = err.Error()
	}
	all := e.Sources()
	for src, id := range o.id(all) {
		is := Source{ID: id, Name: c.Source(src), HighWater: src.HighWater(), Counters: src.Counters()}
		if opts := src.Options(); !opts.Inline {
			is.Queue = opts.Queue
			if l := src.Limit(); opts.WaitTarget > 0 {
				is.Target = &WaitTarget{opts.WaitTarget, l.Depth, l.Service, l.Changes}
			}
		}
		if len(all) <= manyListeners {
			if l := src.Latencies(); l.Wait != nil {
				is.Wait, is.Service = &Histogram{*l.Wait}, &Histogram{*l.Service}
			}
		}
		s.Sources = append(s.Sources, is)
	}
	slices.SortFunc(s.Sources, func(a, b Source) int { return cmp.Compare(a.ID, b.ID) })
	for _, st := range e.Syscalls() {
		s.Calls = append(s.Calls, Call{
			Name: c.Syscall(st.Arch, st.NR), ABI: metrics.ABI(st.Arch, st.NR), Received: st.Received, Answered: st.Answered, Dropped: st.Dropped, Stale: st.Stale,
			Wait: Histogram{*st.Wait}, RoundTrip: Histogram{*st.Total},
		})
	}
	for _, r := range d.Receivers {
		s.Receivers = append(s.Receivers, Receiver{r.TID, r.CPU, r.Home, r.Direct, r.State, r.Plan, r.CPUTime, r.Counters.Received, len(r.Listeners)})
	}
	return s
}
