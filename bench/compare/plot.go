package compare

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strings"
)

// Plot draws the pairs of the gated rows as an SVG image: in the order of the rounds,
// each pair's change beside θ and the interval. Rows without pairs are left out; it
// says whether there are any.
func (r *Report) Plot(w io.Writer) (bool, error) {
	const width, height, left, right = 860, 96, 8, 852
	var rows []*Row
	for _, row := range r.Rows {
		if row.Gated && len(row.ratios) > 0 {
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return false, nil
	}
	colour := map[Verdict]string{Pass: "#2a7", Improved: "#27c", Regressed: "#c33", Inconclusive: "#888"}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, len(rows)*height+24)
	fmt.Fprintf(&b, "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n<text x=\"%d\" y=\"16\">%s</text>\n", left, svgText(
		"cost of new by cost of old, pair by pair; dashed: θ; band: the interval; "+r.names()))
	for i, row := range rows {
		top := float64(24 + i*height)
		// The scale has nine tenths of the pairs, θ and the interval; the others lie on its edge.
		reach := 1.5 * math.Log1p(float64(row.Theta))
		for _, v := range []float64{float64(row.Lo), float64(row.Hi)} {
			if d := math.Abs(math.Log1p(v)); d < 3 {
				reach = max(reach, 1.1*d)
			}
		}
		reach = max(reach, 1.2*quantile(row.ratios, .9))
		y := func(ratio float64) float64 {
			return top + 22 + (height-34)/2*(1-max(-1, min(1, ratio/reach)))
		}
		orient := 1.0
		if row.Better == "higher" {
			orient = -1
		}
		fmt.Fprintf(&b, "<g><text x=\"%d\" y=\"%.0f\" fill=\"%s\">%s %s: %s, %s in %d pairs</text>\n", left, top+14, colour[row.Verdict],
			svgText(row.Benchmark), svgText(row.Unit), row.Verdict, signed(float64(row.Change)), len(row.ratios))
		if lo, hi := orient*math.Log1p(float64(row.Lo)), orient*math.Log1p(float64(row.Hi)); !math.IsNaN(lo) && !math.IsInf(hi, 0) && !math.IsInf(lo, 0) {
			fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%.1f\" width=\"%d\" height=\"%.1f\" fill=\"%s\" fill-opacity=\"0.2\"/>\n",
				left, min(y(lo), y(hi)), right-left, max(.5, math.Abs(y(lo)-y(hi))), colour[row.Verdict])
		}
		fmt.Fprintf(&b, "<path d=\"M%d %.1fH%d\" stroke=\"#bbb\"/><path d=\"M%d %.1fH%d\" stroke=\"#c33\" stroke-dasharray=\"5 4\"/>\n",
			left, y(0), right, left, y(math.Log1p(float64(row.Theta))), right)
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\" fill=\"#c33\" font-size=\"10\">%s</text>\n", right, y(math.Log1p(float64(row.Theta)))-2, signed(float64(row.Theta)))
		for k, v := range row.ratios {
			x := float64(left) + (float64(k)+.5)*float64(right-left)/float64(len(row.ratios))
			fmt.Fprintf(&b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2\" fill=\"%s\"><title>round %d: %s</title></circle>\n", x, y(v), colour[row.Verdict], row.numbers[k], signed(math.Expm1(v)))
		}
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	_, err := w.Write(b.Bytes())
	return true, err
}

// svgText keeps names from being markup.
func svgText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}

// quantile is of absolute values.
func quantile(v []float64, q float64) float64 {
	a := make([]float64, len(v))
	for i := range v {
		a[i] = math.Abs(v[i])
	}
	return sorted(a)[int(q*float64(len(a)-1))]
}
