package mono

import (
	"sync"
	"testing"
	"time"
)

// A machine has a counter of 2.5 GHz and a kernel's clock that may be set, or run at another pace.
type machine struct {
	t          *testing.T
	c          Clock
	ns, cycles float64
	distrusted bool // the kernel tells the time by something else
	looks      int  // for whether it does
}

// pass lets time go by for both clocks, the kernel's at a pace of its own.
func (m *machine) pass(d time.Duration, pace float64) {
	m.cycles += d.Seconds() * 2.5e9
	m.ns += d.Seconds() * 1e9 * pace
}

func (m *machine) adjust() (again time.Duration) {
	return m.c.adjust(func() Mark { return Mark{ns: int64(m.ns), cycles: uint64(m.cycles)} }, func() bool {
		m.looks++
		return !m.distrusted
	})
}

// line is the clock's; the test fails if there is none.
func (m *machine) line() *Line {
	m.t.Helper()
	l := m.c.line.Load()
	if l == nil {
		m.t.Fatal("there is no line")
	}
	return l
}

// off is how far the clock is from the kernel's.
func (m *machine) off() time.Duration {
	m.t.Helper()
	return time.Duration(m.line().at(uint64(m.cycles)) - int64(m.ns)).Abs()
}

// newMachine has a clock with a line.
func newMachine(t *testing.T) *machine {
	m := &machine{t: t, ns: 1e15, cycles: 7e14}
	for i := range 3 {
		if m.c.Counts() {
			t.Fatalf("there is a line after %d marks", i)
		}
		m.pass(lineBase, 1)
		m.adjust()
	}
	m.line()
	return m
}

func TestALineMeetsTheKernelsClockWithoutAJump(t *testing.T) {
	for _, every := range []time.Duration{adjustEvery, 700 * time.Millisecond, time.Second, 1500 * time.Millisecond} {
		m := newMachine(t)
		for i, ppm := range []float64{0, 100, 100, -100, 300, -300, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} { // as NTP may have it
			before := m.line()
			m.pass(every, 1+ppm/1e6*adjustEvery.Seconds()/every.Seconds())
			m.ns += float64(i%3-1) * 20 // and no mark is exact
			m.adjust()
			if jump := m.line().at(uint64(m.cycles)) - before.at(uint64(m.cycles)); jump < -2 || jump > 2 {
				t.Errorf("every %v, %d: it jumped by %d ns", every, i, jump)
			}
			if off := m.off(); off > mostAstray {
				t.Errorf("every %v, %d: %v off the kernel's clock", every, i, off)
			}
		}
		if off := m.off(); off > time.Microsecond {
			t.Errorf("every %v: %v off after an even pace", every, off)
		}
	}
}

func TestALineThatHasEndedIsNotGoneOnWith(t *testing.T) {
	m := newMachine(t)
	for _, pause := range []time.Duration{2100 * time.Millisecond, 5 * time.Second, time.Hour} {
		m.pass(pause, 1.0001)
		m.adjust()
		if off := m.off(); off > time.Microsecond {
			t.Errorf("after %v: %v off the kernel's clock", pause, off)
		}
	}
}

func TestALineIsGivenUpWhenTheClocksPart(t *testing.T) {
	for name, part := range map[string]func(*machine){
		"the machine slept":                  func(m *machine) { m.pass(5*time.Second, 0) },
		"it slept for a moment":              func(m *machine) { m.pass(2*time.Millisecond, 0) },
		"the counter was set back":           func(m *machine) { m.cycles = 1e9 },
		"the counter was set forward":        func(m *machine) { m.cycles += 2.5e9 },
		"the counter stood still":            func(m *machine) { m.ns += 1e9 },
		"the kernel's clock is being slewed": func(m *machine) { m.pass(adjustEvery, 1.08) },
	} {
		for first := range 4 { // of the adjustments, those before
			m := &machine{t: t, ns: 1e15, cycles: 7e14}
			for range first {
				m.pass(lineBase, 1)
				m.adjust()
			}
			m.pass(adjustEvery, 1)
			part(m)
			if again := m.adjust(); m.c.Counts() || again != lineBase {
				t.Errorf("%s, after %d: there is a line, %v off; again in %v", name, first, m.off(), again)
			}
			for range 3 {
				m.pass(lineBase, 1)
				m.adjust()
			}
			if off := m.off(); off > time.Microsecond {
				t.Errorf("%s, after %d: the new line is %v off", name, first, off)
			}
		}
	}
}

func TestTheKernelMayCeaseToTrustTheCounter(t *testing.T) {
	m := newMachine(t)
	m.distrusted = true
	adjusted := 0
	for m.c.Counts() {
		m.pass(adjustEvery, 1)
		m.adjust()
		if adjusted++; adjusted > lookAgain {
			t.Fatal("it was not noticed")
		}
	}
	m.looks = 0
	if again := m.adjust(); m.c.Counts() || again < adjustEvery {
		t.Errorf("line: %v, again in %v", m.c.Counts(), again)
	}
	if m.looks != 1 {
		t.Errorf("it looked %d times", m.looks)
	}
	m.distrusted = false
	for range 3 {
		m.adjust()
		m.pass(lineBase, 1)
	}
	m.line()
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

// TestClock reads while the clock is adjusted, for the race detector too.
func TestClock(t *testing.T) {
	var c Clock
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				// Where the world's clock is far from the machine's it may be off by mostAstray.
				before := Now() - 2*int64(mostAstray)
				now := c.Now()
				if after := Now() + 2*int64(mostAstray); now < before || now > after {
					t.Errorf("the clock says %d; the kernel's said more than %d before and less than %d after", now, before, after)
					return
				}
			}
		})
	}
	counted := false
	waits := func(began int64) bool { // on a machine that stalls, for longer than two adjustments take
		since := time.Duration(Now() - began)
		return since < 2*adjustEvery || kernelCounts() && !counted && since < time.Minute
	}
	for began := Now(); waits(began); time.Sleep(lineBase) {
		c.Adjust()
		counted = counted || c.Counts()
	}
	close(stop)
	readers.Wait()
	if counted != kernelCounts() {
		t.Errorf("by the counter: %v, which the kernel trusts: %v", counted, kernelCounts())
	}
}
