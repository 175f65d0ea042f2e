package storm

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/mono"
	"golang.org/x/sys/unix"
)

// A Report is what the targets saw from Go to Halt.
type Report struct {
	Counts
	RoundTrip *hist.Snapshot // ns, of calls answered with a value, from when they were made
	FailTrip  *hist.Snapshot // ns, of calls that failed, dropped ones above all
	Elapsed   time.Duration
	Lost      int // threads whose call was not answered

	// InFlight is the time, summed over the threads, that they were not idle:
	// that they had a call to be answered.
	InFlight time.Duration
	// Open is of an open loop, else nil.
	Open *OpenReport
	// Disturbed is how many calls may have ended without their answer, because the
	// targets are [Hostile]; [Unknown] if nobody counts them.
	Disturbed uint64
	// Threads is of [Config.Numbered] calls, else nil.
	Threads []ThreadReport
}

// A ThreadReport is what a thread, with all that it was replaced by, saw of its numbered calls.
type ThreadReport struct {
	Made     uint64 // one that was killed in a call has made it, or was about to
	Returned uint64 // with whatever answer
	Strayed  uint64 // of these, with a value that was not theirs
}

// A Storm is a running target process.
type Storm struct {
	cfg      Config
	cmd      *exec.Cmd
	conn     *net.UnixConn
	listener *notify.Listener
	shm      *shared
	mem      []byte
	last     Counts // of a storm that was closed
	lastRung uint64
	exited   chan struct{}
	waitErr  error // why it exited on its own
	started  time.Time
	rings    uint32       // bytes sent by Ring
	mu       sync.RWMutex // held by those who read shm; Close unmaps it
}

// childName is argv[0] of a process that is a storm's: no environment that a
// user may have makes a program one.
const childName = "unknot-storm"

// The environment variable that tells a storm what to do, and the descriptors
// it finds.
const (
	env    = "UNKNOT_STORM"
	sockFD = 3
	shmFD  = 4
)

// closeGrace is how long a process may take to end by itself.
const closeGrace = time.Second

// What goes over the socket beside the listener.
const (
	readyByte = 'r' // from the child: its threads wait for Go
	ringByte  = 'b' // to the child: ring the bell
)

// Start runs the target process. On return its filter is installed and its
// threads wait for Go. When ctx ends, the process is killed.
func Start(ctx context.Context, c Config) (s *Storm, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start storm: %w", err)
		}
	}()
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.Hostile == SignalledKillable {
		if err := notify.FeatureWaitKillable.Probe(); err != nil {
			return nil, err
		}
	}
	memfd, err := unix.MemfdCreate(childName, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	shmFile := os.NewFile(uintptr(memfd), "shared memory")
	defer shmFile.Close()
	mem, shm, err := mapShared(memfd, c.Targets+1, len(c.Schedule), true)
	if err != nil {
		return nil, err
	}
	shm.plan(&c)
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
	arg, err := json.Marshal(childConfig{Config: c, Calls: len(c.Schedule), Traps: c.traps()})
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args[0] = childName
	cmd.Env = append(cleanEnv(os.Environ()), env+"="+string(arg), "GOMAXPROCS="+strconv.Itoa(c.Targets+4), "GORACE=atexit_sleep_ms=0")
	if c.Hostile != Preempted {
		cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1")
	}
	if !c.Hostile.collected() {
		cmd.Env = append(cmd.Env, "GOGC=off")
	}
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
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		s.kill()
		_ = s.listener.Close()
		return nil, fmt.Errorf("wait for the threads: %w", err)
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

// CPU is what the target process has used so far, user and system; 0 once it has
// ended.
func (s *Storm) CPU() time.Duration {
	var ts unix.Timespec
	// CPUCLOCK_SCHED of a process, as clock_getcpuclockid makes it.
	if unix.ClockGettime(int32(^s.PID()<<3|2), &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Go releases the threads.
func (s *Storm) Go() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	select {
	case <-s.exited:
		return fmt.Errorf("release storm: the process has ended: %w", cmp.Or(s.waitErr, io.EOF))
	default:
	}
	s.started = time.Now()
	s.shm.head.origin.Store(mono.Now() + int64(lead))
	s.shm.head.permits.Store(holders)
	s.shm.head.start()
	return nil
}

// Counts returns the calls so far, also of a storm that hangs.
func (s *Storm) Counts() (c Counts) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.counts()
}

func (s *Storm) counts() (c Counts) {
	c = s.last
	for i := range s.shm.threads {
		s.shm.threads[i].addTo(&c)
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
		if s.raging() {
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

func (s *Storm) raging() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	over := true
	for i := range s.shm.hammers() {
		switch s.shm.threads[i].state.Load() {
		case notYet:
			return false
		case inLoop:
			over = false
		}
	}
	return s.counts().OK > 0 || over
}

// RoundTrip adds up the round trips of served calls so far.
func (s *Storm) RoundTrip() *hist.Snapshot {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := new(hist.Snapshot)
	for i := range s.shm.hammers() {
		s.shm.threads[i].roundTrip.AddTo(r)
	}
	return r
}

// Halt has each thread stop after its current call and waits for them; in an open
// loop the calls that were due are made first. Threads whose call is not answered
// by the deadline are lost. The process lives on, and makes no call that it is not
// asked for (Ring), until Close: so a supervisor can be stopped while it still has
// a target.
func (s *Storm) Halt(deadline time.Duration) (*Report, error) {
	r := &Report{RoundTrip: new(hist.Snapshot), FailTrip: new(hist.Snapshot)}
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := s.shm.head
	h.halt(mono.Now())
	r.Elapsed = time.Since(s.started)
	var err error
	if s.cfg.Open {
		if r.Lost, err = s.await(deadline); err != nil {
			return nil, err
		}
		h.abandon.Store(1) // a target that is never idle is not lost
	}
	if r.Lost, err = s.await(deadline); err != nil {
		return nil, err
	}
	r.Counts = s.counts()
	now := mono.Now()
	for i := range s.shm.hammers() {
		t := &s.shm.threads[i]
		t.roundTrip.AddTo(r.RoundTrip)
		t.failTrip.AddTo(r.FailTrip)
		r.InFlight += t.inFlight(now)
	}
	if s.cfg.Numbered {
		for i := range s.shm.hammers() {
			var c Counts
			t := &s.shm.threads[i]
			t.addTo(&c)
			r.Threads = append(r.Threads, ThreadReport{t.made.Load(), c.Calls(), t.strayed.Load()})
		}
	}
	r.Disturbed = h.disturbed.Load()
	if s.cfg.Open {
		r.Open = &OpenReport{s.shm.log(), h.origin.Load()}
	}
	return r, nil
}

// Rung returns how many of Counts are Ring's calls, so far, which no thread made.
func (s *Storm) Rung() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rungCalls()
}

func (s *Storm) rungCalls() uint64 {
	if len(s.shm.threads) == 0 {
		return s.lastRung
	}
	var c Counts
	s.shm.threads[len(s.shm.threads)-1].addTo(&c)
	return c.Calls()
}

// await waits until no thread is in its loop and returns how many still are at
// the deadline.
func (s *Storm) await(deadline time.Duration) (lost int, err error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(deadline); ; {
		lost = 0
		for i := range s.shm.hammers() {
			if s.shm.threads[i].state.Load() == inLoop {
				lost++
			}
		}
		if lost == 0 || !time.Now().Before(end) {
			return lost, nil
		}
		select {
		case <-tick.C:
		case <-s.exited:
			return 0, fmt.Errorf("storm: the targets ended on their own: %w", cmp.Or(s.waitErr, io.EOF))
		}
	}
}

// Ring has the process make one more trapped call, whose answer is counted and
// whose time is not. It wakes a supervisor that is blocked in RECV, which before
// Linux 6.11 nothing else does once the threads are silent. While an earlier ring
// waits for its answer, it does nothing. One goroutine at a time may ring.
func (s *Storm) Ring() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.shm.head.rung.Load() != s.rings {
		return nil
	}
	if _, err := s.conn.Write([]byte{ringByte}); err != nil {
		return fmt.Errorf("ring: %w", err)
	}
	s.rings++
	return nil
}

// RingUntil runs f, which stops a supervisor, and rings until it returns. The targets
// must be silent. (A storm that is dead cannot ring: its end wakes RECV where
// anything does.)
func (s *Storm) RingUntil(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			_ = s.Ring()
		}
	}
}

// Close ends the process: at once when it is silent and Ring's calls have been
// answered, else it is killed with whatever is still blocked in it. The counts
// stay.
func (s *Storm) Close() {
	_ = s.conn.CloseWrite() // end of file comes after the last ring
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	select {
	case <-s.exited:
	case <-grace.C:
	}
	s.kill()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mem == nil {
		return
	}
	s.last, s.lastRung = s.counts(), s.rungCalls()
	unmap(s.mem)
	s.mem = nil
	s.shm = &shared{head: new(header)}
}

// Stop is Halt and Close, for supervisors that end by themselves when no target
// is left.
func (s *Storm) Stop(deadline time.Duration) (*Report, error) {
	defer s.Close()
	return s.Halt(deadline)
}

func (s *Storm) kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
	_ = s.conn.Close()
}

// Main is the target process's main function. It returns at once in every
// other process.
func Main() {
	if os.Args[0] != childName {
		return
	}
	var err error
	if arg := os.Getenv(victimEnv); arg != "" {
		err = victim(arg)
	} else if arg := os.Getenv(env); arg != "" {
		err = target(arg)
	} else {
		return
	}
	if err != errOrphan { // then nobody reads it
		fmt.Fprintln(os.Stderr, "storm:", err)
	}
	os.Exit(1)
}

// errOrphan is the ordinary end of a target process that was not killed.
var errOrphan = errors.New("the parent is gone")

// The phases of a thread, in shared memory.
const (
	notYet = iota
	inLoop
	ended
)
