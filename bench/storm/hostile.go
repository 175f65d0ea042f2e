package storm

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/unknot/unknot/internal/mono"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// Hostile is what befalls the targets of a closed loop while their calls wait.
type Hostile uint8

const (
	Friendly Hostile = iota
	// Killed targets live in processes that are killed (SIGKILL) with their calls
	// and replaced.
	Killed
	// Signalled targets each get a signal every millisecond, with a handler that
	// has the call made again (SA_RESTART): its notification goes and a new one comes.
	Signalled
	// SignalledKillable is Signalled with WAIT_KILLABLE_RECV: a call that was received
	// is not interrupted. Linux 5.19 is the first to have it.
	SignalledKillable
	// Forked targets live in processes that are forked, exec, make some calls and
	// exit while others wait.
	Forked
	// Preempted targets are goroutines of an ordinary Go program, with a garbage
	// collector that stops them by the runtime's signals. One that is just on its way
	// into a call is interrupted in it, which is one call in some thousands.
	Preempted

	numHostile
)

var hostileNames = [numHostile]string{"none", "kill", "signal", "signal-killable", "fork-exec-exit", "preempt"}

// ParseHostile reads "kill", "signal", "signal-killable", "fork-exec-exit",
// "preempt" or "none".
func ParseHostile(s string) (Hostile, error) {
	i := slices.Index(hostileNames[:], s)
	if i < 0 {
		return Friendly, fmt.Errorf("hostile %q: want %s", s, strings.Join(hostileNames[:], ", "))
	}
	return Hostile(i), nil
}

func (h Hostile) String() string { return hostileNames[h] }

// replaces reports whether the targets live in processes that end and are replaced.
func (h Hostile) replaces() bool { return h == Killed || h == Forked }

// collected reports whether the target process makes garbage, and has it collected.
func (h Hostile) collected() bool { return h == Preempted || h.replaces() }

// Unknown is a Disturbed without bound.
const Unknown = math.MaxUint64

const (
	victimThreads = 4                    // of a process that is replaced
	killAfter     = 5 * time.Millisecond // mean, once all its threads have made a call
	forkedCalls   = 16                   // of a thread; then its process exits
	signalEvery   = time.Millisecond     // to each thread
)

// victimEnv tells a process that is replaced what to do; victimShmFD is what it
// finds.
const (
	victimEnv   = "UNKNOT_STORM_VICTIM"
	victimShmFD = 3
)

// A victimConfig is what such a process is told.
type victimConfig struct {
	childConfig
	First, Threads int
	Life           uint64
}

// victim is the life of a process that is replaced. Its filter is inherited.
func victim(arg string) error {
	var c victimConfig
	if err := json.Unmarshal([]byte(arg), &c); err != nil {
		return err
	}
	// Should our parent be killed: it cannot tell us.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	_, shm, err := mapShared(victimShmFD, c.Targets+1, c.Calls, false)
	if err != nil {
		return err
	}
	over := make(chan struct{}, c.Threads)
	for i := c.First; i < c.First+c.Threads; i++ {
		s := newScript(&c.Config, i, new(mono.Line), rand.New(rand.NewPCG(c.Seed+c.Life, uint64(i))))
		if c.Hostile == Forked {
			s.limit = forkedCalls
		}
		go func() {
			runtime.LockOSThread()
			shm.threads[i].closed(shm.head, &s)
			over <- struct{}{}
		}()
	}
	for range c.Threads {
		<-over
		if c.Hostile == Forked && shm.head.stopAt.Load() == 0 {
			break // and the other threads' calls go with us
		}
	}
	os.Exit(0)
	return nil
}

// replace runs one process after the other, each with the threads from first on.
// The goroutine must be wired to its thread: the end of that is their end too.
func (s *shared) replace(c *childConfig, first, threads int) error {
	h, blocks := s.head, s.threads[first:first+threads]
	r := rand.New(rand.NewPCG(c.Seed, 0x6b696c6c<<32|uint64(first)))
	defer func() {
		for i := range blocks {
			blocks[i].state.Store(ended)
		}
	}()
	lives := make([]uint32, threads)
	for life := uint64(0); h.stopAt.Load() == 0; life++ {
		for i := range blocks {
			lives[i] = blocks[i].lives.Load()
		}
		arg, err := json.Marshal(victimConfig{*c, first, threads, life})
		if err != nil {
			return err
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Args[0] = childName
		cmd.Env = append(cleanEnv(os.Environ()), victimEnv+"="+string(arg),
			"GOMAXPROCS="+strconv.Itoa(threads+2), "GOGC=off", "GODEBUG=asyncpreemptoff=1", "GORACE=atexit_sleep_ms=0")
		cmd.ExtraFiles = []*os.File{s.file}
		cmd.Stderr = os.Stderr
		if c.Hostile == Forked {
			h.disturbed.Add(uint64(threads))
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		if c.Hostile == Killed && s.begun(blocks, lives) {
			time.Sleep(time.Duration(float64(killAfter) * r.ExpFloat64()))
			if h.stopAt.Load() == 0 {
				h.disturbed.Add(uint64(threads))
				_ = cmd.Process.Kill()
			}
		}
		var exit *exec.ExitError
		err = cmd.Wait()
		if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == unix.SIGKILL {
			continue
		}
		if err != nil {
			return fmt.Errorf("target process: %w", err)
		}
	}
	return nil
}

// begun waits until each thread has begun a new life, or the storm is halted.
func (s *shared) begun(blocks []thread, before []uint32) bool {
	for i := 0; i < len(blocks); {
		switch {
		case s.head.stopAt.Load() != 0:
			return false
		case blocks[i].lives.Load() != before[i]:
			i++
		default:
			time.Sleep(100 * time.Microsecond)
		}
	}
	return true
}

// signal sends the targets signals, to one at a time, until the storm is halted.
// SIGURG has a handler in every Go program, which here does nothing.
func (s *shared) signal() {
	pid, targets := unix.Getpid(), s.hammers()
	gap := max(signalEvery/time.Duration(len(targets)), 20*time.Microsecond)
	for i := 0; s.head.stopAt.Load() == 0; i = (i + 1) % len(targets) {
		s.head.sleepUntil(mono.Now() + int64(gap))
		if t := &targets[i]; t.state.Load() == inLoop {
			s.head.disturbed.Add(1)
			_ = unix.Tgkill(pid, int(t.tid.Load()), unix.SIGURG)
		}
	}
}

// collect makes garbage and collects it until the storm is halted; each time the
// runtime stops all goroutines, by signals where they do not stop by themselves.
func (s *shared) collect() {
	var garbage [][]byte
	for s.head.stopAt.Load() == 0 {
		garbage = append(garbage[:0:0], make([]byte, 1<<16))
		runtime.GC()
		time.Sleep(2 * time.Millisecond)
	}
	runtime.KeepAlive(garbage)
}

// rage starts the targets and what befalls them. It returns how many goroutines
// wait for the storm's start: threads exist before it, so that no start-up is measured.
func (s *shared) rage(c *childConfig) (waiting uint32) {
	begin := func(wired bool, f func()) {
		waiting++
		go func() {
			if wired {
				runtime.LockOSThread()
				osthread.SleepExactly()
			}
			s.head.awaitStart(c.Hostile.collected())
			f()
		}()
	}
	if c.Hostile.replaces() {
		for i := 0; i < c.Targets; i += victimThreads {
			begin(true, func() {
				if err := s.replace(c, i, min(victimThreads, c.Targets-i)); err != nil {
					fmt.Fprintln(os.Stderr, "storm:", err)
					os.Exit(1)
				}
			})
		}
		return waiting
	}
	ps := prepare()
	for i := range s.hammers() {
		sc, t := newScript(&c.Config, i, s.clock, rand.New(rand.NewPCG(c.Seed, uint64(i)))), &s.threads[i]
		loop := func() { t.closed(s.head, &sc) }
		switch {
		case c.Open:
			loop = func() { t.open(s.head, s.calls, &ps) }
		case c.Untimed:
			loop = func() { t.untimed(s.head, &sc) }
		}
		sc.yields = c.Hostile == Preempted
		begin(c.Hostile != Preempted, loop)
	}
	switch c.Hostile {
	case Signalled, SignalledKillable:
		begin(true, s.signal)
	case Preempted:
		s.head.disturbed.Store(Unknown)
		begin(false, s.collect)
	}
	return waiting
}
