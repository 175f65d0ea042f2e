//go:build !fakekernel && !faults

package engine

import "github.com/unknot/unknot/internal/mono"

// clock is all engines' of the process, whose controllers adjust it.
var clock mono.Clock

func now() int64 { return clock.Now() }
