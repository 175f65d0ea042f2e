package notify

import "golang.org/x/sys/unix"

// The ioctls of a listener, linux/seccomp.h (SECCOMP_IOCTL_NOTIF_*). The
// numbers hold the structs' sizes and are the same on amd64 and arm64.
const (
	IoctlRecv     = 0xc0502100
	IoctlSend     = 0xc0182101
	IoctlIDValid  = 0x40082102
	IoctlAddFD    = 0x40182103
	IoctlSetFlags = 0x40082104
)

// Sizes of the structs below in bytes; [CheckSizes] compares them with the kernel's.
const (
	sizeofNotif = 80
	sizeofResp  = 24
	sizeofData  = 64
)

// NativeArch is AUDIT_ARCH_* of the machine's own ABI.
const NativeArch = nativeArch

// Data is struct seccomp_data (linux/seccomp.h): the trapped system call.
type Data struct {
	NR   int32  // system call number, of the ABI that Arch names
	Arch uint32 // AUDIT_ARCH_*
	IP   uint64 // instruction pointer
	Args [6]uint64
}

// Notif is struct seccomp_notif (linux/seccomp.h): one trapped call.
type Notif struct {
	ID    uint64 // names this notification in Send, IDValid and AddFD
	PID   uint32 // the *thread* id in the reader's pid namespace; 0 if not visible there
	Flags uint32 // none defined yet
	Data  Data
}

// RespContinue (SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5) lets the kernel
// run the call itself. It is no security decision: the target can change what
// its pointers point to after you looked.
const RespContinue = 1

// Resp is struct seccomp_notif_resp (linux/seccomp.h): the answer to one
// notification. Error is 0 or a negative errno, which the caller sees in errno;
// then Val is ignored.
type Resp struct {
	ID    uint64
	Val   int64
	Error int32
	Flags uint32
}

// Flags of an [AddFD].
const (
	AddFDSetFD = 1 // SECCOMP_ADDFD_FLAG_SETFD: install as NewFD, closing what is there
	AddFDSend  = 2 // SECCOMP_ADDFD_FLAG_SEND (Linux 5.14): and answer with the number
)

// AddFD is struct seccomp_notif_addfd (linux/seccomp.h).
type AddFD struct {
	ID         uint64
	Flags      uint32 // AddFDSetFD, AddFDSend
	SrcFD      uint32 // a descriptor of ours
	NewFD      uint32 // its number in the target, with AddFDSetFD
	NewFDFlags uint32 // O_CLOEXEC or 0
}

// SyncWakeUp (SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6) for
// [Listener.SetFlags]: the waker is about to sleep, so run the woken thread on
// this CPU. It helps one target and hurts many, and does nothing where the
// woken thread may not run on the waker's CPU.
const SyncWakeUp = 1

// InstallFlags are flags of seccomp(2), SECCOMP_SET_MODE_FILTER.
type InstallFlags uint32

const (
	// WaitKillableRecv (Linux 5.19): once received, only a fatal signal
	// interrupts the call. Before it is received it stays interruptible.
	WaitKillableRecv InstallFlags = unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	// TSync (Linux 3.17) applies the filter to all threads of the process. With
	// a listener it needs TSYNC_ESRCH (Linux 5.7), which Install adds.
	TSync InstallFlags = unix.SECCOMP_FILTER_FLAG_TSYNC
	// Log (Linux 4.14) logs all actions but allow.
	Log InstallFlags = unix.SECCOMP_FILTER_FLAG_LOG
	// SpecAllow (Linux 4.17) leaves speculative store bypass as it is.
	SpecAllow InstallFlags = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW

	newListener InstallFlags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	tsyncESRCH  InstallFlags = unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
)
