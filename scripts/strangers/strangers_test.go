package strangers

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// oldest is the Go that the library may ask for. Raise the number where something of a newer Go is needed, and say so
// in CHANGELOG.md: each user has to follow.
const oldest = "1.25.0"

var builds = flag.Bool("builds", false, "compile large programs, too")

// A stranger is somebody else's computer: a module cache of its own, and a proxy that has unknot's modules as they
// are in this tree, and all others as this computer has them.
type stranger struct {
	dir, version string
	env          []string
}

func newStranger(t *testing.T) *stranger {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("the modules are made by git: ", err)
	}
	if out, err := exec.Command("git", "rev-parse", "HEAD").CombinedOutput(); err != nil {
		t.Skipf("the modules are made of a git repository: %v: %s", err, out)
	}
	s := &stranger{dir: t.TempDir()}
	proxy := filepath.Join(s.dir, "proxy")
	out, err := exec.Command("go", "run", "../proxy", "-o", proxy).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = errors.New(string(exit.Stderr))
		}
		t.Fatal("publish the modules: ", err)
	}
	s.version = strings.TrimSpace(string(out))
	here := goEnv(t, "GOMODCACHE", "GOPROXY", "GOCACHE")
	s.env = append(os.Environ(),
		"GOWORK=off", "GOTOOLCHAIN=local", "GOSUMDB=off", // the sums of others are checked where this tree is built
		"GOFLAGS=-modcacherw -trimpath -pgo=off -buildvcs=false", // so that the build cache serves the next run
		"GOCACHE="+here[2], "GOMODCACHE="+filepath.Join(s.dir, "mod"), "GOPATH="+filepath.Join(s.dir, "path"), "GOBIN="+filepath.Join(s.dir, "bin"),
		"GOPROXY=file://"+proxy+",file://"+filepath.Join(here[0], "cache", "download")+","+here[1])
	return s
}

func goEnv(t *testing.T, names ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// try runs the go command in the folder dir of the stranger.
func (s *stranger) try(dir string, args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join(s.dir, dir)
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (s *stranger) run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := s.try(dir, args...)
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// write makes the module name in a folder of that name. The test is skipped where modules that are not unknot's
// cannot be had.
func (s *stranger) write(t *testing.T, name, requires, program string) {
	t.Helper()
	dir := filepath.Join(s.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mod := "module example.com/" + name + "\n\ngo " + oldest + "\n\nrequire (\n" + requires + ")\n"
	for file, text := range map[string]string{"go.mod": mod, "main.go": program} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(requires) {
		if m := strings.Fields(line); !strings.HasPrefix(m[0], "github.com/unknot/") {
			if out, err := s.try(name, "mod", "download", m[0]+"@"+m[1]); err != nil {
				t.Skipf("neither the module cache nor a proxy has %s %s: %s", m[0], m[1], out)
			}
		}
	}
}

// TestSmallestUser: who imports the library gets x/sys and libseccomp-golang, and is asked for no newer Go than said.
func TestSmallestUser(t *testing.T) {
	if testing.Short() {
		t.Skip("downloads and compiles as somebody else")
	}
	t.Parallel()
	s := newStranger(t)
	s.write(t, "smallest", "\tgolang.org/x/sys v0.35.0\n\tgithub.com/seccomp/libseccomp-golang v0.11.1\n\tgithub.com/unknot/unknot "+s.version+"\n", `package main

import "github.com/unknot/unknot/engine/notify"

func main() { println(notify.FeatureNotify.Name) }
`)
	s.run(t, "smallest", "mod", "tidy")
	s.run(t, "smallest", "build", "-o", os.DevNull, ".")
	all := strings.Split(s.run(t, "smallest", "list", "-m", "all"), "\n")
	if len(all) > 4 {
		t.Errorf("go list -m all has %d lines, want 4:\n%s", len(all), strings.Join(all, "\n"))
	}
	if got := s.run(t, "smallest", "list", "-m", "-f", "{{.GoVersion}}", "github.com/unknot/unknot"); got != oldest {
		t.Errorf("the library asks for Go %s, want %s", got, oldest)
	}
	t.Log(strings.Join(all, "\n"))
}

// TestBesideOldModules: unknot lifts nobody's cilium/ebpf. With a newer one libcontainer 1.1.12 does not compile.
func TestBesideOldModules(t *testing.T) {
	t.Parallel()
	if !*builds {
		t.Skip("it compiles libcontainer, a minute on two CPUs: ask for it by -builds, as .ci/more does")
	}
	s := newStranger(t)
	s.write(t, "runtime", "\tgithub.com/cilium/ebpf v0.9.1\n\tgithub.com/opencontainers/runc v1.1.12\n\tgithub.com/unknot/unknot "+s.version+"\n", `package main

import (
	_ "github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/cgroups/manager"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/launch"
	"github.com/unknot/unknot/engine/notify"
)

func main() {
	_, _ = engine.New(engine.Config{})
	_, _ = notify.TrapProgram(39)
	_, _ = launch.Start(&launch.Command{Args: []string{"true"}}, nil, 0, nil)
}
`)
	s.run(t, "runtime", "build", "-mod=mod", "-o", os.DevNull, ".")
	for _, m := range []string{"github.com/cilium/ebpf v0.9.1", "github.com/opencontainers/runc v1.1.12"} {
		if got := s.run(t, "runtime", "list", "-mod=mod", "-m", strings.Fields(m)[0]); got != m {
			t.Errorf("the build has %s, want %s", got, m)
		}
	}
}

// TestInstall: go install of a version makes the command, which knows its version.
func TestInstall(t *testing.T) {
	t.Parallel()
	if !*builds {
		t.Skip("it compiles the command without a cache, a minute on two CPUs: ask for it by -builds, as .ci/more does")
	}
	s := newStranger(t)
	s.write(t, "nothing", "\tgithub.com/spf13/cobra v1.10.2\n", "package main\n\nfunc main() {}\n")
	s.run(t, ".", "install", "github.com/unknot/unknot/cmd/unknot@"+s.version)
	out, err := exec.Command(filepath.Join(s.dir, "bin", "unknot"), "version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), s.version) {
		t.Errorf("unknot version: %v: %q lacks %s", err, out, s.version)
	}
}
