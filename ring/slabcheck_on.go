//go:build race || ringchaos

package ring

import (
	"fmt"
	"sync/atomic"
)

// slabCheck panics when a cell is put back that is free already.
type slabCheck struct{ held []atomic.Bool }

func (c *slabCheck) init(n int) { c.held = make([]atomic.Bool, n) }

func (c *slabCheck) taken(i uint32) {
	if c.held[i].Swap(true) {
		panic(fmt.Sprintf("ring: slab cell %d was free while somebody held it", i))
	}
}

func (c *slabCheck) put(i uint32) {
	if !c.held[i].Swap(false) {
		panic(fmt.Sprintf("ring: slab cell %d put back twice", i))
	}
}
