package tune

import (
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"strings"

	"github.com/unknot/unknot/bench"
)

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"ns": bench.Duration, "percent": percent, "verdict": verdict,
	"rate": func(x float64) string { return fmt.Sprintf("%.0f", x) },
}).Parse(page))

// HTML is the answer as a page of its own: it loads nothing.
func (r *Result) HTML() string {
	var b strings.Builder
	err := pageTemplate.Execute(&b, map[string]any{
		"R": r, "Bounds": strings.ToUpper(r.bounds()[:1]) + r.bounds()[1:], "Settings": r.Settings(), "Target": r.Request.WaitP99.String(),
		"Waits": template.HTML(r.waitChart()), "Drops": template.HTML(r.depthChart("drops, % of calls", func(c Candidate) float64 { return 100 * c.Drop }, false)),
		"Depth": template.HTML(r.depthChart("wait p99, µs", func(c Candidate) float64 { return c.P99 / 1e3 }, true)),
	})
	if err != nil {
		return "<!doctype html><title>tune</title><p>" + template.HTMLEscapeString(err.Error())
	}
	return b.String()
}

// A chart is an SVG with axes; x and y map values to its coordinates.
type chart struct {
	b                      strings.Builder
	x0, x1, y0, y1         float64
	logX, logY             bool
	left, top, right, base float64
}

func newChart(x0, x1, y0, y1 float64, logX, logY bool, xName, yName string) *chart {
	c := &chart{x0: x0, x1: x1, y0: y0, y1: y1, logX: logX, logY: logY, left: 58, top: 26, right: 505, base: 250}
	fmt.Fprintf(&c.b, `<svg viewBox="0 0 520 300" role="img" aria-label="%s by %s">`, yName, xName)
	for _, v := range ticks(y0, y1, logY) {
		y := c.y(v)
		fmt.Fprintf(&c.b, `<line class="grid" x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f"/><text x="%.0f" y="%.1f" text-anchor="end">%s</text>`, c.left, c.right, y, y, c.left-6, y+4, short(v))
	}
	for _, v := range ticks(x0, x1, logX) {
		fmt.Fprintf(&c.b, `<text x="%.1f" y="%.0f" text-anchor="middle">%s</text>`, c.x(v), c.base+18, short(v))
	}
	fmt.Fprintf(&c.b, `<text x="%.0f" y="%.0f" text-anchor="end">%s</text><text x="4" y="14">%s</text>`, c.right, c.base+38, xName, yName)
	return c
}

func scale(v, lo, hi float64, log bool) float64 {
	if log {
		v, lo, hi = math.Log(max(v, 1e-9)), math.Log(lo), math.Log(hi)
	}
	if hi <= lo {
		return .5
	}
	return (v - lo) / (hi - lo)
}

func (c *chart) x(v float64) float64 {
	return c.left + (c.right-c.left)*scale(v, c.x0, c.x1, c.logX)
}
func (c *chart) y(v float64) float64 { return c.base - (c.base-c.top)*scale(v, c.y0, c.y1, c.logY) }

func (c *chart) path(class string, xs, ys []float64) {
	fmt.Fprintf(&c.b, `<path class="line %s" d="`, class)
	for i := range xs {
		op := 'L'
		if i == 0 {
			op = 'M'
		}
		fmt.Fprintf(&c.b, "%c%.1f %.1f", op, c.x(xs[i]), c.y(ys[i]))
	}
	c.b.WriteString(`"/>`)
}

func (c *chart) dot(class string, x, y float64, title string) {
	fmt.Fprintf(&c.b, `<circle class="%s" cx="%.1f" cy="%.1f" r="4.5"><title>%s</title></circle>`, class, c.x(x), c.y(y), template.HTMLEscapeString(title))
}

func (c *chart) String() string { return c.b.String() + "</svg>" }

// ticks are round values between lo and hi.
func ticks(lo, hi float64, log bool) (vs []float64) {
	if log {
		for p := math.Pow(10, math.Floor(math.Log10(lo))); p <= hi; p *= 10 {
			for _, m := range []float64{1, 2, 5} {
				if v := p * m; v >= lo*.999 && v <= hi*1.001 && (hi/lo < 300 || m == 1) {
					vs = append(vs, v)
				}
			}
		}
		return vs
	}
	step := math.Pow(10, math.Floor(math.Log10(max((hi-lo)/2, 1e-9))))
	for (hi-lo)/step > 6 {
		step *= 2
	}
	for v := math.Ceil(lo/step) * step; v <= hi*1.001; v += step {
		vs = append(vs, v)
	}
	return vs
}

func short(v float64) string {
	if v >= 10000 {
		return fmt.Sprintf("%.3gk", v/1000)
	}
	return fmt.Sprintf("%.4g", v)
}

// waitChart is the wait by load, a line for each capacity.
func (r *Result) waitChart() string {
	lo, hi := float64(r.Request.WaitP99)/1e3, float64(r.Request.WaitP99)/1e3
	for _, row := range r.Curves {
		for _, c := range row {
			lo, hi = min(lo, max(c.P99/1e3, 1)), max(hi, c.P99/1e3)
		}
	}
	axis, knee := "targets", r.Knee
	if r.Request.Load.Arrivals.Open() {
		axis, knee = "calls/s", r.Capacity
	}
	c := newChart(r.CurveLoads[0], r.CurveLoads[len(r.CurveLoads)-1], lo*.8, hi*1.25, false, true, axis, "wait p99, µs")
	for i, row := range r.Curves {
		var xs, ys []float64
		for j, p := range row {
			xs, ys = append(xs, r.CurveLoads[j]), append(ys, max(p.P99/1e3, 1))
		}
		c.path(fmt.Sprintf("s%d", i), xs, ys)
	}
	c.path("target", []float64{c.x0, c.x1}, []float64{float64(r.Request.WaitP99) / 1e3, float64(r.Request.WaitP99) / 1e3})
	if k := knee; k > c.x0 && k < c.x1 {
		fmt.Fprintf(&c.b, `<line class="knee" x1="%.1f" x2="%.1f" y1="%.0f" y2="%.0f"/><text x="%.1f" y="%.0f">knee</text>`, c.x(k), c.x(k), c.top, c.base, c.x(k)+4, c.base-6)
	}
	return c.String()
}

// depthChart is a figure by capacity, with the measured points.
func (r *Result) depthChart(name string, of func(Candidate) float64, log bool) string {
	var xs, ys []float64
	lo, hi := math.Inf(1), 0.
	see := func(y float64) {
		if y > 0 || !log {
			lo, hi = min(lo, y), max(hi, y)
		}
	}
	for _, k := range r.Candidates {
		xs, ys = append(xs, float64(k.Capacity)), append(ys, of(k))
		see(of(k))
	}
	last := xs[len(xs)-1]
	for _, k := range r.Checks {
		if k.Target {
			continue // has no place on the axis
		}
		see(of(k.Measured))
		last = max(last, float64(k.Capacity))
	}
	target := float64(r.Request.WaitP99) / 1e3
	if log {
		see(target)
		lo, hi = lo*.8, hi*1.25
	} else {
		lo, hi = 0, max(hi*1.15, .1)
	}
	c := newChart(1, last, lo, hi, true, log, "capacity", name)
	c.path("s1", xs, ys)
	if log {
		c.path("target", []float64{1, last}, []float64{target, target})
	}
	for _, k := range r.Checks {
		if k.Target {
			continue // has no place on the axis
		}
		class := "m0"
		if k.Process != r.Checks[0].Process {
			class = "m1"
		}
		c.dot(class, float64(k.Capacity), of(k.Measured), fmt.Sprintf("measured, capacity %d: %.4g, %s", k.Capacity, of(k.Measured), k.Process))
	}
	return c.String()
}
