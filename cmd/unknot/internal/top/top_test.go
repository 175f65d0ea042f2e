package top

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/cmd/unknot/internal/status"
	"github.com/unknot/unknot/engine"
)

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// histogram is one of n values.
func histogram(n uint64, ns int64) *status.Histogram {
	h := new(status.Histogram)
	if n > 0 {
		h.Add(ns, n)
	}
	return h
}

// source is a listener that has received n calls so far, of which it dropped a tenth; each waited 1 ms.
func source(id uint64, name string, n uint64) status.Source {
	return status.Source{ID: id, Name: name, Queue: 64, HighWater: 7, Wait: histogram(n, 1e6), Service: histogram(n, 2e6),
		Counters: engine.Counters{Received: n, Answered: n - n/10, Dropped: n / 10, Queued: id}}
}

// snapshot is one after some seconds.
func snapshot(seconds int, sources ...status.Source) *status.Snapshot {
	s := &status.Snapshot{
		Time: began.Add(time.Duration(seconds) * time.Second), WakeUp: "sync",
		Info:    status.Info{Program: "serve", PID: 42, Confinement: "shared", Started: began},
		Sources: sources,
	}
	for _, src := range sources {
		s.Counters.Received += src.Counters.Received
		s.Counters.Dropped += src.Counters.Dropped
		s.Counters.Queued += src.Counters.Queued
		s.Wait.Merge(&src.Wait.Snapshot)
		s.Service.Merge(&src.Service.Snapshot)
	}
	s.Calls = []status.Call{{Name: "openat", ABI: "i386", Received: s.Counters.Received, Dropped: s.Counters.Dropped, Wait: s.Wait, RoundTrip: s.Service}}
	s.Receivers = []status.Receiver{{TID: 43, CPU: -1, State: "pair", Plan: "pair cpu=any", CPUTime: time.Duration(seconds) * time.Second / 4, Received: s.Counters.Received, Listeners: len(sources)}}
	return s
}

func TestFiguresOfAnInterval(t *testing.T) {
	was := snapshot(10, source(1, "web", 1000), source(2, "web", 500), source(3, "db", 10))
	is := snapshot(12, source(1, "web", 3000), source(3, "db", 10), source(4, "new", 100))
	f := between(was, is)
	if f.interval != 2*time.Second || f.high != 7 || f.counters.Received != 1600 {
		t.Errorf("%+v", f.counters)
	}
	rows := map[string]row{}
	for _, r := range f.rows {
		rows[r.name] = r
	}
	// What listener 2 counted before it was gone is not known.
	if w := rows["web"]; w.received != 2000 || w.dropped != 200 || w.droppedEver != 300 || w.listeners != 1 || w.depth != 1 || w.capacity != 64 || w.wait.Count != 2000 || math.Abs(w.wait.Quantile(.5)-1e6) > 5e4 {
		t.Errorf("web %+v", w)
	}
	if d := rows["db"]; d.received != 0 || d.wait.Count != 0 || !math.IsNaN(quantile(&d.wait, .5)) {
		t.Errorf("db %+v", d)
	}
	if n := rows["new"]; n.received != 100 || n.wait.Count != 100 {
		t.Errorf("new %+v", n)
	}
	if r := f.threads[0]; math.Abs(r.busy-.25) > 1e-9 || r.received != 1600 {
		t.Errorf("%+v", r)
	}
	if c := f.calls[0]; c.name != "openat (i386)" || c.received != 1600 {
		t.Errorf("%+v", c)
	}
	// The first answer, and another process: of all the time.
	restarted := snapshot(12, source(1, "web", 3000))
	restarted.Info.PID++
	for _, f := range []*figures{between(nil, restarted), between(is, restarted)} {
		if f.interval != 0 || f.counters.Received != 3000 || f.seconds() != 12 {
			t.Errorf("%v %+v", f.interval, f.counters)
		}
	}
	// A listener of its own histograms' lack has the engine's, if it is the only one.
	alone := snapshot(12, source(1, "web", 3000))
	alone.Sources[0].Wait, alone.Sources[0].Service = nil, nil
	if f := between(nil, alone); !f.rows[0].timed || f.rows[0].wait.Count != 3000 {
		t.Errorf("%+v", f.rows[0])
	}
	alone.Sources = append(alone.Sources, status.Source{Name: "x"})
	if f := between(nil, alone); f.rows[0].timed || f.rows[1].timed {
		t.Error("two listeners have the engine's histograms")
	}
}

// TestWaitTargets: where a listener has one, what it has come to is shown, in 80 columns too.
func TestWaitTargets(t *testing.T) {
	a, b, c := source(1, "web", 1000), source(2, "web", 1000), source(3, "db", 10)
	a.Target = &status.WaitTarget{Target: time.Millisecond, Limit: 12, Service: 50 * time.Microsecond, Changes: 3}
	b.Target = &status.WaitTarget{Target: time.Millisecond, Limit: 5, Service: 200 * time.Microsecond, Changes: 4}
	v := View{Is: snapshot(10, a, b, c), Style: Style{UTF8: true}}
	frame := strings.Join(v.Frame(80, 24), "\n")
	for _, want := range []string{
		"LISTENER             DEPTH  CALLS/S  DROPS/S   TARGET P99 WAIT  SERVICE  CHANGES\n",
		" web (2)              3/17      200       20      1ms   ",
		"    200µs        7\n",
		" db                   3/64        1     0.10     none   ",
		"        -        -\n",
	} {
		if !strings.Contains(frame, want) {
			t.Errorf("no %q in\n%s", want, frame)
		}
	}
}

func TestOrders(t *testing.T) {
	was := snapshot(10, source(1, "b", 0), source(2, "c", 0), source(3, "a", 0))
	is := snapshot(12, source(1, "b", 100), source(2, "c", 300), source(3, "a", 200))
	is.Sources[2].Counters.Dropped = 90
	for o, want := range map[Order]string{ByRate: "cab", ByDrops: "acb", ByDepth: "acb", ByName: "abc"} {
		f := between(was, is)
		f.sort(o)
		got := ""
		for _, r := range f.rows {
			got += r.name
		}
		if got != want {
			t.Errorf("by %v: %s, want %s", o, got, want)
		}
		if back, ok := ParseOrder(o.String()); !ok || back != o {
			t.Errorf("%v is not parsed", o)
		}
	}
	if _, ok := ParseOrder("x"); ok || ByName.Next() != ByRate {
		t.Error("orders go round")
	}
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

// TestFrames: each screen is filled, and nothing goes beyond it, whatever there is and however small it is.
func TestFrames(t *testing.T) {
	var many []status.Source
	for i := range 100 {
		many = append(many, source(uint64(i+1), fmt.Sprintf("container-with-a-long-name-%d", i), uint64(i*1e6)))
	}
	ill := snapshot(10, source(1, "web", 1000))
	ill.Unhealthy = "no thread"
	for name, v := range map[string]View{
		"nothing yet": {Addr: "unix:/x"},
		"never there": {Addr: "unix:/x", Gone: errors.New("connect: connection refused"), Since: began, Now: began.Add(3 * time.Second)},
		"first":       {Is: snapshot(10, source(1, "web", 1000))},
		"ill":         {Is: ill},
		"none":        {Was: snapshot(9), Is: snapshot(10)},
		"some":        {Was: snapshot(9, source(1, "web", 1000)), Is: snapshot(10, source(1, "web", 5000))},
		"many":        {Was: snapshot(9, many...), Is: snapshot(10, many...), Offset: 1000},
		"gone":        {Is: snapshot(10, many...), Gone: errors.New("EOF"), Since: began, Now: began.Add(time.Hour)},
	} {
		for _, size := range [][2]int{{80, 24}, {200, 60}, {92, 24}, {40, 10}, {10, 5}, {1, 1}} {
			for _, style := range []Style{{}, {Color: true, UTF8: true}} {
				v.Style = style
				frame := v.Frame(size[0], size[1])
				if len(frame) != size[1] {
					t.Errorf("%s at %v: %d lines", name, size, len(frame))
				}
				for _, l := range frame {
					plain := sgr.ReplaceAllString(l, "")
					if length(plain) > size[0] || strings.ContainsAny(plain, "\x1b\n\r") {
						t.Errorf("%s at %v: %q is %d wide", name, size, l, length(plain))
					}
					if !style.Color && plain != l || !style.UTF8 && strings.Contains(l, "µ") {
						t.Errorf("%s: %q where there is no such style", name, l)
					}
				}
			}
		}
	}
	v := View{Was: snapshot(9, many...), Is: snapshot(10, many...), Offset: 1000, Order: ByName}
	if f := strings.Join(v.Frame(80, 24), "\n"); !strings.Contains(f, "/100") || !strings.Contains(f, "container-with") || v.Offset <= 0 || v.Offset >= 100 {
		t.Errorf("scrolled to the end, at %d:\n%s", v.Offset, f)
	}
	if n := len(v.Frame(80, 0)); n < 100 {
		t.Errorf("a table of 100 listeners has %d lines", n)
	}
}

// TestScreen is one, word for word.
func TestScreen(t *testing.T) {
	v := View{Was: snapshot(10, source(1, "web", 1000), source(2, "db", 0)), Is: snapshot(12, source(1, "web", 51000), source(2, "db", 1)), Style: Style{UTF8: true}}
	v.Is.Sources[1].Name = "d\x1b]0;b\u202e"
	want := `unknot serve  healthy  up 12s  pid 42  confined shared  wake-up sync
 in the last 2s: calls/s 25.0k  drops/s 2.50k  stale/s 0  faults 0
 wait p50 1.01ms p99 1.02ms  service p50 2.02ms p99 2.03ms  drop p99 -
 now: queued 3  held 0  in handlers 0  detached 0  high water 7  listeners 2

LISTENER             DEPTH  CALLS/S  DROPS/S  DROPPED P50 WAIT P99 WAIT  P99 SVC
 web                  1/64      25k    2.50k    5.10k   1.01ms   1.02ms   2.03ms
 d?]0;b?              2/64     0.50        0        0   1.01ms   1.02ms   2.03ms

SYSTEM CALL         CALLS/S  DROPS/S STALE/S P50 WAIT P99 WAIT  P50 RTT  P99 RTT
 openat (i386)        25.0k    2.50k       0   1.01ms   1.02ms   2.02ms   2.03ms

THREAD       TID  CPU   BUSY  CALLS/S  LISTENERS  PLAN
 0            43  any    25%    25.0k          2  pair cpu=any`
	got := strings.Join(v.Frame(80, 0), "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 1: "1", 0.5: "0.50", 9.99: "9.99", 9.999: "10.0", 99.94: "99.9", 99.96: "100", 999.4: "999", 999.6: "1.00k", 12345: "12.3k", 1e9: "1G", 3e18: "3000P"} {
		if got := count(n); got != want {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{time.Minute: "1m0s", 25 * time.Hour: "1d1h"} {
		if got := uptime(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
	v := View{}
	for ns, want := range map[int64]string{15: "15.5ns", 1500: "1.49us", 15e6: "15.1ms", 2e9: "2.00s"} {
		h := histogram(1, ns)
		h.Max = 0
		if got := v.duration(&h.Snapshot, .5); got != want {
			t.Errorf("%d ns: %s, want %s", ns, got, want)
		}
	}
}

func TestUpdates(t *testing.T) {
	var v View
	one, two, other := snapshot(1), snapshot(2), snapshot(3)
	v.Update(nil, errors.New("x"), began)
	v.Update(nil, errors.New("y"), began.Add(time.Second))
	if v.Gone == nil || v.Since != began || v.Is != nil {
		t.Errorf("%+v", v)
	}
	v.Update(one, nil, began)
	v.Update(two, nil, began)
	if v.Gone != nil || v.Was != one || v.Is != two {
		t.Errorf("%+v", v)
	}
	v.Update(one, nil, began) // the clock was set back
	if v.Was != nil || v.Is != one {
		t.Errorf("%+v", v)
	}
	v.Update(other, nil, began)
	for k, want := range map[string]int{"j": 6, "k": 4, "\x1b[A": 4, "\x1b[B": 6, "\x1b[6~": 17, "\x1b[5~": -7, "g": 0, "x": 5} {
		v.Offset = 5
		if ask := v.Key(k, 24); ask || v.Offset != want {
			t.Errorf("%q: %d, want %d", k, v.Offset, want)
		}
	}
	if !v.Key(" ", 24) || v.Key("s", 24) || v.Order != ByDrops || v.Offset != 0 {
		t.Errorf("%+v", v)
	}
}
