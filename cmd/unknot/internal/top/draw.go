package top

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/unknot/unknot/cmd/unknot/internal/status"
	"github.com/unknot/unknot/engine/hist"
)

// A Style is how a terminal writes.
type Style struct {
	Color bool // bold, inverse and red
	UTF8  bool // µ
}

func (s Style) sgr(code, text string) string {
	if !s.Color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

const (
	bold    = "1"
	inverse = "7"
	red     = "1;31"
)

// A View is what is drawn.
type View struct {
	Addr     string
	Was, Is  *status.Snapshot // Is is nil before the first answer
	Gone     error            // why there is no newer one; nil if there is
	Since    time.Time        // when that began
	Now      time.Time
	Order    Order
	Offset   int // of listeners
	Interval time.Duration
	Style    Style
}

// A line has at most one style, so that it can be cut.
type line struct{ text, sgr string }

// Frame returns the lines of a screen, none wider than width and no more than height; 0: as many as it takes. It
// corrects the offset.
func (v *View) Frame(width, height int) []string {
	var ls []line
	if v.Is == nil {
		ls = append(ls, v.title(nil), line{"", ""})
		if v.Gone == nil {
			ls = append(ls, line{" waiting for the first answer", ""})
		}
		ls = v.why(ls)
	} else {
		f := between(v.Was, v.Is)
		f.sort(v.Order)
		ls = v.body(f, width, height)
	}
	if height > 0 {
		ls = ls[:min(len(ls), max(0, height-1))]
		for len(ls) < height-1 {
			ls = append(ls, line{})
		}
		ls = append(ls, line{v.keys(), ""})
	}
	all := make([]string, len(ls))
	for i, l := range ls {
		text := cut(strings.TrimRight(l.text, " "), width)
		if l.sgr == inverse { // all of the width
			text += strings.Repeat(" ", max(0, width-length(text)))
			if !v.Style.Color {
				text = strings.TrimRight(text, " ")
			}
		}
		all[i] = v.Style.sgr(l.sgr, text)
	}
	return all
}

// why adds why there is no answer.
func (v *View) why(ls []line) []line {
	if v.Gone == nil {
		return ls
	}
	ls = append(ls, line{" " + clean(v.Gone.Error()), red})
	if v.Is != nil {
		ls = append(ls, line{" what follows is as it was then", ""})
	}
	return ls
}

func (v *View) keys() string {
	return fmt.Sprintf(" q quit   s order (%v)   j k scroll   space now", v.Order)
}

// title says what is shown, and how it is.
func (v *View) title(f *figures) line {
	if v.Gone != nil {
		return line{fmt.Sprintf("unknot top  NO ANSWER for %v from %s, trying again", v.Now.Sub(v.Since).Round(time.Second), clean(v.Addr)), red}
	}
	if f == nil {
		return line{"unknot top  " + clean(v.Addr), bold}
	}
	i := &f.at.Info
	what := clean(i.Program)
	if i.Command != "" {
		what += " " + clean(i.Command)
	}
	health, sgr := "healthy", bold
	if f.at.Unhealthy != "" {
		health, sgr = "UNHEALTHY: "+clean(f.at.Unhealthy), red
	}
	return line{fmt.Sprintf("unknot %s  %s  up %s  pid %d  confined %s  wake-up %s", what, health, uptime(f.at.Time.Sub(i.Started)), i.PID, clean(i.Confinement), clean(f.at.WakeUp)), sgr}
}

func uptime(d time.Duration) string {
	d = d.Round(time.Second)
	if days := d / (24 * time.Hour); days > 0 {
		return fmt.Sprintf("%dd%dh", days, d%(24*time.Hour)/time.Hour)
	}
	return d.String()
}

const (
	leastRows    = 3 // of listeners, where there is little room
	mostCalls    = 8
	mostThreads  = 4
	wideFrom     = 92 // from this width on there is room for another column
	fixedColumns = 64
	leastName    = 12 // where it is narrow what is cut are the last columns
)

func (v *View) body(f *figures, width, height int) []line {
	c := &f.counters
	over := "in the last " + f.interval.Round(time.Millisecond).String()
	if f.interval == 0 {
		over = "since the start"
	}
	d := v.duration
	aged := ""
	if c.Expired > 0 {
		aged = "  too old/s " + count(f.rate(c.Expired))
	}
	ls := v.why([]line{v.title(f)})
	rates := len(ls)
	ls = append(ls, []line{
		{fmt.Sprintf(" %s: calls/s %s  drops/s %s%s  stale/s %s  faults %s", over, count(f.rate(c.Received)), count(f.rate(c.Dropped)), aged, count(f.rate(c.Stale)), count(float64(faults(c)))), ""},
		{fmt.Sprintf(" wait p50 %s p99 %s  service p50 %s p99 %s  drop p99 %s", d(&f.wait, .5), d(&f.wait, .99), d(&f.service, .5), d(&f.service, .99), d(&f.drop, .99)), ""},
		{fmt.Sprintf(" now: queued %d  held %d  in handlers %d  detached %d  high water %d  listeners %d", f.at.Counters.Queued, f.at.Counters.Held, f.at.Counters.InHandlers, f.at.Counters.Detached, f.high, len(f.at.Sources)), ""},
	}...)
	if c.Dropped+c.Overflowed+c.Expired+faults(c) > 0 {
		ls[rates].sgr = red
	}
	calls, threads := min(len(f.calls), mostCalls), min(len(f.threads), mostThreads)
	room := len(f.rows)
	if height > 0 {
		// The title's lines, three headings with a line between, and the keys.
		free := height - len(ls) - 7 - threads
		if len(f.rows)+calls > free {
			calls = max(0, min(calls, max(free-len(f.rows), min(4, free-leastRows))))
		}
		room = max(leastRows, free-calls)
	}
	v.Offset = max(0, min(v.Offset, len(f.rows)-room))
	ls = append(ls, line{}, line{v.rowHead(f, width, room), inverse})
	for _, r := range f.rows[v.Offset:min(len(f.rows), v.Offset+room)] {
		l := line{v.row(f, &r, width), ""}
		if r.dropped > 0 {
			l.sgr = red
		}
		ls = append(ls, l)
	}
	if len(f.rows) == 0 {
		ls = append(ls, line{" none", ""})
	}
	if calls > 0 {
		ls = append(ls, line{}, line{fmt.Sprintf("%-*s%9s%9s%8s%9s%9s%9s%9s", max(leastName, width-62), more("SYSTEM CALL", calls, len(f.calls)), "CALLS/S", "DROPS/S", "STALE/S", "P50 WAIT", "P99 WAIT", "P50 RTT", "P99 RTT"), inverse})
		for _, r := range f.calls[:calls] {
			l := line{fmt.Sprintf("%-*s%9s%9s%8s%9s%9s%9s%9s", max(leastName, width-62), cut(" "+clean(r.name), max(leastName, width-62)-1), count(f.rate(r.received)), count(f.rate(r.dropped)), count(f.rate(r.stale)),
				d(&r.wait, .5), d(&r.wait, .99), d(&r.roundTrip, .5), d(&r.roundTrip, .99)), ""}
			if r.dropped > 0 {
				l.sgr = red
			}
			ls = append(ls, l)
		}
	}
	if threads > 0 {
		ls = append(ls, line{}, line{fmt.Sprintf("%-9s%7s%5s%7s%9s%11s  %s", more("THREAD", threads, len(f.threads)), "TID", "CPU", "BUSY", "CALLS/S", "LISTENERS", "PLAN"), inverse})
		for i, r := range f.threads[:threads] {
			cpu := "any"
			if r.CPU >= 0 {
				cpu = fmt.Sprint(r.CPU)
			}
			ls = append(ls, line{fmt.Sprintf(" %-8d%7d%5s%6.0f%%%9s%11d  %s", i, r.TID, cpu, 100*r.busy, count(f.rate(r.received)), r.Listeners, clean(r.Plan)), ""})
		}
	}
	return ls
}

// more is a heading that says how many of all there are below it.
func more(head string, shown, all int) string {
	if shown < all {
		return fmt.Sprintf("%s %d/%d", head, shown, all)
	}
	return head
}

func (v *View) rowHead(f *figures, width, room int) string {
	head := "LISTENER"
	if room < len(f.rows) {
		head = fmt.Sprintf("LISTENER %d-%d/%d", v.Offset+1, v.Offset+room, len(f.rows))
	}
	name, high := nameWidth(width)
	text := fmt.Sprintf("%-*s%10s", name, head, "DEPTH")
	if high {
		text += fmt.Sprintf("%8s", "HIGH")
	}
	if f.targets {
		return text + fmt.Sprintf("%9s%9s%9s%9s%9s%9s", "CALLS/S", "DROPS/S", "TARGET", "P99 WAIT", "SERVICE", "CHANGES")
	}
	return text + fmt.Sprintf("%9s%9s%9s%9s%9s%9s", "CALLS/S", "DROPS/S", "DROPPED", "P50 WAIT", "P99 WAIT", "P99 SVC")
}

// nameWidth is the width of a listener's name, and whether there is room for its high water.
func nameWidth(width int) (name int, high bool) {
	if width >= wideFrom {
		return width - fixedColumns - 8, true
	}
	return max(leastName, width-fixedColumns), false
}

func (v *View) row(f *figures, r *row, width int) string {
	width, high := nameWidth(width)
	name := " " + clean(r.name)
	if r.listeners > 1 {
		n := fmt.Sprintf(" (%d)", r.listeners)
		name = cut(name, width-1-len(n)) + n
	}
	depth := "inline"
	if r.capacity > 0 {
		depth = count(float64(r.depth)) + "/" + count(float64(r.capacity))
	}
	text := fmt.Sprintf("%-*s%10s", width, cut(name, width-1), depth)
	if high {
		text += fmt.Sprintf("%8s", count(float64(r.high)))
	}
	p50, p99, svc := "-", "-", "-"
	if r.timed {
		p50, p99, svc = v.duration(&r.wait, .5), v.duration(&r.wait, .99), v.duration(&r.service, .99)
	}
	if f.targets {
		target, busy, changes := "none", "-", "-"
		if r.target > 0 {
			target, changes = v.time(float64(r.target)), count(float64(r.changes))
		}
		if r.busy > 0 {
			busy = v.time(float64(r.busy))
		}
		return text + fmt.Sprintf("%9s%9s%9s%9s%9s%9s", count(f.rate(r.received)), count(f.rate(r.dropped)), target, p99, busy, changes)
	}
	return text + fmt.Sprintf("%9s%9s%9s%9s%9s%9s", count(f.rate(r.received)), count(f.rate(r.dropped)), count(float64(r.droppedEver)), p50, p99, svc)
}

// duration is a quantile, in at most seven characters.
func (v *View) duration(h *hist.Snapshot, q float64) string { return v.time(quantile(h, q)) }

func (v *View) time(ns float64) string {
	micro := "us"
	if v.Style.UTF8 {
		micro = "µs"
	}
	for _, u := range []struct {
		unit string
		ns   float64
	}{{"ns", 1}, {micro, 1e3}, {"ms", 1e6}} {
		if n := ns / u.ns; n < 999.5 {
			return three(n) + u.unit
		}
	}
	if math.IsNaN(ns) {
		return "-"
	}
	return three(ns/1e9) + "s"
}

// three prints a number below 1000 with three digits, and none after the point that say nothing.
func three(n float64) string {
	switch {
	case n == math.Trunc(n), n >= 99.95:
		return fmt.Sprintf("%.0f", n)
	case n >= 9.995:
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.2f", n)
}

// count prints a number in at most six characters.
func count(n float64) string {
	for _, unit := range []string{"", "k", "M", "G", "T"} {
		if n < 999.5 {
			return three(n) + unit
		}
		n /= 1000
	}
	return three(n) + "P"
}

// clean makes a text that a terminal shows as it is: names come from containers, and could be orders to it.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// length is how many columns a text takes; all but our own µ is ASCII.
func length(s string) int { return len([]rune(s)) }

// cut shortens a text to a width.
func cut(s string, width int) string {
	if rs := []rune(s); len(rs) > max(0, width) {
		return string(rs[:max(0, width)])
	}
	return s
}

// Update takes an answer, or that there was none.
func (v *View) Update(s *status.Snapshot, err error, now time.Time) {
	v.Now = now
	if err != nil {
		if v.Gone == nil {
			v.Since = now
		}
		v.Gone = err
		return
	}
	v.Gone = nil
	if v.Is != nil && !v.Is.Time.Before(s.Time) {
		v.Is = nil // the clock was set back
	}
	v.Was, v.Is = v.Is, s
}

// Key acts on what was typed on a screen of so many lines, and reports whether to ask at once.
func (v *View) Key(k string, height int) (ask bool) {
	page := max(1, height/2)
	switch k {
	case "s":
		v.Order, v.Offset = v.Order.Next(), 0
	case "j", "\x1b[B", "\x1bOB":
		v.Offset++
	case "k", "\x1b[A", "\x1bOA":
		v.Offset--
	case "\x1b[6~":
		v.Offset += page
	case "\x1b[5~":
		v.Offset -= page
	case "g", "\x1b[H", "\x1b[1~":
		v.Offset = 0
	case "G", "\x1b[F", "\x1b[4~":
		v.Offset = 1 << 30
	case " ":
		return true
	}
	return false
}
