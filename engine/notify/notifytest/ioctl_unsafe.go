package notifytest

import (
	"unsafe"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// Ioctl is ioctl(2) on the listener, by number and argument, for what package notify does not let through. RECV where
// nothing is to be received is EAGAIN, which the kernel never says: it sleeps.
func (f *Filter) Ioctl(req uintptr, arg unsafe.Pointer) (uintptr, unix.Errno) {
	switch req {
	case notify.IoctlRecv:
		n := (*notify.Notif)(arg)
		if *n != (notify.Notif{}) {
			return 0, unix.EINVAL
		}
		got, sleep, e := f.tryRecv()
		if sleep != nil {
			return 0, unix.EAGAIN
		}
		*n = got
		return 0, e
	case notify.IoctlSend:
		return 0, f.Send(*(*notify.Resp)(arg))
	case notify.IoctlIDValid, ioctlIDValidWrongDir:
		return 0, f.IDValid(*(*uint64)(arg))
	case notify.IoctlAddFD:
		fd, e := f.AddFD(*(*notify.AddFD)(arg))
		return uintptr(fd), e
	case notify.IoctlSetFlags:
		return 0, f.SetFlags(uint64(uintptr(arg)))
	}
	return 0, unix.EINVAL
}

// ioctlIDValidWrongDir is SECCOMP_IOCTL_NOTIF_ID_VALID_WRONG_DIR, the number that headers before 5.9 had.
const ioctlIDValidWrongDir = 0x80082102
