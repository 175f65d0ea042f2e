package trace

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// deadline bounds every test: targets older than that are killed, which ends
// their supervisor too.
const deadline = 3 * time.Minute

// roleEnv makes the test binary something else: "targets THREADS CALLS", a
// process whose threads make trapped calls, or "pidns", a supervisor that traces
// itself from inside a PID namespace.
const roleEnv = "TRACE_TEST_ROLE"

func TestMain(m *testing.M) {
	role := strings.Fields(os.Getenv(roleEnv))
	if len(role) == 0 {
		os.Exit(m.Run())
	}
	var err error
	switch role[0] {
	case "targets":
		err = beTargets(role[1], role[2])
	case "endless":
		err = beEndless()
	case "execs":
		err = beExecs(role[1])
	case "pidns":
		err = bePIDNS()
	case "outer":
		err = beOuter()
	case "inner":
		err = beInner()
	default:
		err = fmt.Errorf("no role %q", role[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, strings.Join(role, " ")+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// beTargets traps getppid for the whole process, hands over the listener on
// descriptor 3, waits for a byte there, and makes calls on each of its threads
// (0: for ever). At the end it writes there its targetsTime.
func beTargets(threads, calls string) error {
	n, err := strconv.Atoi(threads)
	if err != nil {
		return err
	}
	each, err := strconv.Atoi(calls)
	if err != nil {
		return err
	}
	// A thread that waits for its answer by a raw call holds its P.
	runtime.GOMAXPROCS(n + 2)
	runtime.LockOSThread()
	c, err := handOver(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var least, most atomic.Int64
	for range n {
		wg.Go(func() {
			runtime.LockOSThread()
			before := time.Now()
			unix.Gettid() // a sys_exit: what is before the first call begins here
			var first, last uintptr
			for i := 0; each == 0 || i < each; i++ {
				// No look at the clock here: to call it may give the CPU away.
				last, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
				if i == 0 {
					first = last
				}
			}
			least.Add(int64(last) - int64(first))
			most.Add(time.Since(before).Nanoseconds())
		})
	}
	wg.Wait()
	return binary.Write(c, binary.NativeEndian, targetsTime{time.Duration(least.Load()), time.Duration(most.Load())})
}

// handOver traps calls of the whole process, hands over the listener on descriptor
// 3 and waits for a byte there. What it returns is the other end.
func handOver(calls ...int) (net.Conn, error) {
	f := os.NewFile(3, "supervisor")
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	_ = f.Close()
	prog, err := notify.TrapProgram(calls...)
	if err != nil {
		return nil, err
	}
	l, err := notify.Install(prog, notify.TSync)
	if err != nil {
		return nil, err
	}
	if err := notify.SendListener(c.(*net.UnixConn), l); err != nil {
		return nil, err
	}
	if err := l.Close(); err != nil {
		return nil, err
	}
	_, err = c.Read(make([]byte, 1))
	return c, err
}

// againEnv is set in a program that "execs" has executed.
const againEnv = "TRACE_TEST_AGAIN"

// beExecs traps getppid and execve, makes a call and executes itself, both on a thread
// that is not the first, and so on as often as is left.
func beExecs(left string) error {
	n, err := strconv.Atoi(left)
	if err != nil {
		return err
	}
	if os.Getenv(againEnv) == "" {
		if _, err := handOver(unix.SYS_GETPPID, unix.SYS_EXECVE); err != nil {
			return err
		}
		os.Setenv(againEnv, "1")
	}
	os.Setenv(roleEnv, fmt.Sprintf("execs %d", n-1))
	failed := make(chan error)
	osthread.Start(func() {
		unix.Gettid() // a sys_exit: what is before the first call begins here
		_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		if n == 0 {
			close(failed)
			return
		}
		failed <- unix.Exec("/proc/self/exe", os.Args, os.Environ())
	})
	return <-failed
}

// targets is a child process whose threads make trapped calls.
type targets struct {
	l    *notify.Listener
	cmd  *exec.Cmd
	c    *net.UnixConn
	kill context.CancelFunc
	over chan struct{} // closed when the child has ended and was waited for
}

// startTargets starts threads that will make so many calls each once released;
// 0 calls means until killed. quiet keeps the child's Go runtime from
// interrupting calls with its preemption signals.
func startTargets(threads, calls int, quiet bool) (*targets, error) {
	return startRole(fmt.Sprintf("targets %d %d", threads, calls), quiet)
}

func startRole(role string, quiet bool) (*targets, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		return nil, err
	}
	ctx, kill := context.WithTimeout(context.Background(), deadline)
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	// The race detector would sleep for a second at each child's exit.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", roleEnv+"="+role)
	if quiet {
		cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1")
	}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = time.Second
	g := &targets{cmd: cmd, c: conn.(*net.UnixConn), kill: kill, over: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		kill()
		_ = conn.Close()
		return nil, err
	}
	go func() {
		_ = cmd.Wait() // at once: before Linux 6.11 a child that nobody waited for still uses its filter
		close(g.over)
	}()
	_ = conn.SetDeadline(time.Now().Add(deadline))
	if g.l, err = notify.RecvListener(g.c); err != nil {
		g.stop()
		return nil, err
	}
	return g, nil
}

// release lets the threads begin.
func (g *targets) release() error {
	_, err := g.c.Write([]byte{1})
	return err
}

// A targetsTime bounds how long the calls took, from sys_exit to sys_exit, all
// threads together.
type targetsTime struct {
	Least time.Duration // from the first answer to the last, by the supervisor's clock
	Most  time.Duration // with what is around, by the targets'
}

// took waits for the targets to make all their calls.
func (g *targets) took() (t targetsTime, err error) {
	err = binary.Read(g.c, binary.NativeEndian, &t)
	return t, err
}

// stop kills the targets, if they still live, and closes the listener.
func (g *targets) stop() {
	g.kill()
	<-g.over
	_ = g.c.Close()
	if g.l != nil {
		_ = g.l.Close()
	}
}

func newTargets(tb testing.TB, threads, calls int, quiet bool) *targets {
	tb.Helper()
	g, err := startTargets(threads, calls, quiet)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(g.stop)
	return g
}

// A supervisor is the least one that does everything a tracer sees, with clocks
// and counters of its own.
type supervisor struct {
	l       *notify.Listener
	workers int // 0: answered by the receiver, without dispatch
	queue   int // full: the oldest is answered EINTR
	work    func(*supervisor)
	goOn    bool // answers let the calls continue

	received, dispatched, answered, dropped, stale atomic.Uint64
	wait, answer, drop                             hist.Hist
}

var epoch = time.Now()

type request struct {
	id uint64
	at time.Time
}

// run supervises until no target is left; then every notification received has
// been answered.
func (s *supervisor) run() error {
	q := make(chan request, max(s.queue, 1))
	var wg sync.WaitGroup
	for range s.workers {
		wg.Go(func() {
			runtime.LockOSThread()
			for r := range q {
				s.handle(r)
			}
		})
	}
	err := s.receive(q)
	close(q)
	wg.Wait()
	return err
}

func (s *supervisor) receive(q chan request) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := []unix.PollFd{{Fd: int32(s.l.FD()), Events: unix.POLLIN}}
	var n notify.Notif
	for {
		if _, err := unix.Poll(p, int(deadline/time.Millisecond)); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		switch {
		case p[0].Revents&unix.POLLIN != 0:
		case p[0].Revents&unix.POLLHUP != 0:
			return nil
		default:
			continue
		}
		err := s.l.RecvReady(&n)
		r := request{n.ID, time.Now()}
		if err != nil {
			if o := notify.OutcomeOf(err); o != notify.Stale && o != notify.Retry {
				return err
			}
			continue
		}
		s.received.Add(1)
		if s.workers == 0 {
			s.answerWith(r, 0, &s.answered, &s.answer)
			continue
		}
		for {
			select {
			case q <- r:
			default:
				select {
				case old := <-q:
					s.answerWith(old, -int32(unix.EINTR), &s.dropped, &s.drop)
				default:
				}
				continue
			}
			break
		}
	}
}

func (s *supervisor) handle(r request) {
	w := time.Since(r.at)
	err := s.l.IDValid(r.id)
	s.dispatched.Add(1)
	s.wait.Record(w.Nanoseconds())
	if notify.OutcomeOf(err) == notify.Stale {
		s.stale.Add(1)
		return
	}
	if s.work != nil {
		s.work(s)
	}
	s.answerWith(r, 0, &s.answered, &s.answer)
}

func (s *supervisor) answerWith(r request, errno int32, count *atomic.Uint64, h *hist.Hist) {
	w := time.Since(r.at)
	resp := notify.Resp{ID: r.id, Error: errno}
	if errno == 0 && s.goOn {
		resp.Flags = notify.RespContinue
	} else if errno == 0 {
		resp.Val = time.Since(epoch).Nanoseconds() // for targetsTime
	}
	switch err := s.l.Send(&resp); notify.OutcomeOf(err) {
	case notify.Done:
		count.Add(1)
		h.Record(w.Nanoseconds())
	case notify.Stale:
		s.stale.Add(1)
	default:
		panic(err)
	}
}

// untilDrop keeps a worker busy until something was dropped.
func untilDrop(s *supervisor) {
	for t := time.Now(); s.dropped.Load() == 0 && time.Since(t) < deadline; {
		time.Sleep(100 * time.Microsecond)
	}
}

// spin burns CPU time as a handler does.
func spin(d time.Duration) func(*supervisor) {
	return func(*supervisor) {
		for t := time.Now(); time.Since(t) < d; {
		}
	}
}

// needTracing skips where this user may not trace, saying why. A kernel that
// cannot is a failure: that may be our bug.
func needTracing(tb testing.TB) {
	tb.Helper()
	switch err := Probe(); {
	case err == nil:
	case errors.Is(err, fs.ErrPermission):
		tb.Skip(err)
	case os.Getenv("UNKNOT_NO_BPF") != "":
		tb.Skip(err)
	default:
		tb.Fatalf("this kernel cannot trace (set UNKNOT_NO_BPF=1 where that is known): %v", err)
	}
}

func newTracer(tb testing.TB, c Config, v variant) *Tracer {
	tb.Helper()
	t, err := startVariant(c, v)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := t.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			tb.Error(err)
		}
	})
	return t
}

func report(tb testing.TB, t *Tracer) *Report {
	tb.Helper()
	r, err := t.Report()
	if err != nil {
		tb.Fatal(err)
	}
	switch err := missed(r); {
	case err == nil:
	case preemptible():
		tb.Skip(err)
	default:
		tb.Error(err)
	}
	return r
}

var errMissed = errors.New("events missed")

func missed(r *Report) error {
	if r.Missed != 0 {
		return fmt.Errorf("%d %w", r.Missed, errMissed)
	}
	return nil
}

// preemptible reports whether threads may be preempted within a program: since Linux 7.0 (__bpf_trace_run). Others on that CPU
// then go by the program, which the kernel counts, and there are no exact numbers to compare.
func preemptible() bool {
	var u unix.Utsname
	major := 0
	if unix.Uname(&u) == nil {
		_, _ = fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.", &major)
	}
	return major >= 7
}

// supervise runs s on targets that make calls and end, or are killed.
func supervise(tb testing.TB, g *targets, s *supervisor) {
	tb.Helper()
	s.l = g.l
	if err := g.release(); err != nil {
		tb.Fatal(err)
	}
	if err := s.run(); err != nil {
		tb.Fatal(err)
	}
}
