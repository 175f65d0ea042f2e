package machine

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func BenchmarkNothing(b *testing.B) {}

// TestGoTestPrintsTheSameCPU asks this very binary.
func TestGoTestPrintsTheSameCPU(t *testing.T) {
	out, err := exec.Command(os.Args[0], "-test.run", "^$", "-test.bench", "Nothing", "-test.benchtime", "1x").Output()
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for l := range strings.Lines(string(out)) {
		if v, ok := strings.CutPrefix(strings.TrimSuffix(l, "\n"), "cpu: "); ok {
			got = v
		}
	}
	if want := GoTestCPU(); got != want {
		t.Errorf("go test prints the CPU %q, we %q", got, want)
	}
}
