package notify

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// An UnsupportedError says that this kernel, or this user on it, lacks a feature.
// errors.Is(err, errors.ErrUnsupported) holds for it.
type UnsupportedError struct {
	Feature string
	Since   string // the first kernel that has it
	Err     error  // what the probe saw
}

// Error blames the kernel's age only if the kernel is older than Since. Else it
// says who may be in the way, and Err names the call.
func (e *UnsupportedError) Error() string { return e.on(runningKernel()) }

// TooOld reports whether the running kernel is older than Since, or does not
// tell its version.
func (e *UnsupportedError) TooOld() bool { return olderThan(runningKernel(), e.Since) }

// on is the message on a kernel of that release.
func (e *UnsupportedError) on(release string) string {
	s := e.Feature + " is not available"
	switch {
	case olderThan(release, e.Since):
		s += " (needs Linux " + e.Since + ")"
	case errors.Is(e.Err, unix.EPERM), errors.Is(e.Err, unix.EACCES):
		s += " (something refuses it: if a container's seccomp profile does, allow the call there)"
	case errors.Is(e.Err, unix.ENOSYS):
		s += " (a container's seccomp profile hides the call: allow it there; or the kernel has no CONFIG_SECCOMP_FILTER)"
	case errors.Is(e.Err, unix.EINVAL), errors.Is(e.Err, unix.ENOTTY):
		s += " (Linux " + e.Since + " and later have it, and this is " + release + ")"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// runningKernel is the release that uname(2) tells: "6.1.0-18-amd64".
var runningKernel = sync.OnceValue(func() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
})

// olderThan compares the first two numbers of a release with a version. A
// release that has none counts as older, since nothing is known of it.
func olderThan(release, since string) bool {
	var major, minor, sinceMajor, sinceMinor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return true
	}
	_, _ = fmt.Sscanf(since, "%d.%d", &sinceMajor, &sinceMinor)
	return major < sinceMajor || major == sinceMajor && minor < sinceMinor
}

func (e *UnsupportedError) Unwrap() error { return e.Err }

func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// A Feature is something that kernels have from some version on. It is probed
// by behaviour, since distributions backport and containers take away.
type Feature struct {
	Name  string
	Since string
	flag  InstallFlags
	probe func() error
	once  sync.Once
	err   error
}

// Probe returns nil if the feature works here, else an *[UnsupportedError]. The
// kernel is asked once; later calls repeat the answer.
func (f *Feature) Probe() error {
	f.once.Do(func() {
		if err := f.probe(); err != nil {
			f.err = &UnsupportedError{Feature: f.Name, Since: f.Since, Err: err}
		}
	})
	return f.err
}

// The features that a supervisor may want.
var (
	FeatureNotify        = &Feature{Name: "seccomp user notification", Since: "5.0", probe: probeNotify}
	FeatureContinue      = &Feature{Name: "answer by continuing the call", Since: "5.5", probe: func() error { return tryout().cont }}
	FeatureAddFD         = &Feature{Name: "ADDFD", Since: "5.9", probe: func() error { return tryout().addFD }}
	FeatureAddFDSend     = &Feature{Name: "ADDFD with answer", Since: "5.14", probe: func() error { return tryout().addFDSend }}
	FeatureHangup        = &Feature{Name: "EPOLLHUP when no target is left", Since: "5.9", probe: func() error { return tryout().hangup }}
	FeatureSyncWakeUp    = &Feature{Name: "SYNC_WAKE_UP", Since: "6.6", probe: func() error { return tryout().syncWakeUp }}
	FeatureWaitKillable  = &Feature{Name: "WAIT_KILLABLE_RECV", Since: "5.19", flag: WaitKillableRecv, probe: flagProbe(WaitKillableRecv)}
	FeatureTSyncListener = &Feature{Name: "TSYNC_ESRCH", Since: "5.7", flag: TSync, probe: flagProbe(TSync | tsyncESRCH)}
)

// Require probes features and returns what is missing: nil, or an error that names each
// that is, with the first kernel that has it. A program calls it before it installs a
// filter, since a missing feature shows only when the first call waits for its answer.
func Require(fs ...*Feature) error {
	errs := make([]error, 0, len(fs))
	for _, f := range fs {
		errs = append(errs, f.Probe())
	}
	return errors.Join(errs...)
}

// Features lists them all, oldest first.
func Features() []*Feature {
	return []*Feature{FeatureNotify, FeatureContinue, FeatureTSyncListener, FeatureAddFD, FeatureHangup, FeatureAddFDSend, FeatureWaitKillable, FeatureSyncWakeUp}
}

func probeNotify() error {
	if e := actionAvail(unix.SECCOMP_RET_USER_NOTIF); e != 0 {
		return callError(e)
	}
	return CheckSizes()
}

// flagProbe asks for flags with no program: EFAULT means that the flags are fine.
func flagProbe(flags InstallFlags) func() error {
	return func() error {
		if _, e := setModeFilter(flags|newListener, nil); e != unix.EFAULT {
			return callError(e)
		}
		return nil
	}
}

// callError names the call that failed with e.
func callError(e unix.Errno) error { return fmt.Errorf("seccomp(2): %w", e) }

// tried holds what a real target on a thread of our own showed.
type tried struct{ cont, addFD, addFDSend, syncWakeUp, hangup error }

// tryout traps getppid on a fresh thread, which then dies, and answers its
// calls in every way there is. Nothing of the process keeps the filter.
var tryout = sync.OnceValue(func() (t tried) {
	fail := func(err error) tried { return tried{err, err, err, err, err} }
	if err := FeatureNotify.Probe(); err != nil {
		return fail(err)
	}
	prog, err := TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return fail(err)
	}
	type installed struct {
		l   *Listener
		err error
	}
	ready := make(chan installed)
	next := make(chan struct{})
	results := make(chan error)
	osthread.Start(func() {
		l, err := Install(prog, 0)
		ready <- installed{l, err}
		if err != nil {
			return
		}
		for range next {
			var err error
			if _, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0); e != 0 {
				err = e
			}
			results <- err
		}
	})
	in := <-ready
	if in.err != nil {
		return fail(in.err)
	}
	l := in.l
	t.syncWakeUp = l.SetFlags(SyncWakeUp)

	// one makes the target call and answers with a, or else with an errno. Where
	// neither can be done the end of the listener frees the target.
	var broken error
	one := func(answer func(id uint64) error) error {
		if broken != nil {
			return broken
		}
		next <- struct{}{}
		var n Notif
		for {
			if err := l.Recv(&n); err == nil {
				break
			} else if OutcomeOf(err) != Retry && OutcomeOf(err) != Stale {
				broken = fmt.Errorf("ioctl(2): %w", err)
				_ = l.Close()
				<-results
				return broken
			}
		}
		err := answer(n.ID)
		if err != nil && OutcomeOf(err) != Stale {
			if e := l.Send(&Resp{ID: n.ID, Error: -int32(unix.EPERM)}); e != nil && OutcomeOf(e) != Stale {
				broken = fmt.Errorf("ioctl(2): %w", e)
				_ = l.Close()
			}
		}
		<-results
		return err
	}
	t.cont = one(func(id uint64) error { return l.Send(&Resp{ID: id, Flags: RespContinue}) })
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.addFD, t.addFDSend = err, err
	} else {
		// The "target" is this process: what it gets we close again.
		src := uint32(null.Fd())
		t.addFD = one(func(id uint64) error {
			fd, err := l.AddFD(&AddFD{ID: id, SrcFD: src, NewFDFlags: unix.O_CLOEXEC})
			if err != nil {
				return err
			}
			_ = unix.Close(fd)
			return l.Send(&Resp{ID: id})
		})
		t.addFDSend = one(func(id uint64) error {
			fd, err := l.AddFD(&AddFD{ID: id, SrcFD: src, Flags: AddFDSend, NewFDFlags: unix.O_CLOEXEC})
			if err == nil {
				_ = unix.Close(fd)
			}
			return err
		})
		_ = null.Close()
	}
	close(next) // the thread ends, and with it the last user of the filter
	if broken != nil {
		t.hangup = broken
		return t
	}
	p := []unix.PollFd{{Fd: int32(l.FD()), Events: unix.POLLIN}}
	deadline := time.Now().Add(2 * time.Second)
	t.hangup = errors.New("poll saw no hang-up within 2 s")
	for time.Now().Before(deadline) {
		if n, err := unix.Poll(p, 100); err == nil && n > 0 && p[0].Revents&unix.POLLHUP != 0 {
			t.hangup = nil
			break
		}
	}
	_ = l.Close()
	return t
})
