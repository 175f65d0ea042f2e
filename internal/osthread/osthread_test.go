package osthread

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStartNeverUsesTheMainThread(t *testing.T) {
	for range 200 {
		tid := make(chan int)
		Start(func() { tid <- unix.Gettid() })
		if id := <-tid; id == os.Getpid() {
			t.Fatal("ran on the main thread")
		}
	}
}

func TestThreadEndsWithItsFunction(t *testing.T) {
	tid := make(chan int)
	Start(func() { tid <- unix.Gettid() })
	id := <-tid
	for range 1000 {
		if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(id)); err != nil {
			return
		}
		runtime.Gosched()
		unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
	t.Fatal("the thread outlives its function")
}

func TestPinAndName(t *testing.T) {
	type result struct {
		cpus      []int
		name      string
		err, bad  error
		allowedOK bool
	}
	c := make(chan result)
	Start(func() {
		var r result
		all := Allowed()
		r.allowedOK = len(all) > 0
		r.bad = Pin(-1)
		if r.err = Pin(all[len(all)-1]); r.err == nil {
			r.cpus = Allowed()
			r.err = SetName("a-thread")
			b, _ := os.ReadFile("/proc/thread-self/comm")
			r.name = string(b)
		}
		c <- r
	})
	r := <-c
	if r.err != nil || !r.allowedOK || len(r.cpus) != 1 || r.name != "a-thread\n" {
		t.Errorf("%+v", r)
	}
	if r.bad == nil {
		t.Error("CPU -1 was accepted")
	}
}

func TestBatch(t *testing.T) {
	done := make(chan error)
	Start(func() {
		done <- func() error {
			const nice = 3
			if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), nice); err != nil {
				return err
			}
			for _, on := range []bool{true, false} {
				if err := Batch(unix.Gettid(), on); err != nil {
					return err
				}
				a, err := unix.SchedGetAttr(unix.Gettid(), 0)
				if err != nil {
					return err
				}
				if got := a.Policy == unix.SCHED_BATCH; got != on || a.Nice != nice {
					t.Errorf("after Batch(%v): policy %d, nice %d", on, a.Policy, a.Nice)
				}
			}
			return nil
		}()
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := Batch(1<<22+1, true); err == nil {
		t.Error("a thread that does not exist was made a batch thread")
	}
}

func TestSetNice(t *testing.T) {
	done := make(chan error)
	Start(func() {
		done <- func() error {
			tid := unix.Gettid()
			before, err := unix.SchedGetAttr(tid, 0)
			if err != nil {
				return err
			}
			if err := Batch(tid, true); err != nil {
				return err
			}
			if err := SetNice(tid, int(before.Nice)+2); err != nil {
				return err
			}
			a, err := unix.SchedGetAttr(tid, 0)
			if err != nil {
				return err
			}
			if a.Nice != before.Nice+2 || a.Policy != unix.SCHED_BATCH || a.Flags&unix.SCHED_FLAG_RESET_ON_FORK == 0 {
				t.Errorf("%+v, was %+v", a, before)
			}
			if err := SetNice(tid, int(before.Nice)); err != nil && !errors.Is(err, unix.EPERM) {
				return err
			}
			return nil
		}()
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := SetNice(1<<22+1, 1); err == nil {
		t.Error("a thread that does not exist was reniced")
	}
}

func TestLeave(t *testing.T) {
	done := make(chan struct{})
	Start(func() {
		defer close(done)
		before := Allowed()
		if len(before) < 2 {
			return
		}
		left := 0
		for range 100 {
			cpu := CPU()
			if !slices.Contains(before, cpu) {
				t.Errorf("on CPU %d, allowed %v", cpu, before)
				return
			}
			var here unix.CPUSet
			here.Set(cpu)
			Leave(&here)
			if CPU() != cpu {
				left++
			}
		}
		if left < 60 { // the scheduler may bring it back
			t.Errorf("left its CPU %d times of 100", left)
		}
		var all unix.CPUSet
		for _, c := range before {
			all.Set(c)
		}
		Leave(&all) // nowhere to go
		if after := Allowed(); !slices.Equal(before, after) {
			t.Errorf("allowed %v, was %v", after, before)
		}
	})
	<-done
}

func TestUnblock(t *testing.T) {
	const sig = 40
	blocked := make(chan [2]bool)
	Start(func() {
		var set, now unix.Sigset_t
		set.Val[0] = 1 << (sig - 1)
		_ = unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil)
		_ = unix.PthreadSigmask(unix.SIG_BLOCK, nil, &now)
		before := now.Val[0]&set.Val[0] != 0
		Unblock(sig)
		_ = unix.PthreadSigmask(unix.SIG_BLOCK, nil, &now)
		blocked <- [2]bool{before, now.Val[0]&set.Val[0] != 0}
	})
	if got := <-blocked; got != [2]bool{true, false} {
		t.Errorf("blocked before and after: %v", got)
	}
}

func TestConfined(t *testing.T) {
	type seen struct{ is, send, addFD bool }
	look := func() seen { return seen{Confined(), Refuses(1), Refuses(2)} }
	if got := look(); got != (seen{}) {
		t.Errorf("before: %+v", got)
	}
	is, end := make(chan seen), make(chan bool)
	Start(func() {
		SetConfined([]uint32{1})
		SetConfined([]uint32{1}) // counts once
		is <- look()
		<-end
	})
	if got := <-is; got != (seen{true, false, true}) {
		t.Errorf("on the thread: %+v", got)
	}
	if got := look(); got != (seen{}) {
		t.Errorf("beside it: %+v", got)
	}
	end <- true
	for range 60_000 {
		if howMany.Load() == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("the note outlives its thread")
}
