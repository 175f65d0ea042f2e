// Package fleet tests what lies here: that rules and dashboard ask for what an engine shows.
package fleet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/enginetest"
	"github.com/unknot/unknot/engine/metrics"
)

// known is what queries may ask for.
type known struct {
	labels map[string][]string        // of each metric, as Prometheus stores it: histograms with _bucket, too
	values map[string]map[string]bool // of labels whose values are few, by metric and label
}

// free are labels whose values depend on who is watched.
var free = []string{"source", "syscall", "abi", "receiver", "errno", "plan", "mode", "level"}

func shown(t *testing.T) known {
	t.Helper()
	e := enginetest.NewWith(t, engine.Config{Handler: engine.HandlerFunc(func(r engine.Request) { _ = r.Return(0) }), BySyscall: true, BySource: true})
	e.Target().Call(1)
	c := metrics.New(e.Engine(), metrics.Options{
		Source: func(*engine.Source) string { return "web" }, Confinement: "shared", Healthy: func() error { return nil },
	})
	k := known{map[string][]string{"up": nil}, map[string]map[string]bool{}}
	for _, m := range c.Metrics() {
		k.labels[m.Name] = m.Labels
		if m.Type == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				k.labels[m.Name+suffix] = m.Labels
			}
			k.labels[m.Name+"_bucket"] = append(slices.Clone(m.Labels), "le")
		}
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if slices.Contains(free, l.GetName()) {
					continue
				}
				key := f.GetName() + " " + l.GetName()
				if k.values[key] == nil {
					k.values[key] = map[string]bool{}
				}
				k.values[key][l.GetValue()] = true
			}
		}
	}
	return k
}

var (
	selector = regexp.MustCompile(`\b(up|unknot_[a-z0-9_]+|[a-z]*:?unknot[a-z0-9_]*:[a-z0-9_:]+)\b(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring)\s*\(([^)]*)\)`)
)

// always are the labels that a scrape adds.
var always = []string{"instance", "job"}

// check reports what a query asks for that there is not. Recorded are the names that rules make, with their labels.
func (k known) check(query string, recorded map[string][]string) (problems []string) {
	labels := slices.Clone(always) // of any metric in the query
	found := selector.FindAllStringSubmatch(query, -1)
	if len(found) == 0 {
		return []string{"it asks for nothing of unknot's"}
	}
	for _, s := range found {
		name, matchers := s[1], s[2]
		own, ok := k.labels[name]
		if made, is := recorded[name]; is {
			own, ok = made, true
		}
		if !ok {
			problems = append(problems, "no metric "+name)
			continue
		}
		labels = append(labels, own...)
		for _, m := range matcher.FindAllStringSubmatch(matchers, -1) {
			label, value := m[1], m[3]
			if !slices.Contains(own, label) && !slices.Contains(always, label) {
				problems = append(problems, fmt.Sprintf("%s has no label %s", name, label))
				continue
			}
			values := k.values[name+" "+label]
			for v := range strings.SplitSeq(value, "|") {
				if values != nil && !values[v] {
					problems = append(problems, fmt.Sprintf("%s has no %s %q", name, label, v))
				}
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(query, -1) {
		for l := range strings.FieldsFuncSeq(g[1], func(r rune) bool { return r == ',' || r == ' ' }) {
			if !slices.Contains(labels, l) {
				problems = append(problems, "no metric in it has a label "+l)
			}
		}
	}
	return problems
}

type rule struct {
	Record, Alert, Expr string
	Annotations         map[string]string
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	var f struct {
		Groups []struct{ Rules []rule }
	}
	b, err := os.ReadFile("rules.yaml")
	if err == nil {
		err = yaml.Unmarshal(b, &f)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range f.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// recordedBy are the names that rules record; a rule for the fleet has no labels, one for daemons theirs.
func recordedBy(all []rule) map[string][]string {
	m := map[string][]string{}
	for _, r := range all {
		if r.Record != "" {
			m[r.Record] = nil
		}
	}
	return m
}

var field = regexp.MustCompile(`\$labels\.([a-z_]+)`)

func TestRulesAskForWhatThereIs(t *testing.T) {
	k, all := shown(t), rules(t)
	recorded := recordedBy(all)
	if len(all) < 15 || len(recorded) < 5 {
		t.Errorf("%d rules, %d recorded", len(all), len(recorded))
	}
	for _, r := range all {
		for _, p := range k.check(r.Expr, recorded) {
			t.Errorf("%s%s: %s: %s", r.Record, r.Alert, p, r.Expr)
		}
		for _, text := range r.Annotations {
			for _, m := range field.FindAllStringSubmatch(text, -1) {
				if m[1] != "instance" && !strings.Contains(r.Expr, m[1]) && !slices.ContainsFunc(selector.FindAllStringSubmatch(r.Expr, -1), func(s []string) bool { return slices.Contains(k.labels[s[1]], m[1]) }) {
					t.Errorf("%s: nothing has a label %s: %s", r.Alert, m[1], text)
				}
			}
		}
	}
}

// query is one of the dashboard.
type query struct{ where, expr string }

func dashboard(t *testing.T) (all []query) {
	t.Helper()
	var d struct {
		Panels []struct {
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct {
				Name, Type string
				Query      any
			}
		}
	}
	b, err := os.ReadFile("dashboard.json")
	if err == nil {
		err = json.Unmarshal(b, &d)
	}
	if err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "5m")
	for _, v := range d.Templating.List {
		variables = strings.NewReplacer("$__rate_interval", "5m", "$instance", ".+")
		if q, ok := v.Query.(map[string]any); ok {
			inner, ok := strings.CutPrefix(fmt.Sprint(q["query"]), "label_values(")
			metric, label, _ := strings.Cut(strings.TrimSuffix(inner, ")"), ", ")
			if !ok || label == "" {
				t.Errorf("variable %s: %v", v.Name, v.Query)
			}
			all = append(all, query{"variable " + v.Name, fmt.Sprintf("sum by (%s) (%s)", label, metric)})
		}
	}
	legend := regexp.MustCompile(`\{\{([a-z_]+)\}\}`)
	for _, p := range d.Panels {
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s: %d queries, at %+v", p.Title, len(p.Targets), p.GridPos)
		}
		for _, q := range p.Targets {
			expr := variables.Replace(q.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s: an unknown variable: %s", p.Title, expr)
			}
			for _, m := range legend.FindAllStringSubmatch(q.LegendFormat, -1) {
				if !strings.Contains(expr, m[1]) && !(m[1] == "receiver" || m[1] == "instance") {
					t.Errorf("%s: the legend's %s is not in %s", p.Title, m[1], expr)
				}
			}
			all = append(all, query{p.Title, expr})
		}
	}
	return all
}

func TestDashboardAsksForWhatThereIs(t *testing.T) {
	k := shown(t)
	all := dashboard(t)
	if len(all) < 20 {
		t.Errorf("%d queries", len(all))
	}
	for _, q := range all {
		for _, p := range k.check(q.expr, nil) {
			t.Errorf("%s: %s: %s", q.where, p, q.expr)
		}
	}
}

// TestCheckFinds: a check that finds nothing is none.
func TestCheckFinds(t *testing.T) {
	k := shown(t)
	for query, want := range map[string]string{
		`rate(unknot_recieved_total[5m])`:                     "no metric unknot_recieved_total",
		`unknot_received_total_bucket`:                        "no metric",
		`unknot_notifications_total{result="dropped"}`:        "no label result",
		`unknot_notifications_total{outcome="lost"}`:          `no outcome "lost"`,
		`unknot_notifications{state=~"queued|helt"}`:          `no state "helt"`,
		`sum by (container) (unknot_source_received_total)`:   "label container",
		`histogram_quantile(0.99, sum by (le) (unknot_wait))`: "no metric unknot_wait",
		`sum by (le) (rate(unknot_wait_seconds_sum[5m]))`:     "label le",
		`unknot:nothing:rate5m > 1`:                           "no metric unknot:nothing:rate5m",
		`vector(1)`:                                           "nothing of unknot's",
	} {
		if got := strings.Join(k.check(query, nil), "; "); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %s", query, got, want)
		}
	}
	if p := k.check(`sum by (instance, le) (rate(unknot_wait_seconds_bucket{instance=~"a|b",job="x"}[5m]))`, nil); p != nil {
		t.Error(p)
	}
}

// promtool runs it, or skips.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("no promtool in PATH (Debian: apt install prometheus)")
	}
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

func TestPromtool(t *testing.T) {
	promtool(t, "check", "rules", "rules.yaml")
	promtool(t, "test", "rules", "rules_test.yaml")
}

// TestQueriesParse: those of the dashboard, as rules.
func TestQueriesParse(t *testing.T) {
	type record struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var all []record
	for i, q := range dashboard(t) {
		all = append(all, record{fmt.Sprintf("dashboard:%d", i), q.expr})
	}
	b, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": all}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

// TestManifests: the profile in the manifest is the one beside it, its socket is the daemon's, and the daemon's pod is
// not under it.
func TestManifests(t *testing.T) {
	text, err := os.ReadFile("daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	profile, err := os.ReadFile("seccomp-unknot.json")
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		ListenerPath string
		Syscalls     []struct {
			Names  []string
			Action string
		}
	}
	if err := json.Unmarshal(profile, &p); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]map[string]any{}
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var m map[string]any
		if err := yaml.Unmarshal(doc, &m); err != nil {
			t.Fatal(err)
		}
		kinds[fmt.Sprint(m["kind"])] = m
	}
	data := kinds["ConfigMap"]["data"].(map[string]any)
	if strings.TrimSpace(data["seccomp-unknot.json"].(string)) != strings.TrimSpace(string(profile)) {
		t.Error("the manifest has another profile than seccomp-unknot.json")
	}
	var policy struct {
		Default string
		Rules   []struct{ Calls []string }
	}
	if err := yaml.Unmarshal([]byte(data["policy.yaml"].(string)), &policy); err != nil || policy.Default == "" {
		t.Errorf("policy %+v: %v", policy, err)
	}
	for _, r := range policy.Rules {
		for _, c := range r.Calls {
			if !slices.Contains(p.Syscalls[0].Names, c) {
				t.Errorf("the policy has a rule for %s, which the profile does not trap", c)
			}
		}
	}
	var set struct {
		Spec struct {
			Template struct {
				Spec struct {
					HostPID    bool `yaml:"hostPID"`
					Containers []struct {
						Args            []string
						SecurityContext struct {
							SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
						} `yaml:"securityContext"`
						VolumeMounts []struct {
							MountPath string `yaml:"mountPath"`
						} `yaml:"volumeMounts"`
					}
				}
			}
		}
	}
	b, err := yaml.Marshal(kinds["DaemonSet"])
	if err == nil {
		err = yaml.Unmarshal(b, &set)
	}
	if err != nil {
		t.Fatal(err)
	}
	pod := set.Spec.Template.Spec
	c := pod.Containers[0]
	if !slices.Contains(c.Args, "--socket="+p.ListenerPath) || !pod.HostPID || c.SecurityContext.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("%+v, for a profile that hands listeners to %s", c, p.ListenerPath)
	}
	if !slices.ContainsFunc(c.VolumeMounts, func(v struct {
		MountPath string `yaml:"mountPath"`
	}) bool {
		return v.MountPath == filepath.Dir(p.ListenerPath)
	}) {
		t.Errorf("the socket's directory is not the node's: %+v", c.VolumeMounts)
	}
}
