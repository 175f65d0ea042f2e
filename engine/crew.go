package engine

import (
	"sync"
	"sync/atomic"

	"github.com/unknot/unknot/engine/internal/placement"
	"github.com/unknot/unknot/internal/osthread"
)

// A crew is the workers of a receiver, and what they are told: one word, which each compares
// with the last one that it followed.
type crew struct {
	orders  atomic.Uint64 // see order
	workers atomic.Pointer[[]*worker]
	length  atomic.Uint32 // placement.Length of a typical handler; the receive thread's

	mu      sync.Mutex
	changed chan struct{} // closed when orders change; parked workers wait for it
	over    bool          // all are to finish
}

// An order is how many workers are active, from the first on, and their CPU. Parked workers
// wait; nothing that is pushed meanwhile needs them: each push wakes a worker that sleeps in the ring,
// and one that does not sleep will look again.
type order struct {
	active int // or placement.All
	cpu    int // or placement.Anywhere
}

const (
	orderAll     = 1<<24 - 1
	orderAnyCPU  = 1<<16 - 1
	orderVersion = 1 << 40
)

func (o order) word() uint64 { return uint64(uint16(o.cpu)) | uint64(min(o.active, orderAll))<<16 }

func orderOf(word uint64) order {
	o := order{active: int(word >> 16 & orderAll), cpu: int(word & orderAnyCPU)}
	if o.active == orderAll {
		o.active = placement.All
	}
	if o.cpu == orderAnyCPU {
		o.cpu = placement.Anywhere
	}
	return o
}

func (c *crew) init(workers []*worker) {
	c.workers.Store(&workers)
	c.changed = make(chan struct{})
	c.orders.Store(order{placement.All, placement.Anywhere}.word() + orderVersion)
}

// all are the workers by index; 0 is the receive thread.
func (c *crew) all() []*worker { return *c.workers.Load() }

// lone reports whether one worker does all the work.
func (c *crew) lone() bool { return c.orders.Load()>>16&orderAll == 1 }

// parallel reports whether all workers are active, anywhere.
func (c *crew) parallel() bool { return c.orders.Load()&(1<<40-1) == orderAll<<16|orderAnyCPU }

// set tells the workers. Only apply does.
func (c *crew) set(o order) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.tell(o)
	}
}

// tell changes the word. The caller holds c.mu.
func (c *crew) tell(o order) {
	version := c.orders.Load()/orderVersion + 1
	c.orders.Store(o.word() + version%(1<<24)*orderVersion)
	close(c.changed)
	c.changed = make(chan struct{})
}

// finish has all workers active, for good.
func (c *crew) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.over = true
		c.tell(order{placement.All, placement.Anywhere})
	}
}

// follow has the worker do as it is told: park until it is active, and go to its CPU.
func (w *worker) follow() {
	c := &w.rx.crew
	for word := c.orders.Load(); word != w.orders; word = c.orders.Load() {
		if o := orderOf(word); w.index <= o.active {
			w.orders = word
			w.move(o.cpu)
			continue
		}
		c.mu.Lock()
		changed, same := c.changed, c.orders.Load() == word
		c.mu.Unlock()
		if same {
			<-changed
		}
	}
}

// move takes the calling worker's thread to a CPU, or has it run anywhere.
func (w *worker) move(cpu int) {
	if cpu == w.at || w.rx.e.cfg.Kind == GoroutineWorkers {
		return
	}
	w.at = cpu // also when it fails: the mask was changed from outside, leave it
	if cpu == placement.Anywhere {
		_ = osthread.Unpin(w.rx.e.cpus)
	} else {
		_ = osthread.Pin(cpu)
	}
}
