package enginetest_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/enginetest"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// read is the target's memory, as package engine/target reads it.
func read(r engine.Request, addr uint64, n int) ([]byte, unix.Errno) {
	b := make([]byte, n)
	n, errno := r.Source().Listener().Kernel().ReadMem(r.PID(), addr, b)
	return b[:n], errno
}

func handler(f func(engine.Request)) engine.Handler { return engine.HandlerFunc(f) }

func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		h    func(engine.Request)
		want enginetest.Result
		says string
	}{
		"value":     {func(r engine.Request) { _ = r.Return(7) }, enginetest.Result{Val: 7}, "7"},
		"errno":     {func(r engine.Request) { _ = r.Fail(unix.EPERM) }, enginetest.Result{Errno: unix.EPERM}, "-1 EPERM (operation not permitted)"},
		"continue":  {func(r engine.Request) { _ = r.Continue() }, enginetest.Result{Continued: true}, "continued"},
		"nothing":   {func(engine.Request) {}, enginetest.Result{Errno: unix.ENOSYS}, "-1 ENOSYS (function not implemented)"},
		"panic":     {func(engine.Request) { panic("odd") }, enginetest.Result{Errno: unix.ENOSYS}, "-1 ENOSYS (function not implemented)"},
		"goexit":    {func(engine.Request) { runtime.Goexit() }, enginetest.Result{Errno: unix.ENOSYS}, "-1 ENOSYS (function not implemented)"},
		"two":       {func(r engine.Request) { _ = r.Return(1); _ = r.Return(2) }, enginetest.Result{Val: 1}, "1"},
		"detached":  {func(r engine.Request) { p := r.Detach(); go func() { _ = p.Return(3) }() }, enginetest.Result{Val: 3}, "3"},
		"goroutine": {func(r engine.Request) { engine.Go(handler(func(r engine.Request) { _ = r.Return(4) }), 1).Handle(r) }, enginetest.Result{Val: 4}, "4"},
	} {
		t.Run(name, func(t *testing.T) {
			e := enginetest.New(t, handler(c.h))
			p := e.Target()
			c.want.Tries = 1
			for range 3 {
				got := p.Call(unix.SYS_MKDIRAT, 1, 2, 3)
				if got.String() != c.says || got.Val != c.want.Val || got.Errno != c.want.Errno || got.Continued != c.want.Continued || got.Tries != 1 {
					t.Errorf("got %v: %+v", got, got)
				}
			}
			if n := e.Engine().Counters(); n.Received != 3 || n.Answered != 3 || n.Balance() != 0 {
				t.Errorf("counters: %+v", n)
			}
		})
	}
}

// TestWhatHandlersSee: the call, the thread, the listener.
func TestWhatHandlersSee(t *testing.T) {
	var ids []uint64
	e := enginetest.NewWith(t, engine.Config{BySyscall: true, BySource: true, Handler: handler(func(r engine.Request) { t.Error("the engine's handler") })})
	var p *enginetest.Target
	p = e.TargetWith(engine.SourceOptions{Tag: "web", Handler: handler(func(r engine.Request) {
		ids = append(ids, r.ID())
		want := notify.Data{NR: unix.SYS_OPENAT, Arch: unix.AUDIT_ARCH_I386, Args: [6]uint64{1, 2}}
		if r.Data() != want || r.PID() != p.TID || r.Source() != p.Source() || r.Source().Tag() != "web" || !r.Alive() || r.Source().Engine() != e.Engine() {
			t.Errorf("%+v of %d, tag %v", r.Data(), r.PID(), r.Source().Tag())
		}
		if n := e.Engine().Counters(); n.InHandlers != 1 || n.Balance() != 0 {
			t.Errorf("counters: %+v", n)
		}
		_ = r.Fail(unix.EPERM)
	})})
	p.Arch = unix.AUDIT_ARCH_I386
	p.Call(unix.SYS_OPENAT, 1, 2)
	p.Call(unix.SYS_OPENAT, 1, 2)
	if ids[1] != ids[0]+1 {
		t.Errorf("ids %v", ids)
	}
	if st := e.Engine().Syscalls(); len(st) != 1 || st[0].Answered != 2 || st[0].Arch != unix.AUDIT_ARCH_I386 {
		t.Errorf("by system call: %+v", st)
	}
	own := p.Source().Counters()
	if p.Source().Latencies().Service.Count != 2 || p.Source().Errnos()[unix.EPERM] != 2 || own.Balance() != 0 {
		t.Errorf("figures: %v, %+v", p.Source().Errnos(), own)
	}
	if err := e.Engine().Run(t.Context()); err == nil {
		t.Error("it runs")
	}
	if all := e.Engine().Sources(); !slices.Equal(all, []*engine.Source{p.Source()}) {
		t.Errorf("sources: %v", all)
	}
}

func TestMemory(t *testing.T) {
	e := enginetest.New(t, handler(func(r engine.Request) {
		addr := r.Data().Args[0]
		b, errno := read(r, addr, int(r.Data().Args[1]))
		if errno != 0 {
			_ = r.Fail(errno)
			return
		}
		k := r.Source().Listener().Kernel()
		if _, errno := k.WriteMem(r.PID(), addr, bytes.ToUpper(b)); errno != 0 {
			_ = r.Fail(errno)
			return
		}
		_ = r.Return(int64(len(b)))
	}))
	p := e.Target()
	addr := p.PutString("path")
	if got := p.Call(1, addr, 4); got.Val != 4 || string(p.Memory(addr, 100)) != "PATH\x00" {
		t.Errorf("%v, memory %q", got, p.Memory(addr, 100))
	}
	if got := p.Thread().Call(1, addr, 6); got.Errno != unix.EFAULT {
		t.Errorf("beyond its end: %v", got)
	}
	p.MapReadOnly(addr, []byte("fixed"))
	if got := p.Call(1, addr, 5); got.Errno != unix.EFAULT || string(p.Memory(addr, 5)) != "fixed" {
		t.Errorf("read-only: %v, %q", got, p.Memory(addr, 5))
	}
	p.Map(0x1000, bytes.Repeat([]byte("a"), 8))
	p.Map(0x1008, []byte("bbbb"))
	p.Map(0x1002, []byte("cc"))
	p.Unmap(0x1005, 1)
	if a, b := p.Memory(0x1000, 100), p.Memory(0x1006, 100); string(a) != "aacca" || string(b) != "aabbbb" {
		t.Errorf("memory %q and %q", a, b)
	}
	if got := p.Call(1, 0x1006, 6); got.Val != 6 || string(p.Memory(0x1006, 6)) != "AABBBB" { // over the border of two
		t.Errorf("%v, memory %q", got, p.Memory(0x1006, 6))
	}
	p.Before(enginetest.OpWrite, func() { p.Unmap(0x1007, 1) })
	if got := p.Call(1, 0x1006, 6); got.Errno != unix.EFAULT {
		t.Errorf("unmapped in between: %v", got)
	}
	if got := string(p.Memory(0x1008, 4)); got != "BBBB" {
		t.Errorf("memory %q", got)
	}
	p.Before(enginetest.OpRead, p.Kill)
	if got := p.Call(1, addr, 4); !got.Died || got.String() != "died" {
		t.Errorf("killed in between: %+v", got)
	}
}

func TestDescriptors(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	fd := int(f.Fd())
	steps := []func(engine.Request){
		func(r engine.Request) { _ = r.ReturnFD(fd, true) },
		func(r engine.Request) { _ = r.SendFD(fd, false) },
		func(r engine.Request) {
			if n, err := r.Install(notify.AddFD{SrcFD: uint32(fd), Flags: notify.AddFDSetFD, NewFD: 3}); n != 3 || err != nil {
				t.Errorf("SETFD: %d, %v", n, err)
			}
		},
		func(r engine.Request) {
			if _, err := r.AddFD(1<<20, true); !errors.Is(err, unix.EBADF) {
				t.Errorf("no such descriptor: %v", err)
			}
			_ = r.Fail(unix.EBADF)
		},
	}
	e := enginetest.New(t, handler(func(r engine.Request) { steps[r.Data().Args[0]](r) }))
	p := e.Target()
	for i, want := range []enginetest.Result{{Val: 3, Added: []int{3}}, {Val: 4, Added: []int{4}}, {Errno: unix.ENOSYS, Added: []int{3}}, {Errno: unix.EBADF}} {
		if got := p.Call(1, uint64(i)); got.Val != want.Val || got.Errno != want.Errno || !slices.Equal(got.Added, want.Added) {
			t.Errorf("%d: %+v", i, got)
		}
	}
	for n, cloexec := range map[int]bool{3: false, 4: false} {
		fd, ok := p.Thread().FD(n)
		if !ok || fd.CloseOnExec != cloexec {
			t.Fatalf("descriptor %d: %+v, %v", n, fd, ok)
		}
		if b, err := io.ReadAll(io.NewSectionReader(fd.File, 0, 100)); string(b) != "hello" || err != nil {
			t.Errorf("descriptor %d reads %q, %v", n, b, err)
		}
	}
	if _, ok := p.FD(5); ok {
		t.Error("a descriptor from nowhere")
	}
}

// TestDeathAndRestart: at each point of a handler, what it is told, and how often it is called.
func TestDeathAndRestart(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, op := range map[string]enginetest.Op{"alive": enginetest.OpAlive, "add": enginetest.OpAddFD, "send": enginetest.OpSend} {
		for end, do := range map[string]func(*enginetest.Target){
			"kill": (*enginetest.Target).Kill, "interrupt": (*enginetest.Target).Interrupt, "restart": (*enginetest.Target).Restart,
		} {
			t.Run(name+"/"+end, func(t *testing.T) {
				type run struct {
					id  uint64
					err error
				}
				runs := make(chan run, 2)
				e := enginetest.New(t, handler(func(r engine.Request) {
					id := r.ID()
					r.Alive()
					_, err := r.AddFD(int(null.Fd()), true)
					if err == nil {
						err = r.Return(1)
					}
					runs <- run{id, err}
				}))
				p := e.Target()
				p.Before(op, func() { do(p) })
				got := p.Call(1)
				close(runs)
				ids := map[uint64]bool{}
				gone := 0
				for r := range runs {
					ids[r.id] = true
					if errors.Is(r.err, engine.ErrGone) {
						gone++
					} else if r.err != nil {
						t.Error(r.err)
					}
				}
				if gone != 1 || len(ids) != got.Tries {
					t.Errorf("%d times gone, ids %v: %+v", gone, ids, got)
				}
				switch {
				case end == "kill" && got.Died && got.Tries == 1:
				case end == "interrupt" && got.Interrupted && got.Errno == syscall.EINTR && got.Tries == 1:
				case end == "restart" && got.Val == 1 && got.Tries == 2:
					if name == "send" && len(got.Added) != 2 { // one of which the target does not know
						t.Errorf("%+v", got)
					}
				default:
					t.Errorf("%+v", got)
				}
				if n := e.Engine().Counters(); n.Balance() != 0 || n.InHandlers != 0 {
					t.Errorf("counters: %+v", n)
				}
			})
		}
	}
}

// TestExpire: late handlers and forgotten requests are answered for.
func TestExpire(t *testing.T) {
	release, entered := make(chan struct{}), make(chan *engine.Pending, 2)
	e := enginetest.New(t, handler(func(r engine.Request) {
		if r.Data().Args[0] == 0 {
			entered <- r.Detach()
			return
		}
		entered <- nil
		<-release
		if err := r.Return(1); !errors.Is(err, engine.ErrAnswered) {
			t.Errorf("late: %v", err)
		}
	}))
	a, b := e.Target().Start(1, 0), e.Target().Start(1, 1)
	x, y := <-entered, <-entered
	if n := e.Expire(); n != 2 {
		t.Errorf("%d expired", n)
	}
	if x == nil {
		x = y
	}
	<-x.Done()
	if err := x.Return(1); !errors.Is(err, engine.ErrAnswered) {
		t.Errorf("detached and late: %v", err)
	}
	close(release)
	if a, b := a.Wait(), b.Wait(); a.Errno != unix.ENOSYS || b.Errno != unix.ENOSYS {
		t.Errorf("%v and %v", a, b)
	}
	if n := e.Engine().Counters(); n.Late != 2 || n.Balance() != 0 {
		t.Errorf("counters: %+v", n)
	}
}

// A failing is a testing.TB that notes that it failed, for the tests of what fails.
type failing struct {
	testing.TB
	said     []string
	cleanups []func()
}

func (f *failing) Helper()                        {}
func (f *failing) Cleanup(c func())               { f.cleanups = append(f.cleanups, c) }
func (f *failing) Errorf(format string, _ ...any) { f.said = append(f.said, format) }
func (f *failing) Fatalf(format string, _ ...any) { f.said = append(f.said, format); runtime.Goexit() }
func (f *failing) Fatal(...any)                   { f.said = append(f.said, "fatal"); runtime.Goexit() }

// run runs a test and returns what it says.
func run(t *testing.T, test func(testing.TB)) string {
	f := &failing{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(f)
	}()
	<-done
	for _, c := range slices.Backward(f.cleanups) {
		c()
	}
	return strings.Join(f.said, "\n")
}

func TestWhatFailsATest(t *testing.T) {
	nothing := handler(func(engine.Request) {})
	for want, test := range map[string]func(testing.TB){
		"": func(tb testing.TB) { enginetest.New(tb, nothing).Target().Call(1) },
		"still waits": func(tb testing.TB) {
			enginetest.New(tb, handler(func(r engine.Request) { r.Detach() })).Target().Start(1)
		},
		"fatal":     func(tb testing.TB) { enginetest.NewWith(tb, engine.Config{}) },
		"6 at most": func(tb testing.TB) { enginetest.New(tb, nothing).Target().Call(1, 1, 2, 3, 4, 5, 6, 7) },
		"dead or at another": func(tb testing.TB) {
			p := enginetest.New(tb, nothing).Target()
			p.Kill()
			p.Call(1)
		},
	} {
		if got := run(t, test); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("want %q: %q", want, got)
		}
	}
}
