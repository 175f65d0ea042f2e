package record

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/unknot/unknot/bench/internal/bpf"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/internal/mono"
)

// DefaultCalls is the Config.MaxCalls of a zero Config: some 12 MB of file and 60
// of memory.
const DefaultCalls = 1 << 20

// Config says what to record.
type Config struct {
	PID      int           // process id of the supervisor
	Duration time.Duration // when to end, once it has begun; 0: when the context does
	MaxCalls int           // end after so many calls; 0: DefaultCalls
	// DropErrno is what the supervisor answers to what it drops; 0 is EINTR.
	DropErrno syscall.Errno
	// Begun is called once calls are recorded, before which loading takes a tenth of a second and more; nil: nobody asks.
	Begun func()
}

// pollEvery is how often rows are fetched: the kernel wakes nobody for them, which
// would cost the supervisor more than all else. The ring has room for 290,000.
const pollEvery = 20 * time.Millisecond

// Record records a supervisor until the duration is over, ctx ends, MaxCalls were
// made or the supervisor is gone, whichever comes first; all of these are
// successes. It fails with [ErrEmpty] if there was no call, and as trace.Probe
// does where this user or kernel cannot trace; without BTF there is no recording.
func Record(ctx context.Context, c Config) (*Recording, error) {
	if c.MaxCalls == 0 {
		c.MaxCalls = DefaultCalls
	}
	if c.DropErrno == 0 {
		c.DropErrno = syscall.EINTR
	}
	switch {
	case c.PID <= 0:
		return nil, fmt.Errorf("record: process id %d: must be more than 0", c.PID)
	case c.MaxCalls < 0 || c.MaxCalls > MaxCalls:
		return nil, fmt.Errorf("record: %d calls: must be 1 to %d", c.MaxCalls, MaxCalls)
	case c.Duration < 0 || c.Duration > maxElapsed:
		return nil, fmt.Errorf("record: a duration of %v: must be 0 to %v", c.Duration, maxElapsed)
	}
	p, err := attach(c)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if c.Begun != nil {
		c.Begun()
	}
	if c.Duration > 0 { // from here on
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Duration)
		defer cancel()
	}
	return p.follow(ctx, c)
}

// follow takes in rows until there is a reason to end, and ends.
func (p *programs) follow(ctx context.Context, c Config) (*Recording, error) {
	for ctx.Err() == nil && len(p.rec.Calls) < c.MaxCalls && !p.supervisor.Ended() {
		if err := p.fetch(time.Now().Add(pollEvery), c.MaxCalls); err != nil {
			return nil, err
		}
	}
	return p.end(c.MaxCalls)
}

// programs are the attached programs and what they have said.
type programs struct {
	kernelObjects
	supervisor *trace.Process
	links      []link.Link
	reader     *ringbuf.Reader
	rec        *Recording
	base       int64 // the recording's start by the monotonic clock
	threads    map[uint32]int32
	syscalls   map[Syscall]int32
}

func attach(c Config) (p *programs, err error) {
	spec, err := loadKernel()
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	ns, err := bpf.OwnNamespace()
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]any{
		kernelVarTgid: uint32(c.PID), kernelVarInPidns: ns.Inside, kernelVarPidnsDev: ns.Dev, kernelVarPidnsIno: ns.Ino,
		kernelVarDropError: -int32(c.DropErrno),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("record: set %s: %w", name, err)
		}
	}
	cpus, err := onlineCPUs()
	if err != nil {
		return nil, err
	}
	supervisor, err := trace.OpenProcess(c.PID)
	if err != nil {
		return nil, err
	}
	coll, err := bpf.Load(spec, bpf.MinKernel)
	if err != nil {
		_ = supervisor.Close()
		return nil, err
	}
	p = &programs{supervisor: supervisor, threads: map[uint32]int32{}, syscalls: map[Syscall]int32{}, rec: &Recording{Start: time.Now().UTC().Truncate(time.Second), CPUs: cpus}}
	err = coll.Assign(&p.kernelObjects)
	coll.Close() // what was assigned is ours
	if err != nil {
		p.close()
		return nil, fmt.Errorf("record: %w", err)
	}
	if p.reader, err = ringbuf.NewReader(p.Rows); err != nil {
		p.close()
		return nil, fmt.Errorf("record: %w", err)
	}
	p.base = mono.Now()
	// Entries before exits: what is received from now on is also seen dispatched.
	for _, t := range []struct {
		tracepoint string
		attach     link.TracingOptions
	}{
		{"sched_switch", link.TracingOptions{Program: p.RecordSwitch}},
		{"sys_enter", link.TracingOptions{Program: p.RecordEnter}},
		{"sys_exit", link.TracingOptions{Program: p.RecordExit}},
	} {
		l, err := link.AttachTracing(t.attach)
		if err != nil {
			p.close()
			return nil, bpf.Explain("attach to "+t.tracepoint, bpf.MinKernel, err)
		}
		p.links = append(p.links, l)
	}
	return p, nil
}

// onlineCPUs counts the machine's, not those that we may use.
func onlineCPUs() (int, error) {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return 0, fmt.Errorf("record: count CPUs: %w; if /sys is not mounted: mount -t sysfs sysfs /sys", err)
	}
	n := 0
	for len(b) > 0 {
		var from, to int
		part := b
		if i := slices.Index(b, ','); i >= 0 {
			part, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		switch k, _ := fmt.Sscanf(string(part), "%d-%d", &from, &to); k {
		case 1:
			n++
		case 2:
			n += to - from + 1
		default:
			return 0, fmt.Errorf("record: count CPUs: %q", part)
		}
	}
	return n, nil
}

// fetch takes what rows there are, and those that come until the deadline.
func (p *programs) fetch(deadline time.Time, most int) error {
	var rec ringbuf.Record
	p.reader.SetDeadline(deadline)
	for len(p.rec.Calls) < most {
		switch err := p.reader.ReadInto(&rec); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("record: read rows: %w", err)
		}
		p.add(rec.RawSample)
	}
	return nil
}

// The flags of a row (record.bpf.c).
const (
	rowDropped = 1 << iota
	rowStale
	rowInline
	rowBlocked
	rowSlept
)

// add takes in one struct row.
func (p *programs) add(b []byte) {
	u64 := func(at int) int64 { return int64(binary.NativeEndian.Uint64(b[at:])) }
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	arrival, received, dispatched, answered := u64(0), u64(8), u64(16), u64(24)
	flags := u32(52)
	c := Call{
		Trapped: arrival != 0,
		Thread:  index(p.threads, u32(40)),
		Blocked: flags&rowBlocked != 0,
		Slept:   flags&rowSlept != 0,
		Arrival: received - p.base,
		Service: max(answered-received, 0),
	}
	s := Syscall{u32(48), int32(u32(44))}
	if c.Syscall = index(p.syscalls, s); int(c.Syscall) == len(p.rec.Syscalls) {
		p.rec.Syscalls = append(p.rec.Syscalls, s)
	}
	if c.Trapped {
		c.Arrival, c.Receive = arrival-p.base, received-arrival
	}
	switch {
	case flags&rowStale != 0:
		c.Outcome = Stale
	case flags&rowDropped != 0:
		c.Outcome = Dropped
	}
	switch {
	case dispatched != 0:
		c.Dispatch, c.Wait, c.Service = Checked, dispatched-received, max(answered-dispatched, 0)
	case flags&rowInline != 0 && c.Outcome == Served:
		c.Dispatch = Inline
	}
	if c.Outcome == Served {
		c.Away = min(max(u64(32), 0), c.Service)
	}
	p.rec.Calls = append(p.rec.Calls, c)
}

// index numbers keys in the order in which they are first seen.
func index[K comparable](m map[K]int32, k K) int32 {
	i, ok := m[k]
	if !ok {
		i = int32(len(m))
		m[k] = i
	}
	return i
}

// end detaches the programs and returns what they saw.
func (p *programs) end(most int) (*Recording, error) {
	for _, l := range p.links {
		if err := l.Close(); err != nil {
			return nil, fmt.Errorf("record: detach: %w", err)
		}
	}
	p.links = nil
	r := p.rec
	r.Elapsed = time.Duration(mono.Now() - p.base)
	if err := p.fetch(time.Now(), most); err != nil {
		return nil, err
	}
	var claimed, finished uint64
	for _, v := range []struct {
		from interface{ Get(any) error }
		to   *uint64
	}{
		{p.Claimed, &claimed}, {p.Finished, &finished}, {p.Unmatched, &r.Lost.Unmatched}, {p.Overrun, &r.Lost.Overrun}, {p.Missed, &r.Lost.Missed},
	} {
		if err := v.from.Get(v.to); err != nil {
			return nil, fmt.Errorf("record: read counts: %w", err)
		}
	}
	for _, prog := range []interface {
		Stats() (*ebpf.ProgramStats, error)
	}{p.RecordEnter, p.RecordExit, p.RecordSwitch} {
		s, err := prog.Stats()
		if err != nil {
			return nil, fmt.Errorf("record: read statistics: %w", err)
		}
		r.Lost.Missed += s.RecursionMisses
	}
	if len(r.Calls) == 0 {
		return nil, fmt.Errorf("record: %w", ErrEmpty)
	}
	r.Lost.Unfinished = claimed - min(finished, claimed)
	if full := len(r.Calls) == most; full {
		// What finished after the last row is in the ring, unread.
		r.Elapsed = time.Duration(lastEnd(r.Calls)) + 1
	}
	slices.SortStableFunc(r.Calls, func(a, b Call) int { return int(a.Arrival - b.Arrival) })
	r.renumber(len(p.threads))
	return r, r.check()
}

func lastEnd(calls []Call) (last int64) {
	for i := range calls {
		last = max(last, calls[i].Arrival+calls[i].Response())
	}
	return last
}

// renumber has threads numbered by their first arrival, not by their first answer.
func (r *Recording) renumber(threads int) {
	to := make(map[int32]int32, threads)
	for i := range r.Calls {
		r.Calls[i].Thread = index(to, r.Calls[i].Thread)
	}
	r.Threads = len(to)
}

func (p *programs) close() {
	for _, l := range p.links {
		_ = l.Close()
	}
	if p.reader != nil {
		_ = p.reader.Close()
	}
	_ = p.kernelObjects.Close()
	_ = p.supervisor.Close()
}
