package engine

import (
	"fmt"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/policy"
	"github.com/unknot/unknot/internal/osthread"
)

// A CPU says where the receive thread is pinned. The zero value is AutoCPU.
type CPU int

const (
	// AutoCPU pins each receive thread to a CPU of its own: the one with the fewest receive threads of this
	// and other engines. Where the targets of the only listener may not run there, the receive thread
	// goes to a CPU of theirs; with two workers by AutoPlacement it may run anywhere.
	AutoCPU CPU = 0
	// AnyCPU does not pin.
	AnyCPU CPU = -1
)

// OnCPU pins to CPU n, counted from 0.
func OnCPU(n int) CPU { return CPU(n + 1) }

// WakeUp says how the kernel wakes across a listener (SYNC_WAKE_UP, Linux 6.6):
// Sync keeps waker and woken on one CPU; Async
// lets the scheduler place them. A target that is
// pinned away from the receive thread's CPU defeats Sync, but see AutoCPU.
type WakeUp uint8

const (
	// AutoWakeUp is Sync where the kernel has it, but Async while many targets of an only listener are found to be
	// served faster so: docs/decisions/20-adaptivity.md.
	AutoWakeUp WakeUp = iota
	Sync
	Async
)

func (w WakeUp) String() string { return [...]string{"auto", "sync", "async"}[w] }

// WorkerKind says what the workers of the queue path are.
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

// Placement says where thread workers run.
type Placement uint8

const (
	// AutoPlacement is Near, with one worker, while handlers take little time and the receive
	// thread is pinned, else Anywhere. With one receiver, under some 11 to 125 targets that call all the
	// time and may run on all CPUs, two workers run Anywhere, with the receive thread:
	// more is served, and less of the CPUs is left to others.
	AutoPlacement Placement = iota
	// Near is the receive thread's CPU: waking a worker there costs least.
	Near
	// Anywhere leaves it to the scheduler, so that handlers run in parallel.
	Anywhere
)

// Defaults of a Config.
const (
	DefaultQueue = 64
	// DefaultTargetQueue has room for what a WaitTarget finds.
	DefaultTargetQueue = 1024
	DefaultStopTimeout = 5 * time.Second
	// DefaultInterrupt is the signal that takes the receive thread out of a
	// blocked RECV.
	DefaultInterrupt = osthread.DefaultInterrupt
	// DefaultCheckAfter is 50 times what a call waits that does not queue.
	// ID_VALID takes the listener's lock once more for each call: without it
	// the queue path served 1.2 times as much with a handler that does nothing.
	DefaultCheckAfter = time.Millisecond
	// checkWorth is what a handler must take for that default to ask: with less, asking costs
	// as much as the handler, and SEND finds out too. At 256 targets, where most calls
	// wait for longer than DefaultCheckAfter, not asking serves 1.14 times as much.
	checkWorth = int64(5 * time.Microsecond)
	// sampleChecks: one call in so many is checked however short it waited, which
	// costs the others a few ns.
	sampleChecks = 64
	// AlwaysCheck, as Config.CheckAfter, checks every call.
	AlwaysCheck time.Duration = -1
	// NoInterrupt, as Config.Interrupt, has the receive thread always wait in epoll.
	NoInterrupt syscall.Signal = -1
	// MaxQueue bounds the ring: every outstanding notification makes the
	// kernel's lists longer and so every call slower.
	MaxQueue = 1 << 20
	// MaxWorkers bounds Workers.
	MaxWorkers = 1 << 12
)

// A Config sets up an [Engine]. Only Handler is required.
type Config struct {
	Handler Handler

	// Inline answers on the receive thread. The fields of the queue path,
	// from Queue to DropErrnos, then mean nothing.
	Inline bool

	Queue int // capacity of each listener's ring, in notifications; 0: DefaultQueue, with a WaitTarget DefaultTargetQueue
	// WaitTarget is how long nearly all calls shall wait in the ring at most, from receive to dispatch: the depth of each
	// listener's ring is then bounded, below its capacity, by how fast its calls are served, which the engine measures all the time.
	// 0: the capacity alone bounds it. A target shorter than a call is served by a worker cannot be
	// met, whatever the depth; that is logged. See [Source.Limit].
	WaitTarget time.Duration

	Workers   int // of each receiver; 0: GOMAXPROCS, without what engines have added
	Kind      WorkerKind
	Placement Placement

	// KeepProcs leaves GOMAXPROCS alone. Otherwise the engine makes it 3 if it is less (2
	// if inline), and adds Workers+1 to it while handlers typically take longer than 20 µs; at the
	// end, or when handlers are short again, it takes back what it added. A handler that
	// blocks in a system call, or computes, else keeps others from running for want of a
	// processor of the Go scheduler, beside idle CPUs, and with none idle the Go runtime's monitor
	// stays awake. The runtime then no longer follows a container's CPU limit
	// (runtime.SetDefaultGOMAXPROCS), and collects garbage with more threads.
	KeepProcs bool

	// RaisePriority has the engine lower the nice values of the receive thread and of a lone
	// worker by 15 while many targets call and handlers typically take less than 10 µs, so that
	// a target that is woken does not take the CPU from whom the others wait for: inline 1.1 to 1.4
	// times the throughput at 16 to 64 targets. Two workers that run by AutoPlacement are not raised. Under a storm the receive thread then takes
	// nearly all of its CPU, and others who may run only there, as another engine's receive
	// thread that is pinned to it, wait for long: for machines where the CPU is the supervisor's. It takes CAP_SYS_NICE or RLIMIT_NICE; without, nothing changes. Children
	// of a handler do not inherit it (SCHED_FLAG_RESET_ON_FORK).
	RaisePriority bool

	// Receivers is how many receive threads there are, each with listeners, workers and a CPU of its own.
	// 0 follows the listeners: one for a lone listener, else as many as there are listeners, but no more
	// than CPUs that the process may use, by its mask and its cgroup's quota, and than four. Then an
	// inline handler runs on several threads at once. With a CPU that is set, or PrivateFiles, there is one.
	Receivers int

	// Policy says which calls give way when a listener's ring is full.
	Policy policy.Kind
	// DropBatch is how many calls an overflow drops at least; 0 adapts.
	DropBatch int
	// LowWatermark is the depth to which an overflow drops, and at which a
	// listener blocked by policy.Block is received from again; see policy.Config.
	LowWatermark int
	// Pace is how long dropped calls are held before they are answered
	// together; 0 adapts to what is served, policy.Immediately does not hold.
	Pace time.Duration
	// MaxHeld is how many dropped calls a listener holds; 0: policy.DefaultMaxHeld.
	MaxHeld int
	// MaxAge drops calls that waited longer in the ring, instead of handling
	// them; 0 never does.
	MaxAge time.Duration
	// DropErrno answers dropped calls; 0: EINTR. [DropContinue] has the kernel run
	// them: for a supervisor that watches and decides nothing, so that no call
	// fails for its being slow.
	DropErrno syscall.Errno
	// DropErrnos overrules DropErrno for system calls of the machine's native
	// ABI, by number: some programs take EAGAIN from one call and not from another.
	DropErrnos map[int32]syscall.Errno

	CPU    CPU
	WakeUp WakeUp

	// Interrupt is the signal that takes the receive thread out of a blocked
	// RECV, so that a lone busy listener needs no epoll; 0: DefaultInterrupt.
	// The process must not use it otherwise. Where it cannot be had, the
	// thread waits in epoll.
	Interrupt syscall.Signal

	// CheckAfter has workers ask whether a target still waits (ID_VALID) before
	// they start on a call that waited that long, so that handlers do not work
	// for the dead; 0: DefaultCheckAfter where handlers take more than some µs; AlwaysCheck: for every call, which
	// also makes every dispatch visible to tracers. One call in 64 is checked in
	// any case, so that tracers see a sample of them all. A call that waited less is
	// found to be stale when it is answered; handlers that act on a target's
	// memory or files must ask [Request.Alive] in any case.
	CheckAfter  time.Duration
	checksWorth bool // only handlers that take checkWorth

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
	ThreadHook func(Thread) error
	// PrivateFiles says that ThreadHook leaves the thread a file table of its own
	// (unshare with CLONE_FILES). It then holds a second copy of each listener, and
	// closes it when the listener is removed, so that later calls fail with ENOSYS
	// at once and not only when Run ends. Never say so of a shared table. Listeners
	// must be added before Run: the thread does not have later ones.
	PrivateFiles bool
	// Cookies are the words that ioctls on the engine's listeners carry in
	// their unused arguments; see notify.Listener.SetCookies.
	Cookies [3]uintptr

	// BySyscall keeps statistics for each system call; see [Engine.Syscalls].
	BySyscall bool

	// BySource keeps histograms and errnos of each listener, some 40 KB; see [Source.Latencies], [Source.Errnos].
	BySource bool

	// Logger is not waited for: while it stalls some hundred lines are kept, and later ones are lost, which a line says. nil: nothing is logged.
	Logger *slog.Logger
}

// A Thread describes the receive thread to its hook: what it will use from then
// on. A hook that confines the thread must leave it these descriptors and let
// it RECV, SEND and ID_VALID on its listeners, wait (epoll_pwait, ppoll) and
// wake workers (futex). All else is done by other threads. One that is not of package confine
// calls [Thread.SetConfined] first.
type Thread struct {
	Listeners []int          // descriptors of the listeners added so far
	Epoll     int            // the epoll instance on which it waits
	Wake      int            // the eventfd by which others wake it: it reads it
	Signal    syscall.Signal // the signal that interrupts its RECV, which it must not block; 0: none
}

// SetConfined says that a filter will take from the calling thread most of what handlers may ask for: its inline
// handlers then get [ErrConfined] instead of meeting the filter. The ioctls are those on listeners that the filter lets
// pass, such as [notify.IoctlSend]. It is for a hook that confines its thread by other means than package confine, on
// that thread, before it loads the filter.
func (Thread) SetConfined(ioctls ...uint32) { osthread.SetConfined(ioctls) }

// policyConfig is the policy of one listener.
func (c *Config) policyConfig() policy.Config {
	return policy.Config{Kind: c.Policy, Capacity: c.Queue, Batch: c.DropBatch, Low: c.LowWatermark,
		Pace: c.Pace, MaxHeld: c.MaxHeld, MaxAge: c.MaxAge, WaitTarget: c.WaitTarget, Workers: c.Workers}
}

// fill checks c and sets what was left open.
func (c *Config) fill(cpus []int) error {
	if c.Handler == nil {
		return fmt.Errorf("engine: no handler")
	}
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	if c.WaitTarget > 0 {
		def(&c.Queue, DefaultTargetQueue)
	}
	def(&c.Queue, DefaultQueue)
	def(&c.Workers, osthread.OwnProcs())
	for _, l := range []struct {
		name   string
		v, max int
	}{{"queue", c.Queue, MaxQueue}, {"workers", c.Workers, MaxWorkers}} {
		if l.v < 1 || l.v > l.max {
			return fmt.Errorf("engine: %s of %d: must be 1 to %d", l.name, l.v, l.max)
		}
	}
	switch {
	case c.Receivers < 0:
		return fmt.Errorf("engine: %d receivers: must not be negative; 0 follows the listeners", c.Receivers)
	case c.Receivers > max(1, len(cpus)):
		return fmt.Errorf("engine: %d receivers: more than the %d CPUs that this process may use, one for each", c.Receivers, len(cpus))
	case c.Receivers > 1 && c.CPU != AutoCPU:
		return fmt.Errorf("engine: %d receivers have a CPU each: leave the CPU to the engine, or have one receiver", c.Receivers)
	case c.Receivers > 1 && c.PrivateFiles:
		return fmt.Errorf("engine: %d receivers with private file tables: a listener could not go from one to another; have one receiver", c.Receivers)
	case c.CPU > 0 && !slices.Contains(cpus, int(c.CPU)-1):
		return fmt.Errorf("engine: CPU %d: this process may use %v", int(c.CPU)-1, cpus)
	}
	p := c.policyConfig()
	if err := p.Fill(); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if c.DropErrno == 0 {
		c.DropErrno = syscall.EINTR
	}
	if c.DefaultErrno == 0 {
		c.DefaultErrno = syscall.ENOSYS
	}
	if c.DropErrno != DropContinue {
		if err := checkErrno(c.DropErrno, "drop"); err != nil {
			return err
		}
	}
	if err := checkErrno(c.DefaultErrno, "default"); err != nil {
		return err
	}
	for nr, errno := range c.DropErrnos {
		if nr < 0 || nr >= maxDropErrnos {
			return fmt.Errorf("engine: drop errno of system call %d: no such call", nr)
		}
		if errno == DropContinue {
			continue
		}
		if err := checkErrno(errno, fmt.Sprintf("drop (system call %d)", nr)); err != nil {
			return err
		}
	}
	if c.HandlerDeadline < 0 || c.StopTimeout < 0 {
		return fmt.Errorf("engine: handler deadline %v, stop timeout %v: must not be negative", c.HandlerDeadline, c.StopTimeout)
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = DefaultStopTimeout
	}
	if c.CheckAfter == 0 {
		c.CheckAfter, c.checksWorth = DefaultCheckAfter, true
	}
	if c.CPU < AnyCPU || c.WakeUp > Async || c.Kind > GoroutineWorkers || c.Placement > Anywhere {
		return fmt.Errorf("engine: CPU %d, wake-up %d, worker kind %d, placement %d: no such setting", c.CPU, c.WakeUp, c.Kind, c.Placement)
	}
	if c.Interrupt == 0 {
		c.Interrupt = DefaultInterrupt
	}
	if c.Interrupt < NoInterrupt || c.Interrupt > 64 {
		return fmt.Errorf("engine: interrupt signal %d: must be 1 to 64, best a real-time signal that nothing else uses, or NoInterrupt", int(c.Interrupt))
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// DropContinue, as Config.DropErrno or in Config.DropErrnos, continues the calls
// that are dropped (SECCOMP_USER_NOTIF_FLAG_CONTINUE) instead of failing them.
const DropContinue syscall.Errno = 1 << 20

func checkErrno(e syscall.Errno, what string) error {
	resp := errnoResp(0, e)
	if err := resp.Check(); err != nil || e == 0 {
		return fmt.Errorf("engine: %s errno %d: %w", what, int(e), notify.ErrBadResp)
	}
	return nil
}
