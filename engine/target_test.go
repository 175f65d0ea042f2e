package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testchild"
	"github.com/unknot/unknot/internal/testlisteners"
	"golang.org/x/sys/unix"
)

// targetEnv marks the test binary's second life as a target: a process whose
// threads make trapped calls. Its value is "threads calls". Each call has a number of
// its own, from 1 on, as its first argument.
const targetEnv = "UNKNOT_TEST_TARGET"

// roles are what children of testchild's do.
var roles = testchild.Roles{}

func TestMain(m *testing.M) {
	testlisteners.Main()
	testchild.Init(roles)
	if s := os.Getenv(targetEnv); s != "" {
		var threads, calls int
		if _, err := fmt.Sscan(s, &threads, &calls); err != nil {
			panic(err)
		}
		target(threads, calls)
		return
	}
	if os.Getenv(mediatorEnv) != "" {
		mediate()
		return
	}
	os.Exit(m.Run())
}

// results are what the target's threads saw: how often each errno came, the
// values returned, and the errno-free calls. A value of at least echoBase is an echo,
// and Strayed is how many of these were of another call's number.
type results struct {
	OK      int
	Errnos  map[int]int
	Values  map[int64]int
	Echoed  int
	Strayed int
}

// echoBase is added to a call's number by handlers that echo it.
const echoBase = 1 << 40

// target is the child: filter, listener to the parent, wait for its word, call.
func target(threads, calls int) {
	runtime.LockOSThread()
	f := os.NewFile(3, "socket")
	c, err := net.FileConn(f)
	if err != nil {
		panic(err)
	}
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		panic(err)
	}
	l, err := notify.Install(prog, notify.TSync)
	if err != nil {
		panic(err)
	}
	if err := notify.SendListener(c.(*net.UnixConn), l); err != nil {
		panic(err)
	}
	_ = l.Close()
	var b [1]byte
	if _, err := c.Read(b[:]); err != nil {
		os.Exit(3)
	}
	// A second byte says that it is enough. Nothing outlives the test. (PR_SET_PDEATHSIG
	// would not do: it fires when the *thread* that forked us ends.)
	var enough atomic.Bool
	go func() {
		if n, _ := c.Read(b[:]); n == 1 {
			enough.Store(true)
			_, _ = c.Read(b[:])
		}
		os.Exit(4)
	}()
	runtime.GOMAXPROCS(threads + 3)
	res := results{Errnos: map[int]int{}, Values: map[int64]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() {
			mine := map[int64]int{}
			echoed, strayed := 0, 0
			for j := range calls {
				n := uintptr(1 + i + j*threads)
				v, _, e := unix.Syscall(unix.SYS_GETPPID, n, 0, 0)
				switch {
				case e != 0:
					mine[-int64(e)]++
				case v == n+echoBase:
					echoed++
				case v > echoBase:
					strayed++
				default:
					mine[int64(v)]++
				}
				if e == unix.ENOSYS || enough.Load() {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			res.OK += echoed + strayed
			res.Echoed += echoed
			res.Strayed += strayed
			for v, n := range mine {
				if v < 0 {
					res.Errnos[int(-v)] += n
				} else {
					res.OK += n
					res.Values[v] += n
				}
			}
		})
	}
	wg.Wait()
	_ = json.NewEncoder(os.Stdout).Encode(res)
}

type child struct {
	t    testing.TB
	cmd  *exec.Cmd
	conn *net.UnixConn
	l    *notify.Listener
	out  chan childResult
}

type childResult struct {
	res results
	err error
}

// testDeadline is when a target that still runs counts as hung: a machine that stalls gets there only with a defect.
const testDeadline = 3 * time.Minute

// endless is so many calls that a target makes them until it is told that it is enough.
const endless = 1 << 30

// startTarget starts a target whose threads each make so many calls once
// released. If it hangs it is killed, and the test fails when it asks for results.
func startTarget(t testing.TB, threads, calls int) *child {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	_ = ours.Close()
	deadline := testDeadline
	if calls == *overloadCalls { // which may be asked to take minutes
		deadline += time.Duration(threads*calls) * 200 * time.Microsecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	// SIGURG, by which Go preempts, would interrupt trapped calls, which then
	// notify again: the counts would no longer be those of the calls.
	// The race detector sleeps a second at exit unless told not to.
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1", "GOGC=off", "GORACE=atexit_sleep_ms=0", targetEnv+"="+strconv.Itoa(threads)+" "+strconv.Itoa(calls))
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	c := &child{t: t, cmd: cmd, conn: conn.(*net.UnixConn), out: make(chan childResult, 1)}
	go func() {
		var r childResult
		r.err = json.NewDecoder(stdout).Decode(&r.res)
		if err := cmd.Wait(); err != nil {
			r.err = err
		}
		if ctx.Err() != nil {
			r.err = fmt.Errorf("target hung and was killed: lost")
		}
		c.out <- r
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		cancel()
		_ = c.conn.Close()
	})
	if c.l, err = notify.RecvListener(c.conn); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *child) release() {
	if _, err := c.conn.Write([]byte{'g'}); err != nil {
		c.t.Error(err)
	}
}

// enough has each thread of the target end after the call that it makes, if it has not ended.
func (c *child) enough() { _, _ = c.conn.Write([]byte{'e'}) }

func (c *child) results() results {
	c.t.Helper()
	r := <-c.out
	c.out <- r
	if r.err != nil {
		c.t.Fatalf("target: %v", r.err)
	}
	return r.res
}

func (r results) errno(e syscall.Errno) int { return r.Errnos[int(e)] }
