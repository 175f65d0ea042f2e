// Package chaos lets tests deschedule goroutines inside the windows of the
// concurrent algorithms in package ring. It is compiled into ring only under
// the race detector or the build tag ringchaos.
package chaos

import "sync/atomic"

// Hooks are called from every goroutine, concurrently.
type Hooks struct {
	Access func()          // before each access to a word that goroutines share
	At     func(point int) // in each named window (the points of package ring)
}

// Points that programs outside package ring refer to; ring checks their values.
const (
	Pop       = 0 // a consumer of a Ring has read entries and not yet claimed them
	PopLocked = 6 // a consumer of a Queue holds the mutex
)

var hooks atomic.Pointer[Hooks]

// Set installs h, or removes the hooks if h is nil.
func Set(h *Hooks) { hooks.Store(h) }

// Access calls the hook of that name, if any.
func Access() {
	if h := hooks.Load(); h != nil && h.Access != nil {
		h.Access()
	}
}

// At calls the hook of that name, if any.
func At(point int) {
	if h := hooks.Load(); h != nil && h.At != nil {
		h.At(point)
	}
}
