package mono

import (
	"sync"
	"testing"
	"time"
)

// A counter of 2.5 GHz, against a kernel's clock that may be set, or run at another pace.
type machine struct {
	ns, cycles float64
	c          *Line
	last       Mark
}

// pass lets time go by for both clocks, the kernel's at a pace of its own.
func (m *machine) pass(d time.Duration, pace float64) {
	m.cycles += d.Seconds() * 2.5e9
	m.ns += d.Seconds() * 1e9 * pace
}

func (m *machine) mark() Mark { return Mark{ns: int64(m.ns), cycles: uint64(m.cycles)} }

func (m *machine) adjust() {
	at := m.mark()
	m.c, m.last = next(m.c, m.last, at), at
}

// off is how far the line is from the kernel's clock.
func (m *machine) off() time.Duration { return time.Duration(m.c.at(uint64(m.cycles)) - int64(m.ns)) }

func newMachine() *machine {
	m := &machine{ns: 1e15, cycles: 7e14}
	m.last = m.mark()
	m.pass(lineBase, 1)
	m.adjust()
	return m
}

func TestALineApproachesTheKernelsClockWithoutAJump(t *testing.T) {
	m := newMachine()
	for i, pace := range []float64{1, 1.0005, 1.0005, 1.0005, 0.9995, 0.9995, 0.9995, 1, 1, 1, 1} { // what NTP may do
		before := m.c
		m.pass(adjustEvery, pace)
		if off := m.off().Abs(); off > 510*time.Microsecond {
			t.Errorf("%d: %v off the kernel's clock", i, off)
		}
		m.adjust()
		if m.c == nil {
			t.Fatalf("%d: the line was given up", i)
		}
		if jump := m.c.at(uint64(m.cycles)) - before.at(uint64(m.cycles)); jump < -2 || jump > 2 {
			t.Errorf("%d: it jumped by %d ns", i, jump)
		}
	}
	if off := m.off().Abs(); off > time.Microsecond {
		t.Errorf("%v off after two seconds of an even pace", off)
	}
}

func TestALineIsGivenUpWhenTheClocksPart(t *testing.T) {
	for name, part := range map[string]func(*machine){
		"the machine slept":           func(m *machine) { m.pass(5*time.Second, 0) },
		"the counter was set back":    func(m *machine) { m.cycles = 1e9 },
		"the counter was set forward": func(m *machine) { m.cycles += 2.5e9 },
		"the counter stood still":     func(m *machine) { m.ns += 1e9 },
		"the counter has slowed down": func(m *machine) { m.ns += 2e6; m.cycles += 2.5e6 },
	} {
		m := newMachine()
		m.pass(adjustEvery, 1)
		m.adjust()
		m.pass(adjustEvery, 1)
		part(m)
		if m.adjust(); m.c != nil {
			t.Errorf("%s: the line is still there, %v off", name, m.off())
		}
		m.pass(lineBase, 1)
		if m.adjust(); m.c == nil || m.off().Abs() > time.Microsecond {
			t.Errorf("%s: there is no good new line: %+v", name, m.c)
		}
	}
}

func TestLineThatHasEndedIsTheKernelsClock(t *testing.T) {
	for name, l := range map[string]*Line{
		"zero":    {},
		"ended":   {origin: 1, from: cycles() - 1000, scale: 1 << 31, span: 1},
		"to come": {origin: 1, from: cycles() + 1<<40, scale: 1 << 31, span: 1 << 50},
	} {
		before := Now()
		if now := l.Now(); now < before || now > Now() {
			t.Errorf("%s: %d, where the kernel's clock said %d before", name, now, before)
		}
	}
}

func TestClockStaysWithTheKernelsAndDoesNotGoBack(t *testing.T) {
	var c Clock
	c.Adjust()
	if c.line.Load() != nil {
		t.Fatal("a line was drawn through one mark")
	}
	time.Sleep(2 * lineBase)
	c.Adjust()
	if Counts() != (c.line.Load() != nil) {
		t.Fatalf("counter: %v, line: %v", Counts(), c.line.Load())
	}
	stop := make(chan struct{})
	var others sync.WaitGroup
	for range 2 {
		others.Go(func() {
			for last := c.Now(); ; {
				select {
				case <-stop:
					return
				default:
				}
				now := c.Now()
				if now < last {
					t.Errorf("it went back by %d ns", last-now)
					return
				}
				last = now
			}
		})
	}
	for began := Now(); Now()-began < int64(3*adjustEvery); time.Sleep(time.Millisecond) {
		c.Adjust()
		before := Now()
		now := c.Now()
		if after := Now(); now < before-300e3 || now > after+300e3 {
			t.Errorf("the clock says %d; the kernel's said %d before and %d after", now, before, after)
		}
	}
	close(stop)
	others.Wait()
}
