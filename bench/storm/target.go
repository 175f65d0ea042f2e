package storm

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/mono"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// target is the life of the target process, which ends by being killed.
func target(arg string) error {
	begun := mono.Take()
	var c childConfig
	if err := json.Unmarshal([]byte(arg), &c); err != nil {
		return err
	}
	_, shm, err := mapShared(shmFD, c.Targets+1, c.Calls, false)
	if err != nil {
		return err
	}
	shm.file = os.NewFile(shmFD, "shared memory")
	fc, err := net.FileConn(os.NewFile(sockFD, "socket"))
	if err != nil {
		return err
	}
	conn := fc.(*net.UnixConn)
	runtime.LockOSThread() // Install is for the calling thread; TSync brings in the others
	if c.CPU > 0 {
		if err := pinAll(int(c.CPU) - 1); err != nil {
			return err
		}
	}
	prog, err := filter(c.Traps)
	if err != nil {
		return err
	}
	flags := notify.TSync
	if c.Hostile == SignalledKillable {
		flags |= notify.WaitKillableRecv
	}
	l, err := notify.Install(prog, flags)
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
	if shm.clock = new(mono.Line); !c.Open && !c.Untimed && !c.Hostile.replaces() {
		shm.clock = mono.NewLine(begun)
	}
	waiting := shm.rage(&c)
	for shm.head.waiting.Load() < waiting {
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

// pinAll goes over the threads until it finds none that it has not pinned: one may have
// started another before.
func pinAll(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	for {
		tids, err := osthread.Threads()
		if err != nil {
			return err
		}
		pinned := 0
		for _, tid := range tids {
			var has unix.CPUSet
			err := unix.SchedGetaffinity(tid, &has)
			if err == nil && has != set {
				pinned++
				err = unix.SchedSetaffinity(tid, &set)
			}
			if err != nil && err != unix.ESRCH {
				return fmt.Errorf("pin targets to CPU %d: %w (allowed: %v)", cpu, err, osthread.Allowed())
			}
		}
		if pinned == 0 {
			return nil
		}
	}
}
