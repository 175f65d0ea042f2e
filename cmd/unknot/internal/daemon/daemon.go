package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/cmd/unknot/internal/rules"
	"github.com/unknot/unknot/cmd/unknot/internal/status"
	"github.com/unknot/unknot/cmd/unknot/internal/systemd"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/syscalls"
	"github.com/unknot/unknot/internal/unixsocket"
	"github.com/unknot/unknot/internal/wholefile"
	"golang.org/x/sys/unix"
)

// A daemon is one process that receives and answers.
type daemon struct {
	Config
	manager *systemd.Manager // or nil
	store   store
	alive   *os.File // ends with the keeper, or nil
	beat    *os.File // is written to when all is well, or nil
	started time.Time

	router *rules.Router
	audit  *rules.Audit
	out    *rules.File // of audit; nil: standard output
	engine *engine.Engine
	ended  chan error // of the engine
	halt   context.CancelFunc

	socket    *net.UnixListener
	activated bool
	agent     *agent.Agent
	agentDone chan error
	links     chan *net.UnixConn // of who wants to take over
	file      unixsocket.File    // of the socket
	door      *door
	lxc       front

	before   *net.UnixConn // to who is taken over from
	stopping atomic.Bool
	mu       sync.Mutex
	released map[*engine.Source]bool // by us: their targets live
	unkept   atomic.Int64            // listeners without a copy
	pages    page

	reloads, refused, inheritedN, interrupted atomic.Int64 // since the start
}

// fromKeeper takes what a keeper gave this process: the link, and two pipes.
func (d *daemon) fromKeeper(numbers string) error {
	var files []*os.File
	numbers, d.activated = strings.CutSuffix(numbers, activatedSuffix)
	for s := range strings.SplitSeq(numbers, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 3 {
			return fmt.Errorf("%s=%s: it is for a keeper to set: unset it", Env, numbers)
		}
		unix.CloseOnExec(n)
		files = append(files, os.NewFile(uintptr(n), "keeper"))
	}
	if len(files) != 3 {
		return fmt.Errorf("%s=%s: it is for a keeper to set: unset it", Env, numbers)
	}
	link, err := linkOf(files[0])
	if err != nil {
		return err
	}
	d.store, d.alive, d.beat = &keeperStore{link: link}, files[1], files[2]
	return nil
}

// inherit takes what a predecessor left: from the keeper, or from the service manager.
func (d *daemon) inherit() (in inherited, err error) {
	if k, ok := d.store.(*keeperStore); ok {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		taken, err := k.link.Take(ctx, func(_ agent.State, l *notify.Listener) error {
			in.listeners = append(in.listeners, named{l: l})
			return nil
		})
		if err != nil {
			return in, fmt.Errorf("take what the keeper has: %w", err)
		}
		in.socket, in.activated = taken.Socket, d.activated
		return in, nil
	}
	files, err := systemd.Files()
	if err != nil {
		return in, err
	}
	if in, err = sort(files); err != nil {
		return in, err
	}
	for _, lost := range in.lost {
		d.Log.Error("a listener of the service manager's store is none: its container's trapped calls fail with ENOSYS", "err", lost)
	}
	if s, ok := d.store.(*managerStore); ok {
		s.stored = in.socket != nil
		for _, n := range in.listeners {
			s.has(n.l, n.name)
		}
	}
	return in, nil
}

// run is the daemon's whole life.
func (d *daemon) run() error {
	d.started = time.Now()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	defer signal.Stop(signals)
	if d.store == nil {
		d.store = noStore{}
	}
	d.released = map[*engine.Source]bool{}
	in, err := d.inherit()
	if err != nil {
		return err
	}
	p, text, err := d.load()
	if err != nil && len(in.listeners) > 0 {
		p, err = d.lastGood(err)
	}
	if err != nil {
		return err
	}
	if err := d.openAudit(); err != nil {
		return err
	}
	defer d.closeAudit()
	if err := d.startEngine(p); err != nil {
		return err
	}
	defer d.halt()
	d.takeAll(in.listeners)
	defer d.pages.close()
	page, err := d.openStatus(len(in.listeners) > 0)
	if err != nil {
		return err
	}
	defer d.shutLXC()
	noLXC := d.openLXC()
	if noLXC != nil && !d.later(len(in.listeners) > 0) {
		return noLXC
	}
	if err := d.openSocket(in); err != nil {
		return err
	}
	d.file = unixsocket.Own(d.Socket)
	a, err := agent.Listen(agent.Config{Listener: d.socket, Serve: d.serve, Logger: d.Log})
	if err != nil {
		return err
	}
	d.agent = a
	d.door = d.openDoor()
	defer d.door.close()
	ctx, cancel := context.WithTimeout(context.Background(), keepFor)
	err = d.store.socket(ctx, d.socket)
	cancel()
	if err != nil {
		d.Log.Error("the socket is not kept: runtimes are refused between a crash and the next start", "err", err)
	}
	d.agentDone = make(chan error, 1)
	go func() { d.agentDone <- a.Run(context.Background()) }()
	if page == nil && d.Status != "" {
		go d.retry("status page", func() error {
			l, err := status.Listen(d.Status)
			if err == nil {
				d.showStatus(l)
			}
			return err
		})
	}
	if noLXC != nil {
		go d.retry("socket for LXC", d.openLXC)
	}
	d.saveGood(text)
	if d.beat != nil {
		_, _ = d.beat.Write([]byte{beatReady})
	}
	for _, note := range p.Notes() {
		d.Log.Warn(note)
	}
	d.say("READY=1", d.statusLine())
	d.Log.Info("serving", "socket", d.Socket, "policy", d.Policy, "rules", p.Rules(), "containers", len(d.engine.Sources()), "pid", os.Getpid())
	return d.live(signals)
}

// live waits for what happens, until the end.
func (d *daemon) live(signals chan os.Signal) error {
	var orphan chan struct{}
	if d.alive != nil {
		orphan = make(chan struct{})
		go func() {
			_, _ = d.alive.Read(make([]byte, 1))
			close(orphan)
		}()
	}
	said := time.NewTicker(5 * time.Second)
	defer said.Stop()
	last := ""
	for {
		select {
		case s := <-signals:
			if s == unix.SIGHUP {
				d.reload()
				continue
			}
			return d.stop(signals)
		case c := <-d.links:
			if over, err := d.handOver(c); over || err != nil {
				return err
			}
		case err := <-d.ended:
			d.ended <- err
			return fmt.Errorf("the engine ended by itself: %w", err)
		case err := <-d.agentDone:
			return fmt.Errorf("no clients are taken any more: %w", err)
		case <-orphan:
			orphan = nil
			if k, ok := d.store.(*keeperStore); ok {
				k.gone.Store(true)
			}
			d.Log.Error("the keeper is gone: a crash from now on makes containers' trapped calls fail with ENOSYS; start another daemon with --take-over")
		case <-said.C:
			if line := d.statusLine(); line != last {
				last = line
				d.say(line)
			}
		}
	}
}

// load reads the policy.
func (d *daemon) load() (*rules.Policy, []byte, error) {
	text, err := ReadPolicy(d.Policy)
	if err != nil {
		return nil, nil, err
	}
	p, err := rules.Parse(d.Policy, text)
	if err != nil {
		return nil, nil, usagef("%w", err)
	}
	return p, text, nil
}

// ReadPolicy reads a policy's file. It refuses what cannot be read twice, or may have no end, for which signals would wait.
func ReadPolicy(name string) ([]byte, error) {
	if fi, err := os.Stat(name); err == nil && !fi.Mode().IsRegular() {
		return nil, usagef("--config %s: is no regular file, and the policy is read again on SIGHUP and after a crash", name)
	}
	text, err := os.ReadFile(name)
	var call *fs.PathError
	if errors.As(err, &call) {
		err = call.Err
	}
	if err != nil {
		return nil, usagef("--config %s: %w", name, err)
	}
	return text, nil
}

// lastGood is the policy that a predecessor had, for the case that its containers wait and the file is broken.
func (d *daemon) lastGood(broken error) (*rules.Policy, error) {
	name := d.Socket + policySuffix
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, broken
	}
	p, err := rules.Parse(name, text)
	if err != nil {
		return nil, errors.Join(broken, err)
	}
	d.Log.Error("the policy is broken: containers that run are served by the last good one", "err", broken, "used", name)
	return p, nil
}

// saveGood keeps a copy of a policy that is in use.
func (d *daemon) saveGood(text []byte) {
	if text == nil {
		return // it is the copy
	}
	if err := wholefile.Write(d.Socket+policySuffix, text); err != nil {
		d.Log.Warn("no copy of the policy is kept: with a broken file there is no start after a crash", "path", d.Socket+policySuffix, "err", err)
	}
}

// startEngine has the engine run.
func (d *daemon) startEngine(p *rules.Policy) (err error) {
	d.router = rules.NewRouter(p, d.audit)
	d.router.SetLogger(d.Log)
	cfg := engine.Config{Handler: d.router, BySource: true, BySyscall: true, Logger: d.Log, StopTimeout: time.Second}
	p.Settings().Config(&cfg)
	if d.WaitTarget != nil {
		cfg.WaitTarget = *d.WaitTarget
	}
	if d.handler != nil {
		cfg.Handler = d.handler
	}
	if d.Confine != nil {
		if err := d.Confine(&cfg); err != nil {
			return err
		}
	}
	if d.LXC != "" && (cfg.ThreadHook != nil || cfg.PrivateFiles) {
		return usagef("--lxc-socket: LXC's calls come as messages, which a confined receive thread may not read: add --confine=off, and serve containers of other runtimes by another daemon")
	}
	if d.engine, err = engine.New(cfg); err != nil {
		return err
	}
	ctx, halt := context.WithCancel(context.Background())
	d.halt, d.ended = halt, make(chan error, 1)
	go func() { d.ended <- d.engine.Run(ctx) }()
	select {
	case <-d.engine.Ready():
	case err := <-d.ended:
		d.ended <- err
		halt()
		return err
	}
	go d.watch(ctx)
	return nil
}

// watch says, as long as it is so, that the engine goes round.
func (d *daemon) watch(ctx context.Context) {
	every := beatEvery
	if d.deadAfter > 0 {
		every = d.deadAfter / 6
	}
	if d.manager != nil && d.manager.Watchdog() > 0 {
		every = min(every, d.manager.Watchdog()/3)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ; ; <-tick.C {
		if ctx.Err() != nil {
			return
		}
		short, cancel := context.WithTimeout(ctx, every)
		err := d.engine.Alive(short)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				d.Log.Error("not well", "err", err)
			}
			continue
		}
		if d.beat != nil {
			_, _ = d.beat.Write([]byte{beatWell})
		}
		if d.manager != nil && d.manager.Watchdog() > 0 {
			_ = d.manager.Notify("WATCHDOG=1")
		}
	}
}

// serve takes a container's listener: first a copy is kept.
func (d *daemon) serve(s agent.State, l *notify.Listener) error {
	ctx, cancel := context.WithTimeout(context.Background(), keepFor)
	defer cancel()
	d.keepCopy(ctx, s, l)
	err := d.add(s, l)
	if err != nil {
		d.store.forget(l)
	}
	return err
}

func (d *daemon) keepCopy(ctx context.Context, s agent.State, l *notify.Listener) {
	if err := d.store.keep(ctx, l); err != nil {
		d.unkept.Add(1)
		d.Log.Error("a container's listener is not kept: after a crash its trapped calls fail with ENOSYS", "container", s, "err", err)
	}
}

// sourceOptions are those of a container by the policy and the flags.
func (d *daemon) sourceOptions(tag *rules.Tag) engine.SourceOptions {
	o := engine.SourceOptions{Tag: tag}
	d.router.Policy().Settings().Source(&o)
	if d.WaitTarget != nil {
		o.WaitTarget = *d.WaitTarget
	}
	return o
}

// add has the engine serve a listener.
func (d *daemon) add(s agent.State, l *notify.Listener) error {
	o := d.sourceOptions(rules.NewTag(s))
	src, err := d.engine.AddWith(l, o)
	if err != nil {
		return err
	}
	go func() {
		<-src.Done()
		d.mu.Lock()
		ours := d.released[src]
		delete(d.released, src)
		d.mu.Unlock()
		if !ours && !d.stopping.Load() {
			d.store.forget(l)
		}
	}()
	return nil
}

// takeAll serves what a dead predecessor had. To find what it held takes milliseconds for each listener.
func (d *daemon) takeAll(all []named) {
	var busy sync.WaitGroup
	turn := make(chan struct{}, runtime.GOMAXPROCS(0))
	for _, n := range all {
		turn <- struct{}{}
		busy.Go(func() {
			_ = d.take(n.l, "a daemon that is no more", true)
			<-turn
		})
	}
	busy.Wait()
}

// take serves a listener of a predecessor, whose unanswered calls it answers first. One that lives has written down all
// that it received.
func (d *daemon) take(l *notify.Listener, whose string, dead bool) error {
	s, err := agent.StateOf(l)
	n := 0
	if err == nil && (dead || l.Journal().Outstanding() > 0) {
		n, err = agent.Recover(l, nil)
	}
	if err == nil {
		err = d.add(s, l)
	}
	if err != nil {
		d.Log.Error("a container is not served: its trapped calls wait, and fail with ENOSYS in the end", "container", s, "err", err)
		d.store.forget(l)
		_ = l.Close()
		return err
	}
	d.inheritedN.Add(1)
	d.interrupted.Add(int64(n))
	d.Log.Info("container taken", "container", s, "of", whose, "interrupted", n)
	return nil
}

// openSocket makes the socket, or takes that of a predecessor, and what it serves.
func (d *daemon) openSocket(in inherited) error {
	d.socket, d.activated = in.socket, in.activated
	if d.socket != nil {
		if at := d.socket.Addr().String(); at != d.Socket {
			return usagef("--socket %s: the service manager opened %s (ListenStream=): say that", d.Socket, at)
		}
		return nil
	}
	if d.TakeOver {
		if err := d.takeOver(); err != nil || d.socket != nil {
			return err
		}
	}
	l, err := unixsocket.Listen("unix", d.Socket, agent.DefaultMode)
	if errors.Is(err, unixsocket.ErrLive) && d.TakeOver {
		return fmt.Errorf("--socket: %w; it does not hand over: a service of systemd's is restarted (systemctl restart)", err)
	}
	if errors.Is(err, unixsocket.ErrLive) {
		return fmt.Errorf("--socket: %w; --take-over takes it, and all containers, from another unknot serve", err)
	}
	if err != nil {
		return fmt.Errorf("--socket: %w", err)
	}
	d.socket = l
	return nil
}

// openStatus opens the status page. That its address is in use is an error, unless it can be a predecessor's or
// containers wait: then it comes later.
func (d *daemon) openStatus(waiting bool) (net.Listener, error) {
	if d.Status == "" {
		return nil, nil
	}
	l, err := status.Listen(d.Status)
	if err == nil {
		d.showStatus(l)
		return l, nil
	}
	if d.later(waiting) {
		return nil, nil
	}
	return nil, fmt.Errorf("--status: %w", err)
}

// later reports whether an address in use can be a predecessor's, or containers wait, so that what is to be there comes later.
func (d *daemon) later(waiting bool) bool { return waiting || d.TakeOver && d.predecessor() != nil }

// retry opens what was in use, once it is free.
func (d *daemon) retry(what string, open func() error) {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		err := open()
		if err == nil {
			return
		}
		if pause > time.Second {
			d.Log.Error("there is no "+what+" yet", "err", err)
		}
		time.Sleep(pause)
	}
}

// A page is the status page while it is served.
type page struct {
	mu     sync.Mutex
	over   bool
	stop   context.CancelFunc // or nil
	served sync.WaitGroup
}

// begin serves, unless all is over.
func (p *page) begin(l net.Listener, serve func(context.Context)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		_ = l.Close()
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.served.Go(func() { serve(ctx) })
}

// close ends it. A socket's path is gone then.
func (p *page) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over = true; p.stop != nil {
		p.stop()
		p.served.Wait()
	}
}

func (d *daemon) showStatus(l net.Listener) {
	d.pages.begin(l, func(ctx context.Context) {
		err := status.Serve(ctx, l, status.Config{
			Engine: d.engine,
			Info:   status.Info{Program: "serve", PID: os.Getpid(), Version: d.Version, Confinement: d.Confinement, Started: d.started},
			Healthy: func() error {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				defer cancel()
				return d.engine.Alive(ctx)
			},
			Source:     container,
			Syscall:    callName,
			Collectors: d.collectors(),
			Logger:     d.Log,
		})
		if err != nil {
			d.Log.Error("there is no status page any more", "err", err)
		}
	})
	d.Log.Info("status page", "address", l.Addr().String())
}

// container names a listener's container.
func container(s *engine.Source) string {
	if t, ok := s.Tag().(*rules.Tag); ok {
		return t.Container()
	}
	return ""
}

// callName names a system call.
func callName(arch uint32, nr int32) string {
	if name := syscalls.Name(arch, nr); name != "" {
		return name
	}
	return strconv.Itoa(int(nr))
}

// say tells the service manager.
func (d *daemon) say(lines ...string) {
	if d.manager == nil {
		return
	}
	if err := d.manager.Notify(lines...); err != nil {
		d.Log.Warn("the service manager does not hear", "err", err)
	}
}

func (d *daemon) statusLine() string {
	p := d.router.Policy()
	line := fmt.Sprintf("STATUS=%d containers' listeners, %d rules of %s", len(d.engine.Sources()), p.Rules(), p.Name())
	if n := d.unkept.Load(); n > 0 {
		line += fmt.Sprintf("; %d listeners were not kept", n)
	}
	return line
}

// reload takes the policy anew. With a broken one nothing changes. The audit file is opened anew, too, as whoever
// rotates it wants.
func (d *daemon) reload() {
	d.say("RELOADING=1", systemd.Monotonic())
	defer func() { d.say("READY=1", d.statusLine()) }()
	if d.out != nil {
		if err := d.out.Reopen(); err != nil {
			d.Log.Error("the audit file is not opened anew: records go where they went", "err", err)
		}
	}
	p, text, err := d.load()
	if err != nil {
		d.refused.Add(1)
		d.Log.Error("the policy stays as it was", "err", err)
		return
	}
	if old := d.router.Policy().Settings(); !reflect.DeepEqual(old, p.Settings()) {
		d.Log.Warn("settings of the queue and its handlers are taken at the start only: restart, or start another with --take-over")
	}
	d.router.Swap(p)
	d.reloads.Add(1)
	d.saveGood(text)
	d.Log.Info("policy reloaded", "policy", d.Policy, "rules", p.Rules())
	for _, note := range p.Notes() {
		d.Log.Warn(note)
	}
}

// sameWish is within what time signals are one: timeout(1) sends two, and whoever ends a control group signals the
// daemon, and its keeper, which passes it on.
const sameWish = 500 * time.Millisecond

// stop ends the daemon: clients that are sending are served, then handlers finish, for at most Drain. A second
// signal ends the wait.
func (d *daemon) stop(signals <-chan os.Signal) error {
	d.say("STOPPING=1")
	d.stopping.Store(true) // what the engine closes from now on stays in the store
	n := len(d.engine.Sources())
	d.Log.Info("stopping; another signal hurries", "containers", n, "for at most", d.Drain)
	ctx, cancel := context.WithTimeout(context.Background(), d.Drain)
	defer cancel()
	first := time.Now()
	go func() {
		for {
			select {
			case s := <-signals:
				if s != unix.SIGHUP && time.Since(first) > cmp.Or(d.sameWish, sameWish) {
					d.Log.Warn("hurried: handlers are not waited for any more")
					cancel()
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	d.door.close()
	if !d.activated && !d.store.stays() && d.file.Remove() {
		_ = os.Remove(d.Socket + policySuffix)
	}
	// Runtimes send within milliseconds, and the drain is also for handlers.
	sending, done := context.WithTimeout(ctx, d.Drain/4)
	_ = d.agent.Drain(sending)
	done()
	d.leaveLXC(ctx)
	var all sync.WaitGroup
	for _, src := range d.engine.Sources() {
		all.Go(func() {
			if l, err := d.release(ctx, src); err == nil {
				_ = l.Close()
			}
		})
	}
	all.Wait()
	d.halt()
	if err := <-d.ended; err != nil {
		d.Log.Warn("handlers were not waited for: their calls are answered by default", "err", err)
	}
	switch {
	case d.store.stays():
		d.Log.Info("stopped; calls wait for the next daemon")
	case n > 0:
		d.Log.Warn("stopped; trapped calls of containers that run fail with ENOSYS from now on", "listeners", n)
	default:
		d.Log.Info("stopped")
	}
	return nil
}

// release takes a listener out of the engine that is not at its end.
func (d *daemon) release(ctx context.Context, src *engine.Source) (*notify.Listener, error) {
	d.mu.Lock()
	d.released[src] = true
	d.mu.Unlock()
	l, err := d.engine.Release(ctx, src)
	if err != nil {
		d.mu.Lock()
		delete(d.released, src)
		d.mu.Unlock()
	}
	return l, err
}

// openAudit opens the file of audit records.
func (d *daemon) openAudit() error {
	var to io.Writer = os.Stdout
	switch d.Audit {
	case "":
		return nil
	case "-":
	default:
		f, err := rules.OpenFile(d.Audit)
		if err != nil {
			return fmt.Errorf("--audit: %w", err)
		}
		to, d.out = f, f
	}
	d.audit = rules.NewAudit(to, rules.AuditOptions{Logger: d.Log, Buffer: d.records})
	return nil
}

func (d *daemon) closeAudit() {
	if d.audit == nil {
		return
	}
	if err := d.audit.Close(); err != nil {
		d.Log.Error("audit records were lost", "err", err)
	}
	if d.out != nil {
		_ = d.out.Close()
	}
}
