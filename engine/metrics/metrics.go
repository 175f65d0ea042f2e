// Package metrics shows an engine's counters and histograms to Prometheus.
//
//	registry.MustRegister(metrics.New(e, metrics.Options{}))
//
// All is read when it is scraped; the path of a call has no part in it. A scrape takes time in proportion to the
// listeners and to the kinds of calls.
//
// Durations have classic buckets and native ones (exponential, schema 4) in one metric. Classic ones are no
// wider than 5% where decisions are made ([Options.Fine]) and powers of two elsewhere; each bound is one of package
// hist's, so that counts are exact. A count is of values below its bound, in whole nanoseconds.
//
// Every label's values are bounded in number: what is beyond is "other".
package metrics

import (
	"cmp"
	"fmt"
	"slices"
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
	// what you alert on in between. 0: DefaultFineFrom, DefaultFineTo; a factor of 100 is some 100 buckets.
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
}

// A Collector is an engine's. It may be registered with several registries.
type Collector struct {
	e *engine.Engine
	o Options

	received, outcomes, now, special, faults, expired, errnos, receiveFaults, listeners *prometheus.Desc
	wait, service, answer, drop                                                         *prometheus.Desc
	callReceived, callOutcomes, callWait, callService                                   *prometheus.Desc
	sourceReceived, sourceOutcomes, sourceNow, sourceHigh, sourceWait, sourceService    *prometheus.Desc
	all                                                                                 []*prometheus.Desc

	fine, coarse []int // buckets of package hist that end at a classic bound

	mu      sync.Mutex
	calls   map[call]bool // with labels of their own
	sources sources
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
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		d := prometheus.NewDesc(prometheus.BuildFQName(o.Namespace, "", name), help, labels, o.Labels)
		c.all = append(c.all, d)
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
	c.expired = desc("expired_total", "Of those dropped: waited longer than Config.MaxAge.")
	c.errnos = desc("errno_answers_total", "Answers that were errors, by errno: handlers', default ones and those to dropped calls.", "errno")
	c.receiveFaults = desc("receive_faults_total", "Receives without a notification: gone (the target died or was interrupted before), failed.", "fault")
	c.listeners = desc("listeners", "Listeners that the engine has.")
	c.wait = desc("wait_seconds", "Time from receive to dispatch to a handler."+begins)
	c.service = desc("service_seconds", "Time from dispatch to the end of the answer, the ioctl included.")
	c.answer = desc("answer_seconds", "Time that the answering ioctl took.")
	c.drop = desc("drop_seconds", "Time from receive to the answer of a dropped call."+begins)
	c.callReceived = desc("syscall_received_total", "Notifications received, by system call and ABI.", "abi", "syscall")
	c.callOutcomes = desc("syscall_notifications_total", "Notifications that are done with, by system call and ABI."+outcome, "abi", "syscall", "outcome")
	c.callWait = desc("syscall_wait_seconds", "Time from receive to dispatch to a handler, by system call and ABI."+begins, "abi", "syscall")
	c.callService = desc("syscall_service_seconds", "Time from dispatch to the end of the answer, by system call and ABI.", "abi", "syscall")
	if o.Source != nil {
		c.sourceReceived = desc("source_received_total", "Notifications received, by listener.", "source")
		c.sourceOutcomes = desc("source_notifications_total", "Notifications that are done with, by listener."+outcome, "source", "outcome")
		c.sourceNow = desc("source_notifications", "Notifications that are not done with, now, by listener."+state, "source", "state")
		c.sourceHigh = desc("source_high_water", "The greatest number of notifications in a listener's ring so far.", "source")
		c.sourceWait = desc("source_wait_seconds", "Time from receive to dispatch to a handler, by listener."+begins, "source")
		c.sourceService = desc("source_service_seconds", "Time from dispatch to the end of the answer, by listener.", "source")
	}
	return c
}

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
	s.counter(c.expired, n.Expired)
	s.counter(c.receiveFaults, n.Gone, "gone")
	s.counter(c.receiveFaults, n.RecvFailed, "failed")
	for errno, n := range c.e.Errnos() {
		s.counter(c.errnos, n, errnoName(errno))
	}
	l := c.e.Latencies()
	for d, h := range map[*prometheus.Desc]*hist.Snapshot{c.wait: l.Wait, c.service: l.Service, c.answer: l.Answer, c.drop: l.Drop} {
		s <- newHistogram(d, h, c.fine)
	}
	c.collectCalls(s)
	all := c.e.Sources()
	s.gauge(c.listeners, uint64(len(all)))
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

// collectCalls shows system calls: the most frequent ones by themselves, and those only.
func (c *Collector) collectCalls(s sink) {
	all := c.e.Syscalls()
	slices.SortFunc(all, func(a, b engine.SyscallStats) int { return cmp.Compare(b.Received, a.Received) })
	type label struct{ abi, name string }
	type figures struct {
		engine.Counters
		wait, service hist.Snapshot
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
	}
	for is, f := range shown {
		s.counter(c.callReceived, f.Received, is.abi, is.name)
		for outcome, n := range map[string]uint64{"answered": f.Answered, "dropped": f.Dropped, "stale": f.Stale} {
			s.counter(c.callOutcomes, n, is.abi, is.name, outcome)
		}
		s <- newHistogram(c.callWait, &f.wait, c.coarse, is.abi, is.name)
		s <- newHistogram(c.callService, &f.service, c.coarse, is.abi, is.name)
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
