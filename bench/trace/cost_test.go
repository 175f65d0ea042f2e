package trace

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/aclements/go-moremath/stats"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
)

// emptyStages attaches programs that do nothing to the tracepoints of the stages:
// what the tracepoints cost by themselves.
func emptyStages(b *testing.B) (detach func()) {
	var links []link.Link
	for _, tp := range []string{"sys_enter", "sys_exit", "sched_switch", "sched_waking"} {
		links = append(links, empty(b, &ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: tp}, func(p *ebpf.Program) (link.Link, error) {
			return link.AttachTracing(link.TracingOptions{Program: p})
		}))
	}
	return func() {
		for _, l := range links {
			_ = l.Close()
		}
	}
}

func tracing(c Config) func(*testing.B) func() {
	return func(b *testing.B) func() {
		c.TGID = os.Getpid()
		t, err := Start(c)
		if err != nil {
			b.Fatal(err)
		}
		return func() {
			if err := t.Close(); err != nil {
				b.Error(err)
			}
		}
	}
}

// BenchmarkCost is the throughput of a supervisor of 16 targets, received and
// answered by one thread, under each tracer, as a ratio to that with empty programs
// on the same tracepoints, and to that untraced: with all of them on the CPUs of the
// kernel's choice (any), with the supervisor pinned, as an engine's receive thread is,
// and with the targets on one CPU and the supervisor on another (apart). Only with the
// last does the scheduler place everybody alike in each round; elsewhere there are two
// states, which a tracer may tip, with throughputs of 1 to 1.4. Each of the b.N rounds
// measures all in random order, and the ratios are medians of the rounds' ratios: take
// -benchtime 20x or more.
func BenchmarkCost(b *testing.B) {
	needTracing(b)
	b.Run("cpus=any", func(b *testing.B) { benchmarkCost(b, anyCPU, anyCPU) })
	cpus := osthread.Allowed()
	last := cpus[len(cpus)-1]
	b.Run("cpus=pinned", func(b *testing.B) { benchmarkCost(b, anyCPU, last) })
	b.Run("cpus=apart", func(b *testing.B) {
		if len(cpus) < 2 {
			b.Skip("needs two CPUs")
		}
		benchmarkCost(b, cpus[0], last)
	})
}

const anyCPU = -1

func benchmarkCost(b *testing.B, targetCPU, cpu int) {
	kinds := []struct {
		name   string
		attach func(*testing.B) func()
	}{
		{"off", func(*testing.B) func() { return func() {} }},
		{"empty", emptyStages},
		{"stages", tracing(Config{Stages: true})},
		{"sampled16", tracing(Config{Stages: true, Sample: 16})},
		{"explain", tracing(Config{Explain: true})},
	}
	const span = 150 * time.Millisecond
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cpus := osthread.Allowed()
	pin := func(cpu int) {
		var err error
		if cpu == anyCPU {
			err = osthread.Unpin(cpus)
		} else {
			err = osthread.Pin(cpu)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	rates := make([][]float64, len(kinds))
	for range b.N {
		pin(targetCPU) // the targets inherit it
		g, err := startTargets(16, 0, true)
		pin(cpu)
		if err != nil {
			b.Fatal(err)
		}
		if err := g.release(); err != nil {
			b.Fatal(err)
		}
		for _, k := range rand.Perm(len(kinds)) {
			detach := kinds[k].attach(b)
			if _, err := serve(g.l, 2*span); err != nil { // warm up: loading the programs made the supervisor look busy to the scheduler
				b.Fatal(err)
			}
			rate, err := serve(g.l, span)
			if err != nil {
				b.Fatal(err)
			}
			rates[k] = append(rates[k], rate)
			detach()
		}
		g.stop()
	}
	pin(anyCPU)
	for k, kind := range kinds {
		b.ReportMetric(stats.Sample{Xs: rates[k]}.Quantile(.5), kind.name+"-calls/s")
		for base, name := range map[int]string{0: "off", 1: "empty"} {
			if k > base {
				var ratios []float64
				for i, r := range rates[k] {
					ratios = append(ratios, r/rates[base][i])
				}
				b.ReportMetric(stats.Sample{Xs: ratios}.Quantile(.5), kind.name+"/"+name)
			}
		}
	}
	b.ReportMetric(0, "ns/op") // a round is no operation
}

// serve answers calls for so long and returns how many a second.
func serve(l *notify.Listener, d time.Duration) (rate float64, err error) {
	var n notify.Notif
	calls, start := 0, time.Now()
	for {
		if err := l.Recv(&n); err != nil {
			return 0, fmt.Errorf("receive: %w", err)
		}
		if err := l.Send(&notify.Resp{ID: n.ID}); err != nil {
			return 0, fmt.Errorf("answer: %w", err)
		}
		if calls++; calls%64 == 0 {
			if t := time.Since(start); t >= d {
				return float64(calls) / t.Seconds(), nil
			}
			// As an engine's receive thread does, for the Go runtime's monitor.
			runtime.Gosched()
		}
	}
}
