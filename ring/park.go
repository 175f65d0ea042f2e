package ring

import "runtime"

// A lot is where consumers sleep: a stack, so that the one that slept least,
// whose caches are warmest, is woken first, and surplus workers stay asleep.
//
// A waiter is in the lot, or has been taken out of it by exactly one waker
// that owes it exactly one wake-up.
type lot struct {
	_      pad
	nwait  atomicUint32 // number of waiters, and fenced; read by every push, so on its own line
	closed atomicUint32 // 1 after close
	_      pad
	mu     mutex
	top    *waiter // LIFO, linked through next; guarded by mu
	n      uint32  // its length; nwait follows it before mu is released
}

// fenced is a bit of nwait. While it is set every push has a full fence between its
// store of the tail and its look at nwait. A producer may clear it while nobody waits; the
// waiter that sets it again owes everybody a heavy fence.
const fenced = 1 << 31

// A waiter is one consumer's place to sleep: a goroutine parks on a channel, a wired
// thread in a futex.
type waiter struct {
	next   *waiter
	thread bool
	tok    token        // goroutine
	word   atomicUint32 // thread: 0 asleep, 1 woken
}

// enter announces w, and reports whether pushes have done without their fence until now. The
// caller must look at the rings again before it sleeps, and leave if it finds something: both
// under l.mu.
func (l *lot) enter(w *waiter) (light bool) {
	w.arm()
	w.next = l.top
	l.top = w
	l.n++
	return l.nwait.Swap(l.n|fenced)&fenced == 0
}

// leave takes back an enter, under the same hold of l.mu.
func (l *lot) leave(w *waiter) {
	l.top = w.next
	l.n--
	l.nwait.Store(l.n | fenced)
}

// waiting reports whether somebody waits.
func (l *lot) waiting() bool { return l.nwait.Load()&^fenced != 0 }

// wakeOne wakes the consumer that went to sleep last, if any. If yield is set
// and that is a goroutine, it lets it run at once.
func (l *lot) wakeOne(yield bool) {
	l.mu.Lock()
	w := l.top
	if w == nil {
		l.mu.Unlock()
		return
	}
	l.leave(w)
	l.mu.Unlock()
	w.handOff(yield)
}

// close wakes everybody, for good.
func (l *lot) close() {
	l.closed.Store(1)
	for l.waiting() {
		l.wakeOne(false)
	}
}

// init makes w the place of a wired thread, or of a goroutine.
func (w *waiter) init(thread bool) {
	w.thread = thread
	w.tok.init()
}

// arm makes w ready to sleep. It comes before anybody can find w.
func (w *waiter) arm() {
	if w.thread {
		w.word.Store(0)
	}
}

func (w *waiter) wake() {
	if w.thread {
		w.word.Store(1)
		futexWake(&w.word)
		return
	}
	w.tok.release()
}

// handOff wakes w. If yield is set and w is a goroutine, it lets it run at once.
func (w *waiter) handOff(yield bool) {
	w.wake()
	if yield && !w.thread {
		runtime.Gosched()
	}
}

func (w *waiter) sleep() {
	if w.thread {
		for w.word.Load() == 0 {
			futexWait(&w.word, 0)
		}
		return
	}
	w.tok.acquire()
}
