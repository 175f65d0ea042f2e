package daemon

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/unknot/unknot/cmd/unknot/internal/rules"
)

// The table in docs/metrics.md has what the daemon shows beside the engine's.
func TestMetricsAreDocumented(t *testing.T) {
	p, err := rules.Parse("p", []byte("default: continue\n"))
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{audit: rules.NewAudit(io.Discard, rules.AuditOptions{})}
	d.router = rules.NewRouter(p, d.audit)
	defer d.closeAudit()
	r := prometheus.NewPedanticRegistry()
	for _, c := range d.collectors() {
		if err := r.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	all, err := r.Gather()
	if err != nil || len(all) < 9 {
		t.Fatalf("%d metrics, %v", len(all), err)
	}
	doc, err := os.ReadFile("../../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		labels := "-"
		for _, l := range f.Metric[0].Label {
			labels = "`" + l.GetName() + "`"
		}
		row := fmt.Sprintf("| `%s` | %s | %s | %s |", f.GetName(), strings.ToLower(f.GetType().String()), labels, f.GetHelp())
		if !strings.Contains(string(doc), row+"\n") {
			t.Errorf("the documentation lacks\n%s", row)
		}
	}
}
