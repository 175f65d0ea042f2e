package trace

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// attachments are what BenchmarkTracing compares: nothing, empty programs on
// the tracepoints that there are, and the tracer.
var attachments = []struct {
	name   string
	attach func(b *testing.B)
}{
	{"off", func(*testing.B) {}},
	{"empty-btf", func(b *testing.B) {
		for _, tp := range []string{"sys_enter", "sys_exit"} {
			attachEmpty(b, &ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: tp}, func(p *ebpf.Program) (link.Link, error) {
				return link.AttachTracing(link.TracingOptions{Program: p})
			})
		}
	}},
	{"empty-raw", func(b *testing.B) {
		for _, tp := range []string{"sys_enter", "sys_exit"} {
			attachEmpty(b, &ebpf.ProgramSpec{Type: ebpf.RawTracepoint}, func(p *ebpf.Program) (link.Link, error) {
				return link.AttachRawTracepoint(link.RawTracepointOptions{Name: tp, Program: p})
			})
		}
	}},
	// The road not taken; needs tracefs.
	{"empty-ioctl", func(b *testing.B) {
		for _, tp := range []string{"sys_enter_ioctl", "sys_exit_ioctl"} {
			attachEmpty(b, &ebpf.ProgramSpec{Type: ebpf.TracePoint}, func(p *ebpf.Program) (link.Link, error) {
				l, err := link.Tracepoint("syscalls", tp, p, nil)
				if err != nil {
					b.Skipf("mount tracefs on /sys/kernel/tracing: %v", err)
				}
				return l, nil
			})
		}
	}},
	{"btf", func(b *testing.B) { newTracer(b, Config{TGID: os.Getpid()}, btfVariant) }},
	{"raw", func(b *testing.B) { newTracer(b, Config{TGID: os.Getpid()}, rawVariant) }},
}

func attachEmpty(b *testing.B, spec *ebpf.ProgramSpec, attach func(*ebpf.Program) (link.Link, error)) {
	b.Helper()
	l := empty(b, spec, attach)
	b.Cleanup(func() { _ = l.Close() })
}

func empty(b *testing.B, spec *ebpf.ProgramSpec, attach func(*ebpf.Program) (link.Link, error)) link.Link {
	b.Helper()
	spec.License = "GPL"
	spec.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	l, err := attach(p)
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// BenchmarkTracing is what tracing costs a supervisor: one call of 16 targets,
// received, dispatched and answered by one thread. Its own noise is larger than
// most differences: take -count 10 and benchstat -col /tracer.
func BenchmarkTracing(b *testing.B) {
	needTracing(b)
	for _, a := range attachments {
		b.Run("tracer="+a.name, func(b *testing.B) {
			a.attach(b)
			g := newTargets(b, 16, 0, true)
			if err := g.release(); err != nil {
				b.Fatal(err)
			}
			var n notify.Notif
			for b.Loop() {
				if err := g.l.Recv(&n); err != nil {
					b.Fatal(err)
				}
				if err := g.l.IDValid(n.ID); err != nil {
					b.Fatal(err)
				}
				if err := g.l.Send(&notify.Resp{ID: n.ID}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBystander is what tracing costs every other program on the machine:
// the cheapest of system calls.
func BenchmarkBystander(b *testing.B) {
	needTracing(b)
	for _, a := range attachments {
		b.Run("tracer="+a.name, func(b *testing.B) {
			a.attach(b)
			for b.Loop() {
				_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
			}
		})
	}
}

// BenchmarkStart is how long it takes to load, attach and detach: what a traced
// repetition of a measurement costs beside its own time.
func BenchmarkStart(b *testing.B) {
	needTracing(b)
	for b.Loop() {
		t, err := Start(Config{TGID: os.Getpid()})
		if err != nil {
			b.Fatal(err)
		}
		if err := t.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
