// Package fleet reads the loads of daemons from the series that Prometheus has of them.
package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/cmd/unknot/internal/tune"
)

// A Query says what is asked for.
type Query struct {
	URL     string        // of Prometheus
	Range   time.Duration // until End
	End     time.Time
	By      string // the label that tells nodes apart
	Match   string // matchers of the series, such as job="unknot"; "": all
	Workers int    // where the series do not say; 0: they must
	Timeout time.Duration
}

// An Answer is what the series say.
type Answer struct {
	Nodes []tune.Node
	Notes []string // what a reader should know
	Asked []string // queries
	From  time.Time
	To    time.Time
}

// rateParts is into how many parts of equal rate the range is divided, if it has that many scrapes.
const rateParts = 60

// The series, without the namespace.
const (
	received = "unknot_received_total"
	drops    = "unknot_drops_total"
	workers  = "unknot_workers"
	service  = "unknot_service_seconds"
	wait     = "unknot_wait_seconds"
	answer   = "unknot_answer_seconds"
)

type client struct {
	q   *Query
	api v1.API
	a   *Answer
}

// Read asks.
func Read(ctx context.Context, q Query) (*Answer, error) {
	u, err := url.Parse(q.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q: want the URL of a Prometheus, such as http://localhost:9090", q.URL)
	}
	ctx, cancel := context.WithTimeout(ctx, q.Timeout)
	defer cancel()
	c, err := api.NewClient(api.Config{Address: q.URL})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.URL, err)
	}
	r := &client{&q, v1.NewAPI(c), &Answer{From: q.End.Add(-q.Range), To: q.End}}
	return r.a, r.read(ctx)
}

func (c *client) read(ctx context.Context) error {
	calls, err := c.ask(ctx, fmt.Sprintf("sum by (%s) (increase(%s[%s]))", c.q.By, c.series(received), c.span()))
	if err != nil {
		return err
	}
	if len(calls) == 0 {
		return fmt.Errorf("no series %s from %s to %s: does this Prometheus scrape the daemons' --status, and was there a scrape in that time? choose another --range or --end, or --match",
			c.series(received), c.a.From.Format(time.RFC3339), c.a.To.Format(time.RFC3339))
	}
	if err := c.noResets(ctx); err != nil {
		return err
	}
	if err := c.down(ctx); err != nil {
		return err
	}
	buckets := map[string]map[string][]tune.Bucket{}
	sums := map[string]map[string]float64{}
	for _, name := range []string{service, wait} {
		if buckets[name], err = c.buckets(ctx, name); err != nil {
			return err
		}
		if sums[name], err = c.byNode(ctx, fmt.Sprintf("sum by (%s) (increase(%s[%s]))", c.q.By, c.series(name+"_sum"), c.span())); err != nil {
			return err
		}
	}
	answers, err := c.byNode(ctx, fmt.Sprintf("sum by (%s) (increase(%s[%s]))", c.q.By, c.series(answer+"_sum"), c.span()))
	if err != nil {
		return err
	}
	dropped, err := c.byNode(ctx, fmt.Sprintf("sum by (%s) (increase(%s[%s]))", c.q.By, c.series(drops), c.span()))
	if err != nil {
		return err
	}
	have, err := c.byNode(ctx, fmt.Sprintf("max by (%s) (max_over_time(%s[%s]))", c.q.By, c.series(workers), c.span()))
	if err != nil {
		return err
	}
	rates, err := c.rates(ctx)
	if err != nil {
		return err
	}
	var missing []string
	for _, s := range calls {
		n := tune.Node{Name: c.node(s.Metric), Calls: float64(s.Value), Drop: math.NaN()}
		lacks := func(series string) { missing = append(missing, fmt.Sprintf("%s of %s", series, n.Name)) }
		if n.Calls < 1 {
			c.note("%s: no call came: it is left out", n.Name)
			continue
		}
		if d, ok := dropped[n.Name]; ok {
			n.Drop = d / n.Calls
		} else {
			lacks(drops)
		}
		n.Workers = c.q.Workers
		if w := int(have[n.Name]); w > 0 {
			n.Workers = w
		} else if n.Workers == 0 {
			if _, there := have[n.Name]; there {
				c.note("%s: its calls are not queued: it is left out", n.Name)
				continue
			}
			lacks(workers + " (or say --workers)")
		}
		n.Load.Targets = tune.AnyTargets
		n.Load.Arrivals.Calls = rates[n.Name]
		if len(rates[n.Name]) == 0 {
			lacks(received + " (of two scrapes)")
		}
		b, sum := buckets[service][n.Name], sums[service][n.Name]
		if len(b) == 0 || total(b) < 1 || sum <= 0 {
			lacks(service + "_bucket")
			continue
		}
		var width float64
		n.Load.Service.Times, width = tune.FromBuckets(b, sum/total(b)*1e9)
		n.Load.Service.Sleeps = true // it is by the wall clock
		if w := buckets[wait][n.Name]; total(w) >= 1 {
			var waits float64
			n.Wait, waits = tune.FromBuckets(w, sums[wait][n.Name]/total(w)*1e9)
			c.note("%s: service from buckets no wider than %.0f%%, wait %s", n.Name, 100*width, widths(waits))
			if a, ok := answers[n.Name]; ok {
				c.note("%s: some %s of the mean service of %s is the answer itself, the wake-up of the target, which a recording's service has not in it",
					n.Name, bench.Duration(a/total(b)*1e9), bench.Duration(sum/total(b)*1e9))
			}
		} else {
			lacks(wait + "_bucket")
		}
		c.a.Nodes = append(c.a.Nodes, n)
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing series: %s: nothing is guessed; what was scraped may be an older version, or not all of a page", strings.Join(missing, ", "))
	}
	if len(c.a.Nodes) == 0 {
		return errors.New("no node had calls in the range")
	}
	slices.SortFunc(c.a.Nodes, func(a, b tune.Node) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

func widths(w float64) string {
	if math.IsInf(w, 1) {
		return "from buckets below 1µs too"
	}
	return fmt.Sprintf("%.0f%%", 100*w)
}

func (c *client) note(format string, args ...any) {
	c.a.Notes = append(c.a.Notes, fmt.Sprintf(format, args...))
}

func total(bs []tune.Bucket) (n float64) {
	for _, b := range bs {
		n += b.Count
	}
	return n
}

// series is a series' selector.
func (c *client) series(name string) string {
	if c.q.Match == "" {
		return name
	}
	return name + "{" + c.q.Match + "}"
}

func (c *client) span() string { return model.Duration(c.q.Range).String() }

func (c *client) node(m model.Metric) string {
	if v := m[model.LabelName(c.q.By)]; v != "" {
		return string(v)
	}
	return "(no " + c.q.By + ")"
}

// ask is an instant query at the end of the range.
func (c *client) ask(ctx context.Context, query string) (model.Vector, error) {
	c.a.Asked = append(c.a.Asked, query)
	v, warnings, _, err := c.api.Query(ctx, query, c.q.End)
	if err != nil {
		return nil, c.failed(query, err)
	}
	for _, w := range warnings {
		c.note("%s", w)
	}
	vec, ok := v.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("query %s: a %s came, not a vector", query, v.Type())
	}
	for _, s := range vec {
		if err := c.countable(query, s.Metric, s.Value); err != nil {
			return nil, err
		}
	}
	return vec, nil
}

// countable refuses what is no count, no rate and no time: nothing can be calculated with it.
func (c *client) countable(query string, of model.Metric, x model.SampleValue) error {
	if !(x >= 0 && x <= 1<<53) {
		return fmt.Errorf("query %s: %v came for %s: want a number from 0 on: choose another --range or --match", query, x, c.node(of))
	}
	return nil
}

// failed says what an error of the client is.
func (c *client) failed(query string, err error) error {
	var e *v1.Error
	switch {
	case errors.As(err, &e) && (e.Type == v1.ErrBadResponse || e.Type == v1.ErrClient || e.Type == v1.ErrServer):
		return fmt.Errorf("%s: what answers there is no Prometheus (%s): give the URL of one, as its own pages have it, without /graph", c.q.URL, firstLine(e.Msg))
	case errors.As(err, &e):
		return fmt.Errorf("%s: query %s: %s", c.q.URL, query, e.Msg)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("%s: %w", c.q.URL, err)
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s[:min(len(s), 120)]
}

func (c *client) byNode(ctx context.Context, query string) (map[string]float64, error) {
	vec, err := c.ask(ctx, query)
	all := map[string]float64{}
	for _, s := range vec {
		all[c.node(s.Metric)] = float64(s.Value)
	}
	return all, err
}

// noResets refuses a range in which counters began anew: what was counted before the last scrape is lost, and the load of
// two lives of a daemon is not one.
func (c *client) noResets(ctx context.Context) error {
	resets, err := c.byNode(ctx, fmt.Sprintf("sum by (%s) (resets(%s[%s]))", c.q.By, c.series(received), c.span()))
	if err != nil {
		return err
	}
	var again []string
	for n, x := range resets {
		if x > 0 {
			again = append(again, n)
		}
	}
	if len(again) == 0 {
		return nil
	}
	slices.Sort(again)
	since, err := c.byNode(ctx, fmt.Sprintf("max by (%s) (max_over_time(%s[%s]))", c.q.By, c.series("process_start_time_seconds"), c.span()))
	if err != nil {
		return err
	}
	var last float64
	for _, n := range again {
		last = max(last, since[n])
	}
	remedy := "choose a --range after the restart"
	if at := time.Unix(0, int64(last*1e9)); last > 0 && at.Before(c.q.End) {
		if left := c.q.End.Sub(at).Truncate(time.Second); left >= time.Minute {
			remedy = fmt.Sprintf("the last restart was at %s: choose a shorter one, as --range %v", at.UTC().Format(time.RFC3339), left.Truncate(time.Minute))
		} else {
			remedy = fmt.Sprintf("the last restart was at %s: choose an --end before it, or wait", at.UTC().Format(time.RFC3339))
		}
	}
	return fmt.Errorf("counters were reset in the range, by a restart of %s: %s", strings.Join(again, ", "), remedy)
}

// down names what Prometheus was to scrape and could not in all of the range, of the jobs that daemons are of.
func (c *client) down(ctx context.Context) error {
	vec, err := c.ask(ctx, fmt.Sprintf("max by (job, instance) (max_over_time(%s[%s])) == 0 and on (job) group by (job) (last_over_time(%s[%s]))", c.series("up"), c.span(), c.series(received), c.span()))
	for _, s := range vec {
		c.note("%s of job %s: no scrape succeeded in the range: its series are missing, and no answer is for it", s.Metric["instance"], s.Metric["job"])
	}
	return err
}

// buckets are a histogram's by node.
func (c *client) buckets(ctx context.Context, name string) (map[string][]tune.Bucket, error) {
	vec, err := c.ask(ctx, fmt.Sprintf("sum by (%s, le) (increase(%s[%s]))", c.q.By, c.series(name+"_bucket"), c.span()))
	if err != nil {
		return nil, err
	}
	all := map[string][]tune.Bucket{}
	for _, s := range vec {
		le, err := strconv.ParseFloat(string(s.Metric["le"]), 64)
		if err != nil || !(le >= 0) {
			return nil, fmt.Errorf("%s_bucket: le=%q is no bound", name, s.Metric["le"])
		}
		n := c.node(s.Metric)
		all[n] = append(all[n], tune.Bucket{High: le * 1e9, Count: float64(s.Value)})
	}
	for _, bs := range all {
		slices.SortFunc(bs, func(a, b tune.Bucket) int { return cmp.Compare(a.High, b.High) })
		low, below := 0., 0.
		for i := range bs {
			// Extrapolation rounds each series by itself: a difference may be a little below 0.
			n := max(0, bs[i].Count-below)
			below = max(below, bs[i].Count)
			bs[i].Low, bs[i].Count = low, n
			low = bs[i].High
		}
	}
	return all, nil
}

// rates are the arrivals' by node, in equal parts of the range.
func (c *client) rates(ctx context.Context) (map[string]tune.Rates, error) {
	scrapes, err := c.byNode(ctx, fmt.Sprintf("max by (%s) (count_over_time(%s[%s]))", c.q.By, c.series(received), c.span()))
	if err != nil {
		return nil, err
	}
	fewest := math.Inf(1)
	for _, n := range scrapes {
		fewest = min(fewest, n)
	}
	// A rate takes some scrapes.
	parts := max(1, min(rateParts, int(fewest/4)))
	step := (c.q.Range / time.Duration(parts)).Truncate(time.Second)
	if step <= 0 {
		step, parts = c.q.Range, 1
	}
	query := fmt.Sprintf("sum by (%s) (rate(%s[%s]))", c.q.By, c.series(received), model.Duration(step))
	c.a.Asked = append(c.a.Asked, fmt.Sprintf("%s, every %v", query, step))
	v, _, _, err := c.api.QueryRange(ctx, query, v1.Range{Start: c.q.End.Add(-step * time.Duration(parts-1)), End: c.q.End, Step: step})
	if err != nil {
		return nil, c.failed(query, err)
	}
	matrix, ok := v.(model.Matrix)
	if !ok {
		return nil, fmt.Errorf("query %s: a %s came, not a matrix", query, v.Type())
	}
	all := map[string]tune.Rates{}
	for _, s := range matrix {
		for _, x := range s.Values {
			if err := c.countable(query, s.Metric, x.Value); err != nil {
				return nil, err
			}
			all[c.node(s.Metric)] = append(all[c.node(s.Metric)], float64(x.Value))
		}
	}
	for n, k := range scrapes {
		c.note("%s: %.0f scrapes, arrivals in %d parts of %v, poisson in each", n, k, len(all[n]), step)
	}
	slices.Sort(c.a.Notes)
	return all, nil
}
