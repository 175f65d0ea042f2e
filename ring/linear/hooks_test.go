//go:build !ringchaos

package linear

import (
	"os/exec"
	"testing"
)

// TestWithHooks runs the tests of this package in a build of the ring that has hooks in its windows: without them
// goroutines hardly ever meet in an interesting order.
func TestWithHooks(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles another build")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skipf("the ring is built with hooks here, which needs the go command: %v", err)
	}
	t.Parallel()
	out, err := exec.Command("go", "test", "-count=1", "-timeout=10m", "-vet=off", "-tags", "ringchaos", "-v", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
