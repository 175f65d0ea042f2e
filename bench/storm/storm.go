package storm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// MaxTargets bounds the threads of one storm.
const MaxTargets = 8192

// A CPU says where the targets run. The zero value does not pin them.
type CPU int

// OnCPU pins all targets to CPU n, counted from 0.
func OnCPU(n int) CPU { return CPU(n + 1) }

// Config describes a storm.
type Config struct {
	Targets int           // threads, at least 1
	Think   time.Duration // CPU time that a thread spends between two calls
	CPU     CPU
}

// Counts are the targets' calls by outcome.
type Counts struct {
	OK     uint64 // answered with a value
	EINTR  uint64 // answered EINTR: dropped by the supervisor
	ENOSYS uint64 // nobody supervises any more; ends its thread
	Other  uint64 // answered with another errno
}

// Calls is their sum.
func (c Counts) Calls() uint64 { return c.OK + c.EINTR + c.ENOSYS + c.Other }

// A Report is what the targets saw from Go to Stop.
type Report struct {
	Counts
	RoundTrip *hist.Snapshot // ns, of calls answered with a value
	EINTRTrip *hist.Snapshot // ns, of dropped calls
	Elapsed   time.Duration
	Lost      int // threads whose call was never answered; they were killed
}

// A Storm is a running target process.
type Storm struct {
	cfg      Config
	cmd      *exec.Cmd
	conn     *net.UnixConn
	listener *notify.Listener
	shm      *shared
	mem      []byte
	exited   chan struct{}
	waitErr  error
	started  time.Time
	once     sync.Once
}

// The environment variable that makes a process a storm, and the descriptors
// it finds.
const (
	env    = "UNKNOT_STORM"
	sockFD = 3
	shmFD  = 4
)

// Start runs the target process. On return its filter is installed and its
// threads wait for Go. When ctx ends, the process is killed.
func Start(ctx context.Context, c Config) (s *Storm, err error) {
	if c.Targets < 1 || c.Targets > MaxTargets {
		return nil, fmt.Errorf("start storm: %d targets: must be 1 to %d", c.Targets, MaxTargets)
	}
	if c.Think < 0 || c.CPU < 0 {
		return nil, fmt.Errorf("start storm: think time %v, CPU %d: must not be negative", c.Think, int(c.CPU)-1)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start storm: %w", err)
		}
	}()
	memfd, err := unix.MemfdCreate("unknot-storm", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	shmFile := os.NewFile(uintptr(memfd), "shared memory")
	defer shmFile.Close()
	mem, shm, err := mapShared(memfd, c.Targets, true)
	if err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer theirs.Close()
	fc, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		return nil, err
	}
	conn := fc.(*net.UnixConn)
	arg, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(cleanEnv(os.Environ()), env+"="+string(arg),
		"GOMAXPROCS="+strconv.Itoa(c.Targets+3), "GOGC=off", "GODEBUG=asyncpreemptoff=1", "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles = []*os.File{theirs, shmFile}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	s = &Storm{cfg: c, cmd: cmd, conn: conn, shm: shm, mem: mem, exited: make(chan struct{})}
	go func() {
		s.waitErr = cmd.Wait()
		close(s.exited)
	}()
	_ = theirs.Close() // so that a dead child is end of file
	if dl, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(dl)
	}
	if s.listener, err = notify.RecvListener(conn); err != nil {
		s.kill()
		return nil, err
	}
	return s, nil
}

// cleanEnv drops the variables that would change how the target's runtime behaves.
func cleanEnv(all []string) (kept []string) {
	for _, v := range all {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "GOMAXPROCS", "GOGC", "GODEBUG", "GOMEMLIMIT", "GORACE", env:
		default:
			kept = append(kept, v)
		}
	}
	return kept
}

// Listener is that of the storm's filter; whoever supervises it closes it.
func (s *Storm) Listener() *notify.Listener { return s.listener }

// PID is the target process.
func (s *Storm) PID() int { return s.cmd.Process.Pid }

// Go releases the threads.
func (s *Storm) Go() error {
	s.started = time.Now()
	if _, err := s.conn.Write([]byte{'g'}); err != nil {
		return fmt.Errorf("release storm: %w", err)
	}
	return nil
}

// Counts returns the calls so far, also of a storm that hangs.
func (s *Storm) Counts() (c Counts) {
	for i := range s.shm.threads {
		t := &s.shm.threads[i]
		c.OK += t.ok.Load()
		c.EINTR += t.eintr.Load()
		c.ENOSYS += t.enosys.Load()
		c.Other += t.other.Load()
	}
	return c
}

// Rages waits until every thread has made its first call and some were served,
// at most for the deadline: on a busy machine threads take a while to start. It
// is no error that they have not; the counts tell.
func (s *Storm) Rages(ctx context.Context, deadline time.Duration) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(deadline); time.Now().Before(end); {
		waiting := s.Counts().OK == 0
		for i := range s.shm.threads {
			waiting = waiting || s.shm.threads[i].state.Load() == notYet
		}
		if !waiting {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.exited:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// RoundTrip adds up the round trips of served calls so far.
func (s *Storm) RoundTrip() *hist.Snapshot {
	r := new(hist.Snapshot)
	for i := range s.shm.threads {
		s.shm.threads[i].roundTrip.AddTo(r)
	}
	return r
}

// Stop has each thread stop after its current call and waits for them. Threads
// whose call is not answered by the deadline are lost: they are counted, and
// the process is killed. Stop the storm before its supervisor.
func (s *Storm) Stop(deadline time.Duration) (*Report, error) {
	r := &Report{RoundTrip: new(hist.Snapshot), EINTRTrip: new(hist.Snapshot)}
	s.shm.head.stop.Store(1)
	r.Elapsed = time.Since(s.started)
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	select {
	case <-s.exited:
	case <-timer.C:
		for i := range s.shm.threads {
			if s.shm.threads[i].state.Load() == inLoop {
				r.Lost++
			}
		}
	}
	s.kill()
	r.Counts = s.Counts()
	for i := range s.shm.threads {
		s.shm.threads[i].roundTrip.AddTo(r.RoundTrip)
		s.shm.threads[i].eintrTrip.AddTo(r.EINTRTrip)
	}
	var err error
	if r.Lost == 0 && s.waitErr != nil {
		err = fmt.Errorf("storm: %w", s.waitErr)
	}
	s.once.Do(func() { unmap(s.mem) })
	s.shm = &shared{head: new(header)}
	return r, err
}

func (s *Storm) kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
	_ = s.conn.Close()
}

// Main is the target process's main function. It returns at once in every
// other process.
func Main() {
	arg := os.Getenv(env)
	if arg == "" {
		return
	}
	if err := target(arg); err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

var errOrphan = errors.New("the parent is gone")

// The phases of a thread, in shared memory.
const (
	notYet = iota
	inLoop
	ended
)

// thread is one target's block in shared memory, written by it alone.
type thread struct {
	state                    atomic.Uint32
	_                        [60]byte
	ok, eintr, enosys, other atomic.Uint64
	roundTrip, eintrTrip     hist.Hist
	_                        [64]byte
}

// header is the start of the shared memory.
type header struct {
	stop atomic.Uint32
	_    [124]byte
}

type shared struct {
	head    *header
	threads []thread
}
