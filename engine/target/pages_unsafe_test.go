package target

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fixedAt is where targets have two pages, at the same place in all processes. It is below 4 GiB, so that it is an
// address of 32-bit ABIs too, and above where the kernel may begin the heap, 1 GiB from the program.
const fixedAt = 0xa000_0000

// mapPages maps them, with nothing mapped beside.
func mapPages() error { return mapAt(fixedAt, 2*page, unix.PROT_READ|unix.PROT_WRITE) }

func mapAt(addr uintptr, n int, prot int) error {
	const fixedNoReplace = 0x100000
	at, _, e := unix.Syscall6(unix.SYS_MMAP, addr, uintptr(n), uintptr(prot), unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|fixedNoReplace, ^uintptr(0), 0)
	if e != 0 {
		return os.NewSyscallError("mmap", e)
	}
	if at != addr {
		return unix.EEXIST
	}
	return nil
}

func unmapAt(addr uintptr, n int) error {
	_, _, e := unix.Syscall(unix.SYS_MUNMAP, addr, uintptr(n), 0)
	return errno(e)
}

// pages are the two pages of this process.
func pages() []byte { return words8(fixedAt, 2*page) }

func words8(addr uintptr, n int) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), addr)), n)
}

func remap() error {
	if err := unmapAt(fixedAt+page, page); err != nil {
		return err
	}
	return mapAt(fixedAt+page, page, unix.PROT_READ|unix.PROT_WRITE)
}
