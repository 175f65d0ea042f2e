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

	// With Config.Stages: by Stage, of all answered calls that were not drops and
	// whose target was seen. Every pointer is nil without.
	Stages [NumStages]*hist.Snapshot

	Awake    uint64 // of those, received before their target slept: their trap counts as at the receive
	Unjoined uint64 // answers whose target was not known, as when it trapped before the tracer started, or had not slept yet: not in Stages
	Broken   uint64 // calls that a signal broke off after their answer: not in Stages
	Slowest  *Call  // with Config.Explain: of those in Stages, the longest; nil if there was none

	StaleTime time.Duration // receive → the end of the stale ones, all together

	// With Tracer.Receivers: Wait by receiver, in the order of that list.
	Receivers []*hist.Snapshot

	Seen    uint64 // RECVs that returned a notification, followed (Config.Sample) or not
	Elapsed time.Duration

	// With Config.Results, what the ioctls returned, followed or not. ID_VALID's successes are not counted.
	Recv, Send, IDValid, AddFD Returned

	unwoken uint64 // of Unjoined, those that were answered before their target slept
}

// Returned counts what an ioctl returned.
type Returned struct {
	Done        uint64 // success
	Gone        uint64 // ENOENT
	Interrupted uint64 // EINTR, or a restart
	Twice       uint64 // EINPROGRESS, SEND's word for a second answer
	Odd         uint64 // anything else
}

// returned are the counts in the order of trace.bpf.c.
func (r *Report) returned() (all []*uint64) {
	for _, c := range []*Returned{&r.Recv, &r.Send, &r.IDValid, &r.AddFD} {
		all = append(all, &c.Done, &c.Gone, &c.Interrupted, &c.Twice, &c.Odd)
	}
	return all
}

// Rows of the kernel's histograms (enum stage of trace.bpf.c), a set for each
// bank. Those of the stages follow.
const (
	rowWait uint32 = iota
	rowAnswer
	rowDrop
	rowStages
	rowReceivers = rowStages + uint32(NumStages)
	rows         = rowReceivers + maxReceivers
)

// Report returns what was counted since Start or the last Reset.
func (t *Tracer) Report() (*Report, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.coll == nil {
		return nil, fmt.Errorf("trace: report: %w", os.ErrClosed)
	}
	r, err := t.read(t.bank)
	if err != nil {
		return nil, err
	}
	r.Elapsed = time.Since(t.since)
	skipped, err := t.skipped()
	if err != nil {
		return nil, err
	}
	r.Missed += skipped - t.base
	return r, nil
}

// Take is Report and Reset in one: all that was counted is of the same calls, give
// or take one on each CPU, since counting goes on elsewhere while it is read.
func (t *Tracer) Take() (*Report, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.coll == nil {
		return nil, fmt.Errorf("trace: report: %w", os.ErrClosed)
	}
	bank, base, since := t.bank, t.base, t.since
	if err := t.reset(); err != nil {
		return nil, err
	}
	// A program that began before the switch still counts there, for less than
	// a microsecond unless its CPU was taken away.
	time.Sleep(time.Millisecond)
	r, err := t.read(bank)
	if err != nil {
		return nil, err
	}
	r.Elapsed = t.since.Sub(since)
	r.Missed += t.base - base
	return r, nil
}

// read reads a bank, but for what is not in it.
func (t *Tracer) read(bank uint32) (*Report, error) {
	r := new(Report)
	c, err := t.counters(bank)
	if err != nil {
		return nil, err
	}
	for _, h := range []struct {
		row uint32
		to  **hist.Snapshot
	}{{rowWait, &r.Wait}, {rowAnswer, &r.Answer}, {rowDrop, &r.Drop}} {
		if err := t.hist(bank, h.row, &c, h.to); err != nil {
			return nil, err
		}
	}
	r.Receivers = make([]*hist.Snapshot, t.receivers)
	for i := range r.Receivers {
		if err := t.hist(bank, rowReceivers+uint32(i), &c, &r.Receivers[i]); err != nil {
			return nil, err
		}
	}
	if t.c.Stages {
		for s := range r.Stages {
			if err := t.hist(bank, rowStages+uint32(s), &c, &r.Stages[s]); err != nil {
				return nil, err
			}
		}
	}
	if t.c.Explain {
		var calls []kernelSlow
		if err := t.coll.Maps[kernelMapSlowest].Lookup(bank, &calls); err != nil {
			return nil, fmt.Errorf("trace: read slowest calls: %w", err)
		}
		r.Slowest = slowest(calls)
	}
	r.Dispatched, r.Answered, r.Dropped = r.Wait.Count, r.Answer.Count, r.Drop.Count
	r.Seen, r.Received, r.Stale, r.Retried, r.Unmatched = c.Seen, c.Received, c.Stale, c.Retried, c.Unmatched
	r.Overflow, r.Awake, r.Broken = c.Overflow, c.Awake, c.Broken
	for i, n := range r.returned() {
		*n = c.Results[i]
	}
	r.Missed, r.Unjoined, r.unwoken = c.EnterUnread+c.ExitUnread, c.WakingUnjoined+c.Unjoined+c.Unwoken, c.Unwoken
	r.StaleTime = time.Duration(c.StaleNs)
	return r, nil
}

// hist reads a row of a bank, whose counters are c.
func (t *Tracer) hist(bank, row uint32, c *kernelCounters, to **hist.Snapshot) error {
	var cpus []kernelHist
	if err := t.coll.Maps[kernelMapHists].Lookup(bank*rows+row, &cpus); err != nil {
		return fmt.Errorf("trace: read histograms: %w", err)
	}
	s := &hist.Snapshot{Sum: int64(c.Totals[row].Sum), Max: int64(c.Totals[row].Max)}
	for i := range cpus {
		for b, n := range cpus[i].Counts {
			s.Counts[b] += n
			s.Count += n
		}
	}
	*to = s
	return nil
}

// counters adds up a bank's counters; of totals' maxima it takes the largest.
func (t *Tracer) counters(bank uint32) (sum kernelCounters, err error) {
	var cpus []kernelCounters
	if err := t.coll.Maps[kernelMapCounts].Lookup(bank, &cpus); err != nil {
		return sum, fmt.Errorf("trace: read counters: %w", err)
	}
	for _, c := range cpus {
		sum.Released += c.Released
		sum.EnterUnread += c.EnterUnread
		sum.WakingUnjoined += c.WakingUnjoined
		sum.Seen += c.Seen
		sum.Received += c.Received
		sum.Claimed += c.Claimed
		sum.Overflow += c.Overflow
		sum.Stale += c.Stale
		sum.StaleNs += c.StaleNs
		sum.Forgotten += c.Forgotten
		sum.Retried += c.Retried
		sum.Unmatched += c.Unmatched
		sum.ExitUnread += c.ExitUnread
		sum.Awake += c.Awake
		sum.Unjoined += c.Unjoined
		sum.Unwoken += c.Unwoken
		sum.Broken += c.Broken
		for i, n := range c.Results {
			sum.Results[i] += n
		}
		for row, t := range c.Totals {
			sum.Totals[row].Sum += t.Sum
			sum.Totals[row].Max = max(sum.Totals[row].Max, t.Max)
		}
	}
	return sum, nil
}

// flights is how many more notifications a bank saw begin than end.
func (t *Tracer) flights(bank uint32) (int64, error) {
	c, err := t.counters(bank)
	return int64(c.Claimed - c.Released - c.Forgotten), err
}

// InFlight returns how many of the followed notifications are received and whose
// answer is not yet on its way. It looks at counters, not at times, so that
// Little's law can hold the one against the other ([Occupancy]).
func (t *Tracer) InFlight() (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.coll == nil {
		return 0, fmt.Errorf("trace: %w", os.ErrClosed)
	}
	n := t.carried
	for bank := range uint32(2) {
		m, err := t.flights(bank)
		if err != nil {
			return 0, err
		}
		n += m
	}
	return int(n), nil
}

// Merge adds what o, a later report of the same tracer, counted.
func (r *Report) Merge(o *Report) {
	r.Wait.Merge(o.Wait)
	r.Answer.Merge(o.Answer)
	r.Drop.Merge(o.Drop)
	for s, h := range r.Stages {
		if h != nil && o.Stages[s] != nil {
			h.Merge(o.Stages[s])
		}
	}
	for i, h := range r.Receivers {
		if i < len(o.Receivers) {
			h.Merge(o.Receivers[i])
		}
	}
	r.Received += o.Received
	r.Dispatched += o.Dispatched
	r.Answered += o.Answered
	r.Dropped += o.Dropped
	r.Stale += o.Stale
	r.Retried += o.Retried
	r.Unmatched += o.Unmatched
	r.Overflow += o.Overflow
	r.Missed += o.Missed
	r.Awake += o.Awake
	r.Unjoined += o.Unjoined
	r.unwoken += o.unwoken
	r.Broken += o.Broken
	r.StaleTime += o.StaleTime
	r.Seen += o.Seen
	theirs := o.returned()
	for i, n := range r.returned() {
		*n += *theirs[i]
	}
	r.Elapsed += o.Elapsed
	if r.Slowest == nil || o.Slowest != nil && o.Slowest.Total() > r.Slowest.Total() {
		r.Slowest = o.Slowest
	}
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
