package confine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// confinedEngine makes an engine whose receive thread confines itself, as a
// command joins the two. The status comes when the thread is confined.
func confinedEngine(c Config, ec engine.Config) (*engine.Engine, <-chan *Status, error) {
	plan, err := Prepare(c)
	if err != nil {
		return nil, nil, err
	}
	status := make(chan *Status, 1)
	if c.Signals == Strict {
		ec.Interrupt = engine.NoInterrupt // no signal reaches the thread
	}
	ec.StopTimeout = time.Minute // a worker may stand still
	ec.Cookies = plan.Cookies()
	ec.PrivateFiles = c.Level == Private
	ec.ThreadHook = func(th engine.Thread) error {
		st, err := plan.Confine(Thread(th))
		if err == nil {
			status <- st
		}
		return err
	}
	e, err := engine.New(ec)
	return e, status, err
}

// answer is a handler that computes.
func answer(r engine.Request) { _ = r.Return(42) }

// runEngine runs e until the function that it returns is called.
func runEngine(e *engine.Engine) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

// rage starts e and a storm on it.
func rage(e *engine.Engine, targets int) (*storm, *engine.Source, func() error, error) {
	st, err := startStorm(targets)
	if err != nil {
		return nil, nil, nil, err
	}
	src, err := e.Add(st.listener)
	if err != nil {
		return nil, nil, nil, err
	}
	stop := runEngine(e)
	return st, src, stop, errors.Join(st.begin(), st.rages())
}

var engineStories = map[string]func(*testchild.Conn, order) error{
	// A storm on the real engine, and what the kernel says of its thread meanwhile.
	"storm": func(c *testchild.Conn, o order) error {
		for _, inline := range []bool{true, false} {
			e, status, err := confinedEngine(o.Config, engine.Config{Handler: engine.HandlerFunc(answer), Inline: inline, Workers: 2})
			if err != nil {
				return err
			}
			st, _, stop, err := rage(e, 16)
			if err != nil {
				return err
			}
			confined := <-status
			time.Sleep(o.For)
			for deadline := time.Now().Add(time.Minute); e.Counters().Answered < 1000 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			proof, err := evidence(confined)
			if err != nil {
				return err
			}
			if err := othersAreFree(confined.TID); err != nil {
				return err
			}
			rep, err := st.stop()
			if err != nil {
				return err
			}
			if err := errors.Join(stop(), gone(confined.TID)); err != nil {
				return err
			}
			if n := e.Counters(); rep.OK < 1000 || rep.Others != 0 || n.Balance() != 0 {
				return fmt.Errorf("inline %t: %+v, %+v", inline, rep, n)
			}
			if err := c.Say("inline %t, %d calls answered: %s; %s", inline, rep.OK, confined, proof); err != nil {
				return err
			}
		}
		return nil
	},
	// Targets that go on when the engine ends get ENOSYS, all of them.
	"enosys": func(c *testchild.Conn, o order) error {
		e, _, err := confinedEngine(o.Config, engine.Config{Handler: engine.HandlerFunc(answer), Inline: true})
		if err != nil {
			return err
		}
		st, _, stop, err := rage(e, 16)
		if err != nil {
			return err
		}
		if err := stop(); err != nil {
			return err
		}
		if err := st.orphaned(); err != nil {
			return err
		}
		rep, err := st.stop()
		if err != nil {
			return err
		}
		return c.Say("%d ENOSYS, %d others", rep.ENOSYS, rep.Others)
	},
	// So do those whose listener is removed, while the engine goes on.
	"removed": func(c *testchild.Conn, o order) error {
		for _, inline := range []bool{true, false} {
			e, _, err := confinedEngine(o.Config, engine.Config{Handler: engine.HandlerFunc(answer), Inline: inline})
			if err != nil {
				return err
			}
			st, src, stop, err := rage(e, 16)
			if err != nil {
				return err
			}
			if err := errors.Join(e.Remove(context.Background(), src), st.orphaned()); err != nil {
				return err
			}
			rep, err := st.stop()
			if err = errors.Join(err, stop()); err != nil {
				return err
			}
			if err := c.Say("inline %t: %d ENOSYS, %d others", inline, rep.ENOSYS, rep.Others); err != nil {
				return err
			}
		}
		return nil
	},
	// Many engines, one after the other, leave nothing behind.
	"starts": func(c *testchild.Conn, o order) error {
		prog, err := notify.TrapProgram(unix.SYS_GETPPID)
		if err != nil {
			return err
		}
		one := func() error {
			e, status, err := confinedEngine(o.Config, engine.Config{Handler: engine.HandlerFunc(answer), Inline: true})
			if err != nil {
				return err
			}
			listener, served := make(chan *notify.Listener), make(chan error)
			osthread.Start(func() {
				l, err := notify.Install(prog, 0)
				if err != nil {
					served <- err
					return
				}
				listener <- l
				if v, _, errno := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0); v != 42 {
					err = fmt.Errorf("target: %d, %v", v, errno)
				}
				served <- err
			})
			select {
			case l := <-listener:
				if _, err := e.Add(l); err != nil {
					return err
				}
			case err := <-served:
				return err
			}
			stop := runEngine(e)
			confined := <-status
			return errors.Join(<-served, stop(), gone(confined.TID))
		}
		if err := one(); err != nil { // what is made once and kept
			return err
		}
		count := func() (fds int, threads int, err error) {
			f, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				return 0, 0, err
			}
			t, err := os.ReadDir("/proc/self/task")
			return len(f), len(t), err
		}
		fds, threads, err := count()
		if err != nil {
			return err
		}
		for range o.Times {
			if err := one(); err != nil {
				return err
			}
		}
		after, threadsAfter, err := count()
		if err != nil {
			return err
		}
		if after != fds || threadsAfter > threads+10 {
			return fmt.Errorf("%d descriptors and %d threads became %d and %d", fds, threads, after, threadsAfter)
		}
		return c.Say("%d descriptors before and after", fds)
	},
	// An engine without a listener cannot have level private, and does not run.
	"early": func(c *testchild.Conn, o order) error {
		e, _, err := confinedEngine(o.Config, engine.Config{Handler: engine.HandlerFunc(answer), Inline: true})
		if err != nil {
			return err
		}
		return c.Say("%v", e.Run(context.Background()))
	},
	// An inline handler that asks for what its thread may not do gets an error; one of the queue path gets it.
	"asks": func(c *testchild.Conn, o order) error {
		for _, inline := range []bool{true, false} {
			results := make(chan map[string]error, 1)
			handler := func(r engine.Request) {
				select {
				case results <- asked(r):
				default: // another call's
				}
				_ = r.Return(42)
			}
			e, _, err := confinedEngine(o.Config, engine.Config{Handler: engine.HandlerFunc(handler), Inline: inline})
			if err != nil {
				return err
			}
			st, _, stop, err := rage(e, 1)
			if err != nil {
				return err
			}
			got := <-results
			for name, err := range got {
				if is := errors.Is(err, engine.ErrConfined); is != inline {
					return fmt.Errorf("inline %t, %s: %v", inline, name, err)
				}
			}
			rep, err := st.stop()
			if err = errors.Join(err, stop()); err != nil {
				return err
			}
			if rep.Others != 0 {
				return fmt.Errorf("%+v", rep)
			}
			if err := c.Say("inline %t: AddFD %v, of %d methods", inline, got["AddFD"] == nil, len(got)); err != nil {
				return err
			}
		}
		return nil
	},
	// An inline handler that does more than compute.
	"handler": func(c *testchild.Conn, o order) error {
		e, _, err := confinedEngine(o.Config, engine.Config{Inline: true, Handler: engine.HandlerFunc(theHandlerThatDials)})
		if err != nil {
			return err
		}
		st, err := startStorm(1)
		if err != nil {
			return err
		}
		if _, err := e.Add(st.listener); err != nil {
			return err
		}
		runEngine(e)
		if err := st.begin(); err != nil {
			return err
		}
		select {}
	},
}

// asked asks for all that takes more than an answer: each method of a target that may fail, with arguments of no sense.
func asked(r engine.Request) map[string]error {
	_, err := r.AddFD(2, true)
	all := map[string]error{"AddFD": err}
	if err != nil {
		all["ReturnFD"] = r.ReturnFD(2, true)
	}
	t := reflect.ValueOf(r.Target())
	for i := range t.NumMethod() {
		m := t.Method(i)
		out := m.Type().NumOut()
		if out == 0 || m.Type().Out(out-1) != reflect.TypeFor[error]() {
			continue
		}
		var args []reflect.Value
		for j := range m.Type().NumIn() {
			args = append(args, reflect.Zero(m.Type().In(j)))
		}
		err, _ := m.Call(args)[out-1].Interface().(error)
		all[t.Type().Method(i).Name] = err
	}
	return all
}

func theHandlerThatDials(r engine.Request) {
	_, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	_ = r.Fail(err.(unix.Errno))
}

// evidence is what the kernel shows of a confined thread.
func evidence(st *Status) (string, error) {
	dir := fmt.Sprintf("/proc/self/task/%d", st.TID)
	var b strings.Builder
	fmt.Fprintf(&b, "/proc/PID/task/TID:")
	name, err := os.ReadFile(dir + "/comm")
	if err != nil {
		return "", err
	}
	if string(name) != "unknot-receive\n" {
		return "", fmt.Errorf("thread %d is %q", st.TID, name)
	}
	for _, field := range []string{"Name", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Speculation_Store_Bypass", "SigBlk"} {
		if v, err := taskStatus(st.TID, field); err == nil {
			fmt.Fprintf(&b, " %s %s,", field, v)
		}
	}
	entries, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return "", err
	}
	var fds []int
	for _, e := range entries {
		var fd int
		_, _ = fmt.Sscan(e.Name(), &fd)
		fds = append(fds, fd)
	}
	sort.Ints(fds)
	if st.Level == Private && !slices.Equal(fds, st.FDs) {
		return "", fmt.Errorf("descriptors %v, status %v", fds, st)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(fmt.Sprintf("%s/fd/%d", dir, fd))
		fmt.Fprintf(&b, " %d %s,", fd, to)
	}
	return strings.TrimSuffix(b.String(), ","), nil
}

func childEngine(c *testchild.Conn, args []string) error {
	var o order
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return err
	}
	return engineStories[o.Name](c, o)
}

func TestEngine(t *testing.T) {
	starts, times := "descriptors before and after", 100
	if thorough() {
		times = 1000
	}
	for _, e := range []struct {
		order
		says   []string // a line each
		exit   int
		stderr []string
	}{
		{order: order{Name: "storm", For: 300 * time.Millisecond}, says: []string{"inline true", "inline false"}},
		{order: order{Name: "storm", For: 300 * time.Millisecond, Config: Config{Level: Shared}}, says: []string{"inline true", "inline false"}},
		{order: order{Name: "storm", For: 300 * time.Millisecond, Config: Config{Signals: Strict}}, says: []string{"inline true", "inline false"}},
		{order: order{Name: "asks"}, says: []string{"inline true: AddFD false, of 18 methods", "inline false: AddFD true, of 17 methods"}},
		{order: order{Name: "asks", Config: Config{Level: Shared}}, says: []string{"inline true: AddFD false, of 18 methods", "inline false: AddFD true, of 17 methods"}},
		{order: order{Name: "enosys"}, says: []string{"16 ENOSYS, 0 others"}},
		{order: order{Name: "enosys", Config: Config{Level: Shared}}, says: []string{"16 ENOSYS, 0 others"}},
		{order: order{Name: "removed"}, says: []string{"inline true: 16 ENOSYS, 0 others", "inline false: 16 ENOSYS, 0 others"}},
		{order: order{Name: "removed", Config: Config{Level: Shared}}, says: []string{"inline true: 16 ENOSYS, 0 others", "inline false: 16 ENOSYS, 0 others"}},
		{order: order{Name: "starts", Times: times}, says: []string{starts}},
		{order: order{Name: "early"}, says: []string{"exactly one listener, here are 0"}},
		{order: order{Name: "handler", Config: Config{OnViolation: Trap}}, exit: 2, stderr: []string{"SIGSYS", "theHandlerThatDials"}},
	} {
		t.Run(fmt.Sprintf("%s/%v/%v", e.Name, e.Config.Level, e.Config.Signals), func(t *testing.T) {
			t.Parallel()
			c := e.start(t, "engine")
			for _, want := range e.says {
				if said, err := c.Hear(); !strings.Contains(said, want) {
					t.Errorf("said %q (%v), want %q", said, err, want)
				} else {
					t.Log(said)
				}
			}
			if ws := c.Wait(); !ws.Exited() || ws.ExitStatus() != e.exit {
				t.Errorf("status %#x, want %d\n%s", int(ws), e.exit, c.Stderr())
			}
			for _, s := range e.stderr {
				if !strings.Contains(c.Stderr(), s) {
					t.Errorf("standard error lacks %q:\n%s", s, c.Stderr())
				}
			}
		})
	}
}
