package osthread

import (
	"fmt"
	"syscall"
)

// ErrNoInterrupt wraps the reasons why a signal cannot interrupt system calls.
var ErrNoInterrupt = fmt.Errorf("no interrupting signal")

// DefaultInterrupt is the signal for interrupts where the user names no other: a real-time signal that neither
// the Go runtime nor the C libraries use.
const DefaultInterrupt syscall.Signal = 40
