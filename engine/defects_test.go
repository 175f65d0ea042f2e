//go:build fakekernel

package engine_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/notify/notifytest"
	"golang.org/x/sys/unix"
)

// Each of these tests is a defect that a supervisor was found with, ours or another's: docs/decisions/24-fake-kernel.md.

// A lab is an engine on the fake kernel, in virtual time.
type lab struct {
	t *testing.T
	k *notifytest.Kernel
	e *engine.Engine

	mu      sync.Mutex
	faults  map[notify.Op][]unix.Errno       // one for each of the next ioctls
	results map[notify.Op]map[unix.Errno]int // how they ended
	bits    func(int16) int16
	failed  uint64 // answers that the kernel shall have refused for good
}

// inLab runs f beside a running engine, then stops it and looks that nothing is lost or left. It does so for the
// inline path and for the queue's.
func inLab(t *testing.T, p notifytest.Profile, c engine.Config, f func(*lab)) {
	for _, inline := range []bool{true, false} {
		name := "queue"
		if inline {
			name = "inline"
		}
		t.Run(name, func(t *testing.T) {
			c := c
			c.Inline, c.KeepProcs = inline, true
			synctest.Test(t, func(t *testing.T) {
				l := &lab{t: t, k: notifytest.New(p), faults: map[notify.Op][]unix.Errno{}, results: map[notify.Op]map[unix.Errno]int{}}
				l.k.Spend = func(d time.Duration) { time.Sleep(d) }
				l.k.Sched = func() { time.Sleep(100 * time.Nanosecond) }
				l.k.Fault = func(op notify.Op) (e unix.Errno) {
					l.mu.Lock()
					defer l.mu.Unlock()
					if all := l.faults[op]; len(all) > 0 {
						e, l.faults[op] = all[0], all[1:]
					}
					return e
				}
				l.k.Result = func(_ *notifytest.Filter, op notify.Op, id uint64, e unix.Errno) {
					l.mu.Lock()
					defer l.mu.Unlock()
					if id == 0 && op != notify.OpRecv {
						return // notify.NewListener's look
					}
					if l.results[op] == nil {
						l.results[op] = map[unix.Errno]int{}
					}
					l.results[op][e]++
				}
				l.k.PollBits = func(ev int16) int16 {
					l.mu.Lock()
					defer l.mu.Unlock()
					if l.bits != nil {
						return l.bits(ev)
					}
					return ev
				}
				l.k.Use()
				var err error
				if l.e, err = engine.New(c); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				over := make(chan error)
				go func() { over <- l.e.Run(ctx) }()
				<-l.e.Ready()
				f(l)
				cancel()
				if err := <-over; err != nil {
					t.Error(err)
				}
				if n := l.e.Counters(); n.Balance() != 0 || n.Failed != l.failed || n.Queued+n.Held+n.InHandlers+n.Detached != 0 {
					t.Errorf("counters: %+v", n)
				}
				if open, strays := l.k.Open(), l.k.Strays(); open != 0 || strays != 0 {
					t.Errorf("%d descriptors are open; %d system calls on what is none", open, strays)
				}
			})
		})
	}
}

func (l *lab) count(op notify.Op, e unix.Errno) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.results[op][e]
}

func (l *lab) fault(op notify.Op, times int, e unix.Errno) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range times {
		l.faults[op] = append(l.faults[op], e)
	}
}

// target adds a listener with one thread.
func (l *lab) target() (*notifytest.Filter, *notifytest.Process, *notifytest.Thread, *engine.Source) {
	l.t.Helper()
	f := l.k.Install(0)
	p := f.Process()
	th := p.Thread()
	src, err := l.e.Add(f.Listener())
	if err != nil {
		l.t.Fatal(err)
	}
	return f, p, th, src
}

// call makes a call, which must end.
func (l *lab) call(th *notifytest.Thread, n uint64) notifytest.Result {
	l.t.Helper()
	done := make(chan notifytest.Result, 1)
	go func() {
		done <- th.Syscall(notify.Data{NR: unix.SYS_GETPPID, Arch: notify.NativeArch, Args: [6]uint64{n}})
	}()
	select {
	case r := <-done:
		return r
	case <-time.After(time.Minute):
		l.t.Errorf("call %d waits for ever: %+v", n, l.e.Counters())
		l.e.Sources()[0].Listener().Close()
		return <-done
	}
}

// echo answers each call with its number.
var echo = engine.HandlerFunc(func(r engine.Request) { _ = r.Return(int64(r.Data().Args[0])) })

func (l *lab) echoes(th *notifytest.Thread, n uint64) {
	l.t.Helper()
	if r := l.call(th, n); r.Val != int64(n) || r.Errno != 0 {
		l.t.Errorf("call %d was told %v", n, r)
	}
	time.Sleep(100 * time.Microsecond) // until it is counted
}

// Since Linux 6.11 RECV fails with ENOENT at once, for ever, when no target is left: who goes on on every error spins.
func TestDefectENOENTSpin(t *testing.T) {
	for _, p := range []notifytest.Profile{notifytest.Linux6_6, notifytest.Linux6_18} {
		inLab(t, p, engine.Config{Handler: echo}, func(l *lab) {
			_, proc, th, src := l.target()
			for n := range uint64(100) { // until it is received from directly
				l.echoes(th, n)
			}
			proc.Kill()
			<-src.Done() // the end is noticed
			if n := l.count(notify.OpRecv, unix.ENOENT); n > 3 {
				l.t.Errorf("%d RECVs found that no target is left", n)
			}
			if n := l.e.Counters(); n.HungUp != 1 {
				l.t.Errorf("counters: %+v", n)
			}
		})
	}
}

// ENOENT of RECV is also a target that was interrupted: who takes it for the end leaves the others hanging.
func TestDefectENOENTAsEnd(t *testing.T) {
	inLab(t, notifytest.Linux6_18, engine.Config{Handler: echo}, func(l *lab) {
		_, _, th, src := l.target()
		for n := range uint64(60) {
			if n%3 == 0 {
				l.fault(notify.OpRecv, 2, unix.ENOENT)
			}
			l.echoes(th, n)
		}
		select {
		case <-src.Done():
			l.t.Error("the listener was given up")
		default:
		}
		if n := l.e.Counters(); n.Gone != 40 || n.RecvFailed != 0 {
			l.t.Errorf("counters: %+v", n)
		}
	})
}

// EINTR of SEND says that nothing was sent: who does not repeat it leaves the target hanging. Nor is a drop told otherwise.
func TestDefectSendIsNotRepeated(t *testing.T) {
	inLab(t, notifytest.Linux6_18, engine.Config{Handler: echo}, func(l *lab) {
		_, _, th, _ := l.target()
		for n := range uint64(20) {
			l.fault(notify.OpSend, int(n), unix.EINTR)
			l.echoes(th, n)
		}
	})
	// The drop's.
	inLab(t, notifytest.Linux6_18, engine.Config{Queue: 1, Workers: 1, Handler: engine.HandlerFunc(func(r engine.Request) {
		time.Sleep(10 * time.Millisecond)
		_ = r.Return(1)
	})}, func(l *lab) {
		_, p, _, _ := l.target()
		l.fault(notify.OpSend, 12, unix.EINTR)
		var wg sync.WaitGroup
		for range 6 {
			th := p.Thread()
			wg.Go(func() { l.call(th, 1) })
		}
		wg.Wait()
		time.Sleep(time.Second) // until the last one is counted
		if n := l.e.Counters(); n.Answered+n.Dropped != 6 {
			l.t.Errorf("counters: %+v", n)
		}
	})
}

// Two answers to a call: the deadline's and the handler's. The second one may find another call there.
func TestDefectDoubleSend(t *testing.T) {
	var late atomic.Int32
	inLab(t, notifytest.Linux6_18, engine.Config{HandlerDeadline: 5 * time.Millisecond, Handler: engine.HandlerFunc(func(r engine.Request) {
		time.Sleep(50 * time.Millisecond)
		if err := r.Return(1); !errors.Is(err, engine.ErrAnswered) {
			late.Add(1)
		}
		if err := r.Fail(unix.EPERM); !errors.Is(err, engine.ErrAnswered) {
			late.Add(1)
		}
	})}, func(l *lab) {
		_, _, th, _ := l.target()
		for n := range uint64(5) {
			if r := l.call(th, n); r.Errno != unix.ENOSYS {
				l.t.Errorf("call %d was told %v", n, r)
			}
		}
		time.Sleep(time.Second)
		l.mu.Lock()
		defer l.mu.Unlock()
		if all := l.results[notify.OpSend]; len(all) != 1 || all[0] != 5 || late.Load() != 0 {
			l.t.Errorf("answers: %v; %d came late and were taken", all, late.Load())
		}
	})
}

// What poll says is bits: EPOLLIN and EPOLLHUP come together with others.
func TestDefectHangUpByEquality(t *testing.T) {
	inLab(t, notifytest.Linux6_18, engine.Config{Handler: echo}, func(l *lab) {
		l.bits = func(ev int16) int16 {
			if ev&(unix.POLLIN|unix.POLLHUP) != 0 {
				ev |= unix.POLLERR
			}
			return ev
		}
		_, p, th, src := l.target()
		l.echoes(th, 1)
		p.Kill()
		<-src.Done()
	})
}

// EPOLLERR says that the thread in poll was signalled: it is not the listener's end.
func TestDefectErrorAsEnd(t *testing.T) {
	inLab(t, notifytest.Linux6_18, engine.Config{Handler: echo}, func(l *lab) {
		n := 0
		l.bits = func(ev int16) int16 {
			if n++; n%3 != 0 {
				return unix.POLLERR
			}
			return ev
		}
		_, _, th, src := l.target()
		for n := range uint64(10) {
			l.echoes(th, n)
		}
		select {
		case <-src.Done():
			l.t.Error("the listener was given up")
		default:
		}
	})
}

// SET_FLAGS takes its argument by value. By pointer it is EINVAL, or worse.
func TestDefectSetFlagsByPointer(t *testing.T) {
	inLab(t, notifytest.Linux6_18, engine.Config{Handler: echo, WakeUp: engine.Sync}, func(l *lab) {
		f, _, _, src := l.target()
		if got := f.Flags(); got != notify.SyncWakeUp {
			l.t.Errorf("flags %#x", got)
		}
		back, err := l.e.Release(l.t.Context(), src)
		if err != nil {
			l.t.Fatal(err)
		}
		if got := f.Flags(); got != 0 {
			l.t.Errorf("flags %#x of a listener that was handed back", got)
		}
		_ = back.Close()
	})
}

// ID_VALID by a number that the kernel does not have is EINVAL, which does not mean that the target is gone. Ours it has.
func TestDefectWrongNumberOfIDValid(t *testing.T) {
	if notify.IoctlIDValid != 0x40082102 { // SECCOMP_IOW('!', 2, __u64)
		t.Errorf("ID_VALID is %#x", notify.IoctlIDValid)
	}
	inLab(t, notifytest.Linux6_18, engine.Config{Handler: echo, CheckAfter: engine.AlwaysCheck}, func(l *lab) {
		_, _, th, _ := l.target()
		for n := range uint64(20) {
			l.fault(notify.OpIDValid, 1, unix.EINVAL)
			l.echoes(th, n)
		}
		if n := l.e.Counters(); n.Stale != 0 {
			l.t.Errorf("counters: %+v", n)
		}
	})
}

// A check that failed for another reason than the target's end, as EINTR, must not cost the answer.
func TestDefectReplyLostOnAFailedCheck(t *testing.T) {
	inLab(t, notifytest.Linux6_18, engine.Config{CheckAfter: engine.AlwaysCheck, Handler: engine.HandlerFunc(func(r engine.Request) {
		if !r.Alive() {
			_ = r.Fail(unix.EPERM) // as a handler may
			return
		}
		_ = r.Return(int64(r.Data().Args[0]))
	})}, func(l *lab) {
		_, _, th, _ := l.target()
		for n := range uint64(20) {
			l.fault(notify.OpIDValid, int(n), unix.EINTR)
			l.echoes(th, n)
		}
		if n := l.e.Counters(); n.Stale != 0 || n.Answered != 20 {
			l.t.Errorf("counters: %+v", n)
		}
	})
}

// Listeners have indexes in tables: who closes an index closes somebody's descriptor. inLab counts system calls on what is no descriptor.
func TestDefectIndexesClosedAsDescriptors(t *testing.T) {
	inLab(t, notifytest.Linux6_18, engine.Config{Handler: echo}, func(l *lab) {
		before := l.k.Open()
		for range 4 {
			var all []*engine.Source
			var procs []*notifytest.Process
			for range 5 {
				_, p, th, src := l.target()
				l.echoes(th, 3)
				all, procs = append(all, src), append(procs, p)
			}
			before = max(before, l.k.Open()-5) // receivers may have come along
			for i, src := range all {
				if i%2 == 0 {
					if err := l.e.Remove(l.t.Context(), src); err != nil {
						l.t.Error(err)
					}
				} else {
					procs[i].Kill()
					<-src.Done()
				}
			}
			if n := l.k.Open(); n != before {
				l.t.Errorf("%d descriptors are open, not %d", n, before)
			}
		}
	})
}

// A listener is closed under a handler, another one has its number, and the handler's answer goes there.
func TestDefectDescriptorReuse(t *testing.T) {
	var kept atomic.Pointer[engine.Request]
	var pend atomic.Pointer[engine.Pending]
	var spent atomic.Int32
	inLab(t, notifytest.Linux6_18, engine.Config{Handler: engine.HandlerFunc(func(r engine.Request) {
		switch n := r.Data().Args[0]; n {
		case 1:
			kept.Store(&r)
			time.Sleep(50 * time.Millisecond)
			_ = r.Return(1)
		case 2:
			pend.Store(r.Detach())
		default:
			if err := kept.Load().Return(666); !errors.Is(err, engine.ErrSpent) {
				spent.Add(1)
			}
			if err := pend.Load().Return(666); !errors.Is(err, engine.ErrAnswered) {
				spent.Add(1)
			}
			_ = r.Return(int64(n))
		}
	})}, func(l *lab) {
		_, p, th, src := l.target()
		th2 := p.Thread()
		number := src.Listener().FD()
		var wg sync.WaitGroup
		wg.Go(func() {
			if r := l.call(th2, 2); r.Val != 2 {
				l.t.Errorf("the detached call was told %v", r)
			}
		})
		for pend.Load() == nil {
			time.Sleep(time.Millisecond)
		}
		wg.Go(func() {
			if r := l.call(th, 1); r.Val != 1 {
				l.t.Errorf("the slow call was told %v", r)
			}
		})
		time.Sleep(10 * time.Millisecond)
		ctx, cancel := context.WithTimeout(l.t.Context(), time.Millisecond)
		defer cancel()
		if err := l.e.Remove(ctx, src); err == nil {
			l.t.Error("it was removed under its handler")
		}
		_, _, th3, src3 := l.target()
		if src3.Listener().FD() == number {
			l.t.Error("its number was given to another one while its handler runs")
		}
		if err := pend.Load().Return(2); err != nil {
			l.t.Error(err)
		}
		wg.Wait()
		<-src.Done()
		l.echoes(th3, 3)
		_, _, th4, src4 := l.target()
		if src4.Listener().FD() != number {
			l.t.Errorf("descriptor %d, not %d: this test shows nothing", src4.Listener().FD(), number)
		}
		for n := uint64(4); n < 9; n++ {
			l.echoes(th4, n)
		}
		if n := spent.Load(); n != 0 {
			l.t.Errorf("%d answers of a request that was over went through", n)
		}
		kept.Store(nil)
		pend.Store(nil)
	})
}

// Linux before 5.5 refuses Continue, by EINVAL: the target must have another answer.
func TestDefectRefusedAnswer(t *testing.T) {
	inLab(t, notifytest.Linux5_0, engine.Config{Handler: engine.Continue, DefaultErrno: unix.EXDEV}, func(l *lab) {
		_, _, th, _ := l.target()
		for n := range uint64(5) {
			if r := l.call(th, n); r.Errno != unix.EXDEV {
				l.t.Errorf("call %d was told %v", n, r)
			}
		}
		time.Sleep(time.Second)
		if n := l.e.Counters(); n.Refused != 5 || n.Defaulted != 5 || n.Answered != 5 {
			l.t.Errorf("counters: %+v", n)
		}
	})
	// A drop's, too.
	inLab(t, notifytest.Linux5_0, engine.Config{Queue: 1, Workers: 1, DropErrno: engine.DropContinue, Handler: engine.HandlerFunc(func(r engine.Request) {
		time.Sleep(10 * time.Millisecond)
		_ = r.Return(1)
	})}, func(l *lab) {
		_, p, _, _ := l.target()
		var wg sync.WaitGroup
		for range 6 {
			th := p.Thread()
			wg.Go(func() {
				if r := l.call(th, 1); r.Val != 1 && r.Errno != unix.ENOSYS {
					l.t.Errorf("told %v", r)
				}
			})
		}
		wg.Wait()
	})
}

// Where the kernel refuses the default answer, too, there is nothing to be done: the call is counted as failed, and its target waits
// until the listener is closed. The engine goes on.
func TestAnswersRefusedForGood(t *testing.T) {
	inLab(t, notifytest.Linux6_18, engine.Config{Handler: echo}, func(l *lab) {
		_, p, th, src := l.target()
		stuck := p.Thread()
		l.fault(notify.OpSend, 2, unix.EINVAL)
		over := make(chan notifytest.Result)
		go func() { over <- stuck.Syscall(notify.Data{NR: unix.SYS_GETPPID, Arch: notify.NativeArch}) }()
		time.Sleep(time.Millisecond)
		l.echoes(th, 4)
		if n := l.e.Counters(); n.Failed != 1 || n.Refused != 1 || n.Balance() != 0 {
			l.t.Errorf("counters: %+v", n)
		}
		if n := src.Counters(); n.Failed != 1 || n.Balance() != 0 {
			l.t.Errorf("the listener's: %+v", n)
		}
		l.failed = 1
		if err := l.e.Remove(l.t.Context(), src); err != nil {
			l.t.Error(err)
		}
		if r := <-over; r.Errno != unix.ENOSYS {
			l.t.Errorf("told %v", r)
		}
	})
}

// EINTR of ADDFD says that nothing was installed: it is repeated, and the target has its descriptor.
func TestDefectAddFDIsNotRepeated(t *testing.T) {
	inLab(t, notifytest.Linux6_18, engine.Config{Handler: engine.HandlerFunc(func(r engine.Request) { _ = r.ReturnFD(3, true) })}, func(l *lab) {
		_, _, th, _ := l.target()
		for n := range uint64(10) {
			l.fault(notify.OpAddFD, int(n), unix.EINTR)
			if r := l.call(th, n); r.Errno != 0 || r.Val != int64(3+n) {
				l.t.Errorf("call %d was told %v", n, r)
			}
		}
	})
}
