package trace

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/unknot/unknot/bench/internal/bpf"
)

// defaultMaxInFlight is the MaxInFlight of a zero Config.
const defaultMaxInFlight = 1 << 16

// maxMaxInFlight keeps the table of flights (64 bytes each) within 1 GiB.
const maxMaxInFlight = 1 << 24

// maxErrno is the kernel's MAX_ERRNO.
const maxErrno = 4095

// nearLog2 is the base-2 logarithm of the slots in the near part of the table:
// 32 KiB of them.
const nearLog2 = 9

// Config says what to trace. The zero Config traces every process.
type Config struct {
	// TGID is the process id of the supervisor, as seen from the tracer's PID
	// namespace; 0 traces every supervisor on the machine, as one. Without the
	// kernel's BTF, from a PID namespace other than the machine's first, only processes
	// of that same namespace can be traced by id, not those of namespaces inside it.
	TGID int
	// MaxInFlight is how many notifications may be received and not yet
	// answered before some are lost to the tracer (Report.Overflow);
	// 0 is defaultMaxInFlight. The table has more than twice as many places,
	// so that all but rare clusters of this many fit.
	MaxInFlight int
	// DropErrno is what the supervisor answers to what it drops; 0 is EINTR.
	// Only an answer with this errno to a notification that was never
	// dispatched counts as a drop.
	DropErrno syscall.Errno
	// Stages also follows the targets, by the scheduler's tracepoints, so that
	// Report.Stages tells where each call's time went. It needs the kernel's BTF
	// and Linux 5.18; where there is no BTF, Start goes on without (see
	// [Tracer.Stages]).
	Stages bool
	// Explain also keeps the slowest call of each interval with what its threads
	// did meanwhile (Report.Slowest). It implies Stages, and costs more.
	Explain bool
	// Results has what the ioctls return counted ([Report].Recv and so on), at a small cost for each.
	Results bool
	// Sample follows one notification in so many; 0 and 1 follow all. Which ones
	// is drawn at the target before the call, or without Stages, and where a
	// supervisor lives in a PID namespace, by the notification's id. Only followed
	// ones are in the report, but for Report.Seen; Report.Unmatched knows none.
	Sample int
}

// A Tracer counts until it is closed. Its methods may be called from any
// goroutine. Any number of tracers may run at once.
type Tracer struct {
	mu    sync.Mutex
	coll  *ebpf.Collection // nil: closed
	c     Config           // as it took effect
	links []link.Link      // in the order of attachment
	bank  uint32           // where the programs count now
	since time.Time        // Start or the last Reset
	base  uint64           // runs that the kernel had skipped by then
	// Flights that the banks no longer know: what those that were emptied had
	// taken into the table, less what they had taken out.
	carried int64
	// How many receivers are kept apart.
	receivers int
}

// A variant is one way to attach the two programs.
type variant struct {
	name        string
	enter, exit string
	stages      bool // can follow targets
	attach      func(p *ebpf.Program, tracepoint string) (link.Link, error)
}

var (
	btfVariant = variant{"BTF tracepoints", kernelProgEnterBtf, kernelProgExitBtf, true, func(p *ebpf.Program, _ string) (link.Link, error) {
		return link.AttachTracing(link.TracingOptions{Program: p})
	}}
	rawVariant = variant{"raw tracepoints", kernelProgEnterRaw, kernelProgExitRaw, false, func(p *ebpf.Program, tracepoint string) (link.Link, error) {
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: p})
	}}
)

// Start loads the programs and attaches them. Its errors are those of [Probe],
// or name what in c is wrong.
func Start(c Config) (*Tracer, error) {
	t, err := startVariant(c, btfVariant)
	if err != nil && (errors.Is(err, btf.ErrNotFound) || errors.Is(err, btf.ErrNotSupported)) {
		t, err = startVariant(c, rawVariant)
	}
	return t, err
}

func startVariant(c Config, v variant) (*Tracer, error) {
	if c.MaxInFlight == 0 {
		c.MaxInFlight = defaultMaxInFlight
	}
	if c.MaxInFlight < 0 || c.MaxInFlight > maxMaxInFlight {
		return nil, fmt.Errorf("trace: MaxInFlight %d is not in 1..%d", c.MaxInFlight, maxMaxInFlight)
	}
	if c.Sample < 0 || c.Sample > math.MaxUint32 {
		return nil, fmt.Errorf("trace: Sample %d is not in 0..%d", c.Sample, uint32(math.MaxUint32))
	}
	c.Sample = max(1, c.Sample)
	c.Stages = (c.Stages || c.Explain) && v.stages
	c.Explain = c.Explain && v.stages
	if c.DropErrno == 0 {
		c.DropErrno = syscall.EINTR
	}
	if c.DropErrno > maxErrno {
		return nil, fmt.Errorf("trace: DropErrno %d is not in 1..%d", uint(c.DropErrno), maxErrno)
	}
	spec, err := loadKernel()
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	// The receive last: of whatever is received from now on, all else is seen too.
	programs := []struct{ name, tracepoint string }{{v.enter, "sys_enter"}, {v.exit, "sys_exit"}}
	if c.Stages {
		programs = append([]struct{ name, tracepoint string }{
			{kernelProgEnded, "sched_process_exit"}, {kernelProgExeced, "sched_process_exec"}, {kernelProgSwitched, "sched_switch"}, {kernelProgWaking, "sched_waking"},
		}, programs...)
	}
	for name := range spec.Programs {
		if !slices.ContainsFunc(programs, func(p struct{ name, tracepoint string }) bool { return p.name == name }) {
			delete(spec.Programs, name)
		}
	}
	// Twice as many slots as flights: a full table finds no free slot nearby.
	far := uint32(bits.Len(uint(c.MaxInFlight*2 - 1)))
	near := min(far, nearLog2)
	spec.Maps[kernelMapFlights].MaxEntries = 1<<near + 1<<far
	if c.Explain {
		spec.Maps[kernelMapCauses].MaxEntries = spec.Maps[kernelMapFlights].MaxEntries
	} else {
		spec.Maps[kernelMapUsages].MaxEntries = 1
	}
	set := map[string]any{
		kernelVarNearLog2: near, kernelVarFarLog2: far, kernelVarDropErrno: -int32(c.DropErrno),
		kernelVarStages: c.Stages, kernelVarExplain: c.Explain, kernelVarByResult: c.Results,
		kernelVarSampled: uint32(math.MaxUint32 / uint32(c.Sample)),
	}
	ns, err := bpf.OwnNamespace()
	if c.TGID != 0 {
		if err := errors.Join(checkProcess(c.TGID), err); err != nil {
			return nil, err
		}
		set[kernelVarTgid] = uint32(c.TGID)
	}
	// Without, no thread of the slowest call has a number.
	set[kernelVarInPidns], set[kernelVarPidnsDev], set[kernelVarPidnsIno] = ns.Inside, ns.Dev, ns.Ino
	for name, value := range set {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("trace: set %s: %w", name, err)
		}
	}

	t, kernel := &Tracer{c: c}, bpf.MinKernel
	if c.Stages {
		kernel = stagesKernel
	}
	if t.coll, err = bpf.Load(spec, kernel); err != nil {
		return nil, err
	}
	for _, p := range programs {
		l, err := v.attach(t.coll.Programs[p.name], p.tracepoint)
		if err != nil {
			_ = t.Close()
			return nil, bpf.Explain("attach to "+p.tracepoint, kernel, err)
		}
		t.links = append(t.links, l)
	}
	t.since = time.Now()
	return t, nil
}

// maxReceivers is how many receivers can be kept apart.
const maxReceivers = 8

// Receivers has the waits of what these threads receive from now on kept apart, too
// ([Report].Receivers). They are thread ids in the tracer's PID namespace.
func (t *Tracer) Receivers(tids ...int) error {
	var list [maxReceivers]uint32
	if len(tids) > len(list) {
		return fmt.Errorf("trace: %d receivers: at most %d can be kept apart", len(tids), len(list))
	}
	for i, tid := range tids {
		if tid <= 0 {
			return fmt.Errorf("trace: receiver %d is no thread id", tid)
		}
		list[i] = uint32(tid)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.coll == nil {
		return fmt.Errorf("trace: %w", os.ErrClosed)
	}
	if err := t.coll.Variables[kernelVarReceivers].Set(list); err != nil {
		return fmt.Errorf("trace: set receivers: %w", err)
	}
	t.receivers = len(tids)
	return nil
}

// Stages reports whether the targets are followed (Config.Stages).
func (t *Tracer) Stages() bool { return t.c.Stages }

// Reset forgets what was counted so far, so that a warm-up can be left out. The
// notifications in flight stay known: their answers count, although their
// receive no longer does.
func (t *Tracer) Reset() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.coll == nil {
		return fmt.Errorf("trace: reset: %w", os.ErrClosed)
	}
	return t.reset()
}

func (t *Tracer) reset() error {
	other := 1 - t.bank
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("trace: count CPUs: %w", err)
	}
	n, err := t.flights(other)
	if err != nil {
		return err
	}
	for s := range rows {
		if err := t.coll.Maps[kernelMapHists].Put(other*rows+s, make([]kernelHist, cpus)); err != nil {
			return fmt.Errorf("trace: reset histograms: %w", err)
		}
	}
	if err := t.coll.Maps[kernelMapCounts].Put(other, make([]kernelCounters, cpus)); err != nil {
		return fmt.Errorf("trace: reset counters: %w", err)
	}
	if err := t.coll.Maps[kernelMapSlowest].Put(other, make([]kernelSlow, cpus)); err != nil {
		return fmt.Errorf("trace: reset slowest calls: %w", err)
	}
	skipped, err := t.skipped()
	if err != nil {
		return err
	}
	if err := t.coll.Variables[kernelVarBank].Set(other); err != nil {
		return fmt.Errorf("trace: switch counters: %w", err)
	}
	t.bank, t.base, t.since = other, skipped, time.Now()
	t.carried += n
	return nil
}

// Close detaches the programs and frees what they counted. A second Close
// returns os.ErrClosed.
func (t *Tracer) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.coll == nil {
		return fmt.Errorf("trace: close: %w", os.ErrClosed)
	}
	var errs []error
	for _, l := range t.links {
		errs = append(errs, l.Close())
	}
	t.coll.Close()
	t.coll, t.links = nil, nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("trace: detach: %w", err)
	}
	return nil
}
