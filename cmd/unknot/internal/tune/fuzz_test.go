package tune

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/bench/storm"
)

// FuzzRecording: a recording that can be written, whatever is in it, is a load that can be simulated and stormed, or is refused. (Package
// record fuzzes how files are read.)
func FuzzRecording(f *testing.F) {
	var calls []byte
	for i := range 40 {
		calls = append(calls, byte(3+i%5), byte(i%3), byte(i), 0x41, 0x22, byte(i%4))
	}
	f.Add(calls, int64(time.Second), 3, true)
	f.Add(calls, int64(1), 1, false)
	f.Add(calls[:6], int64(time.Hour), 1, false)
	f.Fuzz(func(t *testing.T, b []byte, elapsed int64, threads int, known bool) {
		r := &record.Recording{Start: time.Unix(1.7e9, 0).UTC(), Elapsed: time.Duration(elapsed), CPUs: 2, Threads: threads, Syscalls: []record.Syscall{{Arch: 1, NR: 1}, {Arch: 1, NR: 2}}}
		// Six bytes are a call; the times are powers of 2, so that a byte reaches from 1 ns to hours.
		power := func(x byte) int64 { return int64(math.Exp2(float64(x) / 6)) }
		at := int64(0)
		for ; len(b) >= 6; b = b[6:] {
			at += power(b[0]) - 1
			c := record.Call{Arrival: at, Service: power(b[2]) - 1, Thread: int32(b[1]), Syscall: int32(b[5] & 1), Trapped: b[5]&2 != 0, Blocked: b[5]&4 != 0, Slept: b[5]&8 != 0, Dispatch: record.Checked}
			if b[5]&16 != 0 {
				c.Outcome = record.Dropped
			}
			c.Wait, c.Away = power(b[3])-1, min(c.Service, power(b[4])-1)
			r.Calls = append(r.Calls, c)
		}
		if _, err := r.Encode(); err != nil {
			return // no file says so
		}
		var work *bench.Work
		if known {
			work = &bench.Work{Time: time.Microsecond}
		}
		l, _, err := FromRecording(r, work)
		if err != nil || l.Check() != nil || !l.Arrivals.Open() {
			return
		}
		as, err := l.Arrivals.Calls.Schedule(time.Second, binary.LittleEndian.Uint64([]byte("schedule")))
		if err != nil {
			return
		}
		if len(as) > storm.MaxArrivals {
			t.Fatalf("a schedule of %d calls", len(as))
		}
		last := time.Duration(0)
		for _, a := range as {
			if a.At < last || a.At >= time.Second {
				t.Fatalf("a call at %v after one at %v", a.At, last)
			}
			last = a.At
		}
	})
}
