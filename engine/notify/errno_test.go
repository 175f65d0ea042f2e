package notify

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// TestTableIsClosed: nothing that is not in the table is anything but a bug,
// and only 0 is done.
func TestTableIsClosed(t *testing.T) {
	for op := range ops {
		for e := range unix.Errno(4096) {
			o := Classify(op, e)
			if _, listed := outcomes[op][e]; !listed && o != Bug {
				t.Errorf("%v: errno %d is %v", op, e, o)
			}
			if (o == Done) != (e == 0) {
				t.Errorf("%v: errno %d is %v", op, e, o)
			}
			err := opError(op, e)
			if (err == nil) != (e == 0) || OutcomeOf(err) != o {
				t.Errorf("%v: errno %d: %v is %v, want %v", op, e, err, OutcomeOf(err), o)
			}
			if err == nil {
				continue
			}
			var oe *OpError
			if !errors.Is(err, e) || !errors.As(err, &oe) || oe.Op != op || oe.Err != e {
				t.Errorf("%v: errno %d: %#v", op, e, err)
			}
			if want := fmt.Sprintf("%v: %v", op, e); err.Error() != want {
				t.Errorf("%q, want %q", err, want)
			}
		}
		if op.String() == "" {
			t.Errorf("op %d has no name", op)
		}
	}
	if OutcomeOf(errors.New("of other origin")) != Bug || OutcomeOf(nil) != Done {
		t.Error("OutcomeOf")
	}
	for o := Bug; o <= Refused; o++ {
		if o.String() == "" {
			t.Errorf("outcome %d has no name", o)
		}
	}
}

func TestBadAnswersAreRefused(t *testing.T) {
	closed := &Listener{}
	closed.fd.Store(-1)
	check := func(r Resp, ok bool) {
		t.Helper()
		err := r.Check()
		if ok != (err == nil) || !ok && !errors.Is(err, ErrBadResp) {
			t.Errorf("%+v: %v", r, err)
		}
		// The kernel must not be asked: a closed listener would be EBADF.
		if err := closed.Send(&r); ok != errors.Is(err, unix.EBADF) || !ok && !errors.Is(err, ErrBadResp) {
			t.Errorf("send %+v: %v", r, err)
		}
	}
	for e := int32(-5000); e <= 600; e++ {
		ok := e <= 0 && e >= -4095 && (e > -512 || e < -517)
		check(Resp{Error: e}, ok)
		check(Resp{Error: e, Flags: RespContinue}, e == 0)
	}
	for _, e := range []int32{-1 << 31, 1<<31 - 1} {
		check(Resp{Error: e}, false)
	}
	for _, v := range []int64{-1 << 63, -1, 0, 1, 1<<63 - 1} {
		check(Resp{Val: v}, true)
		check(Resp{Val: v, Flags: RespContinue}, v == 0)
	}
	for bit := range 32 {
		check(Resp{Flags: 1 << bit}, bit == 0)
	}
}

func TestClosedListenerIsOver(t *testing.T) {
	g := startTarget(t, 0)
	if err := g.l.Close(); err != nil {
		t.Fatal(err)
	}
	if fd := g.l.FD(); fd != -1 {
		t.Errorf("descriptor %d after close", fd)
	}
	wantErr(t, "recv", g.l.Recv(new(Notif)), unix.EBADF, Over)
	wantErr(t, "recv ready", g.l.RecvReady(new(Notif)), unix.EBADF, Over)
	wantErr(t, "send", g.l.Send(new(Resp)), unix.EBADF, Over)
	wantErr(t, "id valid", g.l.IDValid(1), unix.EBADF, Over)
	wantErr(t, "set flags", g.l.SetFlags(0), unix.EBADF, Over)
	_, err := g.l.AddFD(&AddFD{SrcFD: 0})
	wantErr(t, "addfd", err, unix.EBADF, Refused) // it may be the source as well
	if err := g.l.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
}

func TestOnlyAListenerIsAListener(t *testing.T) {
	dir := t.TempDir()
	file, err := os.Create(dir + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ep)
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(event)
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sock)
	for name, c := range map[string]struct {
		fd int
		e  unix.Errno
	}{
		"file": {int(file.Fd()), unix.ENOTTY}, "directory": {int(d.Fd()), unix.ENOTTY}, "device": {int(null.Fd()), unix.ENOTTY},
		"pipe": {int(r.Fd()), unix.ENOTTY}, "socket": {sock, unix.ENOTTY}, "eventfd": {event, unix.ENOTTY}, "epoll": {ep, 0},
		"nothing": {-1, unix.EBADF}, "closed number": {1 << 20, unix.EBADF},
	} {
		l, err := NewListener(c.fd)
		if err == nil || l != nil || c.e != 0 && !errors.Is(err, c.e) || !strings.Contains(err.Error(), fmt.Sprintf("descriptor %d is not a seccomp listener", c.fd)) {
			t.Errorf("%s: %v, want %v", name, err, c.e)
		}
		if c.e != unix.EBADF {
			if _, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFD, 0); err != nil {
				t.Errorf("%s was closed: it is the caller's", name)
			}
		}
	}
}

func TestSetFlags(t *testing.T) {
	g := startTarget(t, 0)
	if err := FeatureSyncWakeUp.Probe(); err != nil {
		t.Skip(err)
	}
	for _, flags := range []uint64{SyncWakeUp, 0, SyncWakeUp, SyncWakeUp, 0} {
		if err := g.l.SetFlags(flags); err != nil {
			t.Errorf("flags %d: %v", flags, err)
		}
	}
	for bit := 1; bit < 64; bit++ {
		wantErr(t, fmt.Sprintf("flag bit %d", bit), g.l.SetFlags(1<<bit), unix.EINVAL, Refused)
	}
	n := g.call()
	if err := g.l.SetFlags(SyncWakeUp); err != nil { // while one is held
		t.Error(err)
	}
	if err := g.l.Send(&Resp{ID: n.ID}); err != nil {
		t.Error(err)
	}
	g.Expect("0 0")
}

func TestAddFD(t *testing.T) {
	g := startTarget(t, 0)
	path := t.TempDir() + "/given"
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	src := uint32(f.Fd())

	// In two steps: the descriptor first, any answer after it.
	n := g.call()
	fd, err := g.l.AddFD(&AddFD{ID: n.ID, SrcFD: src, NewFDFlags: unix.O_CLOEXEC})
	if err != nil || fd < 0 {
		t.Fatal(fd, err)
	}
	if err := g.l.Send(&Resp{ID: n.ID, Val: 1234}); err != nil {
		t.Error(err)
	}
	g.Expect("1234 0")
	g.MustSay("link %d", fd)
	g.Expect("%s cloexec=true", path)

	// At once, where we say; in two steps on kernels that have no other way.
	n = g.call()
	got, err := g.l.AddFD(&AddFD{ID: n.ID, SrcFD: src, Flags: AddFDSend | AddFDSetFD, NewFD: 77})
	if FeatureAddFDSend.Probe() != nil {
		wantErr(t, "with the answer", err, unix.EINVAL, Bug)
		if got, err = g.l.AddFD(&AddFD{ID: n.ID, SrcFD: src, Flags: AddFDSetFD, NewFD: 77}); err == nil {
			err = g.l.Send(&Resp{ID: n.ID, Val: 77})
		}
	}
	if err != nil || got != 77 {
		t.Fatal(got, err)
	}
	g.Expect("77 0")
	g.MustSay("link 77")
	g.Expect("%s cloexec=false", path)

	// What is refused leaves the notification waiting.
	n = g.call()
	for name, c := range map[string]struct {
		a AddFD
		e unix.Errno
		o Outcome
	}{
		"no such source":     {AddFD{SrcFD: 1 << 20}, unix.EBADF, Refused},
		"source -1":          {AddFD{SrcFD: ^uint32(0)}, unix.EBADF, Refused},
		"unknown flag":       {AddFD{SrcFD: src, Flags: 4}, unix.EINVAL, Bug},
		"number, no flag":    {AddFD{SrcFD: src, NewFD: 5}, unix.EINVAL, Bug},
		"descriptor flags":   {AddFD{SrcFD: src, NewFDFlags: unix.O_RDWR}, unix.EINVAL, Bug},
		"no such id":         {AddFD{ID: n.ID + 1, SrcFD: src}, unix.ENOENT, Stale},
		"number beyond rlim": {AddFD{SrcFD: src, Flags: AddFDSetFD, NewFD: 1 << 30}, unix.EBADF, Refused},
	} {
		a := c.a
		if a.ID == 0 {
			a.ID = n.ID
		}
		fd, err := g.l.AddFD(&a)
		wantErr(t, name, err, c.e, c.o)
		if fd != -1 {
			t.Errorf("%s: descriptor %d", name, fd)
		}
	}
	if err := g.l.Send(&Resp{ID: n.ID}); err != nil {
		t.Error(err)
	}
	g.Expect("0 0")

	// The target's limit, not ours.
	g.MustSay("nofile 3")
	g.Expect("ok")
	n = g.call()
	_, err = g.l.AddFD(&AddFD{ID: n.ID, SrcFD: src})
	wantErr(t, "over the target's limit", err, unix.EMFILE, Refused)
	if err := g.l.Send(&Resp{ID: n.ID}); err != nil {
		t.Error(err)
	}
	g.Expect("0 0")

	// Not received yet.
	g.MustSay("call")
	g.pending()
	_, err = g.l.AddFD(&AddFD{ID: n.ID + 1, SrcFD: src})
	wantErr(t, "before it is received", err, unix.EINPROGRESS, Bug)
}

func TestInstallSaysWhy(t *testing.T) {
	ok, err := TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		prog  []unix.SockFilter
		flags InstallFlags
		want  string
	}{
		"empty":        {nil, 0, "install filter: 0 instructions, must be 1 to 4096"},
		"too long":     {make([]unix.SockFilter, 4097), 0, "4097 instructions"},
		"unknown flag": {ok, 1 << 30, "unknown flags 0x40000000"},
		"our own flag": {ok, newListener, "unknown flags"},
	} {
		if l, err := Install(c.prog, c.flags); err == nil || l != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want …%s…", name, err, c.want)
		}
	}
	// Install above must not have touched this process before it refused.
	if v, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil || v != 0 {
		t.Errorf("this thread is filtered now: %d, %v", v, err)
	}
	c := testchildTwice(t)
	for _, want := range []string{
		"this thread already has a filter with a listener (one per thread and its ancestors): device or resource busy",
		"the kernel refuses the program: invalid argument",
	} {
		if got := c.MustHear(); !strings.Contains(got, want) {
			t.Errorf("%q, want …%s…", got, want)
		}
	}
}

func TestPassingListeners(t *testing.T) {
	g := startTarget(t, 0)
	if !isCloexec(t, g.l.FD()) {
		t.Error("a received listener is not close-on-exec")
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	null, lfd := int(file.Fd()), g.l.FD()
	for _, c := range []struct {
		name  string
		data  []byte
		fds   []int
		creds bool // the receiver has asked for credentials too
		want  string
	}{
		{"a listener", []byte{'L'}, []int{lfd}, false, ""},
		{"a listener with credentials", []byte{'L'}, []int{lfd}, true, ""},
		{"nothing", []byte{'L'}, nil, false, "got 0 descriptors, want 1"},
		{"only credentials", []byte{'L'}, nil, true, "got 0 descriptors, want 1"},
		{"two listeners", []byte{'L'}, []int{lfd, lfd}, false, "got 2 descriptors, want 1"},
		{"two with credentials", []byte{'L'}, []int{lfd, lfd}, true, "got 2 descriptors, want 1"},
		{"many", []byte{'L'}, []int{lfd, lfd, lfd, lfd, lfd, lfd, lfd, lfd, lfd, lfd, lfd, lfd, lfd, lfd, lfd, lfd, lfd, lfd, lfd, lfd}, false, "descriptors, want 1"},
		{"no listener", []byte{'L'}, []int{null}, false, "is not a seccomp listener: inappropriate ioctl"},
		{"no listener, credentials", []byte{'L'}, []int{null}, true, "is not a seccomp listener"},
		{"more data", []byte("hello"), []int{lfd}, false, ""},
		{"the end", nil, nil, false, "take listener"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := socketpair(t)
			if c.creds {
				raw, err := b.SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) }); err != nil {
					t.Fatal(err)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			before := testchild.OpenFDs(t)
			if c.data == nil {
				_ = a.CloseWrite()
			} else if _, _, err := a.WriteMsgUnix(c.data, unix.UnixRights(c.fds...), nil); err != nil {
				t.Fatal(err)
			}
			l, err := RecvListener(b)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if !isCloexec(t, l.FD()) {
					t.Error("not close-on-exec")
				}
				wantErr(t, "the passed listener", l.IDValid(1), unix.ENOENT, Stale)
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			} else if err == nil || l != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want …%s…", err, c.want)
			}
			if after := testchild.OpenFDs(t); after != before {
				t.Errorf("%d descriptors are open, %d were before", after, before)
			}
		})
	}
	t.Run("to a closed end", func(t *testing.T) {
		a, b := socketpair(t)
		_ = b.Close()
		if err := SendListener(a, g.l); err == nil || !strings.Contains(err.Error(), "pass listener") {
			t.Error(err)
		}
	})
	t.Run("a closed listener", func(t *testing.T) {
		a, _ := socketpair(t)
		closed := &Listener{}
		closed.fd.Store(-1)
		if err := SendListener(a, closed); !errors.Is(err, os.ErrClosed) && !errors.Is(err, unix.EBADF) {
			t.Error(err)
		}
	})
}

func socketpair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
		t.Cleanup(func() { _ = c.Close() })
	}
	return conns[0], conns[1]
}

func TestNoDescriptorLeaks(t *testing.T) {
	startTarget(t, 0).kill() // whatever is opened once
	before := testchild.OpenFDs(t)
	for range 5 {
		t.Run("one", func(t *testing.T) {
			g := startTarget(t, 0)
			n := g.call()
			if err := g.l.Send(&Resp{ID: n.ID}); err != nil {
				t.Error(err)
			}
			g.Expect("0 0")
		})
	}
	if after := testchild.OpenFDs(t); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

func TestNotificationSaysWhoCalledWhat(t *testing.T) {
	g := startTarget(t, 0)
	g.MustSay("call")
	g.pending()
	n := Notif{ID: 1, PID: 2, Flags: 3, Data: Data{NR: 4}} // whatever was in it
	if err := g.l.RecvReady(&n); err != nil {
		t.Fatal(err)
	}
	if int(n.PID) != g.tid || n.Flags != 0 || n.Data.NR != unix.SYS_GETPPID || n.Data.Arch != nativeArch || n.Data.IP == 0 {
		t.Errorf("%+v of thread %d", n, g.tid)
	}
	if err := g.l.Send(&Resp{ID: n.ID, Val: -5, Error: -int32(unix.EXDEV)}); err != nil {
		t.Error(err)
	}
	g.Expect("-1 %d", unix.EXDEV) // an error hides the value
	// -4095 is an errno too, but package syscall takes it for a value.
	for _, e := range []int32{-1, -511, -518, -4094} {
		n := g.call()
		if err := g.l.Send(&Resp{ID: n.ID, Error: e}); err != nil {
			t.Error(err)
		}
		g.Expect("-1 %d", -e)
	}
}

// The path of a notification allocates nothing, nor do the errors on it.
func TestNoAllocations(t *testing.T) {
	g := startTarget(t, 0)
	const rounds = 200
	var n Notif
	var r Resp
	g.MustSay("calls %d", rounds+1) // AllocsPerRun runs once more
	if a := testing.AllocsPerRun(rounds, func() {
		if err := g.l.Recv(&n); err != nil {
			t.Fatal(err)
		}
		if err := g.l.IDValid(n.ID); err != nil {
			t.Fatal(err)
		}
		r = Resp{ID: n.ID, Val: 5}
		if err := g.l.Send(&r); err != nil {
			t.Fatal(err)
		}
	}); a != 0 {
		t.Errorf("%v allocations per notification", a)
	}
	g.Expect("5 0")
	flags := Done
	if FeatureSyncWakeUp.Probe() != nil {
		flags = Refused
	}
	if a := testing.AllocsPerRun(rounds, func() {
		if OutcomeOf(g.l.IDValid(1)) != Stale || OutcomeOf(g.l.Send(&r)) != Stale || OutcomeOf(g.l.SetFlags(0)) != flags {
			t.Fatal("not stale")
		}
	}); a != 0 {
		t.Errorf("%v allocations per stale notification", a)
	}
}

func TestUnsupportedError(t *testing.T) {
	err := error(&UnsupportedError{Feature: "X", Since: "9.9", Err: unix.EINVAL})
	if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, unix.EINVAL) || err.Error() != "X is not available (needs Linux 9.9): invalid argument" {
		t.Error(err)
	}
	for _, c := range []struct {
		release string
		err     error
		want    string
	}{
		{"5.10.0-28-amd64", unix.EINVAL, "X is not available (needs Linux 5.19): invalid argument"},
		{"4.19", unix.EPERM, "X is not available (needs Linux 5.19): operation not permitted"},
		{"", unix.EINVAL, "X is not available (needs Linux 5.19): invalid argument"},
		{"5.19-rc1", unix.EINVAL, "X is not available (Linux 5.19 and later have it, and this is 5.19-rc1): invalid argument"},
		{"6.1.0", callError(unix.EPERM), "X is not available (something refuses it: if a container's seccomp profile does, allow the call there): seccomp(2): operation not permitted"},
		{"6.1.0", callError(unix.ENOSYS), "X is not available (a container's seccomp profile hides the call: allow it there; or the kernel has no CONFIG_SECCOMP_FILTER): seccomp(2): function not implemented"},
		{"6.1.0", callError(unix.EBUSY), "X is not available: seccomp(2): device or resource busy"},
		{"6.1.0", nil, "X is not available"},
	} {
		e := &UnsupportedError{Feature: "X", Since: "5.19", Err: c.err}
		if got := e.on(c.release); got != c.want {
			t.Errorf("on %q: %q, want %q", c.release, got, c.want)
		}
	}
	if !(&UnsupportedError{Since: "99.0"}).TooOld() || (&UnsupportedError{Since: "5.0"}).TooOld() {
		t.Error("this kernel is not between Linux 5.0 and 99.0")
	}
	// A flag from the future: the probe must say no, or it says yes to all.
	f := Feature{Name: "future", Since: "99.0", probe: flagProbe(1 << 30)}
	if first, second := f.Probe(), f.Probe(); first == nil || first != second || !errors.Is(first, unix.EINVAL) {
		t.Errorf("%v, then %v", first, second)
	}
}
