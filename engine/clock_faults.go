//go:build faults && !fakekernel

package engine

import (
	"github.com/unknot/unknot/internal/kernel"
	"github.com/unknot/unknot/internal/mono"
)

var clock mono.Clock

func now() int64 { return clock.Now() + kernel.Jumped.Load() }
