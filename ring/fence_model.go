//go:build ringmodel

package ring

import "github.com/unknot/unknot/ring/internal/model"

// Asymmetric fences under the model checker, which has a store buffer for
// each thread; see fence_unsafe.go.
func haveHeavyFence() bool                   { return true }
func storeRelease(w *atomicUint64, x uint64) { w.StoreBuffered(x) }
func heavyFence()                            { model.HeavyFence() }
