package peers

import (
	"runtime"
	"sync/atomic"
)

// A load says what a form is put under. A form serves one load, once.
type load struct {
	producers, consumers int
	capacity             int
	push, pop            int // elements at a time
	rounds               int // of work for each element received
}

// What a form can do: the loops that its user would write. Each producer p runs
// one of send and sendDrop once, each consumer one of receive and poll; done is
// called when all producers have returned.
type (
	// A sender pushes the elements of s, and waits while there is no room.
	sender interface {
		send(p int, s span)
		done()
	}
	// A dropper pushes likewise, but drops the oldest while there is no room,
	// and returns what it dropped.
	dropper interface {
		sendDrop(p int, s span) tally
		done()
	}
	// A receiver pops and works, and sleeps while there is nothing, until done.
	receiver interface{ receive() tally }
	// A poller is a receiver that does not sleep, but yields and looks again.
	poller interface{ poll() tally }
)

// A maker makes a form for a load.
type maker struct {
	queue string
	make  func(load) any
}

// makers lists the forms for elements of type T; chan comes first, so that
// benchstat compares with it.
func makers[T element]() []maker {
	return []maker{
		{"chan", func(l load) any { return newChan[T](l) }},
		{"ring", func(l load) any { return newRing[T](l) }},
		{"ring-asym", func(l load) any { return newRing[T](l, asym, evict16) }},
		{"ring-evict16", func(l load) any { return newRing[T](l, evict16) }},
		{"ring-asym-evict64", func(l load) any { return newRing[T](l, asym, evict64) }},
		{"queue", func(l load) any { return newMutex[T](l) }},
		{"flume", func(l load) any { return newFlume[T](l) }},
		{"xsync", func(l load) any { return newXsync[T](l) }},
		{"vyukov", func(l load) any { return newVyukov[T](l) }},
		{"rts", func(l load) any { return newRTS[T](l) }},
	}
}

// ended tells pollers that nothing more is coming.
type ended struct{ flag atomic.Bool }

func (e *ended) done() { e.flag.Store(true) }

// fill fills src, as far as there are numbers up to last, from *next on.
func fill[T element](src []T, next *uint64, last uint64) []T {
	src = src[:min(uint64(len(src)), last+1-*next)]
	for i := range src {
		src[i] = number[T](*next)
		*next++
	}
	return src
}

// eat adds and works.
func (t *tally) eat(number uint64, rounds int) {
	t.add(number)
	if rounds != 0 {
		work(rounds, &number)
	}
}

// yield is what one does who finds nothing, or no room, and cannot sleep.
func yield() { runtime.Gosched() }
