package engine_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// mustRoute routes getppid.
func mustRoute(t *testing.T, m *engine.Mux, r engine.Route) {
	t.Helper()
	if err := m.Route(r, "getppid"); err != nil {
		t.Fatal(err)
	}
}

func returns(val int64) engine.Handler {
	return engine.HandlerFunc(func(r engine.Request) { _ = r.Return(val) })
}

func TestMuxRoutes(t *testing.T) {
	named := engine.NewMux(engine.Deny(unix.EPERM))
	mustRoute(t, named, engine.Route{Handler: returns(7)})
	numbered := engine.NewMux(nil)
	if err := numbered.RouteNumber(engine.Route{Handler: returns(8)}, notify.NativeArch, unix.SYS_GETPPID); err != nil {
		t.Fatal(err)
	}
	other := engine.NewMux(engine.Deny(unix.EXDEV))
	if err := other.Route(engine.Route{Handler: returns(9)}, "getpid", "openat"); err != nil {
		t.Fatal(err)
	}
	nested := engine.NewMux(named)
	for _, c := range []struct {
		name  string
		m     *engine.Mux
		val   int64
		errno syscall.Errno
	}{
		{"by name", named, 7, 0}, {"by number", numbered, 8, 0}, {"no route", other, 0, unix.EXDEV},
		{"no route and nobody else", engine.NewMux(nil), 0, unix.ENOSYS}, {"nested", nested, 7, 0},
	} {
		for name, cfg := range paths(c.m) {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				e, stop := start(t, cfg)
				tg := startTarget(t, 2, 20)
				mustAdd(t, e, tg)
				tg.release()
				r := tg.results()
				if c.errno != 0 && r.errno(c.errno) == 0 || c.errno == 0 && r.Values[c.val] != 40 {
					t.Errorf("target saw %+v", r)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
				checkBalance(t, e)
			})
		}
	}
}

// Routes by listener, and a change while calls come: each call has one of the two.
func TestMuxByListenerAndChanged(t *testing.T) {
	begun := make(chan struct{})
	m := engine.NewMux(engine.HandlerFunc(func(r engine.Request) {
		<-begun // so that there are calls left when routes change
		_ = r.Return(1)
	}))
	var mine atomic.Pointer[engine.Source]
	m.When(func(s *engine.Source) bool { return s == mine.Load() }, returns(2))
	e, stop := start(t, engine.Config{Handler: m, Workers: 2})
	a, b := startTarget(t, 2, 3000), startTarget(t, 2, 3000)
	mustAdd(t, e, a)
	src, err := e.Add(b.l)
	if err != nil {
		t.Fatal(err)
	}
	mine.Store(src)
	a.release()
	b.release()
	for i := range 50 {
		mustRoute(t, m, engine.Route{Handler: returns(3)})
		mustRoute(t, m, engine.Route{Handler: returns(4)})
		if i == 0 {
			close(begun)
		}
	}
	if r := b.results(); r.Values[2] != 6000 {
		t.Errorf("the listener with a handler of its own: %+v", r)
	}
	if r := a.results(); r.Values[1]+r.Values[3]+r.Values[4] != 6000 || r.Values[4] == 0 {
		t.Errorf("the other one: %+v", r)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestMuxMiddleware(t *testing.T) {
	var mu sync.Mutex
	var order []string
	layer := func(name string) engine.Middleware {
		return func(next engine.Handler) engine.Handler {
			return engine.HandlerFunc(func(r engine.Request) {
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				next.Handle(r)
			})
		}
	}
	made := 0
	m := engine.NewMux(nil)
	m.Use(layer("a"), layer("b"))
	mustRoute(t, m, engine.Route{Handler: returns(5)}) // of five ABIs
	m.Use(func(next engine.Handler) engine.Handler { made++; return layer("c")(next) })
	if err := m.Route(engine.Route{Handler: returns(6)}, "mkdir", "getpid"); err != nil {
		t.Fatal(err)
	}
	if made != 2 {
		t.Errorf("middleware was called %d times for two handlers", made)
	}
	e, stop := start(t, engine.Config{Handler: m})
	tg := startTarget(t, 1, 1)
	mustAdd(t, e, tg)
	tg.release()
	if r := tg.results(); r.Values[5] != 1 {
		t.Errorf("target saw %+v", r)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !slices.Equal(order, []string{"a", "b", "c"}) {
		t.Errorf("layers came as %v", order)
	}
}

// A route's deadline and default answer hold for it alone.
func TestMuxBounds(t *testing.T) {
	for _, c := range []struct {
		name   string
		route  engine.Route // its handler is set below
		engine time.Duration
		hangs  bool
		late   uint64
		errno  syscall.Errno // 0: the kernel ran it
	}{
		{"a deadline of its own", engine.Route{Deadline: 20 * time.Millisecond, Default: unix.EBUSY}, 0, true, 1, unix.EBUSY},
		{"a shorter one", engine.Route{Deadline: 20 * time.Millisecond}, time.Hour, true, 1, unix.EDOM},
		{"the engine's", engine.Route{Default: unix.EBUSY}, 20 * time.Millisecond, true, 1, unix.EBUSY},
		{"none", engine.Route{Deadline: engine.NoDeadline, Default: unix.EBUSY}, 5 * time.Millisecond, false, 0, unix.EBUSY},
		{"no answer", engine.Route{Default: engine.DropContinue}, 0, false, 0, 0},
	} {
		for name, cfg := range paths(nil) {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				release := make(chan bool)
				var once sync.Once
				defer once.Do(func() { close(release) })
				c.route.Handler = engine.HandlerFunc(func(r engine.Request) {
					switch {
					case c.hangs:
						<-release
					case c.engine != 0:
						time.Sleep(10 * c.engine) // no deadline may come
					}
				})
				m := engine.NewMux(nil)
				mustRoute(t, m, c.route)
				cfg.Handler, cfg.HandlerDeadline, cfg.DefaultErrno = m, c.engine, unix.EDOM
				e, stop := start(t, cfg)
				tg := startTarget(t, 1, 1)
				mustAdd(t, e, tg)
				tg.release()
				if r := tg.results(); c.errno != 0 && r.errno(c.errno) != 1 || c.errno == 0 && r.OK != 1 {
					t.Errorf("target saw %+v", r)
				}
				once.Do(func() { close(release) })
				if err := stop(); err != nil {
					t.Error(err)
				}
				if got := checkBalance(t, e); got.Late != c.late || got.Defaulted != 1 {
					t.Errorf("counters %+v", got)
				}
			})
		}
	}
}

// A route that is inline is handled while the queue's only worker is held up, and on the receive thread.
func TestMuxInlineRoutes(t *testing.T) {
	for _, nested := range []bool{false, true} {
		t.Run(fmt.Sprint("nested=", nested), func(t *testing.T) {
			release := make(chan bool)
			var once sync.Once
			free := func() { once.Do(func() { close(release) }) }
			defer free()
			var held atomic.Int32
			var tid atomic.Int64
			m := engine.NewMux(nil)
			slow := engine.HandlerFunc(func(r engine.Request) {
				held.Add(1)
				<-release
				_ = r.Return(1)
			})
			mustRoute(t, m, engine.Route{Handler: slow})
			quick := engine.NewMux(nil)
			mustRoute(t, quick, engine.Route{Inline: true, Handler: engine.HandlerFunc(func(r engine.Request) {
				tid.Store(int64(unix.Gettid()))
				_ = r.Return(2)
			})})
			top := m
			if nested {
				top = engine.NewMux(m)
			}
			var fast atomic.Pointer[engine.Source]
			top.When(func(s *engine.Source) bool { return s == fast.Load() }, quick)
			e, stop := start(t, engine.Config{Handler: top, Workers: 1, Receivers: 1})
			a, b := startTarget(t, 2, 3), startTarget(t, 2, 500)
			mustAdd(t, e, a)
			src, err := e.Add(b.l)
			if err != nil {
				t.Fatal(err)
			}
			fast.Store(src)
			a.release()
			for end := time.Now().Add(testDeadline); held.Load() == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("no call is handled")
				}
			}
			b.release()
			if r := b.results(); r.Values[2] != 1000 {
				t.Errorf("inline: target saw %+v", r)
			}
			if want := e.Debug().Receivers[0].TID; int(tid.Load()) != want {
				t.Errorf("handled on thread %d, the receive thread is %d", tid.Load(), want)
			}
			free()
			if r := a.results(); r.Values[1] != 6 {
				t.Errorf("by the queue: target saw %+v", r)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			checkBalance(t, e)
		})
	}
}

// A request that outlives its handler keeps its route's deadline and default answer.
func TestMuxBoundsOfDetached(t *testing.T) {
	m := engine.NewMux(nil)
	mustRoute(t, m, engine.Route{Deadline: 20 * time.Millisecond, Default: unix.EBUSY, Handler: engine.HandlerFunc(func(r engine.Request) { r.Detach() })})
	for name, cfg := range paths(m) {
		t.Run(name, func(t *testing.T) {
			e, stop := start(t, cfg)
			tg := startTarget(t, 2, 2)
			mustAdd(t, e, tg)
			tg.release()
			if r := tg.results(); r.errno(unix.EBUSY) != 4 {
				t.Errorf("target saw %+v", r)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if c := checkBalance(t, e); c.Late != 4 {
				t.Errorf("counters %+v", c)
			}
		})
	}
}

func TestMuxRefuses(t *testing.T) {
	m := engine.NewMux(nil)
	h := engine.Continue
	for want, err := range map[string]error{
		"no such system call": m.Route(engine.Route{Handler: h}, "mkdir", "mkdirr"),
		"without a handler":   m.Route(engine.Route{}, "mkdir"),
		"deadline of -2ns":    m.Route(engine.Route{Handler: h, Deadline: -2}, "mkdir"),
		"default (of a route": m.Route(engine.Route{Handler: h, Default: 512}, "mkdir"),
		"call 83 of":          m.RouteNumber(engine.Route{Handler: h}, 0, 83),
		"call -1 of":          m.RouteNumber(engine.Route{Handler: h}, unix.AUDIT_ARCH_X86_64, -1),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := m.Route(engine.Route{Handler: h}, "mkdirr"); !errors.Is(err, engine.ErrNoCall) {
		t.Error(err)
	}
}

// To find a call's handler allocates nothing, with everything that a Mux has, and takes no lock: it goes on
// while somebody else holds up a change.
func TestMuxAllocatesNothing(t *testing.T) {
	const threads, calls = 4, 2000
	m := engine.NewMux(engine.Continue)
	m.When(func(s *engine.Source) bool { return false }, engine.Continue)
	m.Use(func(next engine.Handler) engine.Handler {
		return engine.HandlerFunc(func(r engine.Request) { next.Handle(r) })
	})
	mustRoute(t, m, engine.Route{Handler: returns(1), Deadline: time.Hour, Default: unix.EPERM})
	if err := m.Route(engine.Route{Handler: returns(1), Inline: true}, "getpid"); err != nil {
		t.Fatal(err)
	}
	locked, release := make(chan bool), make(chan bool)
	go m.Use(func(next engine.Handler) engine.Handler { // called with the Mux's lock held
		select {
		case locked <- true:
			<-release
		default:
		}
		return next
	})
	<-locked
	for name, cfg := range paths(m) {
		t.Run(name, func(t *testing.T) {
			e, stop := start(t, cfg)
			c := startTarget(t, threads, calls)
			mustAdd(t, e, c)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c.release()
			if r := c.results(); r.OK != threads*calls {
				t.Errorf("target saw %+v", r)
			}
			runtime.ReadMemStats(&after)
			// One for each call is what is looked for; the controller has some for each new plan.
			if n := after.Mallocs - before.Mallocs; n > threads*calls/2 {
				t.Errorf("%d allocations for %d notifications", n, threads*calls)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
	close(release)
}

func ExampleMux() {
	m := engine.NewMux(engine.Deny(unix.EPERM)) // what is trapped and not routed
	err := m.Route(engine.Route{Handler: engine.HandlerFunc(func(r engine.Request) { _ = r.Return(42) }), Deadline: time.Second, Default: unix.EIO}, "getppid")
	if err != nil {
		fmt.Println(err)
		return
	}
	val, errno := supervised(m.Handle)
	fmt.Println(val, int(errno))
	// Output: 42 0
}
