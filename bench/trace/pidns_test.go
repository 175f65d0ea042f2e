package trace

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The supervisor is process 1 of a PID namespace, and traces itself by that id.
func TestInsidePIDNamespace(t *testing.T) {
	needTracing(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"=pidns")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	kill := time.AfterFunc(deadline, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "process 1 saw itself") {
		t.Errorf("%v: %s", err, out)
	}
}

func bePIDNS() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("process id %d in a fresh PID namespace", os.Getpid())
	}
	ns, err := ownPIDNS()
	if err != nil {
		return err
	}
	if ns.initial {
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
