package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/launch"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// TestMain turns the test binary into the command itself where a test needs a
// real process: for its exit status, or for what it runs under.
func TestMain(m *testing.M) {
	storm.Main()
	launch.Init()
	confineMain()
	testchild.Init(testchild.Roles{"soak": soakContainer})
	switch mode := os.Getenv("UNKNOT_TEST_MAIN"); {
	case mode == "":
		searchablePath()
		_ = flag.Set("test.parallel", "4") // tests wait for children, most of the time
		testscript.Main(m, scriptPrograms)
	case mode == "without-seccomp":
		mainWithoutSeccomp()
	case strings.HasPrefix(mode, refusing):
		mainRefused(mode)
	}
	os.Unsetenv("UNKNOT_TEST_MAIN")
	main()
}

// searchablePath takes out of PATH what this user may not search, as folders of root
// after su: because of them execvp(3) says EACCES of a program that is nowhere.
func searchablePath() {
	dirs := slices.DeleteFunc(filepath.SplitList(os.Getenv("PATH")), func(dir string) bool {
		return errors.Is(unix.Access(dir, unix.X_OK), unix.EACCES)
	})
	os.Setenv("PATH", strings.Join(dirs, string(os.PathListSeparator)))
}

// mainWithoutSeccomp is the command on a kernel without seccomp(2).
func mainWithoutSeccomp() {
	if err := hideSeccomp(); err != nil {
		fmt.Fprintln(os.Stderr, "hide seccomp:", err)
		os.Exit(99)
	}
	os.Unsetenv("UNKNOT_TEST_MAIN")
	main()
}

// hideSeccomp makes seccomp(2) fail with ENOSYS in the whole process, which is
// what a trapped call does once its listener is closed.
func hideSeccomp() error {
	prog, err := notify.TrapProgram(unix.SYS_SECCOMP)
	if err != nil {
		return err
	}
	l, err := notify.Install(prog, notify.TSync)
	if err != nil {
		return err
	}
	return l.Close()
}

// inProcess runs the command line in this process.
func inProcess(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// asProcess runs it in a process of its own.
func asProcess(t *testing.T, mode string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*hung)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "UNKNOT_TEST_MAIN="+mode)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestCommandLines(t *testing.T) {
	for _, c := range []struct {
		args   string
		code   int
		stdout string // what it contains; "" for nothing at all
		stderr string
	}{
		{"", 2, "", "Usage:"},
		{"help", 0, "Available Commands:", ""},
		{"--help", 0, "Available Commands:", ""},
		{"help version", 0, "print the versions", ""},
		{"version --help", 0, "print the versions", ""},
		{"help nonsense", 2, "", `unknot: no command "nonsense": there are bench, calibrate, compare, completion, confine, doctor`},
		{"nonsense", 2, "", `unknot: no command "nonsense"`},
		{"vresion", 2, "", `unknot: no command "vresion": did you mean version?`},
		{"--nonsense", 2, "", "unknot: unknown flag: --nonsense (see: unknot --help)"},
		{"version --nonsense", 2, "", "unknot: unknown flag: --nonsense (see: unknot version --help)"},
		{"version x", 2, "", "unknot version"},
		{"version", 0, "libseccomp", ""},
		{"version --machine", 0, "cpu", ""},
		{"doctor x", 2, "", "(see: unknot doctor --help)"},
		{"doctor --format", 2, "", "flag needs an argument: --format"},
		{"doctor --format xml", 2, "", `unknot: no format "xml": there are text and json`},
		{"completion", 2, "", "completion for which shell?"},
		{"completion nonsense", 2, "", "bash, fish, powershell, zsh"},
		{"completion bash", 0, "__start_unknot", ""},
		{"completion fish", 0, "complete -c unknot", ""},
		{"completion zsh", 0, "#compdef unknot", ""},
	} {
		code, stdout, stderr := inProcess(strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("unknot %s: exit code %d, want %d", c.args, code, c.code)
		}
		for _, o := range []struct{ name, got, want string }{{"output", stdout, c.stdout}, {"errors", stderr, c.stderr}} {
			if o.want == "" && o.got != "" || !strings.Contains(o.got, o.want) {
				t.Errorf("unknot %s: %s:\n%s\nwant %q", c.args, o.name, o.got, o.want)
			}
		}
		if strings.HasPrefix(stderr, "unknot:") && strings.Count(stderr, "\n") != 1 {
			t.Errorf("unknot %s: more than one line of error:\n%s", c.args, stderr)
		}
	}
}

func TestExitCodes(t *testing.T) {
	defer func(old []func() *cobra.Command) { subcommands = old }(subcommands)
	for _, c := range []struct {
		err    error
		code   int
		stderr string
	}{
		{nil, 0, ""},
		{errors.New("it broke"), 1, "unknot: it broke\n"},
		{errors.New("it broke\nin two places\n"), 1, "unknot: it broke; in two places\n"},
		{usageErrorf("no such thing %q", "x"), 2, "unknot: no such thing \"x\"\n"},
		{&exitError{Code: 7}, 7, ""}, // a supervised command's status, which is no error
		{&exitError{Code: 127, Err: errors.New("no command x")}, 127, "unknot: no command x\n"},
		{fmt.Errorf("supervise: %w", &exitError{126, errors.New("not executable")}), 126, "unknot: supervise: not executable\n"},
	} {
		subcommands = []func() *cobra.Command{func() *cobra.Command {
			return &cobra.Command{Use: "try", RunE: func(*cobra.Command, []string) error { return c.err }}
		}}
		if code, stdout, stderr := inProcess("try"); code != c.code || stdout != "" || stderr != c.stderr {
			t.Errorf("%v: code %d, output %q, errors %q", c.err, code, stdout, stderr)
		}
	}
}

// TestProcessExitCodes: what run returns is the process's status.
func TestProcessExitCodes(t *testing.T) {
	for args, want := range map[string]int{"version": 0, "nonsense": 2, "doctor --format xml": 2} {
		if code, _, stderr := asProcess(t, "plain", strings.Fields(args)...); code != want {
			t.Errorf("unknot %s: status %d, want %d: %s", args, code, want, stderr)
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, unix.ENOSPC }

func TestOutputThatCannotBeWritten(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"version", "--machine"}, {"doctor"}, {"doctor", "--format", "json"}} {
		var errs bytes.Buffer
		if code := run(context.Background(), args, strings.NewReader(""), brokenWriter{}, &errs); code != 1 || !strings.Contains(errs.String(), "no space left") {
			t.Errorf("%v: code %d, %q", args, code, errs.String())
		}
	}
}

func TestMachineSlug(t *testing.T) {
	for model, want := range map[string]string{
		"Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz": "intel-xeon-platinum-8375c-cpu-2-90ghz",
		"AMD EPYC": "amd-epyc", "arm64": "arm64", "../../Etc  _ß": "etc",
	} {
		if got := slug(model); got != want {
			t.Errorf("%q: %q, want %q", model, got, want)
		}
	}
	if a, b := machineSlug(), machineSlug(); a != b || strings.ContainsAny(a, "/ .") || !strings.HasSuffix(a, "cpu") {
		t.Errorf("%q, %q", a, b)
	}
}

// Every subcommand is documented and has nothing to say before it is asked.
func TestSubcommandsAreDocumented(t *testing.T) {
	var names []string
	for _, c := range newRootCmd(nil, nil, nil).Commands() {
		names = append(names, c.Name())
		if c.Short == "" || c.RunE == nil && c.Run == nil {
			t.Errorf("%s: no short description, or nothing to run", c.Name())
		}
	}
	for _, want := range []string{"completion", "doctor", "help", "version"} {
		if !slices.Contains(names, want) {
			t.Errorf("no command %s", want)
		}
	}
}

// What the caller has ignored stays ignored, by the subcommand's own children too:
// here each of them sends it to the command.
func TestIgnoredSignals(t *testing.T) {
	t.Parallel()
	const interrupts, result = `kill -INT $PPID; kill -INT $$; `, `echo BenchmarkX 1 1 ns/op`
	for _, c := range []struct {
		before, send string
		code         int
	}{{"trap '' INT TERM", interrupts + `kill -TERM $PPID; kill -TERM $$; `, 0}, {":", interrupts, 2}} {
		if c.code != 0 && signal.Ignored(unix.SIGINT) {
			continue // ours did, and a shell cannot undo it
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*hung)
		defer cancel()
		cmd := exec.CommandContext(ctx, "sh", "-c", c.before+`; exec "$UNKNOT" "$@"`, "sh", "calibrate", "--rounds", "4", "--comparisons", "5", "-o", t.TempDir()+"/floor.json", c.send+result)
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(os.Environ(), "UNKNOT_TEST_MAIN=plain", "UNKNOT="+exe)
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != c.code {
			t.Errorf("after %s: exit code %d, want %d (%v): %s", c.before, code, c.code, err, out)
		}
	}
}
