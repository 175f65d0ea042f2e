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

	"golang.org/x/sys/unix"
)

// A Plan is all that can be known before the thread is there. It may confine
// any number of threads, one after the other or at once; they share its cookies.
type Plan struct {
	cfg      Config
	cookies  [3]uintptr
	poller   poller
	landlock landlockABI
}

// Prepare checks c, draws the cookies and asks the kernel what it has. It
// changes nothing but that the Go runtime's poller is started.
func Prepare(c Config) (*Plan, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	if e := actionAvail(c.OnViolation.ret()); e != 0 {
		return nil, fmt.Errorf("confine: seccomp filter that can %v: %w (%s)", c.OnViolation, e, seccompRemedy)
	}
	p := &Plan{cfg: c}
	var err error
	if p.poller, err = runtimePoller(); err != nil {
		return nil, err
	}
	if p.landlock, err = probeLandlock(); err != nil {
		return nil, err
	}
	if c.RequireLandlock && p.landlock.version == 0 {
		return nil, fmt.Errorf("confine: landlock is required: %w (Linux 5.13 with CONFIG_SECURITY_LANDLOCK, and landlock in the list after lsm= on the kernel's command line)", p.landlock.missing)
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

const seccompRemedy = "needs Linux 4.14 with CONFIG_SECCOMP_FILTER, and no container profile that forbids seccomp(2)"

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
	st := &Status{TID: tid, Level: p.cfg.Level, Signals: p.cfg.Signals, OnViolation: p.cfg.OnViolation, Landlock: p.landlock.String(), Compiler: compiler()}
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

	step := func(what, remedy string, err error) error {
		if err == nil {
			return nil
		}
		if remedy != "" {
			remedy = " (" + remedy + ")"
		}
		return fmt.Errorf("confine: %s: %w%s", what, err, remedy)
	}
	if err := step("mask signals", "", setMask(blocked)); err != nil {
		return nil, err
	}
	if err := step("no_new_privs", "", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); err != nil {
		return nil, err
	}
	st.StoreBypass = "allowed"
	var flags uintptr
	if p.cfg.SpecAllow {
		flags = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	} else {
		st.StoreBypass = denyStoreBypass()
	}
	what := unix.CLONE_FS | unix.CLONE_SYSVSEM
	if p.cfg.Level == Private {
		what |= unix.CLONE_FILES
	}
	if err := step("unshare", "does a container's seccomp profile forbid it? allow unshare(2) there", unix.Unshare(what)); err != nil {
		return nil, err
	}
	if p.cfg.Level == Private {
		if err := step("close other descriptors", "close_range needs Linux 5.9", closeBut(st.FDs)); err != nil {
			return nil, err
		}
	}
	if p.landlock.version > 0 {
		if err := step("restrict", "", p.landlock.restrictSelf()); err != nil {
			return nil, err
		}
	}
	if e := loadFilter(prog, flags); e != 0 {
		return nil, step("load the seccomp filter", seccompRemedy, e)
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

// closeBut closes the descriptors of the calling thread's table that are not in
// keep, which is in order.
func closeBut(keep []int) error {
	next := uint(0)
	for _, fd := range keep {
		if uint(fd) > next {
			if err := unix.CloseRange(next, uint(fd)-1, 0); err != nil {
				return err
			}
		}
		next = uint(fd) + 1
	}
	return unix.CloseRange(next, ^uint(0)>>32, 0)
}
