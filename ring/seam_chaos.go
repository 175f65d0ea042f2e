//go:build (race || ringchaos) && !ringmodel

package ring

import (
	"sync"
	"sync/atomic"

	"github.com/unknot/unknot/ring/internal/chaos"
)

// The seam with a hook before each access; see seam.go.

type mutex struct{ m sync.Mutex }

func (m *mutex) Lock()   { chaos.Access(); m.m.Lock() }
func (m *mutex) Unlock() { m.m.Unlock(); chaos.Access() }

type atomicUint32 struct{ v atomic.Uint32 }

func (a *atomicUint32) Load() uint32   { chaos.Access(); return a.v.Load() }
func (a *atomicUint32) Store(x uint32) { chaos.Access(); a.v.Store(x) }
func (a *atomicUint32) Swap(x uint32) uint32 {
	chaos.Access()
	return a.v.Swap(x)
}
func (a *atomicUint32) CompareAndSwap(old, new uint32) bool {
	chaos.Access()
	return a.v.CompareAndSwap(old, new)
}

type atomicUint64 struct{ v atomic.Uint64 }

func (a *atomicUint64) Load() uint64   { chaos.Access(); return a.v.Load() }
func (a *atomicUint64) Store(x uint64) { chaos.Access(); a.v.Store(x) }
func (a *atomicUint64) CompareAndSwap(old, new uint64) bool {
	chaos.Access()
	return a.v.CompareAndSwap(old, new)
}

const calm = 2 // so that the tests go to and fro

const hooked = true

func mark() uint64    { return 0 }
func rewind(m uint64) {}

// The points that have a name outside, under the same value.
var _ = [1]int{}[int(pointPop)-chaos.Pop] + [1]int{}[int(pointLocked)-chaos.PopLocked]

func at(p point) { chaos.At(int(p)) }

func futexWait(word *atomicUint32, old uint32) {
	chaos.Access()
	sysFutexWait(&word.v, old)
}
func futexWake(word *atomicUint32) {
	chaos.Access()
	sysFutexWake(&word.v)
}

type token struct{ c chan struct{} }

func (t *token) init()    { t.c = make(chan struct{}, 1) }
func (t *token) acquire() { chaos.Access(); <-t.c }
func (t *token) release() { chaos.Access(); t.c <- struct{}{} }
