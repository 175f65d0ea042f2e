package confine

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// A Plan is all that can be known before the thread is there. It may confine
// any number of threads, one after the other or at once; they share its cookies.
type Plan struct {
	cfg      Config
	cookies  [3]uintptr
	poller   poller
	landlock landlockABI
	lacks    lacks
	missing  []string
}

// Prepare checks c, draws the cookies and asks the kernel what it has. It
// changes nothing but that the Go runtime's poller is started. With
// [Config].Best it tries each step on a thread that then ends; for that moment
// there is a second copy of the process's descriptors.
func Prepare(c Config) (*Plan, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	if e := actionAvail(c.OnViolation.ret()); e != 0 {
		return nil, fmt.Errorf("confine: seccomp filter that can %v: %s: %w (%s)", c.OnViolation, callFilter, e, seccompRemedy(e))
	}
	p := &Plan{cfg: c}
	var err error
	if p.poller, err = runtimePoller(); err != nil {
		return nil, err
	}
	if p.landlock, err = probeLandlock(); err != nil {
		if !c.Best || c.RequireLandlock {
			return nil, fmt.Errorf("confine: %w (%s)", err, refusedRemedy)
		}
		p.lacks[stepLandlock] = err
	} else if p.landlock.version == 0 {
		p.lacks[stepLandlock] = fmt.Errorf("%s: %w", callRuleset, p.landlock.missing)
		if c.RequireLandlock {
			return nil, fmt.Errorf("confine: landlock is required: %w (Linux 5.13 with CONFIG_SECURITY_LANDLOCK, and landlock in the list after lsm= on the kernel's command line)", p.lacks[stepLandlock])
		}
	}
	if c.Best {
		p.try(&p.lacks)
		if c.RequireLandlock && p.lacks[stepLandlock] != nil {
			return nil, fmt.Errorf("confine: landlock is required: %w (%s)", p.lacks[stepLandlock], refusedRemedy)
		}
	}
	p.missing = p.lacks.list(c.Level)
	if p.lacks[stepUnshare] != nil {
		p.cfg.Level = Shared // closing a descriptor would close the process's
	}
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails
	for i := range p.cookies {
		p.cookies[i] = uintptr(binary.NativeEndian.Uint64(b[8*i:]))
	}
	_ = time.Now().Local().String() // loads the time zone, which a logger on the thread could not
	return p, nil
}

// Cookies are the words that the thread's ioctls must carry in their unused
// arguments. They are secret from requests, not from the process.
func (p *Plan) Cookies() [3]uintptr { return p.cookies }

// Missing names what the thread will do without, each with the call that failed
// and why: landlock where the kernel has none, and with [Config].Best whatever
// is refused. It is empty where nothing is missing.
func (p *Plan) Missing() []string { return slices.Clone(p.missing) }

// Level is the level at which the thread will be: [Shared] where [Config].Best
// found that a file table of its own is refused.
func (p *Plan) Level() Level { return p.cfg.Level }

// Rules returns the filter's table for t.
func (p *Plan) Rules(t Thread) []Rule {
	f := facts{Config: p.cfg, Thread: t, poller: p.poller, cookies: p.cookies, pid: os.Getpid()}
	return f.rules()
}

// LogWriter writes to the log as a confined thread must: directly, and with the
// cookies. Each Write is one system call unless it is interrupted or cut short.
// Any thread may use it.
func (p *Plan) LogWriter() io.Writer { return logWriter{p} }

type logWriter struct{ p *Plan }

func (w logWriter) Write(b []byte) (n int, err error) {
	for n < len(b) {
		m, e := writeCookies(w.p.cfg.LogFD, b[n:], w.p.cookies)
		switch e {
		case 0:
			n += m
		case unix.EINTR:
		default:
			return n, fmt.Errorf("write to log descriptor %d: %w", w.p.cfg.LogFD, e)
		}
	}
	return n, nil
}

// seccompRemedy says what helps where seccomp(2) fails with e.
func seccompRemedy(e unix.Errno) string {
	switch e {
	case unix.EPERM, unix.EACCES:
		return refusedRemedy
	case unix.ENOSYS:
		return "a kernel with CONFIG_SECCOMP_FILTER is needed, and no container's seccomp profile that hides the call"
	}
	return "needs Linux 4.14 with CONFIG_SECCOMP_FILTER"
}

// Confine confines the calling thread for good and returns once another thread
// has verified it from outside. It locks the calling goroutine to the thread,
// which must not be the main thread. On error the thread may be confined in
// part: end the goroutine, and the thread ends with it.
func (p *Plan) Confine(t Thread) (*Status, error) {
	runtime.LockOSThread() // never undone
	tid := unix.Gettid()
	if tid == os.Getpid() {
		return nil, fmt.Errorf("confine: this is the main thread, which outlives its goroutine and is what /proc/self shows: use another (osthread.Start)")
	}
	if err := p.cfg.check(t); err != nil {
		return nil, err
	}
	st := &Status{TID: tid, Level: p.cfg.Level, Signals: p.cfg.Signals, OnViolation: p.cfg.OnViolation, Compiler: compiler(),
		Missing: p.Missing(), NoNewPrivs: p.lacks[stepPrivs] == nil}
	if err := p.lacks[stepLandlock]; err != nil {
		st.Landlock = fmt.Sprintf("none (%v)", err)
	} else {
		st.Landlock = p.landlock.String()
	}
	if p.cfg.Level == Private {
		var err error
		if st.FDs, err = p.keep(t); err != nil {
			return nil, err
		}
	}
	// Not on this thread: C code may leave memory with it that its end gives
	// back, by calls that the filter does not have.
	prog, err := p.compile(t)
	if err != nil {
		return nil, err
	}
	st.Instructions = len(prog)
	// Random numbers from the vDSO need memory for each thread, which is mapped
	// in a way that the filter does not have.
	_, _ = rand.Read(make([]byte, 1))
	blocked := p.cfg.Signals.blocked(t.Signal)
	verified, drop := verifier(tid, blocked, st)
	defer drop()

	// take takes a step unless the plan does without.
	take := func(s step, do func() error) error {
		if p.lacks[s] != nil {
			return nil
		}
		if err := do(); err != nil {
			return fmt.Errorf("confine: %w (%s)", err, refusedRemedy)
		}
		return nil
	}
	if err := setMask(blocked); err != nil {
		return nil, fmt.Errorf("confine: mask signals: %w", err)
	}
	if err := take(stepPrivs, setPrivs); err != nil {
		return nil, err
	}
	st.StoreBypass = "allowed"
	var flags uintptr
	if p.cfg.SpecAllow {
		flags = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	} else {
		st.StoreBypass = denyStoreBypass()
	}
	if err := take(stepUnshare, p.cfg.Level.unshare); err != nil {
		return nil, err
	}
	if p.cfg.Level == Private { // the table is the thread's own
		if err := closeBut(st.FDs); err != nil {
			return nil, fmt.Errorf("confine: close other descriptors: %w", err)
		}
	}
	if err := take(stepLandlock, p.landlock.restrictSelf); err != nil {
		return nil, err
	}
	osthread.SetConfined(p.cfg.Requests)
	if e := loadFilter(prog, flags); e != 0 {
		return nil, fmt.Errorf("confine: load the filter: %s: %w (%s)", callFilter, e, seccompRemedy(e))
	}
	if err := verified(); err != nil {
		return nil, fmt.Errorf("confine: thread %d is not what it should be: %w", tid, err)
	}
	return st, nil
}

// compile compiles the table on another thread.
func (p *Plan) compile(t Thread) ([]unix.SockFilter, error) {
	type result struct {
		prog []unix.SockFilter
		err  error
	}
	c := make(chan result)
	go func() {
		prog, err := compile(p.Rules(t), p.cfg.OnViolation)
		c <- result{prog, err}
	}()
	r := <-c
	return r.prog, r.err
}

// keep returns, in order, what a private file table keeps.
func (p *Plan) keep(t Thread) ([]int, error) {
	var keep []int
	for _, d := range []struct {
		fd   int
		what string
	}{{t.Listeners[0], "the listener"}, {t.Epoll, "the thread's epoll instance"}, {t.Wake, "the thread's eventfd"}, {p.cfg.LogFD, "the log"},
		{stderr, ""}, {p.poller.epoll, "the runtime's epoll instance"}, {p.poller.event, "the runtime's eventfd"}} {
		if d.fd < 0 && d.what != "the listener" {
			continue
		}
		if _, err := unix.FcntlInt(uintptr(d.fd), unix.F_GETFD, 0); err != nil {
			if d.fd == stderr { // a daemon may have closed it
				continue
			}
			return nil, fmt.Errorf("confine: descriptor %d, %s: %w", d.fd, d.what, err)
		}
		keep = append(keep, d.fd)
	}
	slices.Sort(keep)
	return slices.Compact(keep), nil
}
