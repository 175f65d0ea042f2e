//go:build !ringmodel

package ring_test

import (
	"fmt"

	"github.com/unknot/unknot/ring"
)

// A producer that must not wait gives up the oldest entries when the ring is full.
func ExampleRing_PushDrop() {
	r := ring.New[uint32](3)
	evicted := make([]uint32, 2)
	r.Push([]uint32{1, 2, 3})
	n := r.PushDrop([]uint32{4, 5}, evicted)
	fmt.Println("evicted", evicted[:n])

	left := make([]uint32, 3)
	n = r.TryPop(left)
	fmt.Println("left", left[:n])
	// Output:
	// evicted [1 2]
	// left [3 4 5]
}

// A consumer sleeps while there is nothing, and learns from Close that nothing more will come.
func ExampleConsumer_Pop() {
	r := ring.New[uint64](8)
	sum := make(chan uint64)
	go func() {
		c, batch, total := r.Consumer(), make([]uint64, 4), uint64(0)
		for n := c.Pop(batch); n != 0; n = c.Pop(batch) {
			for _, v := range batch[:n] {
				total += v
			}
		}
		sum <- total
	}()
	for v := uint64(1); v <= 100; v++ {
		r.PushWait([]uint64{v})
	}
	r.Close()
	fmt.Println(<-sum)
	// Output: 5050
}

// What is larger than a word lies in a slab, and its index travels through the ring.
func ExampleSlab() {
	type letter struct{ to, text string }
	slab, r := ring.NewSlab[letter](16), ring.New[uint32](16)

	index := make([]uint32, 1)
	slab.Take(index) // ours until it is pushed
	*slab.At(index[0]) = letter{"anybody", "hello"}
	r.Push(index)

	got := make([]uint32, 1)
	r.TryPop(got)
	fmt.Println(slab.At(got[0]).text)
	slab.Put(got[0])
	// Output: hello
}
