package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"github.com/unknot/unknot/internal/unixsocket"
	"golang.org/x/sys/unix"
)

// links are two ends of a link.
func links(t *testing.T) (give, take *Link) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ls [2]*Link
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "link")
		c, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if ls[i], err = NewLink(c.(*net.UnixConn)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ls[i].Close() })
	}
	return ls[0], ls[1]
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// childCallers has threads that make trapped calls until it is told to stop. It says "N" when told
// "count", and at the end "N ok, N interrupted, N without, N odd".
func childCallers(c *testchild.Conn, args []string) error {
	threads, _ := strconv.Atoi(args[0])
	flags, _ := strconv.ParseUint(args[1], 0, 32)
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	installed := make(chan error)
	osthread.Start(func() {
		l, err := notify.Install(prog, notify.InstallFlags(flags)|notify.TSync)
		if err == nil {
			err = notify.SendListener(c.UnixConn, l)
			_ = l.Close()
		}
		installed <- err
	})
	if err := <-installed; err != nil {
		return err
	}
	var calls, ok, interrupted, without, odd atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range threads {
		wg.Add(1)
		osthread.Start(func() {
			defer wg.Done()
			for i := uintptr(1); !stop.Load(); i++ {
				v, _, e := unix.Syscall(unix.SYS_GETPPID, i, 0, 0)
				calls.Add(1)
				switch {
				case e == 0 && v == i+1000:
					ok.Add(1)
				case e == unix.EINTR:
					interrupted.Add(1)
				case e == unix.ENOSYS:
					without.Add(1)
				default:
					odd.Add(1)
				}
			}
		})
	}
	for {
		word, err := c.Hear()
		if err != nil {
			return nil
		}
		if word == "count" {
			if err := c.Say("%d", calls.Load()); err != nil {
				return err
			}
			continue
		}
		stop.Store(true)
		wg.Wait()
		return c.Say("%d ok, %d interrupted, %d without, %d odd", ok.Load(), interrupted.Load(), without.Load(), odd.Load())
	}
}

// A load is callers in another process.
type load struct {
	*testchild.Child
	t *testing.T
	l *notify.Listener // the caller's to close, or to give
}

func startLoad(t *testing.T, threads int, flags notify.InstallFlags, journal int) *load {
	t.Helper()
	c := testchild.StartWith(t, testchild.Options{Env: []string{"GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=16"}, Deadline: 2 * patience}, "callers", fmt.Sprint(threads), fmt.Sprint(uint32(flags)))
	l, err := notify.RecvListener(c.UnixConn)
	if err != nil {
		t.Fatal(err)
	}
	if err := Journal(l, State{FDs: []string{listenerName}, Metadata: "load"}, journal); err != nil {
		t.Fatal(err)
	}
	return &load{c, t, l}
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

// end stops the callers, all of whose calls must return.
func (l *load) end() (ok, interrupted, without, odd int) {
	l.t.Helper()
	l.MustSay("stop")
	said := l.MustHear()
	if _, err := fmt.Sscanf(said, "%d ok, %d interrupted, %d without, %d odd", &ok, &interrupted, &without, &odd); err != nil {
		l.t.Fatalf("%q: %v", said, err)
	}
	l.t.Log(said)
	return
}

// echo answers with the call's number and 1000.
var echo = engine.HandlerFunc(func(r engine.Request) {
	d := r.Data()
	if d.Args[0]%64 == 0 {
		time.Sleep(time.Millisecond) // so that a crash finds calls in handlers
	}
	_ = r.Return(int64(d.Args[0]) + 1000)
})

func runEngine(t *testing.T) *engine.Engine {
	t.Helper()
	e, err := engine.New(engine.Config{Handler: echo, Workers: 2, StopTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return e
}

// A listener goes between two supervisors, 20 times, under load: no call fails, none is lost.
func TestHandOverUnderLoad(t *testing.T) {
	load := startLoad(t, 8, 0, DefaultJournal)
	engines := []*engine.Engine{runEngine(t), runEngine(t)}
	src, err := engines[0].Add(load.l)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		load.goesOn(200)
		to := engines[(i+1)%2]
		give, take := links(t)
		took := make(chan *engine.Source, 1)
		done := make(chan error, 1)
		go func() {
			_, err := take.Take(soon(t), func(s State, l *notify.Listener) error {
				if s.Metadata != "load" {
					return fmt.Errorf("state %+v", s)
				}
				src, err := to.Add(l)
				if err == nil {
					took <- src
				}
				return err
			})
			done <- err
		}()
		l, err := engines[i%2].Release(soon(t), src)
		if err != nil {
			t.Fatal(err)
		}
		if err := give.Give(soon(t), l); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := give.End(soon(t)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		src = <-took
	}
	load.goesOn(200)
	if ok, interrupted, without, odd := load.end(); ok == 0 || interrupted+without+odd > 0 {
		t.Errorf("%d interrupted, %d without an answer, %d odd", interrupted, without, odd)
	}
}

// What is not taken stays the giver's.
func TestNotTaken(t *testing.T) {
	load := startLoad(t, 2, 0, 8)
	e := runEngine(t)
	for name, spoil := range map[string]func(give, take *Link){
		"refused": func(give, take *Link) {
			_, _ = take.Take(soon(t), func(State, *notify.Listener) error { return errors.New("no room") })
		},
		"closed": func(give, take *Link) { _ = take.Close() },
		"silent": func(give, take *Link) {},
	} {
		give, take := links(t)
		before := testchild.OpenFDs(t)
		ctx := soon(t)
		if name == "silent" {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
		}
		go spoil(give, take)
		err := give.Give(ctx, load.l)
		if err == nil || name == "refused" && (!errors.Is(err, ErrNotTaken) || !strings.Contains(err.Error(), "no room")) {
			t.Errorf("%s: %v", name, err)
		}
		_ = give.Close()
		_ = take.Close()
		eventually(t, "no copy is left", func() bool { return testchild.OpenFDs(t) <= before })
	}
	if _, err := e.Add(load.l); err != nil {
		t.Fatal(err)
	}
	load.goesOn(100)
	if _, interrupted, without, odd := load.end(); interrupted+without+odd > 0 {
		t.Errorf("%d interrupted, %d without an answer, %d odd", interrupted, without, odd)
	}
}

// Whatever comes over a link that is no listener is refused, and nothing of it is kept.
func TestBadPackets(t *testing.T) {
	g := newTarget(t)
	j, err := notify.NewJournal(4, []byte(`{"fds":["seccompFd"]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	noState, err := notify.NewJournal(4, []byte(`x`))
	if err != nil {
		t.Fatal(err)
	}
	defer noState.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	lfd, jfd, nfd := g.l.FD(), j.FD(), int(null.Fd())
	give, take := links(t)
	before := testchild.OpenFDs(t)
	done := make(chan Taken, 1)
	go func() {
		taken, err := take.Take(soon(t), func(_ State, l *notify.Listener) error { return l.Close() })
		if err != nil {
			t.Error(err)
		}
		done <- taken
	}()
	for _, c := range []struct {
		p    packet
		fds  []int
		want string
	}{
		{packet{Kind: "x"}, []int{nfd}, `kind "x"`},
		{packet{Kind: kindListener}, nil, "with 0 descriptors"},
		{packet{Kind: kindListener}, []int{lfd}, "with 1 descriptors"},
		{packet{Kind: kindListener}, []int{lfd, jfd, nfd}, "with 3 descriptors"},
		{packet{Kind: kindListener}, []int{nfd, jfd}, "not a seccomp listener"},
		{packet{Kind: kindListener}, []int{jfd, lfd}, "not a seccomp listener"},
		{packet{Kind: kindListener}, []int{lfd, nfd}, "no journal of a listener"},
		{packet{Kind: kindListener}, []int{lfd, noState.FD()}, "state in the listener's journal"},
		{packet{Kind: kindSocket}, []int{nfd}, "socket"},
		{packet{Kind: kindEnd, Path: "x"}, []int{nfd}, "with 1 descriptors"},
		{packet{Kind: kindListener}, []int{lfd, jfd}, ""},
	} {
		err := give.give(soon(t), c.p, c.fds...)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %d: %v, want %s", c.p.Kind, len(c.fds), err, c.want)
		}
		if c.p.Kind == kindEnd { // it ended; begin anew
			<-done
			go func() {
				taken, err := take.Take(soon(t), func(_ State, l *notify.Listener) error { return l.Close() })
				if err != nil {
					t.Error(err)
				}
				done <- taken
			}()
		}
	}
	if err := give.End(soon(t)); err != nil {
		t.Error(err)
	}
	if taken := <-done; taken.Listeners != 1 || taken.Socket != nil {
		t.Errorf("taken %+v", taken)
	}
	eventually(t, "all descriptors closed", func() bool { return testchild.OpenFDs(t) <= before })
	if _, err := NewLink(pipeConn(t)); err == nil {
		t.Error("a stream is no link")
	}
}

func pipeConn(t *testing.T) *net.UnixConn {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UnixConn)
}

// The socket goes to the successor: no client is refused, and the path stays.
func TestHandOverTheSocket(t *testing.T) {
	g := newTarget(t)
	r := start(t, Config{Timeout: patience})
	slow := r.dial() // is sending when the socket goes, and is served by the old agent
	send(t, slow, message(State{Metadata: "slow"})[:10], g.l.FD())
	eventually(t, "the connection is accepted", func() bool { return r.sending() == 1 })
	give, take := links(t)
	taken := make(chan Taken, 1)
	go func() {
		tk, err := take.Take(soon(t), nobody)
		if err != nil {
			t.Error(err)
		}
		taken <- tk
	}()
	if err := r.HandOver(soon(t), give); err != nil {
		t.Fatal(err)
	}
	if err := give.End(soon(t)); err != nil {
		t.Fatal(err)
	}
	tk := <-taken
	if tk.Path != r.path {
		t.Errorf("path %q", tk.Path)
	}
	next := r.dial() // before anybody accepts
	send(t, next, message(State{Metadata: "next"}), g.l.FD())
	send(t, slow, message(State{Metadata: "slow"})[10:])
	if s := r.next(); s.Metadata != "slow" || s.l.Close() != nil {
		t.Errorf("the old agent served %+v", s.State)
	}
	successor := start(t, Config{Listener: tk.Socket})
	if s := successor.next(); s.Metadata != "next" || s.l.Close() != nil {
		t.Errorf("the successor served %+v", s.State)
	}
	if _, err := os.Lstat(r.path); err != nil {
		t.Error(err)
	}
}

// childSuccessor takes listeners from a keeper, answers what its predecessor held and goes on, until it is killed.
func childSuccessor(c *testchild.Conn, args []string) error {
	conn, err := net.Dial("unixpacket", args[0])
	if err != nil {
		return err
	}
	k, err := NewLink(conn.(*net.UnixConn))
	if err != nil {
		return err
	}
	e, err := engine.New(engine.Config{Handler: echo, Workers: 4})
	if err != nil {
		return err
	}
	recovered := 0
	_, err = k.Take(context.Background(), func(_ State, l *notify.Listener) error {
		n, err := Recover(l, nil)
		if err == nil {
			recovered += n
			_, err = e.Add(l)
		}
		return err
	})
	if err != nil {
		return err
	}
	go func() { _ = c.Say("%d", recovered) }()
	return e.Run(context.Background())
}

// Supervisors crash under load, 20 times: each call returns, since a keeper has copies and the successor
// answers what was held.
func TestCrashUnderLoad(t *testing.T) {
	for name, flags := range map[string]notify.InstallFlags{"": 0, "wait killable": notify.WaitKillableRecv} {
		t.Run(name, func(t *testing.T) {
			if flags != 0 {
				if err := notify.FeatureWaitKillable.Probe(); err != nil {
					t.Skip(err)
				}
			}
			load := startLoad(t, 8, flags, 16)
			k := NewKeeper(nil)
			defer k.Close()
			if err := k.Add(load.l); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "keeper")
			l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			all := 0
			next := func() *testchild.Child {
				c := testchild.Start(t, "successor", path)
				conn, err := l.AcceptUnix()
				if err != nil {
					t.Fatal(err)
				}
				link, err := NewLink(conn)
				if err != nil {
					t.Fatal(err)
				}
				defer link.Close()
				if err := k.Give(soon(t), link); err != nil {
					t.Fatal(err)
				}
				n, err := strconv.Atoi(c.MustHear())
				if err != nil {
					t.Fatal(err)
				}
				all += n
				return c
			}
			for range 20 {
				c := next()
				load.goesOn(500)
				_ = c.Cmd.Process.Kill()
				_ = c.Cmd.Wait()
			}
			c := next()
			load.goesOn(500)
			_, interrupted, without, odd := load.end()
			if interrupted > all || without+odd > 0 || all == 0 {
				t.Errorf("%d recovered, %d interrupted, %d without an answer, %d odd", all, interrupted, without, odd)
			}
			t.Logf("%d calls were held by those that crashed", all)
			_ = c.Cmd.Process.Kill()
			eventually(t, "the keeper lets go of what has no targets", func() bool {
				k.prune()
				return k.Len() == 0
			})
		})
	}
}

// A keeper keeps the socket too: a client that connects while there is no agent is served by the next one.
func TestKeeperKeepsTheSocket(t *testing.T) {
	g := newTarget(t)
	k := NewKeeper(nil)
	defer k.Close()
	r := start(t, Config{})
	give, take := links(t)
	kept := make(chan error, 1)
	go func() { kept <- k.Keep(soon(t), take) }()
	for range 2 { // the second takes the first one's place
		if err := give.GiveSocket(soon(t), r.l, r.path); err != nil {
			t.Fatal(err)
		}
	}
	_ = give.Close() // as in a crash
	if err := <-kept; err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.Agent.file = unixsocket.File{} // a crash removes nothing
	r.mu.Unlock()
	_ = r.Close()
	c := r.dial()
	send(t, c, message(State{Metadata: "waits"}), g.l.FD())
	first := true
	for range 2 { // it keeps its own
		give, take = links(t)
		done := make(chan error, 1)
		go func() { done <- k.Give(soon(t), give) }()
		taken, err := take.Take(soon(t), nobody)
		if err := errors.Join(err, <-done); err != nil || taken.Socket == nil || taken.Path != r.path {
			t.Fatalf("taken %+v: %v", taken, err)
		}
		if s := start(t, Config{Listener: taken.Socket}); first {
			if got := s.next(); got.Metadata != "waits" || got.l.Close() != nil {
				t.Errorf("served %+v", got.State)
			}
			first = false
		}
	}
}
