package engine

import (
	"sync/atomic"

	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
)

// SyscallStats is what the engine saw of one system call. Times are in ns.
type SyscallStats struct {
	Arch     uint32 // AUDIT_ARCH_*
	NR       int32
	Received uint64
	Answered uint64
	Dropped  uint64
	Stale    uint64
	Wait     *hist.Snapshot // receive → dispatch
	Service  *hist.Snapshot // dispatch → answered by a handler, SEND included
	Total    *hist.Snapshot // receive → answered by a handler, SEND included
}

type syscallEntry struct {
	key                                uint64
	received, answered, dropped, stale atomic.Uint64
	wait, service, total               hist.Hist
}

// syscallTable finds the entry of a call without a lock: open addressing over
// pointers that are set once. It allocates at the first sight of a call only.
type syscallTable struct {
	slots [1 << 11]atomic.Pointer[syscallEntry]
}

// of returns the entry for the call, or nil when the table is full, which takes
// more different calls than there are.
func (t *syscallTable) of(d *notify.Data) *syscallEntry {
	if t == nil {
		return nil
	}
	key := uint64(d.Arch)<<32 | uint64(uint32(d.NR))
	i := (key ^ key>>29) * 0x9e3779b97f4a7c15 >> 53
	for range t.slots {
		p := &t.slots[i%uint64(len(t.slots))]
		s := p.Load()
		if s == nil {
			fresh := &syscallEntry{key: key}
			if p.CompareAndSwap(nil, fresh) {
				return fresh
			}
			s = p.Load()
		}
		if s.key == key {
			return s
		}
		i++
	}
	return nil
}

// Syscalls returns the statistics of each system call seen, in no order; nil
// without [Config.BySyscall].
func (e *Engine) Syscalls() (all []SyscallStats) {
	if e.syscalls == nil {
		return nil
	}
	for i := range e.syscalls.slots {
		if s := e.syscalls.slots[i].Load(); s != nil {
			all = append(all, SyscallStats{
				Arch: uint32(s.key >> 32), NR: int32(uint32(s.key)),
				Received: s.received.Load(), Answered: s.answered.Load(), Dropped: s.dropped.Load(), Stale: s.stale.Load(),
				Wait: s.wait.Snapshot(), Service: s.service.Snapshot(), Total: s.total.Snapshot(),
			})
		}
	}
	return all
}

// received is of, and counts.
func (t *syscallTable) received(d *notify.Data) *syscallEntry {
	s := t.of(d)
	if s != nil {
		s.received.Add(1)
	}
	return s
}
