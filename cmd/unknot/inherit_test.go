//go:build cgo

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A difference is one between a process that was started bare and one that run
// started. docs/run.md has the same table.
type difference struct {
	fact  string // of testdata/inherit.c
	after string // the set-ups it is seen after: a regular expression, "" for all
	what  string // in words, for docs/run.md
	why   string
}

var differences = []difference{
	{"process id", "", "the process id is another than that of the process that was started", "unknot is that process"},
	{"parent", "", "the parent is the guard", "it is what stays between unknot and the command"},
	{"leads its process group", "", "the command leads no process group", "unknot may, and the command is in it"},
	{"leads its session", "", "the command leads no session", "unknot may, and the command is in it"},
	{"seccomp mode", "", "the seccomp mode is 2", "that is the filter"},
	{"status Seccomp_filters", "", "one seccomp filter more", "that is the filter"},
	{"no_new_privs", "", "no_new_privs is set, without CAP_SYS_ADMIN", "the kernel installs no filter without one of the two"},
	{"nice value", "sched_reset_on_fork", "a negative nice value becomes 0, without CAP_SYS_NICE", "SCHED_RESET_ON_FORK has it reset at the guard's fork, and the kernel refuses to raise it again"},
	{"scheduling policy", "sched_rr_reset_on_fork", "a real-time policy becomes the normal one, without CAP_SYS_NICE", "as above"},
	{"real-time priority", "sched_rr_reset_on_fork", "so does its priority", "as above"},
}

// notStarted are set-ups after which run may not start the command, for want of
// what the supervisor needs. It says so in one line, with the remedy.
var notStarted = []string{"limit_as_100m", "limit_as_4g", "limit_data_64m"}

// TestRunInheritance compares what a process has that was started bare and below run, after each of many set-ups: by
// one user in one place, every other one and in turn; with -long all by all of them everywhere.
func TestRunInheritance(t *testing.T) {
	if testing.Short() {
		t.Skip("starts 200 processes; what it finds is a matter of C and of the kernel")
	}
	dir, err := os.MkdirTemp("", "inherit")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // other users run what is in it
		t.Fatal(err)
	}
	probe, unknot := filepath.Join(dir, "inherit"), filepath.Join(dir, "unknot")
	compileC(t, "testdata/inherit.c", probe)
	copyFile(t, "/proc/self/exe", unknot, 0o755)
	out, err := exec.Command(probe, "setups").Output()
	if err != nil {
		t.Fatal(err)
	}
	setups := strings.Fields(string(out))
	if len(setups) < 70 {
		t.Fatalf("%d set-ups", len(setups))
	}
	for k, user := range []string{"root", "normal"} {
		for l, where := range []string{"terminal", "none"} {
			t.Run(user+"/"+where, func(t *testing.T) {
				if user == "root" && os.Getuid() != 0 {
					t.Skip("not root")
				}
				t.Parallel()
				h := heir{dir: filepath.Join(dir, user+"-"+where), terminal: where == "terminal", normal: user == "normal"}
				if err := errors.Join(os.Mkdir(h.dir, 0o777), os.Chmod(h.dir, 0o777)); err != nil {
					t.Fatal(err)
				}
				every := 8
				if *long {
					every = 1
				} else if os.Getuid() != 0 {
					every = 4 // there is no root
				}
				for i, setup := range setups {
					if i%every != (4*k+2*l)%every {
						continue
					}
					bare, status, said := h.facts(t, probe, "with", setup, probe, "facts", h.file(), "x")
					if status != 0 {
						if status != 97 { // it cannot be done here
							t.Errorf("%s: bare: status %d: %s", setup, status, said)
						}
						continue
					}
					below, status, said := h.facts(t, probe, "with", setup, unknot, "run", "--quiet", "--", probe, "facts", h.file(), "x")
					if slices.Contains(notStarted, setup) && status == 1 && len(below) == 0 {
						if strings.Count(said, "\n") != 1 || !strings.Contains(said, "(ulimit ") {
							t.Errorf("%s: it does not start, and says %q", setup, said)
						}
						continue
					}
					if status != 0 || said != "" {
						t.Errorf("%s: status %d, says %q", setup, status, said)
						continue
					}
					if len(bare) < 100 {
						t.Fatalf("%s: %d facts", setup, len(bare))
					}
					for _, fact := range slices.Sorted(maps.Keys(merged(bare, below))) {
						if bare[fact] != below[fact] && !allowed(fact, setup) {
							t.Errorf("%s: %s: %.100q bare, %.100q below run", setup, fact, bare[fact], below[fact])
						}
					}
				}
			})
		}
	}
}

func merged(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

func allowed(fact, setup string) bool {
	return slices.ContainsFunc(differences, func(d difference) bool {
		return d.fact == fact && (d.after == "" || regexp.MustCompile("^("+d.after+")$").MatchString(setup))
	})
}

// An heir is how processes are started: by whom, and where.
type heir struct {
	dir              string
	terminal, normal bool
}

func (h heir) file() string { return filepath.Join(h.dir, "facts") }

// facts runs a program that writes facts, or that becomes one.
func (h heir) facts(t *testing.T, args ...string) (facts map[string]string, status int, said string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(h.file(), nil, 0o666), os.Chmod(h.file(), 0o666)); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), args[0], args[1:]...)
	c.Dir = h.dir
	c.Env = append(os.Environ(), unknotEnv+"=1", "SEE_DIR="+h.dir, "GORACE=atexit_sleep_ms=0")
	var shown func() string
	if h.terminal {
		master, slave := newPTY(t)
		c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		defer slave.Close()
		shown = func() string {
			_ = slave.Close()
			b, _ := io.ReadAll(master) // EIO once nobody has the other end
			_ = master.Close()
			return strings.ReplaceAll(string(b), "\r\n", "\n")
		}
	} else {
		stderr, err := os.Create(filepath.Join(h.dir, "stderr"))
		if err != nil {
			t.Fatal(err)
		}
		c.Stdout, c.Stderr = stderr, stderr
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		shown = func() string {
			b, err := os.ReadFile(stderr.Name())
			if err != nil {
				t.Fatal(err)
			}
			_ = stderr.Close()
			return string(b)
		}
	}
	if h.normal && os.Getuid() == 0 {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(hung, func() { killSession(c.Process.Pid) })
	defer timer.Stop()
	ws := waited(t, c)
	if ws.Signaled() {
		t.Errorf("%v: %v", args[2:], ws.Signal())
	}
	said = shown()
	b, err := os.ReadFile(h.file())
	if err != nil {
		t.Fatal(err)
	}
	facts = map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		facts[name] = value
	}
	return facts, ws.ExitStatus(), said
}

// compileC compiles a C program, or skips the test where that cannot be done.
func compileC(t *testing.T, source, to string) {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no cc in PATH")
	}
	if out, err := exec.Command(cc, "-O1", "-o", to, source).CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", source, err, out)
	}
}

// TestRunDocumentsWhatDiffers holds the table of docs/run.md against ours.
func TestRunDocumentsWhatDiffers(t *testing.T) {
	b, err := os.ReadFile("../../docs/run.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	want.WriteString("| what differs | seen | why |\n|---|---|---|\n")
	for _, d := range differences {
		fmt.Fprintf(&want, "| %s | %s | %s |\n", d.what, d.seen(), d.why)
	}
	if !strings.Contains(string(b), want.String()) {
		t.Errorf("docs/run.md has not this table:\n%s", want.String())
	}
}

func (d difference) seen() string {
	if d.after == "" {
		return "always"
	}
	return "after " + strings.ReplaceAll(d.after, "|", ", ")
}
