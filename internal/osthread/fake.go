//go:build fakekernel

package osthread

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/unknot/unknot/internal/kernel"
	"golang.org/x/sys/unix"
)

// Threads of the fake kernel are goroutines: where each may run and how it is scheduled is told, and believed. See package kernel.

// Start runs f in a goroutine.
func Start(f func()) { go run(f) }

func run(f func()) {
	forget()
	defer func() {
		forget()
		masks.Delete(Self())
	}()
	f()
}

// masks are where threads of ours were told to run.
var masks sync.Map // int → []int

// Self is the goroutine's number, and more than a target's can be.
func Self() int {
	var b [64]byte
	_, s, _ := strings.Cut(string(b[:runtime.Stack(b[:], false)]), " ")
	s, _, _ = strings.Cut(s, " ")
	id, _ := strconv.Atoi(s)
	return 1<<24 + id
}

func Pin(cpu int) error                   { return Allow(Self(), cpu) }
func Unpin(cpus []int) error              { return Allow(Self(), cpus...) }
func Leave(*unix.CPUSet)                  {}
func Batch(int, bool) error               { return nil }
func SetNice(int, int) error              { return nil }
func SetName(string) error                { return nil }
func Unblock(syscall.Signal)              {}
func AllowInterrupt(syscall.Signal) error { return nil }
func CPU() int                            { return -1 }
func Allowed() []int                      { return kernel.Current().CPUs(0) }

// Allow has the thread's mask be that.
func Allow(tid int, cpus ...int) error {
	masks.Store(tid, slices.Clone(cpus))
	return nil
}

// AllowedTo is what Allow set, or what the fake says.
func AllowedTo(tid int) ([]int, error) {
	if m, ok := masks.Load(tid); ok {
		return slices.Clone(m.([]int)), nil
	}
	return kernel.Current().CPUs(tid), nil
}

// Interrupt takes the thread out of its RECV.
func Interrupt(tid int, _ syscall.Signal) error {
	kernel.Current().Interrupt(tid)
	return nil
}
