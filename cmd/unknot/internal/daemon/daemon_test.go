package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// serveEnv has the test binary be `unknot serve`: its value is a serveConfig as JSON.
const serveEnv = "UNKNOT_TEST_SERVE"

// lifetime bounds every process of a test, daemons that nobody's child are too.
var lifetime = 10 * time.Minute

func TestMain(m *testing.M) {
	if said := os.Getenv(serveEnv); said != "" {
		time.AfterFunc(lifetime, func() { os.Exit(98) })
		os.Exit(serveMain(said))
	}
	testchild.Main(m, testchild.Roles{"containers": childContainers, "crowd": childCrowd, "lxc": childLXC})
}

// A serveConfig is what a daemon of a test is told.
type serveConfig struct {
	Config Config
	Hold   bool // handlers hold some calls for a moment, so that a crash finds some
	Stuck  bool // handlers of calls with argument 99 never return
	Real   bool // the policy answers
	Dead   time.Duration
	Wish   time.Duration
	Memory int // for records
}

// A settings is what of a Config can be told.
type settings struct {
	Socket, LXC, Policy, Audit, Status string
	TakeOver                           bool
	Keep                               Keep
	Drain                              time.Duration
	Hold, Stuck, Real                  bool
	Dead, Wish                         time.Duration
	Memory                             int
}

// told is a configuration as the environment tells it.
func (c serveConfig) told() (string, error) {
	f := c.Config
	b, err := json.Marshal(settings{f.Socket, f.LXC, f.Policy, f.Audit, f.Status, f.TakeOver, f.Keep, f.Drain, c.Hold, c.Stuck, c.Real, c.Dead, c.Wish, c.Memory})
	return string(b), err
}

func serveMain(said string) int {
	var o settings
	if err := json.Unmarshal([]byte(said), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 97
	}
	c := Config{Socket: o.Socket, LXC: o.LXC, Policy: o.Policy, Audit: o.Audit, Status: o.Status, TakeOver: o.TakeOver, Keep: o.Keep, Drain: o.Drain, deadAfter: o.Dead, sameWish: o.Wish, records: o.Memory}
	log, flush, err := NewLog(os.Stderr, "json", nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 97
	}
	defer flush()
	c.Log = log
	c.Again = func() *exec.Cmd {
		return &exec.Cmd{Path: "/proc/self/exe", Args: os.Args, Stdout: os.Stdout, Stderr: os.Stderr}
	}
	c.handler = engine.HandlerFunc(func(r engine.Request) {
		d := r.Data()
		if o.Stuck && d.Args[0] == 99 {
			select {}
		}
		if o.Hold && d.Args[0]%8 == 0 {
			time.Sleep(time.Millisecond)
		}
		_ = r.Return(int64(d.Args[0]) + 1000)
	})
	if o.Real {
		c.handler = nil
	}
	err = Run(c)
	var exit *ExitError
	switch {
	case errors.As(err, &exit):
		return exit.Code
	case err != nil:
		fmt.Fprintln(os.Stderr, "serve:", err)
		return 1
	}
	return 0
}

// A server is an `unknot serve` that runs: one process, or a keeper and its daemon.
type server struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *lines
	done chan struct{}
}

// A lines is a log that grows, line by line.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// all are the records so far with a message.
func (l *lines) all(msg string) (found []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.SplitSeq(l.buf.String(), "\n") {
		var r map[string]any
		if json.Unmarshal([]byte(line), &r) == nil && strings.Contains(fmt.Sprint(r["msg"]), msg) {
			found = append(found, r)
		}
	}
	return found
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// patient is for what must happen; only a failure takes as long.
var patient = 2 * time.Minute

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patient); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patient, what)
		}
	}
}

// home is a directory for a socket, with a policy.
func home(t *testing.T) (c Config) {
	t.Helper()
	dir, err := os.MkdirTemp("", "serve") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c = Config{Socket: filepath.Join(dir, "s"), Policy: filepath.Join(dir, "policy.yaml"), Keep: KeepKeeper, Drain: time.Minute}
	writePolicy(t, c)
	return c
}

func writePolicy(t *testing.T, c Config) {
	t.Helper()
	if err := os.WriteFile(c.Policy, []byte("default: continue\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start starts a server, which is killed at the end of the test with all daemons that it said it had.
func start(t *testing.T, c serveConfig) *server {
	t.Helper()
	return startWith(t, c, nil, func(*exec.Cmd) {})
}

func startWith(t *testing.T, c serveConfig, env []string, change func(*exec.Cmd)) *server {
	t.Helper()
	said, err := c.told()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, log: &lines{}, done: make(chan struct{})}
	s.cmd = exec.Command("/proc/self/exe")
	s.cmd.Env = append(append(os.Environ(), serveEnv+"="+said, "GORACE=atexit_sleep_ms=0"), env...)
	s.cmd.Stderr = s.log
	s.cmd.WaitDelay = lifetime // then the log ends, and a daemon that outlives its keeper dies of the next line (SIGPIPE)
	change(s.cmd)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		for _, r := range s.log.all("serving") {
			if pid := int(r["pid"].(float64)); isOurs(pid) {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		<-s.done
		if t.Failed() {
			t.Logf("serve %d: %s", s.cmd.Process.Pid, s.log)
		}
	})
	return s
}

// isOurs reports whether a process is one of this test binary's.
func isOurs(pid int) bool {
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	ours, _ := os.Readlink("/proc/self/exe")
	return err == nil && theirs == ours
}

// serving waits until n daemons have said that they serve, and returns the last one's process id.
func (s *server) serving(n int) (pid int) {
	s.t.Helper()
	s.says("serving", n)
	return int(s.log.all("serving")[n-1]["pid"].(float64))
}

// says waits until the log has n lines with a message.
func (s *server) says(msg string, n int) {
	s.t.Helper()
	for end := time.Now().Add(patient); len(s.log.all(msg)) < n; time.Sleep(2 * time.Millisecond) {
		select {
		case <-s.done:
			if len(s.log.all(msg)) < n {
				s.t.Fatalf("ended, and did not say %q %d times: %s", msg, n, s.log)
			}
		default:
		}
		if time.Now().After(end) {
			s.t.Fatalf("did not say %q %d times: %s", msg, n, s.log)
		}
	}
}

// end waits for the end of the process that was started and returns its exit status.
func (s *server) end() int {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(patient):
		s.t.Fatalf("does not end: %s", s.log)
	}
	return s.cmd.ProcessState.ExitCode()
}

func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// childContainers are some containers: each is a thread with a filter, whose listener goes to the socket, and makes calls until
// it is told to stop. One of them says so when it makes the call that it was told to make, and when that has returned. At the
// end the child says what became of all, and the longest call in µs. A third argument is a pause after each call; with a fourth
// one it is the policy that answers.
func childContainers(c *testchild.Conn, args []string) error {
	n, _ := strconv.Atoi(args[1])
	var pause time.Duration
	real := len(args) > 3
	if len(args) > 2 {
		var err error
		if pause, err = time.ParseDuration(args[2]); err != nil {
			return err
		}
	}
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	var calls, ok, interrupted, without, odd, longest atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	started := make(chan error, n)
	one := make(chan uintptr)
	for i := range n {
		wg.Add(1)
		osthread.Start(func() {
			defer wg.Done()
			hold, err := container1(args[0], prog, fmt.Sprint("box", i))
			started <- err
			if err != nil {
				return
			}
			defer hold.Close()
			for nr := uintptr(1); !stop.Load(); nr++ {
				if nr%99 == 0 { // which has another meaning
					continue
				}
				select {
				case nr := <-one:
					go func() { _ = c.Say("calling %d", nr) }()
					_, _, e := unix.Syscall(unix.SYS_GETPPID, nr, 0, 0)
					_ = c.Say("%d: %v", nr, e)
				default:
				}
				begun := time.Now()
				v, _, e := unix.Syscall(unix.SYS_GETPPID, nr, 0, 0)
				took := time.Since(begun).Microseconds()
				for old := longest.Load(); took > old && !longest.CompareAndSwap(old, took); old = longest.Load() {
				}
				calls.Add(1)
				switch {
				case e == 0 && (v == nr+1000 || real && v > 0):
					ok.Add(1)
				case e == unix.EINTR:
					interrupted.Add(1)
				case e == unix.ENOSYS:
					without.Add(1)
					time.Sleep(time.Millisecond)
				default:
					odd.Add(1)
				}
				time.Sleep(pause)
			}
		})
	}
	for range n {
		if err := <-started; err != nil {
			return err
		}
	}
	return answerCounts(c, &calls, func(nr int) { one <- uintptr(nr) }, func() (string, error) {
		stop.Store(true)
		wg.Wait()
		return fmt.Sprintf("%d ok, %d interrupted, %d without, %d odd, longest %d", ok.Load(), interrupted.Load(), without.Load(), odd.Load(), longest.Load()), nil
	})
}

// answerCounts is the conversation of a child that makes calls: it is "ready", says how many it made when told "count", has one
// made when told "call N", and at anything else it ends and says what became of them.
func answerCounts(c *testchild.Conn, calls *atomic.Int64, call func(nr int), end func() (string, error)) error {
	if err := c.Say("ready"); err != nil {
		return err
	}
	for {
		word, err := c.Hear()
		if err != nil {
			return nil // nobody wants to know any more
		}
		switch word, arg, _ := strings.Cut(word, " "); word {
		case "count":
			_ = c.Say("%d", calls.Load())
		case "call":
			nr, _ := strconv.Atoi(arg)
			call(nr)
		default:
			said, err := end()
			if err != nil {
				return err
			}
			return c.Say("%s", said)
		}
	}
}

// container1 does what a runtime does for a container, on this thread. Runtimes keep the connection.
func container1(path string, prog []unix.SockFilter, id string) (*net.UnixConn, error) {
	l, err := notify.Install(prog, 0)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return handIn(path, id, l)
}

// handIn sends a listener to an agent.
func handIn(path, id string, l *notify.Listener) (*net.UnixConn, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(agent.State{FDs: []string{"seccompFd"}, PID: os.Getpid(), Container: agent.Container{ID: id}})
	if err != nil {
		return nil, err
	}
	u := conn.(*net.UnixConn)
	if _, _, err := u.WriteMsgUnix(b, unix.UnixRights(l.FD()), nil); err != nil {
		return nil, err
	}
	return u, nil
}

// often is a pause that leaves others a CPU.
const often = "300us"

// A load is containers that call all the time.
type load struct {
	*testchild.Child
	t *testing.T
}

func startLoad(t *testing.T, socket string, containers int, pause ...string) *load {
	t.Helper()
	if err := notify.FeatureNotify.Probe(); err != nil {
		t.Skip(err)
	}
	c := testchild.StartWith(t, testchild.Options{Env: []string{"GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=16"}, Deadline: lifetime - 10*time.Second}, "containers", append([]string{socket, fmt.Sprint(containers)}, pause...)...)
	c.Expect("ready")
	return &load{c, t}
}

func (l *load) count() int {
	l.t.Helper()
	l.MustSay("count")
	n, err := strconv.Atoi(l.MustHear())
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// goesOn waits until so many more calls were made.
func (l *load) goesOn(n int) {
	l.t.Helper()
	from := l.count()
	eventually(l.t, "calls are answered", func() bool { return l.count() >= from+n })
}

// A sum is what became of a load's calls.
type sum struct{ ok, interrupted, without, odd, longest int }

// end stops the containers, all of whose calls must return.
func (l *load) end() (s sum) {
	l.t.Helper()
	l.MustSay("stop")
	said := l.MustHear()
	if _, err := fmt.Sscanf(said, "%d ok, %d interrupted, %d without, %d odd, longest %d", &s.ok, &s.interrupted, &s.without, &s.odd, &s.longest); err != nil {
		l.t.Fatalf("%q: %v", said, err)
	}
	l.t.Log(said, "µs")
	return s
}

// right checks that no call failed, but those that dead daemons held.
func (l *load) right(held int) {
	l.t.Helper()
	if s := l.end(); s.ok == 0 || s.interrupted > held || s.without+s.odd > 0 {
		l.t.Errorf("%+v, of which %d were held by daemons that died", s, held)
	}
}

// held is how many calls daemons found that their predecessors had held.
func (l *lines) held() (n int) {
	for _, r := range l.all("container taken") {
		n += int(r["interrupted"].(float64))
	}
	return n
}
