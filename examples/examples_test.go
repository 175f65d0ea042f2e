// Package examples has whole programs on package engine, a folder each; its test runs them.
package examples

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
)

// TestReadme: the README's program is examples/supervise, to the letter.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```go\n")
	shown, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("README.md has no program")
	}
	program, err := os.ReadFile("supervise/main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, want, _ := strings.Cut(string(program), "\n") // without its comment
	if shown != want {
		t.Errorf("README.md shows\n%s\nand examples/supervise is\n%s", shown, want)
	}
}

func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the programs")
	}
	if err := notify.FeatureContinue.Probe(); err != nil {
		t.Skip(err)
	}
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin+"/", "./supervise", "./openat", "./audit").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		args   []string
		want   string // a pattern of the whole output
		status int
	}{
		{[]string{"supervise", "id", "-u"}, `0\n`, 0},
		{[]string{"supervise", "sh", "-c", "exit 7"}, ``, 7},
		{[]string{"openat", "cat", "/hello", "/hello"}, `hello, thread (\d+)\nhello, thread (\d+)\n`, 0},
		{[]string{"openat", "cat", "/hello/no"}, `.*No such file or directory\n`, 1},
		{[]string{"audit", "sh", "-c", "/bin/echo hi; exec /bin/true"}, `(?s).*msg=execve thread=\d+ path=\S*/sh args="\[sh -c .*` +
			`path=/bin/echo args="\[/bin/echo hi\]"\nhi\n.*path=/bin/true args=\[/bin/true\]\n`, 0},
		{[]string{"audit", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/1"}, `(?s).*msg=connect thread=\d+ to=127.0.0.1:1\n.*`, 1},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			if _, err := exec.LookPath(c.args[1]); err != nil {
				t.Skip(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(bin, c.args[0]), c.args[1:]...)
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != c.status || !regexp.MustCompile("^"+c.want+"$").Match(out) {
				t.Errorf("status %d, want %d; output:\n%s\nwant %s", got, c.status, out, c.want)
			}
		})
	}
}
