//go:build !ringmodel

package ring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The model checker runs in a program of its own, built with the tag
// ringmodel from this directory's sources, once as they are and once for each
// patch in testdata/mutants. The program does not exist on disk: an overlay
// shows it to the go command, with one package per mutant.
const (
	mutantDir = "testdata/mutants"
	overlaid  = "internal/mutants"
	module    = "github.com/unknot/unknot/ring/"
)

var modelProgram = sync.OnceValues(buildModelProgram)

// modelSize is which scenarios are run: UNKNOT_MODEL=night adds those that take up to a minute each, large those that take
// minutes. Both have all mutants.
func modelSize() string {
	if s := os.Getenv("UNKNOT_MODEL"); s != "" {
		return s
	}
	return "quick"
}

// mutantNames lists the mutants, one in twelve of them unless UNKNOT_MODEL says more: compiling each takes time, too.
func mutantNames() (names []string, err error) {
	files, err := filepath.Glob(mutantDir + "/*.patch")
	for i, f := range files {
		if i%12 == 0 || modelSize() != "quick" {
			names = append(names, strings.TrimSuffix(filepath.Base(f), ".patch"))
		}
	}
	return names, err
}

func TestMain(m *testing.M) {
	code := m.Run()
	if modelTemp != "" {
		os.RemoveAll(modelTemp)
	}
	os.Exit(code)
}

var modelTemp string

func buildModelProgram() (string, error) {
	dir, err := os.MkdirTemp("", "ringmodel")
	if err != nil {
		return "", err
	}
	modelTemp = dir
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	names, err := mutantNames()
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		return "", err
	}
	files = slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, "_test.go") })

	// An overlay maps the path that the go command sees to the file that has the text.
	overlay := map[string]string{}
	put := func(path, text string) error {
		real := filepath.Join(dir, strings.ReplaceAll(path, "/", "_"))
		overlay[filepath.Join(here, overlaid, path)] = real
		return os.WriteFile(real, []byte(text), 0o644)
	}
	var imports, table strings.Builder
	for i, name := range names {
		patch, err := os.ReadFile(filepath.Join(mutantDir, name+".patch"))
		if err != nil {
			return "", err
		}
		hit := false
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return "", err
			}
			out, changed, err := applyPatch(string(patch), f, string(text))
			if err != nil {
				return "", fmt.Errorf("%s.patch: %w", name, err)
			}
			hit = hit || changed
			if err := put(fmt.Sprintf("m%d/%s", i, f), out); err != nil {
				return "", err
			}
		}
		if !hit {
			return "", fmt.Errorf("%s.patch changes nothing", name)
		}
		fmt.Fprintf(&imports, "\tm%d %q\n", i, fmt.Sprintf("%s%s/m%d", module, overlaid, i))
		fmt.Fprintf(&table, "\t%q: {m%d.ModelScenarios, m%d.ModelCheck},\n", name, i, i)
	}
	main := `package main

import (
	"fmt"
	"os"
	"time"

	"` + module + `internal/model"
	ring "` + strings.TrimSuffix(module, "/") + `"
` + imports.String() + `)

var forms = map[string]struct {
	names func(size string) []string
	check func(name string, limit int) (model.Result, error)
}{
	"ring": {ring.ModelScenarios, ring.ModelCheck},
` + table.String() + `}

// Arguments: what to check, which scenario, or "list" and a size. Output: one line, or the schedule that failed.
func main() {
	form, scenario := os.Args[1], os.Args[2]
	if scenario == "list" {
		for _, n := range forms[form].names(os.Args[3]) {
			fmt.Println(n)
		}
		return
	}
	start := time.Now()
	res, err := forms[form].check(scenario, 2e8)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Printf("%d states, %d steps, longest %d, %v\n", res.States, res.Steps, res.Depth, time.Since(start).Round(time.Millisecond))
}
`
	if err := put("main.go", main); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return "", err
	}
	config := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(config, list, 0o644); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "model")
	cmd := exec.Command(goCommand(), "build", "-trimpath", "-tags", "ringmodel", "-overlay", config, "-o", program, "./"+overlaid)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v\n%s", err, out)
	}
	return program, nil
}

// goCommand is the go command: that of GOROOT where it is set, as `go test`
// sets it, else what PATH has.
func goCommand() string {
	if root := os.Getenv("GOROOT"); root != "" {
		p := filepath.Join(root, "bin", "go")
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return "go"
}

// applyPatch applies the hunks of a unified diff that are meant for one file.
// Line numbers count for nothing; the text of each hunk must occur once.
func applyPatch(patch, file, text string) (string, bool, error) {
	mine, changed := false, false
	var from, to strings.Builder
	flush := func() error {
		if from.Len() == 0 {
			return nil
		}
		if n := strings.Count(text, from.String()); n != 1 {
			return fmt.Errorf("a hunk for %s matches %d times:\n%s", file, n, from.String())
		}
		text = strings.Replace(text, from.String(), to.String(), 1)
		from.Reset()
		to.Reset()
		changed = true
		return nil
	}
	for line := range strings.Lines(patch) {
		switch {
		case strings.HasPrefix(line, "--- "):
			if err := flush(); err != nil {
				return "", false, err
			}
			mine = false
		case strings.HasPrefix(line, "+++ "):
			mine = strings.TrimSpace(line[4:]) == "b/ring/"+file
		case strings.HasPrefix(line, "@@"):
			if err := flush(); err != nil {
				return "", false, err
			}
		case !mine:
		case line[0] == '-':
			from.WriteString(line[1:])
		case line[0] == '+':
			to.WriteString(line[1:])
		default:
			from.WriteString(line[1:])
			to.WriteString(line[1:])
		}
	}
	return text, changed, flush()
}

// runModel runs one scenario of one form of the ring and returns what it printed.
func runModel(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program, err := modelProgram()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(modelDeadline(), func() { cmd.Process.Kill() })
	defer timer.Stop()
	err = cmd.Wait()
	return out.String(), err
}

func modelDeadline() time.Duration {
	if modelSize() == "large" {
		return 30 * time.Minute
	}
	return 5 * time.Minute // some seconds on a quiet machine
}

func needGo(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath(goCommand()); err != nil {
		t.Skipf("the model checker is built here, which needs the go command: %v", err)
	}
}

// TestModel runs the ring's own source under every schedule of each scenario of the size that is asked for.
func TestModel(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the ring with its model")
	}
	needGo(t)
	names, err := runModel(t, "ring", "list", modelSize())
	if err != nil || names == "" {
		t.Fatalf("UNKNOT_MODEL=%s: %v\n%s", modelSize(), err, names)
	}
	for _, name := range strings.Fields(names) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := runModel(t, "ring", name)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Log(strings.TrimSpace(out))
		})
	}
}

// TestModelMutants checks the checker: each patch in testdata/mutants puts a defect
// into the ring, and at least one scenario must fail because of it.
func TestModelMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the ring with its mutants")
	}
	needGo(t)
	size := modelSize()
	if size == "large" {
		size = "night" // which catches them all
	}
	mutants, err := mutantNames()
	if err != nil || len(mutants) == 0 {
		t.Fatal("no mutants", err)
	}
	for _, mutant := range mutants {
		t.Run(mutant, func(t *testing.T) {
			t.Parallel()
			names, err := runModel(t, mutant, "list", size)
			if err != nil {
				t.Fatal(names, err)
			}
			for _, name := range strings.Fields(names) {
				if out, err := runModel(t, mutant, name); err != nil {
					what, _, _ := strings.Cut(out, "\n")
					t.Logf("caught by %s: %s", name, what)
					return
				}
			}
			t.Error("no scenario fails")
		})
	}
}
