// Package enginetest tests handlers without a kernel and without privileges: targets with memory and
// descriptors make calls, the engine hands them to the handler as it would otherwise, and the test looks
// at what the target saw.
//
//	e := enginetest.New(t, handler)
//	p := e.Target()
//	got := p.Call(unix.SYS_CHDIR, p.PutString("/etc"))
//	if got.Errno != unix.EPERM { … }
//
// The engine's own code serves each call: the default answers of handlers that panic or do not answer, requests
// that are detached or kept for too long, the counters. What Linux does is package notifytest's ([Engine.Kernel]), which does as the kernel
// does: a notification is answered once, by its id; a target that dies or is interrupted is gone from then on,
// also in the midst of a handler ([Target.Before]); an interrupted call comes again with another id.
//
// Not simulated: queues, threads and overload; real listeners test those. What a handler does to a
// target by itself, without the engine (/proc/PID, process_vm_readv), it does to whatever process has
// that number: have it use the engine's own ways.
package enginetest

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/internal/offline"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/notify/notifytest"
	"golang.org/x/sys/unix"
)

// patience is how long a call may take before its test fails.
const patience = 20 * time.Second

// An Engine is an engine without threads. Its methods, and its targets', may be called from any goroutine.
type Engine struct {
	t testing.TB
	e *engine.Engine

	k *notifytest.Kernel

	mu    sync.Mutex
	calls map[*Call]struct{} // not over yet
}

// New returns an engine with the handler. At the end of the test, calls that still wait for their answer are
// errors of the test.
func New(t testing.TB, h engine.Handler) *Engine {
	t.Helper()
	return NewWith(t, engine.Config{Handler: h})
}

// NewWith is New with a configuration, of which what says how calls travel means nothing; deadlines pass by
// [Engine.Expire] only.
func NewWith(t testing.TB, cfg engine.Config) *Engine {
	t.Helper()
	made, err := offline.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{t: t, e: made.(*engine.Engine), k: notifytest.New(notifytest.Linux6_18), calls: map[*Call]struct{}{}}
	t.Cleanup(func() {
		e.mu.Lock()
		var left []*Call
		for c := range e.calls {
			left = append(left, c)
		}
		e.mu.Unlock()
		for _, c := range left {
			if !c.over() {
				t.Errorf("enginetest: system call %d of thread %d still waits for its answer", c.data.NR, c.target.TID)
			}
		}
		e.Expire()
	})
	return e
}

// Kernel is what stands in for Linux: the newest that there is, unless its Profile is set before the first target. Its Fault says
// which ioctls go wrong.
func (e *Engine) Kernel() *notifytest.Kernel { return e.k }

// Engine is what handlers see as their source's engine: for its counters, latencies and the like. It does not run.
func (e *Engine) Engine() *engine.Engine { return e.e }

// Expire has the handlers' deadline pass, for all that have not answered yet, and for detached requests. It
// says how many were answered for.
func (e *Engine) Expire() int { return offline.Expire(e.e) }

// Target returns a new process with one thread, behind a listener of its own.
func (e *Engine) Target() *Target { return e.TargetWith(engine.SourceOptions{}) }

// TargetWith is Target for a listener with options, for instance a tag.
func (e *Engine) TargetWith(o engine.SourceOptions) *Target {
	e.t.Helper()
	p := &process{e: e, filter: e.k.Install(0), fds: map[int]FD{}, heap: 0x7f00_0000_1000, threads: map[int]*Target{}}
	p.proc = p.filter.ProcessWith(p.take)
	s, err := offline.Add(e.e, notify.Simulated((*kernel)(p)), o)
	if err != nil {
		e.t.Fatal(err)
	}
	p.source = s.(*engine.Source)
	e.t.Cleanup(p.closeAll)
	return p.thread()
}

// A process is what threads share. Engine.mu guards what is not said to be guarded otherwise.
type process struct {
	e       *Engine
	source  *engine.Source
	filter  *notifytest.Filter
	proc    *notifytest.Process
	dead    bool
	regions []region
	heap    uint64          // where Put puts the next thing
	threads map[int]*Target // written under fdMu, too
	answers atomic.Uint64   // that the kernel took

	fdMu sync.Mutex // within which nothing else is locked: the filter is when a descriptor is taken
	fds  map[int]FD
}

// A Target is a thread that makes calls, one at a time.
type Target struct {
	// TID is the thread's id; it is nobody's outside. Set it to 0 for a target in a pid namespace that
	// the supervisor does not see.
	TID int
	// Arch is the ABI of its calls (AUDIT_ARCH_*), at first the machine's own.
	Arch uint32

	p      *process
	th     *notifytest.Thread
	call   *Call // the last one; nil: none
	before [ops][]func()
	added  []int // descriptors, in its call; guarded by process.fdMu
}

func (p *process) thread() *Target {
	th := p.proc.Thread()
	t := &Target{TID: th.TID, Arch: notify.NativeArch, p: p, th: th}
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	p.fdMu.Lock()
	defer p.fdMu.Unlock()
	p.threads[t.TID] = t
	return t
}

// Thread returns another thread of the same process: they share memory, descriptors and listener.
func (t *Target) Thread() *Target { return t.p.thread() }

// Source is what handlers see as the source of the target's calls.
func (t *Target) Source() *engine.Source { return t.p.source }

// A Result is how a call ended for its target.
type Result struct {
	Val   int64         // the value returned, if Errno is 0
	Errno syscall.Errno // or the error
	// Continued says that the kernel is to run the call itself.
	Continued bool
	// Interrupted and Died say that the call ended without an answer, by [Target.Interrupt] (then Errno is EINTR) or
	// [Target.Kill].
	Interrupted, Died bool
	// Tries is how many times the call was notified: more than one after [Target.Restart].
	Tries int
	// Added are the numbers of descriptors that the target was given meanwhile, also those of a try before.
	Added []int
}

// String says how it ended, as strace would.
func (r Result) String() string {
	switch {
	case r.Died:
		return "died"
	case r.Continued:
		return "continued"
	case r.Errno != 0:
		return fmt.Sprintf("-1 %s (%v)", unix.ErrnoName(r.Errno), r.Errno)
	}
	return fmt.Sprint(r.Val)
}

// A Call is a trapped call on its way.
type Call struct {
	target  *Target
	data    notify.Data
	handled sync.WaitGroup // handlers
	ended   chan struct{}
	result  Result // once ended is closed
}

func (c *Call) over() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// Call makes a system call and returns how it ended, once its handlers have returned, too. That takes an answer: the test
// fails where none comes. Missing arguments are 0.
func (t *Target) Call(nr int, args ...uint64) Result {
	t.p.e.t.Helper()
	return t.Start(nr, args...).Wait()
}

// Start makes a system call and does not wait for its end. The handler runs on a goroutine of its own.
func (t *Target) Start(nr int, args ...uint64) *Call {
	t.p.e.t.Helper()
	d := notify.Data{NR: int32(nr), Arch: t.Arch}
	if copy(d.Args[:], args) < len(args) {
		t.p.e.t.Fatalf("enginetest: system call %d with %d arguments: there are 6 at most", nr, len(args))
	}
	return t.StartData(d)
}

// StartData is Start of a call with the given data.
func (t *Target) StartData(d notify.Data) *Call {
	e := t.p.e
	e.t.Helper()
	c := &Call{target: t, data: d, ended: make(chan struct{})}
	e.mu.Lock()
	_, waits := t.th.Waiting()
	dead := t.p.dead
	if waits || dead {
		e.mu.Unlock()
		e.t.Fatalf("enginetest: system call %d of thread %d, which is dead or at another call", d.NR, t.TID)
	}
	t.call = c
	e.calls[c] = struct{}{}
	e.mu.Unlock()
	t.p.fdMu.Lock()
	t.added = nil
	t.p.fdMu.Unlock()
	t.th.Start(d)
	c.handled.Add(1)
	go func() {
		c.end(t.th.Wait())
		c.handled.Done()
	}()
	t.p.receive()
	return c
}

// receive has what waits to be received handled, as a receive thread would.
func (p *process) receive() {
	for {
		n, errno := p.filter.TryRecv()
		switch errno {
		case 0:
			p.e.mu.Lock()
			c := p.threads[int(n.PID)].call
			p.e.mu.Unlock()
			n.PID = uint32(c.target.TID) // 0 where the test says that the supervisor does not see it
			c.handled.Go(func() { offline.Serve(p.source, n) })
		case unix.EAGAIN:
			return
		case unix.ENOENT:
			if p.proc.Dead() {
				return
			}
		}
	}
}

// end is the end of a call.
func (c *Call) end(r notifytest.Result) {
	t := c.target
	t.p.fdMu.Lock()
	added := t.added
	t.p.fdMu.Unlock()
	c.result = Result{Val: r.Val, Errno: r.Errno, Continued: r.Continued, Interrupted: r.Interrupted, Died: r.Died, Tries: r.Tries, Added: added}
	e := t.p.e
	e.mu.Lock()
	delete(e.calls, c)
	e.mu.Unlock()
	close(c.ended)
}

// Wait waits for the end of the call and of its handlers.
func (c *Call) Wait() Result {
	e := c.target.p.e
	e.t.Helper()
	done := make(chan struct{})
	go func() {
		<-c.ended
		c.handled.Wait()
		c.target.p.settle()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		if c.over() {
			e.t.Fatalf("enginetest: the handler of system call %d does not return", c.data.NR)
		}
		e.t.Fatalf("enginetest: system call %d has no answer: was it detached and forgotten?", c.data.NR)
	}
	return c.result
}

// settle waits until the engine has counted every answer: one from another goroutine than the handler's ends the
// call first.
func (p *process) settle() {
	for {
		answers := p.answers.Load()
		if n := p.source.Counters(); n.Answered >= answers && n.Balance() == 0 {
			return
		}
		runtime.Gosched()
	}
}

// Kill ends the process: answers to its calls fail with engine.ErrGone, Alive says no, and its memory is gone.
func (t *Target) Kill() {
	e := t.p.e
	e.mu.Lock()
	t.p.dead = true
	t.p.regions = nil
	e.mu.Unlock()
	t.p.proc.Kill()
}

// Interrupt has a signal, whose handler does not restart calls, end the thread's call by EINTR: answers to it fail
// with engine.ErrGone. Without a call nothing happens.
func (t *Target) Interrupt() { t.th.Signal(false) }

// Restart has a signal, whose handler restarts calls (SA_RESTART), interrupt the thread's call: answers to it fail
// with engine.ErrGone, and the call comes again, to another run of the handler, with another id.
func (t *Target) Restart() {
	t.th.Signal(true)
	t.p.receive()
}

// An Op is something that a handler does to a target.
type Op uint8

const (
	OpAlive Op = iota // it asks whether the call still waits
	OpRead            // it reads memory
	OpWrite           // it writes memory
	OpAddFD           // it adds a descriptor, and may answer by that
	OpSend            // it answers
	ops
)

// Before has f run once, just before the next such operation of a handler on the thread's call takes effect, on
// the handler's goroutine: f may kill or interrupt the target, or change its memory. Calls of Before for the same operation
// are for one after the other.
func (t *Target) Before(op Op, f func()) {
	e := t.p.e
	e.mu.Lock()
	defer e.mu.Unlock()
	t.before[op] = append(t.before[op], f)
}

// An FD is a descriptor of a target that a handler has given it.
type FD struct {
	File        *os.File // a duplicate; the test's to read, the package's to close
	CloseOnExec bool
}

// FD is the target's descriptor of that number, if a handler gave it one.
func (t *Target) FD(n int) (FD, bool) {
	t.p.fdMu.Lock()
	defer t.p.fdMu.Unlock()
	fd, ok := t.p.fds[n]
	return fd, ok
}

func (p *process) closeAll() {
	p.fdMu.Lock()
	defer p.fdMu.Unlock()
	for _, fd := range p.fds {
		_ = fd.File.Close()
	}
}
