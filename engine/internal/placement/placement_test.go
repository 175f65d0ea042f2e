package placement

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestTransitions runs testdata/*.txt. A line "facts …" begins with a new machine; "at TIME … => PLAN"
// is a step, whose observation is as of that time unless seen=TIME says otherwise; a second step may
// name only what changed.
func TestTransitions(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) == 0 {
		t.Fatal("no test data")
	}
	covered := map[string]bool{}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) { runFile(t, name, covered) })
	}
	for _, edge := range []string{
		"parallel>near", "near>parallel", "near>pair", "pair>near", "pair>parallel",
	} {
		if !covered[edge] {
			t.Errorf("no file has the transition %s", edge)
		}
	}
}

func runFile(t *testing.T, name string, covered map[string]bool) {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var m *Machine
	var facts Facts
	var o Observation
	var last Plan
	steps := 0
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		bad := func(err any) { t.Fatalf("%s:%d: %q: %v", name, n, line, err) }
		switch words[0] {
		case "facts":
			m, o, last = new(Machine), Observation{TargetCPU: Anywhere, OtherCPU: Anywhere}, Plan{}
			facts = Facts{Workers: 2, Threads: true, Home: 1, Movable: true, Sync: true, Receivers: 1}
			for _, w := range words[1:] {
				if err := setFact(&facts, w); err != nil {
					bad(err)
				}
			}
		case "at":
			left, want, ok := strings.Cut(line, "=>")
			words = strings.Fields(left)
			now, err := time.ParseDuration(words[1])
			if !ok || m == nil || err != nil {
				bad("want facts, then at TIME OBSERVATION => PLAN")
			}
			o.At, o.Idle, o.Stuck = int64(now), false, false
			for _, w := range words[2:] {
				if err := observe(&o, &facts, w); err != nil {
					bad(err)
				}
			}
			p := m.Step(int64(now), o, facts)
			if got := p.String(); got != strings.TrimSpace(want) {
				t.Errorf("%s:%d:\n  got  %s\n  want %s", name, n, got, strings.TrimSpace(want))
			}
			covered[last.State.String()+">"+p.State.String()] = true
			last = p
			steps++
		default:
			bad("want facts or at")
		}
	}
	if steps == 0 {
		t.Errorf("%s: no step", name)
	}
}

func number(s string) (int, error) {
	if s == "any" {
		return Anywhere, nil
	}
	return strconv.Atoi(s)
}

func setFact(f *Facts, w string) (err error) {
	k, v, _ := strings.Cut(w, "=")
	switch k {
	case "inline":
		f.Inline = true
	case "goroutines":
		f.Threads = false
	case "unmovable":
		f.Movable = false
	case "async":
		f.Sync = false
	case "try":
		f.Try = true
	case "raise":
		f.Raise = true
	case "near":
		f.Place = PlaceNear
	case "anywhere":
		f.Place = PlaceAnywhere
	case "workers":
		f.Workers, err = number(v)
	case "home":
		f.Home, err = number(v)
	case "receivers":
		f.Receivers, err = number(v)
	default:
		err = fmt.Errorf("no fact %q", w)
	}
	return err
}

func observe(o *Observation, f *Facts, w string) (err error) {
	k, v, _ := strings.Cut(w, "=")
	pick := func(names ...string) (n uint8) {
		for i, name := range names {
			if name == v {
				return uint8(i)
			}
		}
		err = fmt.Errorf("%s is one of %v", k, names)
		return 0
	}
	switch k {
	case "seen":
		var d time.Duration
		d, err = time.ParseDuration(v)
		o.At = int64(d)
	case "concurrency":
		o.Concurrency = Concurrency(pick("low", "medium", "high"))
	case "handlers":
		o.Handlers = Length(pick("unknown", "short", "middling", "long"))
	case "affinity":
		o.Affinity = Affinity(pick("unknown", "everywhere", "here", "elsewhere"))
	case "target":
		o.TargetCPU, err = number(v)
	case "calls":
		o.Calls, err = strconv.ParseUint(v, 10, 64)
	case "other":
		o.OtherCPU, err = number(v)
	case "busy":
		o.Busy = true
	case "calm":
		o.Busy = false
	case "stuck":
		o.Stuck = true
	case "idle":
		o.Idle = true
	case "receivers":
		f.Receivers, err = number(v)
	default:
		err = fmt.Errorf("no observation %q", w)
	}
	return err
}

func TestReceivers(t *testing.T) {
	for _, c := range []struct{ listeners, cpus, want int }{
		{0, 2, 1}, {1, 2, 1}, {2, 2, 2}, {4, 2, 2}, {64, 1, 1}, {3, 8, 3}, {64, 8, MaxAuto},
	} {
		if got := Receivers(c.listeners, c.cpus); got != c.want {
			t.Errorf("%d listeners, %d CPUs: %d receivers, want %d", c.listeners, c.cpus, got, c.want)
		}
	}
}

func ls(rates ...float64) (all []Listener) {
	for _, r := range rates {
		all = append(all, Listener{Rate: r})
	}
	return all
}

func TestDeal(t *testing.T) {
	here, there := []int{0}, []int{1}
	for _, c := range []struct {
		name string
		rs   []Receiver
		l    Listener
		want int
	}{
		{"the first", []Receiver{{CPU: 0}, {CPU: 1}}, Listener{}, 0},
		{"the one with fewer", []Receiver{{CPU: 0, Listeners: ls(0, 0)}, {CPU: 1, Listeners: ls(9)}}, Listener{}, 1},
		{"the least loaded", []Receiver{{CPU: 0, Listeners: ls(10)}, {CPU: 1, Listeners: ls(9)}}, Listener{}, 1},
		{"where its targets may run", []Receiver{{CPU: 0}, {CPU: 1, Listeners: ls(9)}}, Listener{CPUs: there}, 1},
		{"and be there", []Receiver{{CPU: 0, Listeners: ls(9)}, {CPU: 1}}, Listener{CPUs: here}, 0},
		{"nowhere: as if all were the same", []Receiver{{CPU: 0, Listeners: ls(9)}, {CPU: 1}}, Listener{CPUs: []int{7}}, 1},
		{"not pinned serves all", []Receiver{{CPU: Anywhere, Listeners: ls(1)}, {CPU: 1}}, Listener{CPUs: here}, 0},
	} {
		if got := Deal(c.rs, c.l); got != c.want {
			t.Errorf("%s: receiver %d, want %d", c.name, got, c.want)
		}
	}
}

func TestBalance(t *testing.T) {
	// look returns the move of the nth look at the same receivers.
	look := func(rs []Receiver) (Move, int) {
		var b Balancer
		for n := 1; n <= 2*agree; n++ {
			if m, move := b.Look(rs); move {
				return m, n
			}
		}
		return Move{}, 0
	}
	for _, c := range []struct {
		name string
		rs   []Receiver
		want Move
		n    int
	}{
		{"one receiver", []Receiver{{CPU: 0, Listeners: ls(9e4)}}, Move{}, 0},
		{"even", []Receiver{{CPU: 0, Listeners: ls(9e4)}, {CPU: 1, Listeners: ls(8e4)}}, Move{}, 0},
		{"uneven", []Receiver{{CPU: 0, Listeners: ls(4e4, 3e4, 0)}, {CPU: 1, Listeners: ls(0)}}, Move{0, 0, 1}, agree},
		{"the other way", []Receiver{{CPU: 0}, {CPU: 1, Listeners: ls(1e4, 5e4, 5e4)}}, Move{1, 1, 0}, agree},
		{"idle", []Receiver{{CPU: 0, Listeners: ls(400, 400)}, {CPU: 1, Listeners: ls(0)}}, Move{}, 0},
		{"one noisy listener is no better off elsewhere", []Receiver{{CPU: 0, Listeners: ls(9e4, 100)}, {CPU: 1, Listeners: ls(100)}}, Move{}, 0},
		{"a mask, at once", []Receiver{{CPU: 0, Listeners: []Listener{{Rate: 5, CPUs: []int{1}}}}, {CPU: 1}}, Move{0, 0, 1}, 1},
		{"a mask that no receiver serves", []Receiver{{CPU: 0, Listeners: []Listener{{Rate: 5, CPUs: []int{7}}}}, {CPU: 1}}, Move{}, 0},
		{"not against a mask", []Receiver{{CPU: 0, Listeners: []Listener{{4e4, []int{0}}, {3e4, []int{0}}}}, {CPU: 1}}, Move{}, 0},
	} {
		if got, n := look(c.rs); got != c.want || n != c.n {
			t.Errorf("%s: %+v after %d looks, want %+v after %d", c.name, got, n, c.want, c.n)
		}
	}
	// Looks that disagree do not add up.
	var b Balancer
	one := []Receiver{{CPU: 0, Listeners: ls(4e4, 4e4)}, {CPU: 1}}
	other := []Receiver{{CPU: 0}, {CPU: 1, Listeners: ls(4e4, 4e4)}}
	for range 4 * agree {
		for _, rs := range [][]Receiver{one, other} {
			if m, move := b.Look(rs); move {
				t.Fatalf("moved %+v", m)
			}
		}
	}
}
