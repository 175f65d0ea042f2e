package notify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Journal says which notifications of a listener were received and not answered. It lies in a memfd, so that it
// outlives the process that writes it: who has copies of the descriptor and of the listener can then
// answer what a crashed supervisor held, since the kernel takes an answer from anybody, by id
// ([Listener.Held]).
//
// A listener with a journal ([Listener.SetJournal]) writes it in Recv and RecvReady, and strikes out in Send, in
// AddFD with AddFDSend, and in IDValid where the target is gone: two stores for each call, no system call, no lock.
//
// It also has a note, bytes of the user's choice that stay as they are: what a successor must know of the listener.
type Journal struct {
	fd      atomic.Int32
	mem     []byte
	head    *journalHead
	entries []journalEntry
	mask    uint64
}

// A journalHead is at the begin of the memfd, and entries follow, then the note.
type journalHead struct {
	magic   uint64
	entries uint64
	note    uint64        // bytes
	last    atomic.Uint64 // id of the notification received last
	missed  atomic.Uint64 // notifications that found no room
	crowded atomic.Uint64 // 1: one was put far from its place, once
	_       [2]uint64
}

// A journalEntry is one notification; id 0 is none. The call is written first.
type journalEntry struct {
	id   atomic.Uint64
	call atomic.Uint64 // architecture and number
}

const (
	journalMagic = 0x31306c6e6b6e75 // "unknl01"
	headSize     = 64
	entrySize    = 16
	// near is how far from its place an entry is looked for first. Ids count up: even with as many outstanding as
	// half the entries, most are in their own place.
	near = 8
	// MaxJournal bounds the entries of a journal.
	MaxJournal = 1 << 20
	// MaxNote bounds a journal's note, in bytes.
	MaxNote = 64 << 20
	// scanAhead is how many ids after the last known one are tried for one that was received just before a crash.
	// Those in between are of calls that a signal took back before they were received.
	scanAhead = 1 << 14
	// scanBack is how many are tried before it, if some found no room.
	scanBack = 1 << 18
)

// NewJournal makes a journal for as many outstanding notifications, with a note. Entries are rounded up to a
// power of two. It belongs to whoever made it, until SetJournal.
func NewJournal(entries int, note []byte) (*Journal, error) {
	if entries < 1 || entries > MaxJournal {
		return nil, fmt.Errorf("journal of %d entries: must be 1 to %d", entries, MaxJournal)
	}
	if len(note) > MaxNote {
		return nil, fmt.Errorf("journal with a note of %d bytes: must be at most %d", len(note), MaxNote)
	}
	n := 1
	for n < entries {
		n *= 2
	}
	fd, err := unix.MemfdCreate("unknot-journal", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("unknot-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("journal: memfd_create(2): %w", err)
	}
	j, err := func() (*Journal, error) {
		at := int64(headSize + n*entrySize)
		if err := unix.Ftruncate(fd, at+int64(len(note))); err != nil {
			return nil, err
		}
		for len(note) > 0 {
			k, err := unix.Pwrite(fd, note, at)
			if err != nil {
				return nil, err
			}
			note, at = note[k:], at+int64(k)
		}
		var head [headSize]byte
		for i, v := range []uint64{journalMagic, uint64(n), uint64(at) - uint64(headSize+n*entrySize)} {
			binary.NativeEndian.PutUint64(head[8*i:], v)
		}
		if _, err := unix.Pwrite(fd, head[:], 0); err != nil {
			return nil, err
		}
		// A file that shrinks would kill whoever looks at it (SIGBUS).
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, journalSeals|unix.F_SEAL_SEAL); err != nil {
			return nil, err
		}
		return OpenJournal(fd)
	}()
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("journal: %w", err)
	}
	return j, nil
}

const journalSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW

// OpenJournal takes ownership of fd, a copy of a journal's descriptor, and marks it close-on-exec. On error fd stays the caller's. What it
// says is as trustworthy as who wrote it: ids that it makes up are not answered, because they are not valid.
func OpenJournal(fd int) (*Journal, error) {
	bad := func(what string) (*Journal, error) {
		return nil, fmt.Errorf("descriptor %d is no journal of a listener: %s", fd, what)
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return bad("it is no memfd")
	}
	if seals&journalSeals != journalSeals {
		return bad("its size may change")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	var head [headSize]byte
	if n, err := unix.Pread(fd, head[:], 0); err != nil || n < headSize {
		return bad("it is too short")
	}
	word := func(i int) uint64 { return binary.NativeEndian.Uint64(head[8*i:]) }
	n, note := word(1), word(2)
	switch {
	case word(0) != journalMagic:
		return bad("it does not begin as one")
	case n < 1 || n > MaxJournal || n&(n-1) != 0 || note > MaxNote || uint64(st.Size) != headSize+n*entrySize+note:
		return bad("its sizes do not fit")
	}
	unix.CloseOnExec(fd)
	return mapJournal(fd, int(n))
}

// FD returns the descriptor, -1 once closed. It remains the journal's.
func (j *Journal) FD() int { return int(j.fd.Load()) }

// Note returns the note.
func (j *Journal) Note() ([]byte, error) {
	b := make([]byte, j.head.note)
	for at := 0; at < len(b); {
		n, err := unix.Pread(j.FD(), b[at:], int64(headSize+len(j.entries)*entrySize+at))
		if err != nil || n == 0 {
			return nil, fmt.Errorf("read the journal's note: %w", errors.Join(err))
		}
		at += n
	}
	return b, nil
}

// Close closes the descriptor. What is written into the journal afterwards nobody here misses; copies see it. A
// listener closes its own.
func (j *Journal) Close() error {
	fd := j.fd.Swap(-1)
	if fd < 0 {
		return fmt.Errorf("close journal: %w", os.ErrClosed)
	}
	return unix.Close(int(fd))
}

// SetJournal has the listener keep j, which is the listener's from then on. Call it before the listener is shared.
func (l *Listener) SetJournal(j *Journal) { l.journal = j }

// Journal is what the listener keeps, or nil. It remains the listener's.
func (l *Listener) Journal() *Journal { return l.journal }

// Outstanding is how many notifications are in the journal. Of a listener whose reader ended in order, none: the search of
// [Listener.Held], for what a crash left, need not be made.
func (j *Journal) Outstanding() (n int) {
	defer runtime.KeepAlive(j)
	for i := range j.entries {
		if j.entries[i].id.Load() != 0 {
			n++
		}
	}
	return n
}

// put writes down what was received. Only the listener's one reader does.
func (j *Journal) put(n *Notif) {
	defer runtime.KeepAlive(j)
	for i := range uint64(near) {
		if e := &j.entries[(n.ID+i)&j.mask]; e.id.Load() == 0 {
			j.set(e, n)
			return
		}
	}
	j.putFar(n)
}

func (j *Journal) set(e *journalEntry, n *Notif) {
	e.call.Store(uint64(n.Data.Arch)<<32 | uint64(uint32(n.Data.NR)))
	e.id.Store(n.ID)
	j.head.last.Store(n.ID)
}

func (j *Journal) putFar(n *Notif) {
	j.head.crowded.Store(1)
	for i := uint64(near); i < uint64(len(j.entries)); i++ {
		if e := &j.entries[(n.ID+i)&j.mask]; e.id.Load() == 0 {
			j.set(e, n)
			return
		}
	}
	j.head.missed.Add(1)
	j.head.last.Store(n.ID)
}

// strike takes out what needs no answer any more. Any thread may.
func (j *Journal) strike(id uint64) {
	defer runtime.KeepAlive(j) // and with it the mapping
	for i := range uint64(near) {
		if e := &j.entries[(id+i)&j.mask]; e.id.Load() == id {
			e.id.CompareAndSwap(id, 0) // it may be another's since
			return
		}
	}
	if j.head.crowded.Load() == 0 {
		return
	}
	for i := uint64(near); i < uint64(len(j.entries)); i++ {
		if e := &j.entries[(id+i)&j.mask]; e.id.Load() == id {
			e.id.CompareAndSwap(id, 0)
			return
		}
	}
}

// A Held is a notification that was received and waits for its answer.
type Held struct {
	ID   uint64
	Arch uint32 // AUDIT_ARCH_* of its call; 0 if it is not known
	NR   int32
}

// Held returns the notifications that a former reader of the listener received and did not answer, by the listener's journal.
// That reader must be dead, and nobody may receive meanwhile.
//
// A reader that dies just after RECV has not written down the last one: the ids that follow the last known
// one are tried too. Its call is not known.
func (l *Listener) Held() ([]Held, error) {
	j := l.journal
	if j == nil {
		return nil, errors.New("the listener has no journal: nothing is known of what a former reader held")
	}
	defer runtime.KeepAlive(j)
	var held []Held
	seen := map[uint64]bool{}
	try := func(h Held) (bool, error) {
		if seen[h.ID] {
			return false, nil
		}
		switch err := l.IDValid(h.ID); OutcomeOf(err) {
		case Done:
			seen[h.ID] = true
			held = append(held, h)
			return true, nil
		case Stale:
			return false, nil
		default:
			return false, err
		}
	}
	for i := range j.entries {
		e := &j.entries[i]
		if id := e.id.Load(); id != 0 {
			call := e.call.Load()
			ok, err := try(Held{id, uint32(call >> 32), int32(uint32(call))})
			if err != nil {
				return nil, err
			}
			if !ok {
				e.id.CompareAndSwap(id, 0)
			}
		}
	}
	last := j.head.last.Load()
	if j.head.missed.Load() > 0 {
		for i := range uint64(scanBack) {
			if _, err := try(Held{ID: last - i}); err != nil {
				return nil, err
			}
		}
	}
	if last != 0 { // something was received, ever
		for i := range uint64(scanAhead) {
			found, err := try(Held{ID: last + 1 + i})
			if err != nil {
				return nil, err
			}
			if found {
				break // there is one at most: of one reader
			}
		}
	}
	return held, nil
}
