//go:build !ringchaos

package peers

import (
	"fmt"
	"sync"
	"testing"
)

// run puts one form under one load of n elements and checks what comes out.
// In a benchmark, time counts until all have come out; with drop, until the producers are done.
func run(t testing.TB, m maker, l load, n int, drop, asleep bool) (dropped tally) {
	f := m.make(l)
	b, _ := t.(*testing.B)
	var mu sync.Mutex
	var got tally
	join := func(part tally) {
		mu.Lock()
		got.join(part)
		mu.Unlock()
	}
	var producers, consumers sync.WaitGroup
	start := make(chan struct{})
	for range l.consumers {
		consumers.Go(func() {
			<-start
			if asleep {
				join(f.(receiver).receive())
			} else {
				join(f.(poller).poll())
			}
		})
	}
	var want tally
	for p, s := range spans(n, l.producers) {
		want.join(s.all())
		producers.Go(func() {
			<-start
			if drop {
				lost := f.(dropper).sendDrop(p, s)
				mu.Lock()
				dropped.join(lost)
				mu.Unlock()
			} else {
				f.(sender).send(p, s)
			}
		})
	}
	if b != nil {
		b.ResetTimer()
	}
	close(start)
	producers.Wait()
	if drop && b != nil {
		b.StopTimer()
	}
	f.(interface{ done() }).done()
	consumers.Wait()
	if b != nil {
		b.StopTimer()
	}
	got.join(dropped)
	if got != want {
		t.Fatalf("%d elements of sum %d went in, %d of sum %d came out", want.n, want.sum, got.n, got.sum)
	}
	return dropped
}

// shapes are the numbers of producers and consumers.
var shapes = []load{
	{producers: 1, consumers: 1},
	{producers: 1, consumers: 4},
	{producers: 4, consumers: 4},
}

func (l load) shape() string { return fmt.Sprintf("%dP%dC", l.producers, l.consumers) }

// sizes runs f for each element size.
func sizes(b *testing.B, f func(b *testing.B, makers []maker)) {
	b.Run("size=8", func(b *testing.B) { f(b, makers[e8]()) })
	b.Run("size=80", func(b *testing.B) { f(b, makers[e80]()) })
}

// can reports whether the form's consumers can wait in this way.
func (m maker) can(wait string) (ok bool) {
	f := m.make(load{producers: 1, consumers: 1, capacity: 2, push: 1, pop: 1})
	if wait == "sleep" {
		_, ok = f.(receiver)
	} else {
		_, ok = f.(poller)
	}
	return ok
}

// TestForms puts every form under each load, with few elements: none may be
// missing or come twice.
func TestForms(t *testing.T) {
	test := func(t *testing.T, makers []maker) {
		for _, m := range makers {
			t.Run(m.queue, func(t *testing.T) {
				dropped := uint64(0)
				for _, l := range shapes {
					for _, batch := range [][2]int{{1, 1}, {3, 5}, {32, 16}} {
						for _, wait := range []string{"sleep", "poll"} {
							if !m.can(wait) {
								continue
							}
							l.capacity, l.push, l.pop, l.rounds = 64, batch[0], batch[1], 0
							run(t, m, l, 5000, false, wait == "sleep")
							l.rounds = 100
							dropped += run(t, m, l, 5000, true, wait == "sleep").n
						}
					}
				}
				if dropped == 0 {
					t.Error("nothing was ever dropped: these loads are no overload")
				}
			})
		}
	}
	t.Run("8", func(t *testing.T) { test(t, makers[e8]()) })
	t.Run("80", func(t *testing.T) { test(t, makers[e80]()) })
}
