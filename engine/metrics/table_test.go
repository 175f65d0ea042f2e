package metrics

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/enginetest"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

// full is a collector of all there is.
func full(e *engine.Engine) *Collector {
	return New(e, Options{Source: byTag, Confinement: "private", Healthy: func() error { return nil }})
}

// TestTableIsWhatIsShown: names, types and labels, and all of them.
func TestTableIsWhatIsShown(t *testing.T) {
	e, _, _ := loaded(t)
	c := full(e.Engine())
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]*dto.MetricFamily{}
	for _, f := range all {
		shown[f.GetName()] = f
	}
	for _, m := range c.Metrics() {
		f := shown[m.Name]
		if f == nil {
			// Nothing plans here, for no thread runs, and nothing is queued.
			if m.Name != "unknot_receiver_plan" && m.Name != "unknot_source_wait_target_seconds" && m.Name != "unknot_source_limit_service_seconds" {
				t.Errorf("%s is not shown", m.Name)
			}
			continue
		}
		delete(shown, m.Name)
		if is := strings.ToLower(f.GetType().String()); is != m.Type || f.GetHelp() != m.Help {
			t.Errorf("%s is a %s, in the table a %s", m.Name, is, m.Type)
		}
		for _, s := range f.Metric {
			var labels []string
			for _, l := range s.Label {
				labels = append(labels, l.GetName())
			}
			want := slices.Sorted(slices.Values(m.Labels))
			if !slices.Equal(labels, want) {
				t.Errorf("%s has labels %v, in the table %v", m.Name, labels, want)
			}
		}
	}
	for name := range shown {
		t.Errorf("%s is in no table", name)
	}
}

const tableBegins, tableEnds = "<!-- made by go test ./... -update in engine/metrics -->\n", "<!-- end -->\n"

// TestDocs: docs/metrics.md has the table.
func TestDocs(t *testing.T) {
	var b strings.Builder
	needs := "-"
	for _, m := range full(enginetest.New(t, engine.HandlerFunc(handle)).Engine()).Metrics() {
		if m.Needs != needs {
			needs = m.Needs
			head := "Always:"
			if needs != "" {
				head = "With `" + strings.ReplaceAll(needs, ", ", "` and `") + "`:"
			}
			fmt.Fprintf(&b, "\n%s\n\n| metric | type | labels | what |\n|---|---|---|---|\n", head)
		}
		labels := "-"
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		help := strings.ReplaceAll(m.Help, " It begins when the notification was received (RECV returned): how long the call waited in the kernel before that is not in it.", "")
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, labels, help)
	}
	const file = "../../docs/metrics.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegins)
	_, after, ended := strings.Cut(rest, tableEnds)
	if !ok || !ended {
		t.Fatalf("%s has no place for the table", file)
	}
	want := before + tableBegins + b.String() + "\n" + tableEnds + after
	if want == string(text) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what there is: run go test . -update in engine/metrics", file)
	}
	if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
