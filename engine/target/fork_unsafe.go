package target

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A rawCall is one system call of a child between fork and exec.
type rawCall struct {
	nr       uintptr
	args     [6]uintptr
	optional bool // its failure does not matter
	what     string
}

// A rawProgram is what such a child does. It ends with an exec.
type rawProgram struct {
	calls []rawCall
	keep  []any // what calls point to
}

func (p *rawProgram) add(what string, nr uintptr, args ...uintptr) *rawCall {
	c := rawCall{nr: nr, what: what}
	copy(c.args[:], args)
	p.calls = append(p.calls, c)
	return &p.calls[len(p.calls)-1]
}

func (p *rawProgram) bytes(b []byte) uintptr {
	p.keep = append(p.keep, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

func (p *rawProgram) setGroups(groups []int) {
	ids := make([]uint32, len(groups)+1)
	for i, g := range groups {
		ids[i] = uint32(g)
	}
	p.keep = append(p.keep, ids)
	p.add("setgroups", unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&ids[0])))
}

func (p *rawProgram) capset(effective uint64) {
	h := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	low, high := uint32(effective), uint32(effective>>32)
	d := &[2]unix.CapUserData{{Effective: low, Permitted: low, Inheritable: low}, {Effective: high, Permitted: high, Inheritable: high}}
	p.keep = append(p.keep, h, d)
	p.add("capset", unix.SYS_CAPSET, uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(d)))
}

// signals has all signals do what they do by default, and none blocked. Until then the runtime's handlers are the
// child's too.
func (p *rawProgram) signals() {
	zero := make([]uint64, 8) // of struct kernel_sigaction, and a mask
	p.keep = append(p.keep, zero)
	at := uintptr(unsafe.Pointer(&zero[0]))
	for sig := uintptr(1); sig <= 64; sig++ {
		p.add("rt_sigaction", unix.SYS_RT_SIGACTION, sig, at, 0, 8).optional = true // not of SIGKILL
	}
	p.add("rt_sigprocmask", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, at, 0, 8)
}

func (p *rawProgram) exec(fd int, argv, env []string) error {
	list := func(all []string) (uintptr, error) {
		ptrs, err := syscall.SlicePtrFromStrings(all)
		if err != nil {
			return 0, err
		}
		p.keep = append(p.keep, ptrs)
		return uintptr(unsafe.Pointer(&ptrs[0])), nil
	}
	a, err := list(argv)
	if err != nil {
		return err
	}
	e, err := list(env)
	if err != nil {
		return err
	}
	p.add("execveat", unix.SYS_EXECVEAT, uintptr(fd), p.bytes([]byte{0}), a, e, unix.AT_EMPTY_PATH)
	return nil
}

// start runs the program in a child, whose first failure it writes to errFD: the call's index and the errno.
func (p *rawProgram) start(errFD int) (pid int, err error) {
	report := new([2]int32)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// No descriptor of somebody's who has not marked it yet goes to the child; no handler runs in it.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	var every, old unix.Sigset_t
	for i := range every.Val {
		every.Val[i]--
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &every, &old); err != nil {
		return 0, err
	}
	id, e := fork(&p.calls[0], len(p.calls), uintptr(errFD), report)
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	runtime.KeepAlive(p)
	return int(id), errno(e)
}

// fork is all that runs in the child: it has this thread only, and a copy of a memory that others were about to
// change. So no allocation, no growth of the stack, no call that could wait for somebody.
//
//go:norace
//go:nosplit
func fork(calls *rawCall, n int, errFD uintptr, report *[2]int32) (pid uintptr, e syscall.Errno) {
	pid, _, e = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || e != 0 {
		return pid, e
	}
	for i := 0; i < n; i++ {
		c := (*rawCall)(unsafe.Add(unsafe.Pointer(calls), uintptr(i)*unsafe.Sizeof(*calls)))
		_, _, e = syscall.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
		if e != 0 && !c.optional {
			report[0], report[1] = int32(i), int32(e)
			_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, errFD, uintptr(unsafe.Pointer(report)), unsafe.Sizeof(*report))
			break
		}
	}
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}
