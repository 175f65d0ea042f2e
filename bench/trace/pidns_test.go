package trace

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/internal/bpf"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// The supervisor is process 1 of a PID namespace, and traces itself by that id.
func TestInsidePIDNamespace(t *testing.T) {
	inPIDNamespace(t, "pidns", "process 1 saw itself")
}

// It is process 1 of a PID namespace inside the tracer's, and is told by its id there.
func TestNestedPIDNamespace(t *testing.T) {
	inPIDNamespace(t, "outer", "saw the other by its number here")
}

// inPIDNamespace plays a role as process 1 of a PID namespace, where /proc is ours.
func inPIDNamespace(t *testing.T, role, want string) {
	t.Helper()
	needTracing(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	kill := time.AfterFunc(deadline, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	out, err := cmd.CombinedOutput()
	if preemptible() && strings.Contains(string(out), errMissed.Error()) {
		t.Skipf("%s", out)
	}
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v: %s", err, out)
	}
}

func beOuter() error {
	if OwnProc() {
		return errors.New("/proc is that of this namespace")
	}
	inner := exec.Command("/proc/self/exe")
	inner.Env = append(os.Environ(), roleEnv+"=inner")
	inner.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	inner.Stderr = os.Stderr
	in, err := inner.StdinPipe()
	if err != nil {
		return err
	}
	out, err := inner.StdoutPipe()
	if err != nil {
		return err
	}
	if err := inner.Start(); err != nil {
		return err
	}
	p, err := OpenProcess(inner.Process.Pid)
	if err != nil {
		return err
	}
	defer p.Close()
	var handler int
	if _, err := fmt.Fscanln(out, &handler); err != nil {
		return err
	}
	// By its number here, /proc has somebody else under it, or nobody.
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil || p.Name() != strings.TrimSpace(string(comm)) {
		return fmt.Errorf("process %d is named %q, not %q, %v", inner.Process.Pid, p.Name(), comm, err)
	}
	if tids, err := p.Threads(); err != nil || !slices.Contains(tids, handler) || !slices.Contains(tids, inner.Process.Pid) {
		return fmt.Errorf("threads %v of process %d, without %d: %w", tids, inner.Process.Pid, handler, err)
	}
	if tids, err := osthread.Threads(); err != nil || !slices.Contains(tids, os.Getpid()) {
		return fmt.Errorf("own threads %v, without %d: %w", tids, os.Getpid(), err)
	}
	if !p.HoldsListener() {
		return fmt.Errorf("process %d holds no listener", inner.Process.Pid)
	}
	if hs := ListenerHolders(); !slices.Contains(hs, Holder{inner.Process.Pid, p.Name()}) {
		return fmt.Errorf("listeners are held by %v, and not by process %d", hs, inner.Process.Pid)
	}
	tr, err := Start(Config{TGID: inner.Process.Pid, Explain: true})
	if err != nil {
		return err
	}
	defer tr.Close()
	if _, err := fmt.Fprintln(in, "go"); err != nil {
		return err
	}
	var answered uint64
	if _, err := fmt.Fscanln(out, &answered); err != nil {
		return err
	}
	r, err := tr.Report()
	if err != nil {
		return err
	}
	if err := missed(r); err != nil {
		return err
	}
	if r.Answered != answered || answered == 0 {
		return fmt.Errorf("%d answered, the supervisor says %d", r.Answered, answered)
	}
	if c := r.Slowest; c == nil || c.Handler != handler || c.Target == 0 {
		return fmt.Errorf("the handler is thread %d here: %+v", handler, c)
	}
	if _, err := fmt.Fprintln(in, "end"); err != nil {
		return err
	}
	// Nobody waits for it, and yet it has ended.
	for start := time.Now(); !p.Ended(); time.Sleep(time.Millisecond) {
		if time.Since(start) > deadline {
			return fmt.Errorf("process %d does not end", inner.Process.Pid)
		}
	}
	fmt.Println("saw the other by its number here")
	return nil
}

// beInner supervises, after a line of input, and says what number its thread has in the
// namespace around its own, and then how many calls it has answered.
func beInner() error {
	runtime.LockOSThread()
	g, err := startTargets(4, 50, true)
	if err != nil {
		return err
	}
	defer g.stop()
	numbers := nsPIDs("thread-self") // in /proc's namespace, in the outer and in ours
	if len(numbers) != 3 || os.Getpid() != 1 {
		return fmt.Errorf("process %d, and its thread has numbers %v", os.Getpid(), numbers)
	}
	fmt.Println(numbers[1])
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	s := &supervisor{l: g.l}
	if err := g.release(); err != nil {
		return err
	}
	if err := s.run(); err != nil {
		return err
	}
	fmt.Println(s.answered.Load())
	_, err = in.ReadString('\n')
	return err
}

func bePIDNS() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("process id %d in a fresh PID namespace", os.Getpid())
	}
	ns, err := bpf.OwnNamespace()
	if err != nil {
		return err
	}
	if !ns.Inside {
		return fmt.Errorf("namespace %+v passes for the first", ns)
	}
	for _, c := range []struct {
		variant
		sample int
	}{{btfVariant, 1}, {btfVariant, 4}, {rawVariant, 1}, {rawVariant, 4}} {
		v := c.variant
		tr, err := startVariant(Config{TGID: 1, Stages: v.stages, Sample: c.sample}, v)
		if err != nil {
			return err
		}
		g, err := startTargets(4, 50, true)
		if err != nil {
			return err
		}
		s := &supervisor{l: g.l, workers: 1, queue: 16}
		if err := g.release(); err != nil {
			return err
		}
		if err := s.run(); err != nil {
			return err
		}
		g.stop()
		r, err := tr.Report()
		if err != nil {
			return err
		}
		if err := missed(r); err != nil {
			return err
		}
		if c.sample == 1 {
			if err := compareCounts(r, s); err != nil {
				return err
			}
		} else if r.Seen != s.received.Load() || r.Received == 0 || r.Received > r.Seen/2 || r.Received != r.Answered+r.Dropped+r.Stale {
			return fmt.Errorf("one in %d: saw %d, followed %d, answered %d, dropped %d, stale %d", c.sample, r.Seen, r.Received, r.Answered, r.Dropped, r.Stale)
		}
		if v.stages && r.Stages[StageCycle].Count == 0 {
			return fmt.Errorf("no target was told by its id in this namespace: %d unjoined", r.Unjoined)
		}
		if err := tr.Close(); err != nil {
			return err
		}
	}
	fmt.Println("process 1 saw itself")
	return nil
}
