package engine_test

import (
	"testing"

	"github.com/unknot/unknot/internal/osthread"
)

// severalCPUs are those that this process may use; with one there is nothing to be tested.
func severalCPUs(t *testing.T) []int {
	t.Helper()
	cpus := osthread.Allowed()
	if len(cpus) < 2 {
		t.Skip("with one CPU everybody is on it")
	}
	return cpus
}

// pinned binds all threads of the child, and those that they will start, to one CPU.
func (c *child) pinned(t *testing.T, cpu int) {
	t.Helper()
	for _, tid := range tasks(t, c.cmd.Process.Pid) {
		if err := osthread.Allow(tid, cpu); err != nil {
			t.Fatal(err)
		}
	}
}

// often is n, or a fifth of it where tests shall be short.
func often(n int) int {
	if testing.Short() {
		return n / 5
	}
	return n
}
