// Package chaos lets tests deschedule goroutines inside the windows of the
// concurrent algorithms in package ring. It is compiled into ring only under
// the race detector or the build tag ringchaos.
package chaos

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"
)

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

// Disturb makes goroutines lose their processor in the windows, about one access in n, until stop is called.
func Disturb(n uint32) (stop func()) {
	hook := func() {
		if r := rand.Uint32(); r%n == 0 {
			runtime.Gosched()
			for range r >> 8 % 4 {
				runtime.Gosched()
			}
		}
	}
	Set(&Hooks{Access: hook, At: func(int) { hook() }})
	return func() { Set(nil) }
}
