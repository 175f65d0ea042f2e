package confine

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// live runs a scenario in a child and returns what came of it: "" if it went
// as it should, "killed" by SIGSYS, or what else.
func live(t *testing.T, o order, env ...string) string {
	t.Helper()
	s, ok := scenarios[o.Name]
	if !ok {
		t.Fatalf("no scenario %q", o.Name)
	}
	c := o.start(t, "scenario", append(slices.Clone(s.env), env...)...)
	said, err := c.Hear()
	ws := c.Wait()
	switch {
	case ws.Signaled() && ws.Signal() == unix.SIGSYS:
		return "killed"
	case err == nil && said == "confined" && ws.Exited() && ws.ExitStatus() == s.exit:
		return ""
	}
	return fmt.Sprintf("said %q, %v, status %#x: %s", said, err, int(ws), c.Stderr())
}

var (
	without = flag.String("without", "", "leave this rule out of TestScenarios, to find what needs it")
	long    = flag.Duration("for", shortly, "how long scenarios without an end of their own go on; for longer, other tests do more as well")
)

const shortly = 150 * time.Millisecond

// thorough says that the tests may take minutes.
func thorough() bool { return *long > shortly }

func TestScenarios(t *testing.T) {
	for name, s := range scenarios {
		for _, c := range []Config{{}, {Signals: Strict}, {Level: Shared}} {
			switch {
			case strings.HasPrefix(name, "set"):
				c.UIDs, c.GIDs = nobody, nobody
				if os.Getuid() != 0 || c.Signals == Strict {
					continue // changing ids needs root; strict refuses
				}
			case c.Signals == Strict && (name == "signal" || name == "nil"):
				continue // TestPanicsAreShown has what becomes of them
			case c.Level == Shared && (name == "close" || !strings.HasPrefix(name, "storm") && s.beside == nil):
				continue // the level matters to descriptors
			}
			t.Run(fmt.Sprintf("%s/%v/%v", name, c.Level, c.Signals), func(t *testing.T) {
				t.Parallel()
				if got := live(t, order{Config: c, Name: name, OwnLog: true, For: *long, Without: []string{*without}}); got != "" {
					t.Error(got)
				}
			})
		}
	}
}
