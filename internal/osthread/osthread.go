//go:build !fakekernel

package osthread

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Start runs f in a new goroutine that is wired to a thread other than the
// main thread. The thread ends with f. Start returns at once; a panic in f is a
// panic of the program, as in any goroutine.
func Start(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			run(f)
			return // still locked: the thread ends here
		}
		// We hold the main thread, so the next goroutine cannot get it.
		started := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(started)
			run(f)
		}()
		<-started
		runtime.UnlockOSThread()
	}()
}

func run(f func()) {
	forget() // a thread that had this id
	defer forget()
	f()
}

// Pin confines the calling thread to one CPU (sched_setaffinity). The caller
// must be locked to its thread.
func Pin(cpu int) error {
	if cpu < 0 || cpu >= 64*len(unix.CPUSet{}) {
		return fmt.Errorf("pin thread: no CPU %d", cpu)
	}
	var s unix.CPUSet
	s.Set(cpu)
	if err := unix.SchedSetaffinity(0, &s); err != nil {
		return fmt.Errorf("pin thread to CPU %d: %w (allowed: %v)", cpu, err, Allowed())
	}
	return nil
}

// Unpin lets the calling thread run on the given CPUs, as it did before Pin.
func Unpin(cpus []int) error { return Allow(0, cpus...) }

// Allow lets the thread tid of this process run on the given CPUs; 0 is the calling thread.
func Allow(tid int, cpus ...int) error {
	var s unix.CPUSet
	for _, c := range cpus {
		s.Set(c)
	}
	if err := unix.SchedSetaffinity(tid, &s); err != nil {
		return fmt.Errorf("allow thread %d to run on CPUs %v: %w", tid, cpus, err)
	}
	return nil
}

// Leave moves the calling thread to another CPU than those, if it may run on one. Its mask
// stays as it was. The caller must be locked to its thread.
func Leave(cpus *unix.CPUSet) {
	var mask unix.CPUSet
	if unix.SchedGetaffinity(0, &mask) != nil {
		return
	}
	others := mask
	for i := range others {
		others[i] &^= cpus[i]
	}
	if others == (unix.CPUSet{}) || others == mask {
		return
	}
	if unix.SchedSetaffinity(0, &others) == nil {
		_ = unix.SchedSetaffinity(0, &mask)
	}
}

// Batch makes the thread tid of this process a batch thread (SCHED_BATCH) or an
// ordinary one again. A batch thread that wakes does not preempt who runs. Its
// nice value stays.
func Batch(tid int, on bool) error {
	// SCHED_FLAG_KEEP_PARAMS would keep the nice value too, but the kernel then keeps
	// the policy as well, and says nothing (__sched_setscheduler, seen on 6.18).
	return alter(tid, func(a *unix.SchedAttr) {
		a.Policy = unix.SCHED_NORMAL
		if on {
			a.Policy = unix.SCHED_BATCH
		}
	})
}

// SetNice sets the nice value of the thread tid of this process, and has its children
// begin with an ordinary one (SCHED_FLAG_RESET_ON_FORK). Its policy stays. Lowering the value
// takes CAP_SYS_NICE or RLIMIT_NICE; the error then wraps EPERM.
func SetNice(tid, nice int) error {
	return alter(tid, func(a *unix.SchedAttr) {
		a.Nice = int32(nice)
		a.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
	})
}

// alter changes some of how the thread tid is scheduled.
func alter(tid int, change func(*unix.SchedAttr)) error {
	a, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return fmt.Errorf("read scheduling policy of thread %d: %w", tid, err)
	}
	change(a)
	if err := unix.SchedSetAttr(tid, a, 0); err != nil {
		return fmt.Errorf("set scheduling policy of thread %d, nice value %d: %w", tid, a.Nice, err)
	}
	return nil
}

// Allowed returns the CPUs that the calling thread may run on, in order; nil if
// the kernel does not say.
func Allowed() []int {
	cpus, _ := AllowedTo(0)
	return cpus
}

// AllowedTo returns the CPUs that the thread tid of any process may run on, in
// order (sched_getaffinity); 0 is the calling thread. The error wraps
// unix.ESRCH when there is no such thread.
func AllowedTo(tid int) ([]int, error) {
	var s unix.CPUSet
	if err := unix.SchedGetaffinity(tid, &s); err != nil {
		return nil, fmt.Errorf("read CPU mask of thread %d: %w", tid, err)
	}
	var cpus []int
	for i := range 64 * len(s) {
		if s.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus, nil
}

// SetName names the calling thread in /proc and ps; at most 15 bytes count.
func SetName(name string) error {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	return setName(p)
}

// Self is the calling thread's id (gettid(2)). The caller must be locked to its thread.
func Self() int { return unix.Gettid() }
