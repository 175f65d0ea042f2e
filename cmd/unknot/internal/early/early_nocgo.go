//go:build !cgo

// Package early does nothing in this build: without cgo run compiles no filter.
package early

import "syscall"

// SignalSize is 24, as in the other build.
const SignalSize = 24

// Blocked returns 0: this process is no run.
func Blocked() uint64 { return 0 }

// Pipe returns -1.
func Pipe() int { return -1 }

// Files returns nothing.
func Files() []int { return nil }

// Die ends this process by a signal, if that has its default action.
func Die(sig int) { _ = syscall.Kill(syscall.Getpid(), syscall.Signal(sig)) }

// BeginStop does nothing.
func BeginStop(int) {}

// EndStop stops this process by a signal, if that has its default action.
func EndStop(sig int, stop bool) {
	if stop {
		_ = syscall.Kill(syscall.Getpid(), syscall.Signal(sig))
	}
}
