//go:build !cgo

package main

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Without cgo run compiles no filter, so that it does not come to any of these.

type sent struct {
	sig   syscall.Signal
	code  int32
	pid   int
	value uint64
}

func startedAsRun() bool { return false }

func readSignals(func(sent)) error { return errors.ErrUnsupported }

func inheritedFiles() []int { return nil }

func dieBy(sig syscall.Signal) { _ = unix.Kill(unix.Getpid(), sig) }

func stopBy(sig syscall.Signal) { _ = unix.Kill(unix.Getpid(), sig) }
