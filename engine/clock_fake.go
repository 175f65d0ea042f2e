//go:build fakekernel

package engine

import (
	"time"

	"github.com/unknot/unknot/internal/kernel"
)

// A virtualClock is package time's, which testing/synctest makes virtual.
type virtualClock struct{}

func (virtualClock) Adjust() {}

var clock virtualClock

// now is looked at between most steps of a call: a thread may lose its CPU there.
func now() int64 {
	kernel.Current().Sched()
	return time.Now().UnixNano()
}
