package notify

import (
	"errors"
	"os"
	"testing"

	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

func TestFeaturesOfThisKernel(t *testing.T) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	for _, f := range Features() {
		err := f.Probe()
		t.Logf("%-32s since %-5s %v", f.Name, f.Since, err)
		var un *UnsupportedError
		if err != nil && (!errors.As(err, &un) || !errors.Is(err, errors.ErrUnsupported)) {
			t.Errorf("%s: %v is no UnsupportedError", f.Name, err)
		}
		if err != nil && kernelAtLeast(t, unix.ByteSliceToString(u.Release[:]), f.Since) {
			t.Errorf("%s should be in Linux %s: %v", f.Name, unix.ByteSliceToString(u.Release[:]), err)
		}
	}
}

func TestRequireNamesAllThatIsMissing(t *testing.T) {
	lacks := func(name string) *Feature {
		return &Feature{Name: name, Since: "9.9", probe: func() error { return unix.EINVAL }}
	}
	has := &Feature{Name: "is here", probe: func() error { return nil }}
	if err := Require(has, FeatureNotify); err != nil {
		t.Error(err)
	}
	err := Require(lacks("one"), has, lacks("two"))
	if !errors.Is(err, errors.ErrUnsupported) || err.Error() != "one is not available (needs Linux 9.9): invalid argument\ntwo is not available (needs Linux 9.9): invalid argument" {
		t.Errorf("%v", err)
	}
}

func TestAnswersReachTheTarget(t *testing.T) {
	prog, err := TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		val uintptr
		e   unix.Errno
	}
	ready := make(chan *Listener, 1)
	results := make(chan result)
	next := make(chan struct{})
	osthread.Start(func() {
		l, err := Install(prog, 0)
		if err != nil {
			t.Error(err)
		}
		ready <- l
		for range next {
			v, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
			results <- result{v, e}
		}
	})
	l := <-ready
	if l == nil {
		t.FailNow()
	}
	for _, c := range []struct {
		resp Resp
		want result
	}{
		{Resp{Val: 42}, result{42, 0}},
		{Resp{Error: -int32(unix.EPERM)}, result{^uintptr(0), unix.EPERM}},
		{Resp{Flags: RespContinue}, result{uintptr(os.Getppid()), 0}},
	} {
		next <- struct{}{}
		var n Notif
		if err := l.Recv(&n); err != nil {
			t.Fatal(err)
		}
		if n.Data.NR != unix.SYS_GETPPID || n.Data.Arch != nativeArch || n.PID == 0 {
			t.Errorf("notification %+v", n)
		}
		if err := l.IDValid(n.ID); err != nil {
			t.Error(err)
		}
		c.resp.ID = n.ID
		if err := l.Send(&c.resp); err != nil {
			t.Error(err)
		}
		if got := <-results; got != c.want {
			t.Errorf("answer %+v: target saw %+v, want %+v", c.resp, got, c.want)
		}
		if err := l.Send(&c.resp); OutcomeOf(err) != Stale {
			t.Errorf("second answer: %v, want stale", err)
		}
	}
	close(next)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
}

func kernelAtLeast(t *testing.T, release, since string) bool {
	parse := func(s string) (v [2]int) {
		for i, part := 0, 0; i < len(s) && part < 2; i++ {
			switch c := s[i]; {
			case c >= '0' && c <= '9':
				v[part] = v[part]*10 + int(c-'0')
			case c == '.':
				part++
			default:
				return v
			}
		}
		return v
	}
	have, want := parse(release), parse(since)
	return have[0] > want[0] || have[0] == want[0] && have[1] >= want[1]
}
