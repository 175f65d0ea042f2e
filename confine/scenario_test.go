package confine

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"runtime/trace"
	"syscall"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// A scenario is what a confined thread lives through. It runs in a child.
type scenario struct {
	env    []string         // of the child
	before func(*rig)       // on the thread, not yet confined
	thread func(*rig) error // on the confined thread
	// beside runs on another goroutine meanwhile; the scenario is over when both
	// are. It ends the thread's function if that has no end of its own.
	beside func(*rig) error
	exit   int // the child's status
}

var scenarios = map[string]scenario{
	// The job: 2,000 calls, each with a wake-up.
	"serve": {thread: (*rig).serve, beside: func(r *rig) error { return r.calls(func(n int) bool { return n == 2000 }) }},
	// Waits as package engine does while a listener rests: without epoll.
	"rest": {thread: func(r *rig) error {
		n, err := unix.Ppoll([]unix.PollFd{{Fd: int32(r.l.FD())}, {Fd: int32(r.t.Wake), Events: unix.POLLIN}}, &unix.Timespec{Nsec: 1e6}, nil)
		if n != 0 || err != nil {
			return fmt.Errorf("ppoll: %d, %v", n, err)
		}
		return nil
	}},
	// Gives the listener up, and then the process does.
	"close": {thread: func(r *rig) error { return unix.Close(r.l.FD()) }},
	"log": {thread: func(r *rig) error {
		_, err := r.plan.LogWriter().Write([]byte("a line\n"))
		return err
	}, beside: func(r *rig) error {
		b := make([]byte, 7)
		for range 60_000 {
			if n, _ := r.log.ReadAt(b, 0); n == len(b) && string(b) == "a line\n" {
				return nil
			}
			time.Sleep(time.Millisecond)
		}
		return fmt.Errorf("the log has %q", b)
	}},
	"files": {thread: func(r *rig) error {
		for _, f := range r.table {
			if nr, ok := f.nr(); ok && f.Errno == unix.ENOSYS {
				if err := sys(uintptr(nr), none, none, none, 0, 0); err != unix.ENOSYS {
					return fmt.Errorf("%s: %v", f.Syscall, err)
				}
			}
		}
		return nil
	}},
	// Asks whether it is confined, as the methods do that need what it may not.
	"asks": {thread: func(r *rig) error {
		if !osthread.Confined() || !osthread.Refuses(notify.IoctlAddFD) || osthread.Refuses(notify.IoctlSend) {
			return errors.New("it does not know that it is confined")
		}
		if _, err := r.l.AddFD(&notify.AddFD{}); err != notify.ErrConfined {
			return fmt.Errorf("AddFD: %v", err)
		}
		if err := r.l.SetFlags(0); err != notify.ErrConfined {
			return fmt.Errorf("SetFlags: %v", err)
		}
		return nil
	}, beside: func(*rig) error {
		if osthread.Confined() || osthread.Refuses(notify.IoctlAddFD) {
			return errors.New("another thread counts as confined")
		}
		return nil
	}},

	// What the runtime does.
	"gc": {thread: func(r *rig) error {
		busy := busyThreads(2)
		defer busy()
		for !r.over() {
			garbage()
			runtime.GC()
		}
		return nil
	}},
	"timers": {thread: func(r *rig) error {
		for !r.over() {
			// Another thread sleeps in the poller until its own, later timer.
			fired := make(chan struct{})
			time.AfterFunc(50*time.Microsecond, func() { close(fired) })
			<-fired
		}
		return nil
	}, beside: func(r *rig) error {
		for !r.stop.Load() {
			time.Sleep(20 * time.Millisecond)
		}
		return nil
	}},
	"signal": {thread: func(r *rig) error {
		for !r.over() {
			func() {
				defer func() { _ = recover() }()
				var p *int
				*p = 1
			}()
		}
		return nil
	}},
	"alloc":         {env: []string{"GOGC=off"}, thread: grow},
	"reserve":       {env: []string{"GOGC=off"}, thread: grow},
	"alloc-nothp":   {env: []string{"GODEBUG=disablethp=1", "GOGC=off"}, thread: grow},
	"scavenge":      {thread: func(r *rig) error { grow(r); debug.FreeOSMemory(); return nil }},
	"scavenge-free": {env: []string{"GODEBUG=madvdontneed=0"}, thread: func(r *rig) error { grow(r); debug.FreeOSMemory(); return nil }},
	"profile":       {thread: spin, beside: func(r *rig) error { return r.profile() }},
	"profile-before": {before: profileBefore, thread: spin, beside: func(*rig) error {
		time.Sleep(20 * time.Millisecond)
		pprof.StopCPUProfile()
		return nil
	}},
	"stopcont": {thread: func(r *rig) error {
		for !r.stop.Load() {
			// A signal that Go handles, such as SIGURG, ends the sleep with EINTR.
			if err := unix.Nanosleep(&unix.Timespec{Nsec: 5e8}, nil); err != nil && err != unix.EINTR {
				return err
			}
		}
		return nil
	}, beside: func(r *rig) error {
		defer r.stop.Store(true)
		// A shell stops us and lets us go on while the thread sleeps, more than
		// once: a stop may find it between two sleeps.
		script := fmt.Sprintf("for i in 1 2 3 4 5; do sleep 0.07; kill -STOP %d || exit; sleep 0.05; kill -CONT %[1]d; done", os.Getpid())
		return exec.Command("/bin/sh", "-c", script).Run()
	}},
	"setuid": {thread: waitForStop, beside: func(r *rig) error {
		return r.changeIDs("Uid", syscall.Setresuid, syscall.Setreuid, syscall.Setuid)
	}},
	"setgid": {thread: waitForStop, beside: func(r *rig) error {
		return r.changeIDs("Gid", syscall.Setresgid, syscall.Setregid, syscall.Setgid)
	}},

	// How it ends.
	"goexit": {thread: func(*rig) error { return nil }},
	// Before it ends it waits as musl's pthread_exit does while another thread ends (__tl_lock).
	"goexit-musl": {thread: func(r *rig) error { return r.word.wait() }, beside: func(r *rig) error { return r.word.wake() }},
	// Threads that ended left so many stacks with the C library that it unmaps
	// some when ours ends.
	"goexit-last": {thread: waitForStop, beside: func(r *rig) error {
		defer r.stop.Store(true)
		tids, end := make(chan int), make(chan struct{})
		var all []int
		for range 12 {
			osthread.Start(func() {
				tids <- unix.Gettid()
				<-end
			})
			all = append(all, <-tids)
		}
		close(end)
		for _, tid := range all {
			if err := gone(tid); err != nil {
				return err
			}
		}
		return nil
	}},
	"panic":  {thread: func(*rig) error { panic("the thread panics") }, exit: 2},
	"nil":    {thread: func(*rig) error { var p *int; *p = 1; return nil }, exit: 2},
	"osexit": {thread: func(*rig) error { os.Exit(7); return nil }, exit: 7},

	// Stress: all of them serve a storm of one target.
	"storm-gc":  {env: []string{"GOGC=1"}, thread: (*rig).serve, beside: func(r *rig) error { return r.storm(garbage) }},
	"storm-stw": {thread: (*rig).serve, beside: func(r *rig) error { return r.storm(stopTheWorld) }},
	"storm-profile": {thread: (*rig).serve, beside: func(r *rig) error {
		if err := pprof.StartCPUProfile(io.Discard); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
		return r.storm(garbage)
	}},
	"storm-profile-before": {before: profileBefore, thread: (*rig).serve, beside: func(r *rig) error {
		defer pprof.StopCPUProfile()
		return r.storm(garbage)
	}},
	"storm-trace": {thread: (*rig).serve, beside: func(r *rig) error {
		if err := trace.Start(io.Discard); err != nil {
			return err
		}
		defer trace.Stop()
		return r.storm(garbage)
	}},
	"storm-exec": {thread: (*rig).serve, beside: func(r *rig) error {
		return r.storm(func() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				panic(err)
			}
			if _, err := os.ReadFile("/proc/self/status"); err != nil {
				panic(err)
			}
		})
	}},
	"storm-thread": {env: []string{"GOGC=1"}, thread: (*rig).serveAndWork, beside: func(r *rig) error { return r.storm(stopTheWorld) }},
}

// profileBefore starts a profile and waits until the thread has its timer, which
// it gets when it is scheduled.
func profileBefore(*rig) {
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		panic(err)
	}
	for range 10 {
		time.Sleep(time.Millisecond)
	}
}

// over says that a scenario without an end of its own has gone on long enough.
func (r *rig) over() bool {
	if r.stop.Load() {
		return true
	}
	if r.end.IsZero() {
		r.end = time.Now().Add(r.For)
	}
	if time.Now().After(r.end) {
		r.stop.Store(true)
	}
	return r.stop.Load()
}

// storm has the target call, and does work beside, for as long as ordered.
func (r *rig) storm(work func()) error {
	end, worked := time.Now().Add(r.For), make(chan struct{})
	// What package engine's pulse is for: the target is a thread of this process,
	// and a stop of the world that waits for it waits for its supervisor, which
	// in strict mode no signal of the runtime interrupts.
	// Somebody must wait for a ticker, or the runtime does not look at it.
	pulse := time.NewTicker(100 * time.Millisecond)
	defer pulse.Stop()
	go func() {
		for {
			select {
			case <-pulse.C:
			case <-worked:
				return
			}
		}
	}()
	go func() {
		defer close(worked)
		for time.Now().Before(end) {
			work()
		}
	}()
	err := r.calls(func(int) bool { return !time.Now().Before(end) })
	<-worked
	return err
}

// serveAndWork is serve on a thread that also allocates and stops the world, as
// an inline handler's might.
func (r *rig) serveAndWork() error {
	busy := busyThreads(1)
	defer busy()
	r.work = func() {
		garbage()
		if rand.IntN(50) == 0 {
			stopTheWorld()
		}
	}
	return r.serve()
}

var sink [][]byte

func garbage() {
	s := make([][]byte, 0, 64)
	for range 64 {
		s = append(s, make([]byte, 1+rand.IntN(4096)))
	}
	runtime.KeepAlive(s)
}

func stopTheWorld() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	runtime.GC()
}

// busyThreads keeps n other goroutines in loops that only a signal preempts.
func busyThreads(n int) (stop func()) {
	done := make(chan struct{})
	for range n {
		go func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for i := 0; i < 1<<22; i++ {
				}
			}
		}()
	}
	return func() { close(done) }
}

// grow makes the heap grow beyond what is mapped and reserved for it.
func grow(*rig) error {
	for range 24 { // an arena is 64 MiB
		b := make([]byte, 4<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		sink = append(sink, b)
	}
	sink = nil
	return nil
}

// spin computes, and lets go of the thread now and then.
func spin(r *rig) error {
	for !r.over() {
		for i := 0; i < 1<<20; i++ {
		}
		time.Sleep(10 * time.Microsecond)
	}
	return nil
}

func waitForStop(r *rig) error {
	for !r.stop.Load() {
		time.Sleep(100 * time.Microsecond)
	}
	return nil
}

// profile profiles for as long as the scenario lasts.
func (r *rig) profile() error {
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		return err
	}
	for !r.stop.Load() {
		time.Sleep(time.Millisecond)
	}
	pprof.StopCPUProfile()
	return nil
}

// changeIDs makes the whole process nobody, in every way that there is, and sees
// that the confined thread took part.
func (r *rig) changeIDs(field string, setres func(real, effective, saved int) error, setre func(real, effective int) error, set func(id int) error) error {
	defer r.stop.Store(true)
	const nobody = 65534
	if err := errors.Join(setres(-1, nobody, -1), setre(-1, nobody), set(nobody)); err != nil {
		return err
	}
	v, err := taskStatus(r.tid, field)
	if err != nil {
		return err
	}
	var real, effective int
	if _, err := fmt.Sscan(v, &real, &effective); err != nil || effective != nobody {
		return fmt.Errorf("%s of the confined thread: %s", field, v)
	}
	return nil
}

func childScenario(c *testchild.Conn, args []string) error {
	r, err := newRig(args[0])
	if err != nil {
		return err
	}
	s, ok := scenarios[r.Name]
	if !ok {
		return fmt.Errorf("no scenario %q", r.Name)
	}
	if s.before != nil {
		r.beforeMe = func() { s.before(r) }
	}
	r.table = Rules()
	begin := make(chan struct{})
	st, done, err := r.run(func() error {
		<-begin
		return s.thread(r)
	})
	if err != nil {
		return err
	}
	r.tid = st.TID
	if err := c.Say("confined"); err != nil {
		return err
	}
	close(begin)
	var besideErr error
	if s.beside != nil {
		besideErr = s.beside(r)
	}
	if err := errors.Join(besideErr, <-done); err != nil {
		return err
	}
	if err := gone(st.TID); err != nil {
		return err
	}
	if s.exit != 0 {
		return errors.New("it survived")
	}
	return othersAreFree(r.target)
}
