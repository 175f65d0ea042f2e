// Package chart draws the figures of results/ and of tune's report: one look, by gonum's plot.
package chart

import (
	"bytes"
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// New has what all figures share.
func New(title, x, y string) *plot.Plot {
	p := plot.New()
	sans := font.Font{Typeface: "Liberation", Variant: "Sans"}
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.TextStyle.Font = font.From(sans, 12)
	p.Title.Padding = 6
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Label.TextStyle.Font = font.From(sans, 10)
		a.Tick.Label.Font = font.From(sans, 9)
		a.Tick.Marker = plot.TickerFunc(linearTicks)
	}
	p.Legend.TextStyle.Font = font.From(sans, 9)
	p.Legend.Padding = 2
	p.Legend.Left = true
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{0xdd}, color.Gray{0xdd}
	p.Add(grid)
	return p
}

// SVG draws plots of one size below each other.
func SVG(width, height vg.Length, plots ...*plot.Plot) ([]byte, error) {
	c := vgsvg.New(width, height*vg.Length(len(plots)))
	all := make([][]*plot.Plot, len(plots))
	for i, p := range plots {
		all[i] = []*plot.Plot{p}
	}
	for i, row := range plot.Align(all, draw.Tiles{Rows: len(plots), Cols: 1, PadRight: 6, PadTop: 6, PadBottom: 6, PadLeft: 6, PadY: 14}, draw.New(c)) {
		plots[i].Draw(row[0])
	}
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return nil, err
	}
	// A browser without these fonts takes others of the same widths.
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arimo,Arial,Helvetica,sans-serif")), nil
}

// linearTicks are the library's, without its needless zeros (250.00).
func linearTicks(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i, t := range ticks {
		if t.Label != "" {
			ticks[i].Label = strconv.FormatFloat(t.Value, 'f', -1, 64)
		}
	}
	return ticks
}

// LogTicks labels 1, 2, 5 of each decade as numbers that people write.
func LogTicks(low, high float64) (ticks []plot.Tick) {
	for d := math.Pow(10, math.Floor(math.Log10(low))); d <= high; d *= 10 {
		for m := 1.0; m < 10; m++ {
			if v := d * m; v >= low && v <= high {
				t := plot.Tick{Value: v}
				if m == 1 || m == 2 || m == 5 {
					t.Label = strconv.FormatFloat(v, 'f', -1, 64)
				}
				ticks = append(ticks, t)
			}
		}
	}
	return ticks
}
