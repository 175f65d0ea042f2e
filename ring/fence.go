//go:build (!linux || !amd64 || race || ringatomic) && !ringmodel

package ring

// Asymmetric fences, where they are missing or not wanted; see fence_unsafe.go.
func haveHeavyFence() bool                   { return false }
func storeRelease(w *atomicUint64, x uint64) { w.Store(x) }
func heavyFence()                            {}
