package confine

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestEachRuleIsNeeded leaves rules out, one at a time: the scenario that the
// rule names must die of it, and live with it. It keeps the table minimal when
// Go changes.
func TestEachRuleIsNeeded(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rules() {
		if _, here := r.nr(); seen[r.Key] || !here {
			continue
		}
		seen[r.Key] = true
		if r.Test == "" {
			if !regexp.MustCompile(`Linux [0-9]|Go 1\.|clock source`).MatchString(r.Why) {
				t.Errorf("%s: no test, and nobody is named who needs it: %s", r.Key, r.Why)
			}
			continue
		}
		t.Run(strings.ReplaceAll(r.Key, "/", "-"), func(t *testing.T) {
			t.Parallel()
			o := order{OwnLog: true, For: 5 * time.Second, Without: []string{r.Key}}
			build := ""
			o.Name, build, _ = strings.Cut(r.Test, " ")
			if build != "" && build != buildOf {
				t.Skipf("only %s", build)
			}
			switch r.Only {
			case "Profiling":
				o.Config.Profiling = true
			case "UIDs", "GIDs":
				if os.Getuid() != 0 {
					t.Skip("changing ids needs root")
				}
				o.Config.UIDs, o.Config.GIDs = nobody, nobody
			}
			// A few depend on what other threads do meanwhile, so that a run may
			// do without the call; how many do depends on how busy the machine is.
			var got string
			for try, begun := 0, time.Now(); got != "killed" && (try < 5 || time.Since(begun) < time.Minute); try++ {
				got = live(t, o)
			}
			if got != "killed" {
				t.Errorf("scenario %s without %s: %q, want killed", o.Name, r.Key, got)
			}
		})
	}
}

// nobody allows the process to become nobody.
var nobody = []IDPair{{From: 0, To: 65534}}
