package bench

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
)

// storms are as many storms as there are listeners, treated as one.
type storms []*storm.Storm

// startStorms starts n target processes, each with a listener and load of its own.
func startStorms(ctx context.Context, s Spec, d time.Duration) (all storms, err error) {
	for i := range s.listeners() {
		// Each draws anew: in step they would be one load.
		load, err := s.Load.Config(s.Targets, s.TargetCPU, WarmUp+d, s.Seed+uint64(i)*0x9e3779b97f4a7c15)
		if err != nil {
			all.close()
			return nil, err
		}
		st, err := storm.Start(ctx, load)
		if err != nil {
			all.close()
			return nil, err
		}
		all = append(all, st)
	}
	return all, nil
}

func (ss storms) listeners() (ls []*notify.Listener) {
	for _, s := range ss {
		ls = append(ls, s.Listener())
	}
	return ls
}

// each runs f for all storms at once and joins the errors.
func (ss storms) each(f func(i int, s *storm.Storm) error) error {
	errs := make([]error, len(ss))
	var wg sync.WaitGroup
	for i, s := range ss {
		wg.Go(func() { errs[i] = f(i, s) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (ss storms) start() error {
	for _, s := range ss {
		if err := s.Go(); err != nil {
			return err
		}
	}
	return nil
}

func (ss storms) close() {
	_ = ss.each(func(_ int, s *storm.Storm) error { s.Close(); return nil })
}

func (ss storms) rages(ctx context.Context, deadline time.Duration) error {
	return ss.each(func(_ int, s *storm.Storm) error { return s.Rages(ctx, deadline) })
}

// counts are those of each storm.
func (ss storms) counts() []storm.Counts {
	all := make([]storm.Counts, len(ss))
	for i, s := range ss {
		all[i] = s.Counts()
	}
	return all
}

func (ss storms) roundTrips() []*hist.Snapshot {
	all := make([]*hist.Snapshot, len(ss))
	for i, s := range ss {
		all[i] = s.RoundTrip()
	}
	return all
}

func (ss storms) cpu() (d time.Duration) {
	for _, s := range ss {
		d += s.CPU()
	}
	return d
}

func (ss storms) rung() (n uint64) {
	for _, s := range ss {
		n += s.Rung()
	}
	return n
}

// halt halts all of them and adds up what they report. Open is that of a single storm.
func (ss storms) halt(deadline time.Duration) (*storm.Report, error) {
	reports := make([]*storm.Report, len(ss))
	if err := ss.each(func(i int, s *storm.Storm) (err error) {
		reports[i], err = s.Halt(deadline)
		return err
	}); err != nil {
		return nil, err
	}
	sum := *reports[0]
	for _, r := range reports[1:] {
		sum.Counts.Add(r.Counts)
		sum.RoundTrip.Merge(r.RoundTrip)
		sum.FailTrip.Merge(r.FailTrip)
		sum.Elapsed = max(sum.Elapsed, r.Elapsed)
		sum.Lost += r.Lost
		sum.InFlight += r.InFlight
		if sum.Disturbed += r.Disturbed; r.Disturbed == storm.Unknown {
			sum.Disturbed = storm.Unknown
		}
	}
	return &sum, nil
}

// ringUntil rings all of them until f returns.
func (ss storms) ringUntil(f func() error) error {
	if len(ss) == 1 {
		return ss[0].RingUntil(f)
	}
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		err = f()
	}()
	_ = ss.each(func(_ int, s *storm.Storm) error {
		return s.RingUntil(func() error { <-done; return nil })
	})
	return err
}

func sumCounts(all []storm.Counts) (sum storm.Counts) {
	for _, c := range all {
		sum.Add(c)
	}
	return sum
}

func sumTrips(all []*hist.Snapshot) *hist.Snapshot {
	sum := new(hist.Snapshot)
	for _, h := range all {
		sum.Merge(h)
	}
	return sum
}
