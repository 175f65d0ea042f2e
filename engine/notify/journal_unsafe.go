package notify

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The structs must be what other processes read.
var (
	_ [headSize]byte  = [unsafe.Sizeof(journalHead{})]byte{}
	_ [entrySize]byte = [unsafe.Sizeof(journalEntry{})]byte{}
)

// mapJournal maps a journal that was checked. It is unmapped once nobody has it any more: an answer
// may come late.
func mapJournal(fd, entries int) (*Journal, error) {
	mem, err := unix.Mmap(fd, 0, headSize+entries*entrySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the journal: %w", err)
	}
	j := &Journal{mem: mem, mask: uint64(entries - 1)}
	j.fd.Store(int32(fd))
	j.head = (*journalHead)(unsafe.Pointer(&mem[0]))
	j.entries = unsafe.Slice((*journalEntry)(unsafe.Pointer(&mem[headSize])), entries)
	runtime.AddCleanup(j, func(mem []byte) { _ = unix.Munmap(mem) }, mem)
	return j, nil
}
