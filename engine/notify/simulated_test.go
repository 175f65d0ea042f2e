package notify

import (
	"errors"
	"math"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fixed is a Kernel that answers each ioctl with an errno, or what it is given with.
type fixed struct {
	e     unix.Errno
	resp  Resp
	id    uint64
	addFD AddFD
	flags uint64
}

func (k *fixed) Recv() (Notif, unix.Errno)                          { return Notif{ID: 7, PID: 8}, k.e }
func (k *fixed) Send(r Resp) unix.Errno                             { k.resp = r; return k.e }
func (k *fixed) IDValid(id uint64) unix.Errno                       { k.id = id; return k.e }
func (k *fixed) AddFD(a AddFD) (int, unix.Errno)                    { k.addFD = a; return 9, k.e }
func (k *fixed) SetFlags(f uint64) unix.Errno                       { k.flags = f; return k.e }
func (k *fixed) ReadMem(int, uint64, []byte) (int, unix.Errno)      { return 0, k.e }
func (k *fixed) WriteMem(int, uint64, []byte) (n int, e unix.Errno) { return 0, k.e }

// TestSimulated: each ioctl reaches the kernel that stands in, and its errnos mean what Linux's do.
func TestSimulated(t *testing.T) {
	k := &fixed{}
	l := Simulated(k)
	if l.FD() != -1 || l.Kernel() != Kernel(k) || new(Listener).Kernel() != nil {
		t.Errorf("descriptor %d, kernel %v", l.FD(), l.Kernel())
	}
	for _, recv := range []func(*Notif) error{l.Recv, l.RecvReady} {
		n := Notif{Flags: 1}
		if err := recv(&n); err != nil || n != (Notif{ID: 7, PID: 8}) {
			t.Errorf("received %+v, %v", n, err)
		}
	}
	a, r := AddFD{ID: 7, SrcFD: 3, NewFDFlags: unix.O_CLOEXEC}, Resp{ID: 7, Val: 5}
	if fd, err := l.AddFD(&a); fd != 9 || err != nil || k.addFD != a {
		t.Errorf("added %d, %v: %+v", fd, err, k.addFD)
	}
	if err := errors.Join(l.Send(&r), l.IDValid(7), l.SetFlags(SyncWakeUp)); err != nil || k.resp != r || k.id != 7 || k.flags != SyncWakeUp {
		t.Errorf("%v: %+v", err, k)
	}
	if err := l.Send(&Resp{Error: 1}); !errors.Is(err, ErrBadResp) || k.resp != r {
		t.Errorf("a bad answer: %v, %+v", err, k.resp)
	}
	k.e = unix.ENOENT
	_, err := l.AddFD(&a)
	for _, err := range []error{err, l.Recv(new(Notif)), l.Send(&r), l.IDValid(7)} {
		if OutcomeOf(err) != Stale {
			t.Errorf("ENOENT is %v: %v", OutcomeOf(err), err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestAddFDCheck: each thing that the kernel would refuse is named.
func TestAddFDCheck(t *testing.T) {
	for want, a := range map[string]AddFD{
		"descriptor -1":  {SrcFD: math.MaxUint32},
		"unknown flags":  {Flags: 8},
		"AddFDSetFD":     {NewFD: 5},
		"negative":       {Flags: AddFDSetFD, NewFD: 1 << 31},
		"only O_CLOEXEC": {NewFDFlags: unix.O_NONBLOCK},
		"":               {SrcFD: 1, Flags: AddFDSetFD | AddFDSend, NewFD: 3, NewFDFlags: unix.O_CLOEXEC},
	} {
		err := a.Check()
		if want == "" != (err == nil) || err != nil && (!errors.Is(err, ErrBadAddFD) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: %v", a, err)
		}
	}
}
