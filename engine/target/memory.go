package target

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// PathMax is the size of the longest path that the kernel takes, its NUL included (PATH_MAX).
const PathMax = 4096

// page is the smallest page of any machine that we run on: what begins in one may be read to its end.
const page = 4096

const (
	opRead  = "read memory"
	opWrite = "write memory"
)

func at(addr uint64) string { return fmt.Sprintf("address %#x", addr) }

// ReadMem reads the target's memory at addr, an argument of its call, into p, and returns how much was read. If
// that is less than p has room for the error says why, and wraps unix.EFAULT where the memory is not
// mapped or not readable.
//
// It reads by process_vm_readv(2), or where that is refused or missing through /proc/TID/mem. After
// ErrGone p is all zero.
func (t Target) ReadMem(addr uint64, p []byte) (int, error) {
	if err := t.check(opRead); err != nil {
		return 0, err
	}
	if beforeRead != nil {
		beforeRead()
	}
	n, err := t.read(t.address(addr), p)
	if gone := t.alive(); gone != nil {
		clear(p)
		return 0, gone
	}
	return n, err
}

// read is ReadMem without the check that the target still was there.
func (t Target) read(addr uint64, p []byte) (n int, err error) {
	if k := t.l.Kernel(); k != nil {
		q := make([]byte, len(p)) // p itself would be on the heap, for a real target's reads too
		n, errno := k.ReadMem(t.tid, addr, q)
		copy(p, q[:n])
		return n, t.simulated(opRead, addr+uint64(n), errno)
	}
	for n < len(p) {
		local := unix.Iovec{Base: &p[n]}
		local.SetLen(len(p) - n)
		m, err := unix.ProcessVMReadv(t.tid, []unix.Iovec{local}, []unix.RemoteIovec{{Base: uintptr(addr) + uintptr(n), Len: len(p) - n}}, 0)
		switch {
		case err == nil && m > 0:
			n += m
		case err == nil || err == unix.EFAULT:
			return n, t.fault(opRead, addr+uint64(n))
		case err == unix.EPERM, err == unix.ENOSYS: // a container's seccomp profile, or a kernel without it
			return t.readFile(addr, p)
		case err == unix.EINTR:
		default:
			return n, t.ours(opRead, at(addr+uint64(n)), err)
		}
	}
	return n, nil
}

// simulated is the error that a kernel stand-in means.
func (t Target) simulated(op string, addr uint64, errno unix.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.EFAULT:
		return t.fault(op, addr)
	}
	return t.fail(op, at(addr), errno)
}

// fault is the error for memory that is not there, which is the target's own fault.
func (t Target) fault(op string, addr uint64) error {
	return &Error{Op: op, TID: t.tid, Where: at(addr), Err: unix.EFAULT}
}

// readFile is read through /proc/TID/mem. That file gives out memory which the target itself may not read, so the
// mappings are asked first.
func (t Target) readFile(addr uint64, p []byte) (n int, err error) {
	m, err := t.openMemory(opRead, unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer m.close()
	may, err := m.maps.upTo(addr, len(p), mayRead)
	if err != nil {
		return 0, t.ours(opRead, at(addr), err)
	}
	for n < may {
		k, err := unix.Pread(m.mem, p[n:may], int64(addr)+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil && err != unix.EIO && err != unix.EFAULT {
			return n, t.ours(opRead, at(addr+uint64(n)), err)
		}
		if k <= 0 {
			break
		}
		n += k
	}
	if n < len(p) {
		return n, t.fault(opRead, addr+uint64(n))
	}
	return n, nil
}

// memory is the target's address space by two descriptors, which stay that one whoever has the thread's id later.
type memory struct {
	mem  int
	maps mappings
}

func (t Target) openMemory(op string, flags int) (m memory, err error) {
	if m.mem, err = t.open(op, "mem", flags); err != nil {
		return m, err
	}
	fd, err := t.open(op, "maps", unix.O_RDONLY)
	if err != nil {
		_ = unix.Close(m.mem)
		return m, err
	}
	m.maps = mappings{fd}
	return m, nil
}

func (m memory) close() {
	_ = unix.Close(m.mem)
	_ = unix.Close(m.maps.fd)
}

// WriteMem writes p to the target's memory at addr, an argument of its call, and returns how much was written. It
// writes nothing unless the target itself may write all of it: else the error wraps unix.EFAULT.
//
// It writes through /proc/TID/mem, opened before the kernel is asked whether the call still waits: the id of a
// thread that dies afterwards may be anybody's, that descriptor is not. (process_vm_writev(2) takes an id.) The
// file would also write what is mapped read-only, so the mappings are asked first (PROCMAP_QUERY, or
// /proc/TID/maps before Linux 6.11). A thread of the target that maps something else there in just that
// moment harms itself: a private copy of a page that its process maps.
//
// A signal may interrupt the call just when it is written, and the target's next call may use the memory
// otherwise: install the filter with WAIT_KILLABLE_RECV where handlers write.
func (t Target) WriteMem(addr uint64, p []byte) (n int, err error) {
	if err := t.check(opWrite); err != nil {
		return 0, err
	}
	addr = t.address(addr)
	if k := t.l.Kernel(); k != nil {
		if err := t.alive(); err != nil {
			return 0, err
		}
		n, errno := k.WriteMem(t.tid, addr, slices.Clone(p))
		return n, t.simulated(opWrite, addr+uint64(n), errno)
	}
	m, err := t.openMemory(opWrite, unix.O_RDWR)
	if err != nil {
		return 0, err
	}
	defer m.close()
	if err := t.alive(); err != nil {
		return 0, err
	}
	may, err := m.maps.upTo(addr, len(p), mayWrite)
	if err != nil {
		return 0, t.fail(opWrite, at(addr), err)
	}
	if may < len(p) {
		if err := t.alive(); err != nil { // a dead process has no mappings
			return 0, err
		}
		return 0, t.fault(opWrite, addr+uint64(may))
	}
	if beforeWrite != nil {
		beforeWrite()
	}
	for n < len(p) {
		k, err := unix.Pwrite(m.mem, p[n:], int64(addr)+int64(n))
		switch {
		case err == unix.EINTR:
		case k > 0:
			n += k
		case err == nil || err == unix.EIO || err == unix.EFAULT: // it was unmapped meanwhile, or all of it is gone
			if err := t.alive(); err != nil {
				return n, err
			}
			return n, t.fault(opWrite, addr+uint64(n))
		default:
			return n, t.fail(opWrite, at(addr+uint64(n)), err)
		}
	}
	return n, nil
}

// For tests: what happens just before a read, and between the look and the write.
var beforeRead, beforeWrite func()

// String reads a string that ends with a NUL, of at most max bytes with the NUL; paths have [PathMax]. The error of
// one without an end wraps unix.ENAMETOOLONG. Each page is read by itself, so that a string may
// end just before memory that is not mapped.
func (t Target) String(addr uint64, max int) (string, error) {
	const op = "read string"
	if err := t.check(op); err != nil {
		return "", err
	}
	s, err := t.str(op, t.address(addr), max, unix.ENAMETOOLONG)
	if gone := t.alive(); gone != nil {
		return "", gone
	}
	return s, err
}

// str is String without the checks; tooLong is the errno for a string without an end.
func (t Target) str(op string, addr uint64, max int, tooLong error) (string, error) {
	var whole []byte
	var buf [page]byte
	for at := addr; len(whole) < max; {
		chunk := buf[:min(page-at%page, uint64(max-len(whole)))]
		if _, err := t.read(at, chunk); err != nil {
			var e *Error
			if errors.As(err, &e) {
				e.Op = op
			}
			return "", err
		}
		if i := bytes.IndexByte(chunk, 0); i >= 0 {
			return string(append(whole, chunk[:i]...)), nil
		}
		whole = append(whole, chunk...)
		at += uint64(len(chunk))
	}
	return "", &Error{Op: op, TID: t.tid, Where: fmt.Sprintf("address %#x: no end within %d bytes", addr, max), Err: tooLong}
}

// Strings reads an array of pointers to strings that ends with a null pointer, as execve(2) takes two: pointers are
// of the trapped call's ABI. A null addr is an empty array, as the kernel has it. At most max bytes are
// read, counting pointers and NULs; more is an error that wraps unix.E2BIG.
func (t Target) Strings(addr uint64, max int) ([]string, error) {
	const op = "read strings"
	if err := t.check(op); err != nil {
		return nil, err
	}
	all, err := t.strs(op, t.address(addr), max)
	if gone := t.alive(); gone != nil {
		return nil, gone
	}
	return all, err
}

func (t Target) strs(op string, addr uint64, max int) (all []string, err error) {
	if addr == 0 {
		return nil, nil
	}
	tooBig := &Error{Op: op, TID: t.tid, Where: fmt.Sprintf("address %#x: more than %d bytes", addr, max), Err: unix.E2BIG}
	size := t.PointerSize()
	var buf [page]byte
	for have := buf[:0]; ; have = have[size:] {
		if max -= size; max < 0 {
			return nil, tooBig
		}
		if len(have) == 0 {
			// To the end of the page, but not of a pointer that goes over it.
			have = buf[:size]
			if left := int(page - addr%page); left >= size {
				have = buf[:left/size*size]
			}
			if _, err := t.read(addr, have); err != nil {
				return nil, err
			}
			addr += uint64(len(have))
		}
		var p uint64
		if size == 4 {
			p = uint64(binary.NativeEndian.Uint32(have))
		} else {
			p = t.address(binary.NativeEndian.Uint64(have))
		}
		if p == 0 {
			return all, nil
		}
		if max <= 0 {
			return nil, tooBig
		}
		s, err := t.str(op, p, max, unix.E2BIG)
		if err != nil {
			return nil, err
		}
		max -= len(s) + 1
		all = append(all, s)
	}
}
