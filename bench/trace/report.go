package trace

import (
	"fmt"
	"os"
	"time"

	"github.com/unknot/unknot/engine/hist"
)

// A Report is what was counted since Start or the last Reset. Taken while the
// supervisor works, it may be off by the notifications in transition; when
// nothing is in flight, Received = Answered + Dropped + Stale + Overflow, give
// or take what was in flight at the start and what Missed lost.
type Report struct {
	Wait   *hist.Snapshot // receive → dispatch
	Answer *hist.Snapshot // receive → answer, of those that were not drops
	Drop   *hist.Snapshot // receive → drop's answer, of those that were

	Received   uint64 // RECVs that returned a notification
	Dispatched uint64 // first ID_VALIDs: Wait.Count
	Answered   uint64 // answers that were delivered: Answer.Count
	Dropped    uint64 // delivered answers with Config.DropErrno to notifications never dispatched: Drop.Count
	Stale      uint64 // found gone, by whichever call found it first
	Retried    uint64 // answers that our own signal interrupted: not delivered, to be repeated
	Unmatched  uint64 // delivered answers whose receive was not seen, or was lost by Overflow or Missed
	Overflow   uint64 // receives for which the table had no place: raise MaxInFlight
	Missed     uint64 // ioctls whose argument could not be read, and program runs that the kernel skipped

	Elapsed time.Duration
}

// The rows of the kernel's maps (enum stage and enum side of trace.bpf.c), a set
// for each bank.
const (
	stageWait uint32 = iota
	stageAnswer
	stageDrop
	stages
)

const sides uint32 = 2

// Report returns what was counted since Start or the last Reset.
func (t *Tracer) Report() (*Report, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.coll == nil {
		return nil, fmt.Errorf("trace: report: %w", os.ErrClosed)
	}
	r := &Report{Elapsed: time.Since(t.since)}
	for s, to := range map[uint32]**hist.Snapshot{stageWait: &r.Wait, stageAnswer: &r.Answer, stageDrop: &r.Drop} {
		var rows []kernelHist
		if err := t.coll.Maps[kernelMapHists].Lookup(t.bank*stages+s, &rows); err != nil {
			return nil, fmt.Errorf("trace: read histograms: %w", err)
		}
		*to = sumHists(rows)
	}
	r.Dispatched, r.Answered, r.Dropped = r.Wait.Count, r.Answer.Count, r.Drop.Count
	for s := range sides {
		var rows []kernelCounters
		if err := t.coll.Maps[kernelMapCounts].Lookup(t.bank*sides+s, &rows); err != nil {
			return nil, fmt.Errorf("trace: read counters: %w", err)
		}
		for _, c := range rows {
			r.Received += c.Received
			r.Stale += c.Stale
			r.Retried += c.Retried
			r.Unmatched += c.Unmatched
			r.Overflow += c.Overflow
			r.Missed += c.Unread
		}
	}
	skipped, err := t.skipped()
	if err != nil {
		return nil, err
	}
	r.Missed += skipped - t.base
	return r, nil
}

// sumHists adds up the CPUs' histograms.
func sumHists(rows []kernelHist) *hist.Snapshot {
	s := new(hist.Snapshot)
	for i := range rows {
		h := &rows[i]
		for b, n := range h.Counts {
			s.Counts[b] += n
			s.Count += n
		}
		s.Sum += int64(h.Sum)
		s.Max = max(s.Max, int64(h.Max))
	}
	return s
}

// skipped counts the runs that the kernel left out since the programs were
// loaded, because the program was running on that CPU already (Linux 5.12;
// 0 before).
func (t *Tracer) skipped() (n uint64, err error) {
	for name, p := range t.coll.Programs {
		s, err := p.Stats()
		if err != nil {
			return 0, fmt.Errorf("trace: read statistics of %s: %w", name, err)
		}
		n += s.RecursionMisses
	}
	return n, nil
}
