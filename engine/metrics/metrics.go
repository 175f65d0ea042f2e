// Package metrics shows an engine's counters and histograms to Prometheus.
//
//	registry.MustRegister(metrics.New(e, metrics.Options{}))
//
// All is read when it is scraped; the path of a call has no part in it. A scrape takes time in proportion to the
// listeners and to the kinds of calls.
//
// Durations have classic buckets and native ones (exponential, schema 4) in one metric. Classic ones are no
// wider than 5% where decisions are made ([Options.FineFrom]) and 20% from 1 µs to 2 s; by system call, listener or
// receiver they are powers of two. Each bound is one of package hist's, so that counts are exact. A count is of
// values below its bound, in whole nanoseconds.
//
// Every label's values are bounded in number: what is beyond is "other".
package metrics

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/syscalls"
	"golang.org/x/sys/unix"
)

// Defaults of Options.
const (
	DefaultNamespace   = "unknot"
	DefaultMaxSyscalls = 64
	DefaultMaxSources  = 64
	DefaultFineFrom    = 50 * time.Microsecond
	DefaultFineTo      = 5 * time.Millisecond
)

// Other is the value of a label for all that have none of their own.
const Other = "other"

// Options say what is shown. The zero value shows the engine as a whole, and its system calls if it
// counts them ([engine.Config.BySyscall]).
type Options struct {
	// Namespace begins the metrics' names; "": DefaultNamespace.
	Namespace string
	// Labels are put on all of them, for instance to tell engines apart.
	Labels prometheus.Labels
	// FineFrom and FineTo bound where the classic buckets of the engine's histograms are no wider than 5%: put
	// what you alert on in between. 0: DefaultFineFrom, DefaultFineTo; a factor of 100 is some 100 buckets. Beside that
	// they are no wider than 20%, from 1 µs to 2 s.
	FineFrom, FineTo time.Duration
	// Syscall names a system call of an ABI (AUDIT_ARCH_*), for the label "syscall"; nil: by its number.
	Syscall func(arch uint32, nr int32) string
	// MaxSyscalls is how many system calls have label values of their own, the most frequent first; 0: DefaultMaxSyscalls.
	// A target can make calls of any number, so there is always a bound.
	MaxSyscalls int
	// Source names a listener, for the label "source", for instance by its tag; nil: nothing is shown by listener.
	// Listeners of one name are counted together. Their histograms take [engine.Config.BySource].
	Source func(*engine.Source) string
	// MaxSources is how many names there are at once; 0: DefaultMaxSources. One whose listeners are gone gives
	// way to a new one.
	MaxSources int
	// Confinement says how the receive threads are confined, for confinement_info; "": it is not shown.
	Confinement string
	// Healthy says what is wrong, for the metric healthy; nil: it is not shown.
	Healthy func() error
}

// A Collector is an engine's. It may be registered with several registries.
type Collector struct {
	e *engine.Engine
	o Options

	received, outcomes, now, special, faults, drops, errnos, receiveFaults, listeners, listenersTotal, high *prometheus.Desc
	wait, service, roundTrip, answer, drop                                                                  *prometheus.Desc
	receiverCPU, receiverReceived, receiverListeners, receiverPlan, receiverWait                            *prometheus.Desc
	wakeUp, confinement, healthy, procs, workers                                                            *prometheus.Desc
	callReceived, callOutcomes, callWait, callService, callRoundTrip                                        *prometheus.Desc
	sourceListeners, sourceReceived, sourceOutcomes, sourceDrops, sourceNow, sourceHigh, sourceCapacity     *prometheus.Desc
	sourceWait, sourceService, sourceLimit, sourceLimitChanges, sourceTarget, sourceLimitService            *prometheus.Desc
	all                                                                                                     []*prometheus.Desc
	table                                                                                                   []Metric

	fine, coarse []int // buckets of package hist that end at a classic bound

	mu      sync.Mutex
	calls   map[call]bool // with labels of their own
	sources sources
	highest int // the greatest high water of any listener so far
}

// A Metric describes one that a collector shows.
type Metric struct {
	Name string
	Type string // counter, gauge or histogram
	// Labels without those of [Options.Labels].
	Labels []string
	Help   string
	// Needs says what it takes to be shown; "": nothing.
	Needs string
}

type call struct {
	arch uint32
	nr   int32
}

// New returns a collector. It panics if the options cannot be: a negative bound, or FineFrom not below FineTo.
func New(e *engine.Engine, o Options) *Collector {
	if o.Namespace == "" {
		o.Namespace = DefaultNamespace
	}
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.MaxSyscalls, DefaultMaxSyscalls)
	def(&o.MaxSources, DefaultMaxSources)
	if o.FineFrom == 0 {
		o.FineFrom = DefaultFineFrom
	}
	if o.FineTo == 0 {
		o.FineTo = DefaultFineTo
	}
	if o.MaxSyscalls < 0 || o.MaxSources < 0 || o.FineFrom < 0 || o.FineFrom >= o.FineTo {
		panic(fmt.Sprintf("metrics: %d system calls, %d sources, fine from %v to %v: bounds must be positive, and the first time below the second",
			o.MaxSyscalls, o.MaxSources, o.FineFrom, o.FineTo))
	}
	c := &Collector{e: e, o: o, calls: map[call]bool{}, sources: newSources(o.MaxSources)}
	c.fine, c.coarse = bounds(o.FineFrom, o.FineTo), bounds(0, 0)
	needs := ""
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		m := Metric{Name: prometheus.BuildFQName(o.Namespace, "", name), Type: "gauge", Labels: labels, Help: help, Needs: needs}
		switch {
		case strings.HasSuffix(name, "_total"):
			m.Type = "counter"
		case strings.HasSuffix(name, "_seconds"):
			m.Type = "histogram"
		}
		d := prometheus.NewDesc(m.Name, help, labels, o.Labels)
		c.all, c.table = append(c.all, d), append(c.table, m)
		return d
	}
	const (
		begins  = " It begins when the notification was received (RECV returned): how long the call waited in the kernel before that is not in it."
		outcome = " By outcome: answered (by a handler or by default), dropped (overload), stale (the target was gone), failed (the kernel refused for another reason)."
		state   = " By state: queued (in a ring), held (dropped and not told yet), in_handlers, detached (handler returned, answer to come)."
	)
	c.received = desc("received_total", "Notifications received.")
	c.outcomes = desc("notifications_total", "Notifications that are done with."+outcome, "outcome")
	c.now = desc("notifications", "Notifications that are not done with, now."+state, "state")
	c.special = desc("special_answers_total", "Of those answered: continued (the kernel ran the call), defaulted (the engine answered for the handler).", "kind")
	c.faults = desc("handler_faults_total", "What handlers did wrong: panicked, late, unanswered, duplicate (a second answer), spent (an answer after the handler's return), refused (by the kernel).", "fault")
	c.drops = desc("drops_total", "Calls that were given up, by reason: full (the queue was), age (waited longer than Config.MaxAge). They are told a moment later; one whose target is gone by then is stale, not dropped.", "reason")
	c.errnos = desc("errno_answers_total", "Answers that were errors, by errno: handlers', default ones and those to dropped calls.", "errno")
	c.receiveFaults = desc("receive_faults_total", "Receives without a notification: gone (the target died or was interrupted before), failed.", "fault")
	c.listeners = desc("listeners", "Listeners that the engine has.")
	c.listenersTotal = desc("listeners_total", "Listeners so far, by event: added, hung_up (no target was left).", "event")
	c.high = desc("high_water", "The greatest number of notifications in any listener's ring so far.")
	c.wait = desc("wait_seconds", "Time from receive to dispatch to a handler."+begins)
	c.service = desc("service_seconds", "Time from dispatch to the end of the answer, the ioctl included.")
	c.answer = desc("answer_seconds", "Time that the answering ioctl took.")
	c.drop = desc("drop_seconds", "Time from receive to the answer of a dropped call."+begins)
	c.receiverCPU = desc("receiver_cpu_seconds_total", "CPU time of the receive thread.", "receiver")
	c.receiverReceived = desc("receiver_received_total", "Notifications received, by receive thread.", "receiver")
	c.receiverListeners = desc("receiver_listeners", "Listeners that the receive thread has now.", "receiver")
	c.receiverPlan = desc("receiver_plan", "1 for the plan that the receive thread and its workers follow now: fixed, parallel, near, pair; no series before they run.", "receiver", "plan")
	c.receiverWait = desc("receiver_wait_seconds", "Time from receive to dispatch to a handler, by receive thread."+begins, "receiver")
	c.wakeUp = desc("wake_up_info", "1 for how the kernel wakes across listeners: sync (on one CPU; Linux 6.6), async.", "mode")
	c.workers = desc("workers", "Workers of all receive threads together; 0 where calls are not queued.")
	c.procs = desc("procs_added", "What the engine has added to GOMAXPROCS for handlers that take long.")
	if o.Confinement != "" {
		c.confinement = desc("confinement_info", "1 for how the receive threads are confined.", "level")
	}
	if o.Healthy != nil {
		c.healthy = desc("healthy", "1 if all is well, as /healthz says, else 0.")
	}
	needs = "Config.BySyscall"
	c.roundTrip = desc("roundtrip_seconds", "Time from receive to the end of a handler's answer."+begins)
	c.callReceived = desc("syscall_received_total", "Notifications received, by system call and ABI.", "abi", "syscall")
	c.callOutcomes = desc("syscall_notifications_total", "Notifications that are done with, by system call and ABI."+outcome, "abi", "syscall", "outcome")
	c.callWait = desc("syscall_wait_seconds", "Time from receive to dispatch to a handler, by system call and ABI."+begins, "abi", "syscall")
	c.callService = desc("syscall_service_seconds", "Time from dispatch to the end of the answer, by system call and ABI.", "abi", "syscall")
	c.callRoundTrip = desc("syscall_roundtrip_seconds", "Time from receive to the end of a handler's answer, by system call and ABI."+begins, "abi", "syscall")
	if o.Source != nil {
		needs = "Options.Source"
		c.sourceListeners = desc("source_listeners", "Listeners of that name that the engine has.", "source")
		c.sourceReceived = desc("source_received_total", "Notifications received, by listener.", "source")
		c.sourceOutcomes = desc("source_notifications_total", "Notifications that are done with, by listener."+outcome, "source", "outcome")
		c.sourceNow = desc("source_notifications", "Notifications that are not done with, now, by listener."+state, "source", "state")
		c.sourceDrops = desc("source_drops_total", "Calls that were given up, by listener and reason: full (the queue was), age (waited longer than Config.MaxAge).", "source", "reason")
		c.sourceHigh = desc("source_high_water", "The greatest number of notifications in a listener's ring so far.", "source")
		c.sourceCapacity = desc("source_capacity", "Notifications that the rings of the listeners that the engine has can hold together; 0 where calls are not queued.", "source")
		c.sourceLimit = desc("source_limit", "Notifications that may wait in the rings of that name together: what Config.WaitTarget has come to, or else the capacity.", "source")
		c.sourceLimitChanges = desc("source_limit_changes_total", "How often that changed, by a wait target.", "source")
		c.sourceTarget = desc("source_wait_target_seconds", "How long calls may wait (Config.WaitTarget): the longest of the listeners of that name; no series without one."+begins, "source")
		c.sourceLimitService = desc("source_limit_service_seconds", "Service of a call while workers are busy, from which that limit is: the longest of the listeners of that name; 0 until it is known, no series without a wait target.", "source")
		needs = "Options.Source, Config.BySource"
		c.sourceWait = desc("source_wait_seconds", "Time from receive to dispatch to a handler, by listener."+begins, "source")
		c.sourceService = desc("source_service_seconds", "Time from dispatch to the end of the answer, by listener.", "source")
	}
	return c
}

// Metrics are what the collector can show.
func (c *Collector) Metrics() []Metric { return slices.Clone(c.table) }

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.all {
		to <- d
	}
}

// A sink is where metrics go.
type sink chan<- prometheus.Metric

func (s sink) counter(d *prometheus.Desc, v uint64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (s sink) gauge(d *prometheus.Desc, v uint64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
}

func (s sink) outcomes(d *prometheus.Desc, n *engine.Counters, labels ...string) {
	for _, o := range []struct {
		name string
		n    uint64
	}{{"answered", n.Answered}, {"dropped", n.Dropped}, {"stale", n.Stale}, {"failed", n.Failed}} {
		s.counter(d, o.n, append(slices.Clone(labels), o.name)...)
	}
}

func (s sink) drops(d *prometheus.Desc, n *engine.Counters, labels ...string) {
	s.counter(d, n.Overflowed, append(slices.Clone(labels), "full")...)
	s.counter(d, n.Expired, append(slices.Clone(labels), "age")...)
}

func (s sink) now(d *prometheus.Desc, n *engine.Counters, labels ...string) {
	for _, o := range []struct {
		name string
		n    uint64
	}{{"queued", n.Queued}, {"held", n.Held}, {"in_handlers", n.InHandlers}, {"detached", n.Detached}} {
		s.gauge(d, o.n, append(slices.Clone(labels), o.name)...)
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := sink(to)
	n := c.e.Counters()
	s.counter(c.received, n.Received)
	s.outcomes(c.outcomes, &n)
	s.now(c.now, &n)
	s.counter(c.special, n.Continued, "continued")
	s.counter(c.special, n.Defaulted, "defaulted")
	for fault, n := range map[string]uint64{"panicked": n.Panicked, "late": n.Late, "unanswered": n.Unanswered,
		"duplicate": n.DuplicateAnswers, "spent": n.Spent, "refused": n.Refused} {
		s.counter(c.faults, n, fault)
	}
	s.drops(c.drops, &n)
	s.counter(c.receiveFaults, n.Gone, "gone")
	s.counter(c.receiveFaults, n.RecvFailed, "failed")
	for errno, n := range c.e.Errnos() {
		s.counter(c.errnos, n, errnoName(errno))
	}
	l := c.e.Latencies()
	s.counter(c.listenersTotal, n.Added, "added")
	s.counter(c.listenersTotal, n.HungUp, "hung_up")
	s.gauge(c.procs, n.Procs)
	s.gauge(c.workers, uint64(c.e.Workers()))
	for d, h := range map[*prometheus.Desc]*hist.Snapshot{c.wait: l.Wait, c.service: l.Service, c.answer: l.Answer, c.drop: l.Drop} {
		s <- newHistogram(d, h, c.fine)
	}
	c.collectReceivers(s)
	c.collectCalls(s)
	all := c.e.Sources()
	s.gauge(c.listeners, uint64(len(all)))
	for _, src := range all {
		c.highest = max(c.highest, src.HighWater())
	}
	s.gauge(c.high, uint64(c.highest))
	if c.o.Source != nil {
		c.collectSources(s, all)
	}
}

func errnoName(e syscall.Errno) string {
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return Other
}

func (c *Collector) collectReceivers(s sink) {
	d := c.e.Debug()
	for i, r := range d.Receivers {
		name := strconv.Itoa(i)
		s <- prometheus.MustNewConstMetric(c.receiverCPU, prometheus.CounterValue, r.CPUTime.Seconds(), name)
		s.counter(c.receiverReceived, r.Counters.Received, name)
		s.gauge(c.receiverListeners, uint64(len(r.Listeners)), name)
		if r.State != "" {
			s.gauge(c.receiverPlan, 1, name, r.State)
		}
		s <- newHistogram(c.receiverWait, r.Latencies.Wait, c.coarse, name)
	}
	s.gauge(c.wakeUp, 1, d.WakeUp.String())
	if c.healthy != nil {
		well := uint64(1)
		if c.o.Healthy() != nil {
			well = 0
		}
		s.gauge(c.healthy, well)
	}
	if c.confinement != nil {
		s.gauge(c.confinement, 1, c.o.Confinement)
	}
}

// collectCalls shows system calls: the most frequent ones by themselves, and those only.
func (c *Collector) collectCalls(s sink) {
	all := c.e.Syscalls()
	if all == nil { // it may not count them
		return
	}
	var total hist.Snapshot
	slices.SortFunc(all, func(a, b engine.SyscallStats) int { return cmp.Compare(b.Received, a.Received) })
	type label struct{ abi, name string }
	type figures struct {
		engine.Counters
		wait, service, roundTrip hist.Snapshot
	}
	shown := map[label]*figures{}
	for i := range all {
		st := &all[i]
		k := call{st.Arch, st.NR}
		if !c.calls[k] && len(c.calls) < c.o.MaxSyscalls {
			c.calls[k] = true // for good, so that its counters never fall
		}
		is := label{ABI(st.Arch, st.NR), Other}
		if c.calls[k] {
			is.name = c.name(k)
		}
		f := shown[is]
		if f == nil {
			f = new(figures)
			shown[is] = f
		}
		f.Received += st.Received
		f.Answered += st.Answered
		f.Dropped += st.Dropped
		f.Stale += st.Stale
		f.wait.Merge(st.Wait)
		f.service.Merge(st.Service)
		f.roundTrip.Merge(st.Total)
		total.Merge(st.Total)
	}
	s <- newHistogram(c.roundTrip, &total, c.fine)
	for is, f := range shown {
		s.counter(c.callReceived, f.Received, is.abi, is.name)
		for outcome, n := range map[string]uint64{"answered": f.Answered, "dropped": f.Dropped, "stale": f.Stale} {
			s.counter(c.callOutcomes, n, is.abi, is.name, outcome)
		}
		s <- newHistogram(c.callWait, &f.wait, c.coarse, is.abi, is.name)
		s <- newHistogram(c.callService, &f.service, c.coarse, is.abi, is.name)
		s <- newHistogram(c.callRoundTrip, &f.roundTrip, c.coarse, is.abi, is.name)
	}
}

func (c *Collector) name(k call) string {
	if c.o.Syscall != nil {
		if name := c.o.Syscall(k.arch, k.nr); name != "" {
			return name
		}
	}
	return fmt.Sprint(k.nr)
}

// ABI names the ABI of a call: its architecture (AUDIT_ARCH_*), and for x86-64 whether its number is x32's.
func ABI(arch uint32, nr int32) string {
	abi, _, ok := syscalls.ABIOf(arch, nr)
	if !ok {
		return Other
	}
	return abiNames[abi]
}

// As the kernel's architectures are called.
var abiNames = [syscalls.ABIs]string{syscalls.AMD64: "x86_64", syscalls.X32: "x32", syscalls.I386: "i386", syscalls.ARM64: "aarch64", syscalls.ARM: "arm"}
