package storm

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/unknot/unknot/engine/mono"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/osthread"
	"golang.org/x/sys/unix"
)

// target is the life of the target process, which ends by being killed.
func target(arg string) error {
	var c Config
	if err := json.Unmarshal([]byte(arg), &c); err != nil {
		return err
	}
	_, shm, err := mapShared(shmFD, c.Targets+1, false)
	if err != nil {
		return err
	}
	fc, err := net.FileConn(os.NewFile(sockFD, "socket"))
	if err != nil {
		return err
	}
	conn := fc.(*net.UnixConn)
	runtime.LockOSThread() // Install is for the calling thread; TSync brings in the others
	if c.CPU > 0 {
		// All threads that exist; new ones inherit it.
		if err := pinAll(int(c.CPU) - 1); err != nil {
			return err
		}
	}
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	l, err := notify.Install(prog, notify.TSync)
	if err != nil {
		return err
	}
	runtime.UnlockOSThread()
	if err := notify.SendListener(conn, l); err != nil {
		return err
	}
	// Only the parent's copy shall be left: when the supervisor dies, the
	// kernel answers ENOSYS.
	if err := l.Close(); err != nil {
		return err
	}
	// Threads exist before the storm starts, so that no start-up is measured.
	for i := range shm.hammers() {
		go func() {
			runtime.LockOSThread()
			shm.head.awaitStart()
			shm.threads[i].hammer(shm.head, int64(c.Think), c.ThinkSleeps)
		}()
	}
	for int(shm.head.waiting.Load()) < c.Targets {
		time.Sleep(100 * time.Microsecond)
	}
	if _, err := conn.Write([]byte{readyByte}); err != nil {
		return errOrphan
	}
	// The end of the parent is end of file. (PR_SET_PDEATHSIG would fire when
	// the thread that forked us ends, which may be long before.)
	bell := &shm.threads[c.Targets]
	for {
		var b [1]byte
		if _, err := conn.Read(b[:]); err != nil {
			return errOrphan
		}
		bell.ring()
		shm.head.rung.Add(1)
	}
}

func pinAll(cpu int) error {
	ts, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	var set unix.CPUSet
	set.Set(cpu)
	for _, t := range ts {
		var tid int
		if _, err := fmt.Sscan(t.Name(), &tid); err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("pin targets to CPU %d: %w (allowed: %v)", cpu, err, osthread.Allowed())
		}
	}
	return nil
}

// hammer is the closed loop of one thread. Nothing in the loop may be a point of
// preemption: after 10 ms without one the scheduler asks each goroutine to
// yield, and for a thread-locked goroutine that is a hand-over through several
// futexes. With 256 threads it halved the storm: all callees are nosplit, and
// asynchronous preemption is off (see Start).
func (t *thread) hammer(h *header, think int64, sleeps bool) {
	t.state.Store(inLoop)
	defer t.state.Store(ended)
	last := mono.Now()
	for h.stop.Load() == 0 {
		_, _, e := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		end := mono.Now()
		switch e {
		case 0:
			t.roundTrip.Record(end - last)
			t.ok.Add(1)
		case unix.EINTR:
			t.eintrTrip.Record(end - last)
			t.errnos[unix.EINTR].Add(1)
		default:
			t.errnos[index(e)].Add(1)
			if e == unix.ENOSYS { // the supervisor is gone for good
				return
			}
		}
		last = end
		if think > 0 && sleeps {
			nap(think)
			last = mono.Now()
		} else if think > 0 {
			for last-end < think {
				last = mono.Now()
			}
		}
	}
}

// ring makes one call. Nobody to answer it is what it may be there to find.
func (t *thread) ring() {
	switch _, _, e := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); e {
	case 0:
		t.ok.Add(1)
	case unix.ENOSYS:
	default:
		t.errnos[index(e)].Add(1)
	}
}
