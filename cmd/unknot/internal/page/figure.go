package main

import (
	"fmt"
	"image/color"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/unknot/unknot/cmd/unknot/internal/chart"
	"golang.org/x/perf/benchmath"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// A figure is drawn from one step, which it is named after.
type figure struct {
	step string
	draw func(*set) ([]byte, error)
}

var figures = []figure{
	{throughput, drawThroughput},
	{latency, drawLatency},
	{stages, drawStages},
	{overload, drawOverload},
	{listeners, drawListeners},
}

// Colours that colour-blind people tell apart (Okabe and Ito), one for each engine
// in every figure.
var colours = map[engine]color.RGBA{
	{"unknot", "inline"}:    {0x00, 0x72, 0xb2, 0xff},
	{"unknot", "queue"}:     {0x56, 0xb4, 0xe9, 0xff},
	{"chan", "queue"}:       {0xd5, 0x5e, 0x00, 0xff},
	{"seed", "queue"}:       {0x00, 0x9e, 0x73, 0xff},
	{"bare", "inline"}:      {0x33, 0x33, 0x33, 0xff},
	{"bare-pool", "inline"}: {0xcc, 0x79, 0xa7, 0xff},
}

var shapes = map[engine]draw.GlyphDrawer{
	{"unknot", "inline"}:    draw.CircleGlyph{},
	{"unknot", "queue"}:     draw.SquareGlyph{},
	{"chan", "queue"}:       draw.TriangleGlyph{},
	{"seed", "queue"}:       draw.PyramidGlyph{},
	{"bare", "inline"}:      draw.CrossGlyph{},
	{"bare-pool", "inline"}: draw.PlusGlyph{},
}

const width, height = 17 * vg.Centimeter, 9 * vg.Centimeter

func svg(plots ...*plot.Plot) ([]byte, error) { return chart.SVG(width, height, plots...) }

// addLines adds a line with its intervals for each engine, of medians by number of
// targets or listeners, in units of scale.
func addLines(p *plot.Plot, list []engine, medians map[engine]map[int]benchmath.Summary, scale float64) error {
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, numberTicks(medians)
	for _, e := range list {
		var data struct {
			plotter.XYs
			plotter.YErrors
		}
		for _, x := range slices.Sorted(maps.Keys(medians[e])) {
			s := medians[e][x]
			if !(s.Center > 0) {
				return fmt.Errorf("engine %v at %d: the median is %v", e, x, s.Center)
			}
			data.XYs = append(data.XYs, plotter.XY{X: float64(x), Y: s.Center / scale})
			low, high := s.Lo, s.Hi
			if math.IsInf(low, 0) || math.IsInf(high, 0) { // too few repetitions for an interval
				low, high = s.Center, s.Center
			}
			data.YErrors = append(data.YErrors, struct{ Low, High float64 }{(s.Center - low) / scale, (high - s.Center) / scale})
		}
		if data.XYs == nil {
			continue
		}
		line, points, err := plotter.NewLinePoints(data.XYs)
		if err != nil {
			return err
		}
		bars, err := plotter.NewYErrorBars(data)
		if err != nil {
			return err
		}
		line.Color, line.Width = colours[e], 1.2
		points.Shape, points.Color, points.Radius = shapes[e], colours[e], 2.5
		bars.Color, bars.Width = colours[e], .6
		p.Add(bars, line, points)
		p.Legend.Add(e.String(), line, points)
	}
	return nil
}

func numberTicks(medians map[engine]map[int]benchmath.Summary) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for _, x := range xsOf(medians) {
		ticks = append(ticks, plot.Tick{Value: float64(x), Label: strconv.Itoa(x)})
	}
	return ticks
}

func drawThroughput(s *set) ([]byte, error) {
	medians, err := s.steps[throughput].medians(engines, servedUnit)
	if err != nil {
		return nil, err
	}
	p := chart.New("Calls served, by the number of targets", "targets (threads that make trapped calls)", "thousand calls per second")
	p.Y.Min = 0
	if err := addLines(p, engines, medians, 1e3); err != nil {
		return nil, err
	}
	p.Legend.Top = true
	roomForLegend(p)
	return svg(p)
}

// roomForLegend keeps the top of a plot free for its legend.
func roomForLegend(p *plot.Plot) { p.Y.Max *= 1.35 }

func drawOverload(s *set) ([]byte, error) {
	return drawTwo(s.steps[overload], queues, "targets (threads that make trapped calls)",
		"Overload: what is still served", "Overload: how long calls wait in the queue", waitUnit, "99th percentile of the wait, µs")
}

func drawListeners(s *set) ([]byte, error) {
	return drawTwo(s.steps[listeners], crowds, "listeners (processes, each with a thread that makes trapped calls)",
		"Many listeners: calls served in all", "Many listeners: the listener that is worst off", worstUnit, "its 99.9th percentile of the round trip, µs")
}

// drawTwo draws what is served, and below it a time that has a long range.
func drawTwo(st *step, list []engine, x, above, below, unit, y string) ([]byte, error) {
	served, err := st.medians(list, servedUnit)
	if err != nil {
		return nil, err
	}
	times, err := st.medians(list, unit)
	if err != nil {
		return nil, err
	}
	top := chart.New(above, "", "thousand calls per second")
	top.Y.Min = 0
	if err := addLines(top, list, served, 1e3); err != nil {
		return nil, err
	}
	bottom := chart.New(below, x, y)
	bottom.Y.Scale, bottom.Y.Tick.Marker = plot.LogScale{}, plot.TickerFunc(chart.LogTicks)
	if err := addLines(bottom, list, times, 1e-6); err != nil {
		return nil, err
	}
	// Where there are times of only some numbers the axes are the same.
	bottom.X.Min, bottom.X.Max, bottom.X.Tick.Marker = top.X.Min, top.X.Max, top.X.Tick.Marker
	top.Legend.Top = true
	roomForLegend(top)
	bottom.Legend = plot.NewLegend() // that of the upper one
	return svg(top, bottom)
}

// beyond is how many calls must lie above a percentile for it to be shown. Its 95%
// interval is then from that of 11 above it to that of 29, whatever the distribution;
// with half as many it would be wider than the tail that it is about.
const beyond = 20

// shown are the points of a curve that enough calls stand behind.
func (c *curve) shown() (all []percentile) {
	for _, p := range c.points {
		if (1-p.p)*float64(c.count) >= beyond {
			all = append(all, p)
		}
	}
	return all
}

func drawLatency(s *set) ([]byte, error) {
	p := chart.New("Round trip from the intended start, by percentile (open loop)", "percentile", "µs")
	p.X.Scale, p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogScale{}, plot.TickerFunc(chart.LogTicks)
	var ticks plot.ConstantTicks
	for _, t := range []struct {
		inverse float64
		label   string
	}{{1, "0%"}, {2, "50%"}, {10, "90%"}, {100, "99%"}, {1000, "99.9%"}, {10000, "99.99%"}} {
		ticks = append(ticks, plot.Tick{Value: t.inverse, Label: t.label})
	}
	p.X.Tick.Marker = ticks
	for _, e := range engines {
		c, err := s.curveOf(corrected, e)
		if err != nil {
			return nil, err
		}
		var xys plotter.XYs
		for _, q := range c.shown() {
			xys = append(xys, plotter.XY{X: 1 / (1 - q.p), Y: q.value / 1e3})
		}
		if len(xys) < 2 {
			return nil, fmt.Errorf("%s of engine %v: %d calls are too few for a distribution", corrected, e, c.count)
		}
		line, err := plotter.NewLine(xys)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = colours[e], 1.4
		if e.name == "bare" {
			line.Dashes = []vg.Length{4, 2}
		}
		p.Add(line)
		p.Legend.Add(e.String(), line)
	}
	p.Legend.Top = true
	return svg(p)
}

// Stages from one return to the program until the next, and their colours.
var parts = []struct {
	name   string
	colour color.RGBA
}{
	{"before", color.RGBA{0xcc, 0xcc, 0xcc, 0xff}},
	{"wakeup", color.RGBA{0xe6, 0x9f, 0x00, 0xff}},
	{"receive", color.RGBA{0x56, 0xb4, 0xe9, 0xff}},
	{"wait", color.RGBA{0xcc, 0x79, 0xa7, 0xff}},
	{"service", color.RGBA{0x00, 0x9e, 0x73, 0xff}},
	{"answer", color.RGBA{0xf0, 0xe4, 0x42, 0xff}},
	{"return", color.RGBA{0x99, 0x99, 0x99, 0xff}},
}

// meanOf is the mean time, in ns, that a call spends in a stage. A stage that some
// calls do not have counts as 0 in these.
func meanOf(all map[string]stage, name string) float64 {
	st := all[name]
	if st.Count == 0 || st.Mean == nil {
		return 0
	}
	return *st.Mean * float64(st.Count) / float64(all["cycle"].Count)
}

func drawStages(s *set) ([]byte, error) {
	p := chart.New("Where the time of a call goes: mean of each stage, traced", "µs", "")
	values := make([]plotter.Values, len(parts))
	var names []string
	longest := 0.0
	for _, e := range slices.Backward(engines) { // the first on top
		all, err := s.stagesOf(e)
		if err != nil {
			return nil, err
		}
		sum := 0.0
		for i, part := range parts {
			v := meanOf(all, part.name) / 1e3
			values[i] = append(values[i], v)
			sum += v
		}
		// The stages follow each other without a gap; what they leave out of the
		// whole would be missing from the figure without anybody seeing it.
		if cycle := *all["cycle"].Mean / 1e3; math.Abs(sum/cycle-1) > .05 {
			return nil, fmt.Errorf("engine %v: the stages sum up to %.1f µs, and between two returns to the program lie %.1f µs", e, sum, cycle)
		}
		longest = max(longest, sum)
		names = append(names, e.String())
	}
	var below *plotter.BarChart
	for i, part := range parts {
		bar, err := plotter.NewBarChart(values[i], 22)
		if err != nil {
			return nil, err
		}
		bar.Horizontal, bar.Color, bar.LineStyle.Width = true, part.colour, 0
		if below != nil {
			bar.StackOn(below)
		}
		below = bar
		p.Add(bar)
		p.Legend.Add(part.name, bar)
	}
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, longest*1.25 // the legend stands to the right
	p.Legend.Left, p.Legend.Top = false, true
	return svg(p)
}
