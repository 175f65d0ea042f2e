package notify

import (
	"errors"
	"os"
	"testing"
	"unsafe"

	"github.com/unknot/unknot/internal/kernel"
	"golang.org/x/sys/unix"
)

// TestKernelRefusesWhatWeNeverSend shows that the checks above the ioctls are
// needed, and that the errnos behind them are what the table says.
func TestKernelRefusesWhatWeNeverSend(t *testing.T) {
	g := startTarget(t, 0)

	g.MustSay("call")
	g.pending()
	dirty := Notif{PID: 1}
	_, e := rawIoctl(g.l, IoctlRecv, unsafe.Pointer(&dirty))
	wantErr(t, "recv into a buffer that is not zero", opError(OpRecv, e), unix.EINVAL, Bug)
	n := g.recv() // it is still there

	for name, r := range map[string]Resp{
		"continue with a value":  {Flags: RespContinue, Val: 1},
		"continue with an error": {Flags: RespContinue, Error: -1},
		"unknown flag":           {Flags: 2},
	} {
		r.ID = n.ID
		wantErr(t, name, opError(OpSend, g.l.sendUnchecked(&r)), unix.EINVAL, Bug)
		if !errors.Is(r.Check(), ErrBadResp) {
			t.Errorf("%s passes Check", name)
		}
	}
	for op, req := range map[Op]uintptr{OpSend: IoctlSend, OpIDValid: IoctlIDValid, OpAddFD: IoctlAddFD} {
		_, e := rawIoctl(g.l, req, nil)
		wantErr(t, op.String()+" with no argument", opError(op, e), unix.EFAULT, Bug)
	}
	var flags uint64 = SyncWakeUp
	_, e = rawIoctl(g.l, IoctlSetFlags, unsafe.Pointer(&flags))
	wantErr(t, "flags by pointer", opError(OpSetFlags, e), unix.EINVAL, Refused)

	// An error that the kernel does not check reaches the program as it is.
	if e := g.l.sendUnchecked(&Resp{ID: n.ID, Error: -512}); e != 0 {
		t.Fatal(e)
	}
	g.Expect("-1 512") // ERESTARTSYS
}

// user_notification_fault_recv: a buffer that cannot be written leaves the notification to be received, also where the kernel finds
// out only after it has taken the notification.
func TestOracleFaultRecv(t *testing.T) {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(page) }()
	for _, flags := range targetFlags() {
		g := startTarget(t, flags)
		g.MustSay("call")
		for name, buf := range map[string]unsafe.Pointer{"nowhere": nil, "read only": unsafe.Pointer(&page[0])} {
			for range 2 {
				g.pending()
				e := unix.EINTR
				for e == unix.EINTR {
					_, e = rawIoctl(g.l, IoctlRecv, buf)
				}
				wantErr(t, "recv into a buffer that is "+name, opError(OpRecv, e), unix.EFAULT, Bug)
			}
		}
		g.pending()
		n := g.recv()
		if err := errors.Join(g.l.IDValid(n.ID), g.l.Send(&Resp{ID: n.ID, Val: 7})); err != nil {
			t.Error(err)
		}
		g.Expect("7 0")
	}
}

// user_notification_addfd: the size in ADDFD's number is that of the struct. A smaller one is refused, a larger one taken if what
// this kernel does not know is zero.
func TestOracleAddFDSizes(t *testing.T) {
	g := startTarget(t, 0)
	n := g.call()
	big := struct {
		AddFD
		more [4]uint64
	}{AddFD: AddFD{ID: n.ID, SrcFD: uint32(g.l.FD())}}
	sized := func(size uintptr) error {
		_, e := rawIoctl(g.l, IoctlAddFD&^(0x3fff<<16)|size<<16, unsafe.Pointer(&big))
		if e == 0 {
			return nil
		}
		return opError(OpAddFD, e)
	}
	if err := sized(unsafe.Sizeof(big)); err != nil {
		t.Errorf("a larger struct: %v", err)
	}
	wantErr(t, "a smaller struct", sized(16), unix.EINVAL, Bug)
	big.more[3] = 1
	if err := sized(unsafe.Sizeof(big)); !errors.Is(err, unix.E2BIG) {
		t.Errorf("a larger struct with something in it: %v", err)
	}
	if err := g.l.Send(&Resp{ID: n.ID, Val: 7}); err != nil {
		t.Error(err)
	}
	g.Expect("7 0")
}

// dontRestart installs the runtime's own action for sig, but without SA_RESTART.
func dontRestart(sig unix.Signal) error {
	var act [32]byte // struct kernel_sigaction: handler, flags, restorer, mask
	get := func(set, old unsafe.Pointer) error {
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(set), uintptr(old), 8, 0, 0); e != 0 {
			return e
		}
		return nil
	}
	if err := get(nil, unsafe.Pointer(&act)); err != nil {
		return err
	}
	flags := (*uint64)(unsafe.Pointer(&act[8]))
	const saRestart = 0x10000000
	*flags &^= saRestart
	return get(unsafe.Pointer(&act), nil)
}

// sendUnchecked is Send without Check.
func (l *Listener) sendUnchecked(r *Resp) unix.Errno {
	_, e := rawIoctl(l, IoctlSend, unsafe.Pointer(r))
	return e
}

// rawIoctl makes an ioctl that the methods would not make.
func rawIoctl(l *Listener, req uintptr, arg unsafe.Pointer) (uintptr, unix.Errno) {
	return kernel.IoctlNow(uintptr(l.FD()), req, arg, 0, 0, 0)
}
