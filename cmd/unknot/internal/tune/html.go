package tune

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"strings"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/cmd/unknot/internal/chart"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"ns": bench.Duration, "percent": percent, "verdict": verdict,
	"rate": func(x float64) string { return fmt.Sprintf("%.0f", x) },
}).Parse(page))

// HTML is the answer as a page of its own: it loads nothing.
func (r *Result) HTML() string {
	s, err := r.html()
	if err != nil {
		return "<!doctype html><title>tune</title><p>" + template.HTMLEscapeString(err.Error())
	}
	return s
}

func (r *Result) html() (string, error) {
	data := map[string]any{"R": r, "Bounds": strings.ToUpper(r.bounds()[:1]) + r.bounds()[1:], "Settings": r.Settings(), "Target": r.Request.WaitP99.String()}
	for name, draw := range map[string]func() (template.HTML, error){
		"Waits": r.waitChart,
		"Drops": func() (template.HTML, error) {
			return r.depthChart("drops, % of calls", func(c Candidate) float64 { return 100 * c.Drop }, false)
		},
		"Depth": func() (template.HTML, error) {
			return r.depthChart("wait p99, µs", func(c Candidate) float64 { return c.P99 / 1e3 }, true)
		},
	} {
		svg, err := draw()
		if err != nil {
			return "", fmt.Errorf("draw the report: %w", err)
		}
		data[name] = svg
	}
	var b strings.Builder
	err := pageTemplate.Execute(&b, data)
	return b.String(), err
}

// The page's colours, which it has in two sets, for light and for dark: inline makes the names of them.
var (
	colourA, colourB, colourC = color.RGBA{0x09, 0x69, 0xda, 0xff}, color.RGBA{0x1a, 0x7f, 0x37, 0xff}, color.RGBA{0x82, 0x50, 0xdf, 0xff}
	colourBad, colourDim      = color.RGBA{0xb3, 0x26, 0x1e, 0xff}, color.RGBA{0x59, 0x63, 0x6e, 0xff}
	named                     = strings.NewReplacer("#0969DA", "var(--a)", "#1A7F37", "var(--b)", "#8250DF", "var(--c)", "#B3261E", "var(--bad)", "#59636E", "var(--dim)", "#DDDDDD", "var(--grid)")
)

// newFigure is a chart for the page, whose background it has.
func newFigure(x, y string, log bool) *plot.Plot {
	p := chart.New("", x, y)
	p.BackgroundColor = nil
	if log {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.TickerFunc(chart.LogTicks)
	}
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.LineStyle.Color, a.Tick.LineStyle.Color, a.Tick.Label.Color, a.Label.TextStyle.Color = colourDim, colourDim, colourDim, colourDim
	}
	return p
}

// inline is a chart as part of the page.
func inline(p *plot.Plot) (template.HTML, error) {
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		if _, log := a.Scale.(plot.LogScale); log && !(a.Max > a.Min) { // one value, or none
			a.Min = max(min(a.Min, 1e9), 1)
			a.Max = 2 * a.Min
		}
	}
	svg, err := chart.SVG(9.5*vg.Centimeter, 6*vg.Centimeter, p)
	if err != nil {
		return "", err
	}
	_, svg, _ = bytes.Cut(svg, []byte("<svg"))
	return template.HTML("<svg" + named.Replace(string(svg))), nil
}

// add adds a line, or points, through those that have a place on the axes.
func add(p *plot.Plot, c color.Color, points bool, dashes []vg.Length, xs, ys []float64) error {
	var at plotter.XYs
	for i := range xs {
		if _, log := p.Y.Scale.(plot.LogScale); !math.IsNaN(ys[i]) && !math.IsInf(ys[i], 0) && !(log && ys[i] <= 0) {
			at = append(at, plotter.XY{X: xs[i], Y: ys[i]})
		}
	}
	if len(at) == 0 {
		return nil
	}
	line, marks, err := plotter.NewLinePoints(at)
	if err != nil {
		return err
	}
	line.Color, line.Width, line.Dashes = c, 1.4, dashes
	marks.Color, marks.Shape, marks.Radius = c, draw.CircleGlyph{}, 2.5
	if points {
		p.Add(marks)
	} else {
		p.Add(line)
	}
	return nil
}

var dashed = []vg.Length{4, 3}

// waitChart is the wait by load, a line for each capacity.
func (r *Result) waitChart() (template.HTML, error) {
	axis, knee := "targets", r.Knee
	if r.Request.Load.Arrivals.Open() {
		axis, knee = "calls/s", r.Capacity
	}
	p := newFigure(axis, "wait p99, µs", true)
	target := float64(r.Request.WaitP99) / 1e3
	first, last := r.CurveLoads[0], r.CurveLoads[len(r.CurveLoads)-1]
	for i, row := range r.Curves {
		ys := make([]float64, len(row))
		for j, c := range row {
			ys[j] = max(c.P99/1e3, 1)
		}
		if err := add(p, []color.Color{colourB, colourA, colourC}[i%3], false, nil, r.CurveLoads, ys); err != nil {
			return "", err
		}
	}
	if err := add(p, colourBad, false, dashed, []float64{first, last}, []float64{target, target}); err != nil {
		return "", err
	}
	if knee > first && knee < last {
		low, high := p.Y.Min, p.Y.Max
		if err := add(p, colourDim, false, []vg.Length{1, 3}, []float64{knee, knee}, []float64{low, high}); err != nil {
			return "", err
		}
		label, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: knee, Y: low}}, Labels: []string{" knee"}})
		if err != nil {
			return "", err
		}
		label.TextStyle[0].Font, label.TextStyle[0].Color = p.X.Tick.Label.Font, colourDim
		p.Add(label)
	}
	return inline(p)
}

// depthChart is a figure by capacity, with the measured points.
func (r *Result) depthChart(name string, of func(Candidate) float64, log bool) (template.HTML, error) {
	p := newFigure("capacity", name, log)
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.TickerFunc(chart.LogTicks)
	if !log {
		p.Y.Min, p.Y.Max = 0, .1
	}
	var xs, ys []float64
	for _, k := range r.Candidates {
		xs, ys = append(xs, float64(k.Capacity)), append(ys, of(k))
	}
	if err := add(p, colourA, false, nil, xs, ys); err != nil {
		return "", err
	}
	for _, k := range r.Checks {
		if k.Target {
			continue // has no place on the axis
		}
		c := colourA
		if k.Process != r.Checks[0].Process {
			c = colourC
		}
		if err := add(p, c, true, nil, []float64{float64(k.Capacity)}, []float64{of(k.Measured)}); err != nil {
			return "", err
		}
	}
	if log {
		target := float64(r.Request.WaitP99) / 1e3
		if err := add(p, colourBad, false, dashed, []float64{p.X.Min, p.X.Max}, []float64{target, target}); err != nil {
			return "", err
		}
	}
	return inline(p)
}
