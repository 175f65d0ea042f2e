package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// A storm is a child process whose threads make calls of getppid(2) in a closed loop. It stands here so that the
// library's tests need nothing of bench, which is another module.
type storm struct {
	cmd      *exec.Cmd
	conn     *net.UnixConn
	listener *notify.Listener
}

// A stormReport is what the threads saw.
type stormReport struct {
	OK, ENOSYS int64 // calls that returned a value; threads whose last call failed with ENOSYS
	Others     int64 // calls with any other error than EINTR, which is a dropped call
}

const stormEnv = "UNKNOT_TEST_CONFINE_STORM"

// stormMain is for TestMain: in a storm it does not return.
func stormMain() {
	n, err := strconv.Atoi(os.Getenv(stormEnv))
	if err != nil {
		return
	}
	if err := rageOn(n); err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// rageOn sends the listener, waits for a byte, and has n threads call until the next one comes. It says '.' when
// each thread's first call has returned, 'E' when each has seen ENOSYS, and the report at the end.
func rageOn(n int) error {
	c, err := net.FileConn(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	conn := c.(*net.UnixConn)
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	l, err := notify.Install(prog, notify.TSync)
	if err != nil {
		return err
	}
	if err := errors.Join(notify.SendListener(conn, l), l.Close()); err != nil {
		return err
	}
	var b [1]byte
	if _, err := conn.Read(b[:]); err != nil {
		return err
	}
	var rep stormReport
	var stop atomic.Bool
	var threads, begun, orphaned sync.WaitGroup
	begun.Add(n)
	orphaned.Add(n)
	for range n {
		threads.Go(func() {
			runtime.LockOSThread()
			first, alone := true, false
			for !stop.Load() {
				_, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
				switch e {
				case 0:
					atomic.AddInt64(&rep.OK, 1)
				case unix.ENOSYS:
					if !alone {
						alone = true
						atomic.AddInt64(&rep.ENOSYS, 1)
						orphaned.Done()
					}
					time.Sleep(time.Millisecond) // nobody answers any more
				case unix.EINTR:
				default:
					atomic.AddInt64(&rep.Others, 1)
				}
				if first {
					first = false
					begun.Done()
				}
			}
		})
	}
	say := func(all *sync.WaitGroup, what byte) {
		all.Wait()
		_, _ = conn.Write([]byte{what})
	}
	go say(&begun, '.')
	go say(&orphaned, 'E')
	if _, err := conn.Read(b[:]); err != nil {
		return err
	}
	stop.Store(true)
	threads.Wait()
	s, err := json.Marshal(rep)
	if err == nil {
		_, err = conn.Write(s)
	}
	return err
}

// startStorm starts the child and returns when its filter is installed.
func startStorm(targets int) (*storm, error) {
	cmd, conn, err := testchild.Spawn(stormEnv + "=" + strconv.Itoa(targets))
	if err != nil {
		return nil, err
	}
	s := &storm{cmd: cmd, conn: conn}
	s.listener, err = notify.RecvListener(s.conn)
	return s, err
}

// begin has the threads call. It waits for none.
func (s *storm) begin() error {
	_, err := s.conn.Write([]byte{'g'})
	return err
}

// hears waits until the child says what, at most a minute.
func (s *storm) hears(what byte) error {
	if err := s.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	for {
		var b [1]byte
		n, err := s.conn.Read(b[:])
		if err != nil || n == 0 {
			return fmt.Errorf("the storm does not say %q: %d bytes, %w", what, n, err)
		}
		if b[0] == what {
			return nil
		}
	}
}

// rages waits until each thread's first call has returned.
func (s *storm) rages() error { return s.hears('.') }

// orphaned waits until each thread has seen that nobody serves it.
func (s *storm) orphaned() error { return s.hears('E') }

// stop ends the storm and returns what it saw. A call that has no answer makes that fail after a minute.
func (s *storm) stop() (rep stormReport, err error) {
	defer s.cmd.Wait()
	defer s.cmd.Process.Kill()
	if err := s.begin(); err != nil {
		return rep, err
	}
	if err := s.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return rep, err
	}
	var b [256]byte
	for {
		n, err := s.conn.Read(b[:])
		if err != nil || n == 0 {
			return rep, fmt.Errorf("the storm does not end, so a call has no answer: %d bytes, %w", n, err)
		}
		if n > 1 {
			return rep, json.Unmarshal(b[:n], &rep)
		}
	}
}
