package enginetest

import (
	"bytes"
	"slices"
)

// A region is mapped memory.
type region struct {
	addr     uint64
	bytes    []byte
	readOnly bool
}

const pageSize = 4096

// Map maps a copy of b at addr, in place of what overlaps it. What is not mapped is EFAULT to who reads it. addr
// need not be the beginning of a page.
func (t *Target) Map(addr uint64, b []byte) { t.mapAt(addr, b, false) }

// MapReadOnly is Map for memory that the target may not write.
func (t *Target) MapReadOnly(addr uint64, b []byte) { t.mapAt(addr, b, true) }

func (t *Target) mapAt(addr uint64, b []byte, readOnly bool) {
	t.p.e.mu.Lock()
	defer t.p.e.mu.Unlock()
	t.p.unmap(addr, uint64(len(b)))
	t.p.regions = append(t.p.regions, region{addr, bytes.Clone(b), readOnly})
	slices.SortFunc(t.p.regions, func(a, b region) int {
		if a.addr < b.addr {
			return -1
		}
		return 1
	})
}

// Unmap unmaps n bytes at addr.
func (t *Target) Unmap(addr, n uint64) {
	t.p.e.mu.Lock()
	defer t.p.e.mu.Unlock()
	t.p.unmap(addr, n)
}

func (p *process) unmap(addr, n uint64) {
	var left []region
	for _, r := range p.regions {
		end := r.addr + uint64(len(r.bytes))
		if r.addr < min(addr, end) {
			left = append(left, region{r.addr, r.bytes[:min(addr, end)-r.addr], r.readOnly})
		}
		if from := max(addr+n, r.addr); from < end {
			left = append(left, region{from, r.bytes[from-r.addr:], r.readOnly})
		}
	}
	p.regions = left
}

// Put puts b into memory of its own, which ends with it, and returns its address: where b begins, in the midst of a page.
func (t *Target) Put(b []byte) (addr uint64) {
	t.p.e.mu.Lock()
	size := (uint64(len(b)) + 2*pageSize) / pageSize * pageSize
	end := t.p.heap + size
	t.p.heap = end + pageSize // which is not mapped
	t.p.e.mu.Unlock()
	addr = end - uint64(len(b))
	t.Map(addr, b)
	return addr
}

// PutString is Put of a string with a NUL at its end.
func (t *Target) PutString(s string) (addr uint64) { return t.Put(append([]byte(s), 0)) }

// Memory is a copy of n bytes of memory, or of as many as are mapped from addr on.
func (t *Target) Memory(addr uint64, n int) []byte {
	t.p.e.mu.Lock()
	defer t.p.e.mu.Unlock()
	b := make([]byte, n)
	return b[:t.p.access(addr, n, func(at int, r []byte) { copy(b[at:], r) }, false)]
}

// access calls f for each stretch of memory at addr, until n bytes are done or one is not there. The caller holds
// Engine.mu. It returns how many were done.
func (p *process) access(addr uint64, n int, f func(at int, b []byte), write bool) (done int) {
	for done < n {
		at := addr + uint64(done)
		i := slices.IndexFunc(p.regions, func(r region) bool { return r.addr <= at && at-r.addr < uint64(len(r.bytes)) })
		if i < 0 || write && p.regions[i].readOnly {
			return done
		}
		b := p.regions[i].bytes[at-p.regions[i].addr:]
		b = b[:min(len(b), n-done)]
		f(done, b)
		done += len(b)
	}
	return done
}
