package engine

import (
	"fmt"
	"log/slog"
	"runtime"
	"syscall"
	"time"
)

// A CPU says where the receive thread is pinned. The zero value is AutoCPU.
type CPU int

const (
	// AutoCPU pins to the last CPU that the process may use.
	AutoCPU CPU = 0
	// AnyCPU does not pin.
	AnyCPU CPU = -1
)

// OnCPU pins to CPU n, counted from 0.
func OnCPU(n int) CPU { return CPU(n + 1) }

// WakeUp says how the kernel wakes across a listener (SYNC_WAKE_UP, Linux 6.6):
// Sync keeps waker and woken on one CPU, which is right for few targets; Async
// lets the scheduler place them, which is right for many.
type WakeUp uint8

const (
	// AutoWakeUp is Sync where the kernel has it.
	AutoWakeUp WakeUp = iota
	Sync
	Async
)

// Workers says what the workers of the queue path are.
type WorkerKind uint8

const (
	// AutoWorkers is ThreadWorkers.
	AutoWorkers WorkerKind = iota
	// ThreadWorkers are OS threads that sleep on a futex: the fastest hand-off
	// from the locked receive thread. Handlers may do everything a locked
	// goroutine may; channels and timers cost them a thread switch.
	ThreadWorkers
	// GoroutineWorkers sleep in the Go scheduler.
	GoroutineWorkers
)

// Defaults of a Config.
const (
	DefaultQueue       = 64
	DefaultDropBatch   = 8
	DefaultStopTimeout = 5 * time.Second
	// MaxQueue bounds the ring: every outstanding notification makes the
	// kernel's lists longer and so every call slower.
	MaxQueue = 1 << 20
	// MaxWorkers bounds Workers.
	MaxWorkers = 1 << 12
)

// A Config sets up an [Engine]. Only Handler is required.
type Config struct {
	Handler Handler

	// Inline answers on the receive thread. Queue, Workers and DropBatch then
	// mean nothing.
	Inline bool

	Queue     int // capacity of the ring, in notifications; 0: DefaultQueue
	Workers   int // 0: GOMAXPROCS
	DropBatch int // how many of the oldest are dropped at once, at least; 0: DefaultDropBatch, or Queue if that is less
	Kind      WorkerKind

	CPU    CPU
	WakeUp WakeUp

	// DropErrno answers dropped calls; 0: EINTR.
	DropErrno syscall.Errno
	// DefaultErrno answers for handlers that panic, are late or do not answer;
	// 0: ENOSYS, which is what the kernel itself answers when the supervisor is gone.
	DefaultErrno syscall.Errno
	// HandlerDeadline is how long a handler may take before the engine answers
	// for it; 0: for ever. A late handler of the queue path is replaced by a
	// fresh worker and ends when it returns.
	HandlerDeadline time.Duration
	// StopTimeout is how long a stop lets workers go on with what was received;
	// 0: DefaultStopTimeout.
	StopTimeout time.Duration

	// ThreadHook runs on the receive thread before it receives anything, for
	// instance to confine it. Its error ends Run. It may change the thread for
	// good; the thread is never the main thread and ends with Run.
	ThreadHook func() error
	// Cookies are the words that ioctls on the engine's listeners carry in
	// their unused arguments; see notify.Listener.SetCookies.
	Cookies [3]uintptr

	// BySyscall keeps statistics for each system call; see [Engine.Syscalls].
	BySyscall bool

	Logger *slog.Logger // nil: nothing is logged
}

// fill checks c and sets what was left open.
func (c *Config) fill() error {
	if c.Handler == nil {
		return fmt.Errorf("engine: no handler")
	}
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.Queue, DefaultQueue)
	def(&c.Workers, runtime.GOMAXPROCS(0))
	def(&c.DropBatch, min(DefaultDropBatch, c.Queue))
	for _, l := range []struct {
		name   string
		v, max int
	}{{"queue", c.Queue, MaxQueue}, {"workers", c.Workers, MaxWorkers}, {"drop batch", c.DropBatch, c.Queue}} {
		if l.v < 1 || l.v > l.max {
			return fmt.Errorf("engine: %s of %d: must be 1 to %d", l.name, l.v, l.max)
		}
	}
	if c.DropErrno == 0 {
		c.DropErrno = syscall.EINTR
	}
	if c.DefaultErrno == 0 {
		c.DefaultErrno = syscall.ENOSYS
	}
	for _, e := range []syscall.Errno{c.DropErrno, c.DefaultErrno} {
		if resp := errnoResp(0, e); resp.Check() != nil {
			err := resp.Check()
			return fmt.Errorf("engine: errno %d: %w", int(e), err)
		}
	}
	if c.HandlerDeadline < 0 || c.StopTimeout < 0 {
		return fmt.Errorf("engine: handler deadline %v, stop timeout %v: must not be negative", c.HandlerDeadline, c.StopTimeout)
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = DefaultStopTimeout
	}
	if c.CPU < AnyCPU || c.WakeUp > Async || c.Kind > GoroutineWorkers {
		return fmt.Errorf("engine: CPU %d, wake-up %d, worker kind %d: no such setting", c.CPU, c.WakeUp, c.Kind)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
