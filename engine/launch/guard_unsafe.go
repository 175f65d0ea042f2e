//go:build cgo

package launch

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// #include "guard.h"
// #include <stdlib.h>
import "C"

// Guarded reports whether commands have a guard in this build.
const Guarded = true

// Init must be called first in main. In this build it does nothing; without cgo
// it is where this program, run again, becomes the command.
func Init() {}

// impl is a process with a guard.
type impl struct {
	guard   int
	control *os.File
	raw     syscall.RawConn

	mu     sync.Mutex
	syncs  map[int32]chan struct{}
	last   int32
	left   bool          // the guard is another process's
	reaped chan struct{} // closed when the guard has been collected

	orphans error
}

// memory is C memory of a plan, freed together.
type memory []unsafe.Pointer

func (m *memory) alloc(n int) unsafe.Pointer {
	p := C.calloc(1, C.size_t(max(n, 1)))
	*m = append(*m, p)
	return p
}

func (m *memory) free() {
	for _, p := range *m {
		C.free(p)
	}
}

// strings makes a NULL-terminated array of C strings with room for more before it.
func (m *memory) strings(list []string, before int) **C.char {
	array := unsafe.Slice((**C.char)(m.alloc((before+len(list)+1)*int(unsafe.Sizeof(uintptr(0))))), before+len(list)+1)
	for i, s := range list {
		array[before+i] = m.string(s)
	}
	return &array[before]
}

func (m *memory) string(s string) *C.char {
	p := m.alloc(len(s) + 1)
	copy(unsafe.Slice((*byte)(p), len(s)), s)
	return (*C.char)(p)
}

// start runs the guard, which starts the command.
func (p *Process) start(c *Command, args []string, prog []unix.SockFilter, flags notify.InstallFlags, add func(*notify.Listener) error) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return &StartError{"socketpair", err}
	}
	// The guard's end shares no flag with ours.
	_ = unix.SetNonblock(fds[1], false)
	p.control = os.NewFile(uintptr(fds[0]), "guard")
	if p.raw, err = p.control.SyscallConn(); err != nil {
		_ = p.control.Close()
		_ = unix.Close(fds[1])
		return err
	}
	var mem memory
	defer mem.free()
	plan := (*C.struct_plan)(mem.alloc(C.sizeof_struct_plan))
	plan.paths = mem.strings(c.Paths, 0)
	plan.argv = mem.strings(args, 1)
	plan.in = &C.unknot_inherited
	plan.envp = C.unknot_inherited.env
	if c.Env != nil {
		plan.envp = mem.strings(c.Env, 0)
	}
	if c.Dir != "" {
		plan.dir = mem.string(c.Dir)
	}
	code := mem.alloc(len(prog) * int(unsafe.Sizeof(prog[0])))
	copy(unsafe.Slice((*unix.SockFilter)(code), len(prog)), prog)
	plan.prog.len = C.ushort(len(prog))
	plan.prog.filter = (*C.struct_sock_filter)(code)
	plan.flags = C.uint32_t(flags) | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	plan.no_new_privs = -1
	if c.NoNewPrivs {
		plan.no_new_privs = 1
	}
	if c.Leave {
		plan.leave = 1
	}
	plan.control, plan.theirs = C.int32_t(fds[1]), C.int32_t(fds[0])
	plan.nfiles = -1
	if c.Files != nil {
		plan.nfiles = C.int32_t(len(c.Files))
		files := (*C.int32_t)(mem.alloc(4 * len(c.Files)))
		for i, f := range c.Files {
			unsafe.Slice(files, len(c.Files))[i] = C.int32_t(f.Fd())
		}
		plan.files = files
	}
	pid := C.unknot_guard(plan)
	_ = unix.Close(fds[1])
	if pid < 0 {
		_ = p.control.Close()
		return startError("fork the command's guard: clone(2)", syscall.Errno(-pid))
	}
	p.guard = int(pid)
	p.reaped = make(chan struct{})
	p.syncs = map[int32]chan struct{}{}
	if err := p.begin(add); err != nil {
		_ = p.control.Close() // which ends the guard, and the command with it
		p.collect()
		return err
	}
	go p.listen()
	return nil
}

// begin takes the listener from the guard and has the command run.
func (p *Process) begin(add func(*notify.Listener) error) error {
	for {
		m, fd, err := p.receive()
		if err != nil {
			return &StartError{"start", err}
		}
		switch m.kind {
		case C.MSG_LISTENER:
			if fd < 0 {
				return &StartError{"take the listener", errors.New("it did not come along: is a file descriptor free?")}
			}
			l, err := notify.NewListener(fd)
			if err != nil {
				_ = unix.Close(fd)
				return err
			}
			if err := add(l); err != nil {
				return err
			}
			if err := p.send(&C.struct_message{kind: C.MSG_GO}); err != nil {
				return &StartError{"start", err}
			}
		case C.MSG_FAILED:
			return startError(stageName(m.b), syscall.Errno(m.a))
		case C.MSG_STARTED:
			p.pid = int(m.a)
			if m.b != 0 {
				p.orphans = fmt.Errorf("prctl(PR_SET_CHILD_SUBREAPER): %w", syscall.Errno(m.b))
			}
			return nil
		default:
			p.happened(m)
			if m.kind == C.MSG_EXITED {
				return nil // before it ran
			}
		}
	}
}

func stageName(stage C.int32_t) string {
	switch stage {
	case C.STAGE_GUARD:
		return "set up the command's guard"
	case C.STAGE_FORK:
		return "fork"
	case C.STAGE_FILES:
		return "dup2"
	case C.STAGE_DIR:
		return "chdir"
	case C.STAGE_PRIVS:
		return "prctl(PR_SET_NO_NEW_PRIVS)"
	case C.STAGE_FILTER:
		return "seccomp(2)"
	}
	return opExec
}

// listen passes on what the guard says until it is gone.
func (p *Process) listen() {
	for {
		m, fd, err := p.receive()
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		if err != nil {
			break
		}
		p.happened(m)
	}
	p.collect()
}

// collect takes note of the guard's end.
func (p *Process) collect() {
	var ws syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(p.guard, &ws, 0, nil); err != unix.EINTR {
			break // ECHILD: who waits for any child has collected it
		}
	}
	select {
	case <-p.ended:
	default:
		p.err = ErrGuard
		if p.pid > 0 {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
		close(p.ended)
	}
	p.gone()
	p.mu.Lock()
	for _, c := range p.syncs {
		close(c)
	}
	p.syncs = nil
	p.mu.Unlock()
	close(p.reaped)
}

func (p *Process) gone() {
	select {
	case <-p.alone:
	default:
		close(p.alone)
	}
}

// happened acts upon a message of the guard.
func (p *Process) happened(m C.struct_message) {
	switch m.kind {
	case C.MSG_EXITED:
		p.status = syscall.WaitStatus(m.a)
		close(p.ended)
	case C.MSG_ALONE:
		p.gone()
	case C.MSG_STOPPED:
		p.notify(Event{Kind: Stopped, Signal: syscall.Signal(m.a)})
	case C.MSG_CONTINUED:
		p.notify(Event{Kind: Continued})
	case C.MSG_SAW:
		p.notify(Event{Kind: Saw, Signal: syscall.Signal(m.a), InGroup: m.b != 0, Code: int(int32(m.c))})
	case C.MSG_SYNCED:
		p.mu.Lock()
		if c := p.syncs[int32(m.a)]; c != nil {
			delete(p.syncs, int32(m.a))
			close(c)
		}
		p.mu.Unlock()
	}
}

// receive returns the guard's next message, and the descriptor with it or -1.
func (p *Process) receive() (m C.struct_message, fd int, err error) {
	fd = -1
	b := unsafe.Slice((*byte)(unsafe.Pointer(&m)), C.sizeof_struct_message)
	oob := make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var got error
	err = p.raw.Read(func(s uintptr) bool {
		n, oobn, _, _, got = unix.Recvmsg(int(s), b, oob, unix.MSG_CMSG_CLOEXEC)
		return got != unix.EAGAIN && got != unix.EINTR
	})
	if err == nil {
		err = got
	}
	if err == nil && n != len(b) {
		err = ErrGuard
	}
	if err == nil && oobn > 0 {
		if msgs, e := unix.ParseSocketControlMessage(oob[:oobn]); e == nil && len(msgs) == 1 {
			if fds, e := unix.ParseUnixRights(&msgs[0]); e == nil && len(fds) == 1 {
				fd = fds[0]
			}
		}
	}
	return m, fd, err
}

// send sends the guard a message.
func (p *Process) send(m *C.struct_message) error {
	b := unsafe.Slice((*byte)(unsafe.Pointer(m)), C.sizeof_struct_message)
	var got error
	err := p.raw.Write(func(s uintptr) bool {
		_, got = unix.SendmsgN(int(s), b, nil, nil, unix.MSG_NOSIGNAL)
		return got != unix.EAGAIN && got != unix.EINTR
	})
	if err == nil {
		err = got
	}
	return err
}

// Signal sends the command a signal. The error is [ErrOver] once it has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	return p.signal(&C.struct_message{kind: C.MSG_SIGNAL, a: C.int32_t(sig)})
}

// Queue is Signal with a value, as by sigqueue(3).
func (p *Process) Queue(sig syscall.Signal, value uint64) error {
	return p.signal(&C.struct_message{kind: C.MSG_SIGNAL, a: C.int32_t(sig), b: 1, c: C.uint64_t(value)})
}

func (p *Process) signal(m *C.struct_message) error {
	select {
	case <-p.ended:
		return ErrOver
	default:
	}
	if err := p.send(m); err != nil {
		return fmt.Errorf("signal the command: %w", err)
	}
	return nil
}

// Sync returns once Notify has been told of all that the guard had seen when
// Sync was called.
func (p *Process) Sync() {
	p.mu.Lock()
	if p.syncs == nil {
		p.mu.Unlock()
		return
	}
	p.last++
	n, c := p.last, make(chan struct{})
	p.syncs[n] = c
	p.mu.Unlock()
	if p.send(&C.struct_message{kind: C.MSG_SYNC, a: C.int32_t(n)}) != nil {
		return
	}
	select {
	case <-c:
	case <-p.reaped:
	}
}

// SetLeave changes what [Command].Leave said.
func (p *Process) SetLeave(leave bool) error {
	m := &C.struct_message{kind: C.MSG_LEAVE}
	if leave {
		m.a = 1
	}
	return p.send(m)
}

// Close ends the guard, which first kills what is left of the command unless
// that was to be left, and waits until it is gone.
func (p *Process) Close() error {
	p.mu.Lock()
	left := p.left
	p.mu.Unlock()
	if left {
		return p.control.Close()
	}
	err := p.control.Close()
	<-p.reaped
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Leave has Close not wait for the guard, which another process that has its
// Control keeps.
func (p *Process) Leave() {
	p.mu.Lock()
	p.left = true
	p.mu.Unlock()
}

// Control returns a copy of our end of the socket to the guard, for a process that
// goes on when this one ends: while it is open the guard takes us for alive. What
// comes from there is to be read, and may be thrown away.
func (p *Process) Control() (*os.File, error) {
	fd, err := unix.FcntlInt(p.control.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy the guard's socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "guard"), nil
}

// Started returns what this process was started with, as a C constructor
// recorded it.
func Started() Inherited {
	return Inherited{uint64(C.unknot_inherited.ignored), uint64(C.unknot_inherited.blocked)}
}

// Orphans says why a descendant that outlives its parent does not become the
// guard's child, as under a container's seccomp profile that refuses it; nil if
// it does. [Process.Alone] and the kill at our death then miss such descendants.
func (p *Process) Orphans() error { return p.orphans }

// Guard is the guard's process id.
func (p *Process) Guard() int { return p.guard }
