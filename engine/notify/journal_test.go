package notify

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// ids are what a journal has, sorted.
func (j *Journal) ids() (ids []uint64) {
	for i := range j.entries {
		if id := j.entries[i].id.Load(); id != 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// A journal has what was put and not struck, whatever the order, also when it is nearly full, and seen by
// another who has a copy.
func TestJournalAgainstAModel(t *testing.T) {
	for _, n := range []int{1, 2, 16, 64} {
		j, err := NewJournal(n, []byte("note"))
		if err != nil {
			t.Fatal(err)
		}
		dup, err := unix.FcntlInt(uintptr(j.FD()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		other, err := OpenJournal(dup)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(1, uint64(n)))
		next := r.Uint64()
		var model []uint64
		missed := uint64(0)
		for step := range 20_000 {
			if r.IntN(2) == 0 || len(model) == 0 {
				next += 1 + uint64(r.IntN(4))*uint64(r.IntN(n)) // some were taken back
				j.put(&Notif{ID: next, Data: Data{NR: 7, Arch: 9}})
				if len(model) < n {
					model = append(model, next)
				} else {
					missed++
				}
			} else {
				i := r.IntN(len(model))
				j.strike(model[i])
				j.strike(model[i]) // nobody's by now
				model = slices.Delete(model, i, i+1)
			}
			if got := other.ids(); !slices.Equal(got, slices.Sorted(slices.Values(model))) {
				t.Fatalf("%d entries, step %d: %v, want %v", n, step, got, model)
			}
			if got := other.Outstanding(); got != len(model) {
				t.Fatalf("%d entries, step %d: %d outstanding, want %d", n, step, got, len(model))
			}
		}
		if other.head.missed.Load() != missed || other.head.last.Load() != next {
			t.Errorf("%d entries: missed %d, last %d; want %d, %d", n, other.head.missed.Load(), other.head.last.Load(), missed, next)
		}
		if note, err := other.Note(); err != nil || string(note) != "note" {
			t.Errorf("note %q, %v", note, err)
		}
		_ = other.Close()
		_ = j.Close()
	}
}

func TestJournalRefuses(t *testing.T) {
	for _, n := range []int{0, -1, MaxJournal + 1} {
		if _, err := NewJournal(n, nil); err == nil {
			t.Errorf("%d entries: no error", n)
		}
	}
	if _, err := NewJournal(1, make([]byte, MaxNote+1)); err == nil {
		t.Error("a long note: no error")
	}
	memfd := func(size int, content []byte, seals int) int {
		fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		if err := unix.Ftruncate(fd, int64(size)); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Pwrite(fd, content, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	good, err := NewJournal(4, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	head := make([]byte, headSize)
	if _, err := unix.Pread(good.FD(), head, 0); err != nil {
		t.Fatal(err)
	}
	for want, fd := range map[string]int{
		"no memfd":          int(null.Fd()),
		"size may change":   memfd(1000, head, 0),
		"too short":         memfd(10, head[:10], journalSeals),
		"not begin as one":  memfd(1000, nil, journalSeals),
		"sizes do not fit":  memfd(headSize+4*entrySize+1, head, journalSeals),
		"sizes do not fit ": memfd(headSize, head, journalSeals),
	} {
		if _, err := OpenJournal(fd); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	var l Listener
	if _, err := l.Held(); err == nil {
		t.Error("a listener without a journal")
	}
}

// childCallers has threads that make one trapped call each, and says what each came to: "VALUE ERRNO".
func childCallers(c *testchild.Conn, args []string) error {
	flags, _ := strconv.ParseUint(args[0], 0, 32)
	threads, _ := strconv.Atoi(args[1])
	prog, err := TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	return onThread(func() error {
		l, err := Install(prog, InstallFlags(flags)|TSync)
		if err != nil {
			return err
		}
		if err := SendListener(c.UnixConn, l); err != nil {
			return err
		}
		_ = l.Close()
		said := make(chan string)
		for range threads {
			osthread.Start(func() {
				v, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
				said <- fmt.Sprintf("%d %d", v, int(e))
			})
		}
		for range threads {
			if err := c.Say("%s", <-said); err != nil {
				return err
			}
		}
		return nil
	})
}

// What a former reader had received and not answered is found and can be answered, also what it had not
// written down, and nothing else.
func TestHeld(t *testing.T) {
	for name, flags := range map[string]string{"": "0", "wait killable": fmt.Sprint(uint32(WaitKillableRecv))} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if flags != "0" {
				if err := FeatureWaitKillable.Probe(); err != nil {
					t.Skip(err)
				}
			}
			const n = 5
			c := testchild.Start(t, "callers", flags, "5")
			l, err := RecvListener(c.UnixConn)
			if err != nil {
				t.Fatal(err)
			}
			j, err := NewJournal(2, nil) // too small: the others are missed
			if err != nil {
				t.Fatal(err)
			}
			l.SetJournal(j)
			want := map[uint64]bool{}
			recv := func(l *Listener) uint64 {
				var n Notif
				for {
					err := l.Recv(&n)
					if err == nil {
						return n.ID
					}
					if o := OutcomeOf(err); o != Stale && o != Retry {
						t.Fatal(err)
					}
				}
			}
			for range n - 1 {
				want[recv(l)] = true
			}
			// The last one is received and not written down, as by a reader that dies there.
			dup, err := unix.FcntlInt(uintptr(l.FD()), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := NewListener(dup)
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			want[recv(plain)] = true
			held, err := l.Held()
			if err != nil {
				t.Fatal(err)
			}
			known := 0
			for _, h := range held {
				if !want[h.ID] {
					t.Errorf("%d is not held", h.ID)
				}
				delete(want, h.ID)
				if h.NR == unix.SYS_GETPPID && h.Arch == NativeArch {
					known++
				}
				if err := l.Send(&Resp{ID: h.ID, Val: 77}); err != nil {
					t.Error(err)
				}
			}
			if len(want) > 0 || known != 2 {
				t.Errorf("not found: %v; %d calls known, want 2", want, known)
			}
			if ids := j.ids(); len(ids) > 0 {
				t.Errorf("answered, and still in the journal: %v", ids)
			}
			for range n {
				c.Expect("77 0")
			}
			if held, err := l.Held(); err != nil || len(held) > 0 {
				t.Errorf("all are answered, and held are %v, %v", held, err)
			}
			_ = l.Close()
			if j.FD() != -1 {
				t.Error("the journal is still open")
			}
		})
	}
}

func TestJournalAllocatesNothing(t *testing.T) {
	j, err := NewJournal(64, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	n := Notif{ID: 1 << 40}
	if a := testing.AllocsPerRun(1000, func() {
		n.ID++
		j.put(&n)
		j.strike(n.ID)
	}); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

// BenchmarkJournal is what a journal adds to a call, with so many outstanding.
func BenchmarkJournal(b *testing.B) {
	j, err := NewJournal(1024, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	n := Notif{ID: 1 << 40}
	for range 64 {
		n.ID++
		j.put(&n)
	}
	for b.Loop() {
		n.ID++
		j.put(&n)
		j.strike(n.ID - 64)
	}
}
