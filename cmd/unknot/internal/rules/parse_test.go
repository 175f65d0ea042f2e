package rules

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/policy"
	"golang.org/x/sys/unix"
)

// examples are policies as users write them, beside those of examples/policy.
var examples = map[string]string{
	"all": `# Everything that there is.
default: errno EPERM
queue: 64
workers: 4
policy: drop-newest
pace: 5ms
wait-target: 2ms
drop-batch: 3
drop-errno: EAGAIN,read=EINTR,close=continue
max-in-handlers: 2
path: queue
cpu: 0
priority: raise
deadline: 2s
late: EIO
rules:
- calls: connect
  container: [web-*, db]
  metadata: build
  annotations:
    io.kubernetes.pod.namespace: kube-*
    "team": "?"
  where:
    sockaddr: [10.0.0.0/8, "*:53", "[::1]:1..1023", unix:/run/**, unix:@x*, netlink]
  do: deny ECONNREFUSED
  log: true
  deadline: 100ms
  late: EBUSY
- calls: [openat, openat2, open, creat]
  where: {path: "/usr/**"}
  do: open
  deadline: none
- calls: openat
  where: {flags: [O_CREAT|O_EXCL, O_WRONLY], mode: 0644}
  do: continue
- calls: kill
  where: {signal: [SIGKILL, 15], pid: ..-1}
  do: deny
- calls: all
  container: debug
  do: log
`,
}

// The examples in the tree and in the documentation are policies, and the simple ones short.
func TestParseExamples(t *testing.T) {
	all := map[string]string{"all": examples["all"]}
	files, err := filepath.Glob("../../../../examples/policy/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); n > 10 {
			t.Errorf("%s has %d lines", name, n)
		}
		all[name] = string(text)
	}
	doc, err := os.ReadFile("../../../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(doc), "```yaml\n")
	if len(blocks) < 2 {
		t.Error("no policy in the documentation")
	}
	for i, b := range blocks[1:] {
		all[fmt.Sprint("docs/policy.md, block ", i)], _, _ = strings.Cut(b, "```")
	}
	for name, text := range all {
		if _, err := Parse(name, []byte(text)); err != nil {
			t.Error(err)
		}
	}
}

// Check says what a policy does, and what of it may not be meant.
func TestCheck(t *testing.T) {
	var got strings.Builder
	for _, text := range []string{
		"default: continue\n", "default: log\nrules:\n- calls: all\n  container: x\n  do: errno EPERM\n",
		"default: continue\ndrop-errno: continue\nlate: continue\nrules:\n- calls: [mkdir, chmod]\n  where: {path: /a}\n  do: deny\n- calls: openat\n  late: EIO\n  do: inject /x\n",
		"default: errno EACCES\nrules:\n- calls: mkdir\n  where: {path: /a}\n  do: deny\n- calls: openat\n  where: {path: /a}\n  do: open\n",
	} {
		if err := Check(&got, "p.yaml", []byte(text)); err != nil {
			t.Error(err)
		}
	}
	golden(t, "testdata/check.golden", got.String())
	if err := Check(io.Discard, "p.yaml", nil); err == nil {
		t.Error("no error")
	}
}

// The settings are those that tune writes, and more.
func TestSettings(t *testing.T) {
	p, err := Parse("p", []byte(examples["all"]))
	if err != nil {
		t.Fatal(err)
	}
	cfg := engine.Config{Workers: 7}
	var o engine.SourceOptions
	p.Settings().Config(&cfg)
	p.Settings().Source(&o)
	if cfg.Queue != 64 || cfg.Workers != 4 || cfg.Policy != policy.DropNewest || cfg.Pace != 5*time.Millisecond || cfg.WaitTarget != 2*time.Millisecond || o.WaitTarget != 2*time.Millisecond || cfg.DropBatch != 3 || cfg.DropErrno != unix.EAGAIN ||
		cfg.DropErrnos[unix.SYS_READ] != unix.EINTR || cfg.DropErrnos[unix.SYS_CLOSE] != engine.DropContinue || cfg.Inline || cfg.CPU != engine.OnCPU(0) || !cfg.RaisePriority ||
		cfg.HandlerDeadline != 2*time.Second || cfg.DefaultErrno != unix.EIO || o.Queue != 64 || o.MaxInHandlers != 2 {
		t.Errorf("%+v, %+v", cfg, o)
	}
	// What all refuse must not continue for being dropped.
	if _, there := cfg.DropErrnos[unix.SYS_SETUID]; there {
		t.Errorf("setuid is refused, and continues when it is dropped")
	}
	if p, err = Parse("p", []byte("wait_target: 3ms\ndefault: continue\n")); err != nil || p.Settings().WaitTarget != 3*time.Millisecond {
		t.Errorf("wait_target: %v, %v", p.Settings().WaitTarget, err)
	}
	// What tune writes.
	p, err = Parse("p", []byte("# for wait-p99=10ms; measured: …\nqueue: 32\nworkers: 4\npolicy: drop-oldest\npace: auto\ndefault: continue\n"))
	if err != nil {
		t.Fatal(err)
	}
	cfg = engine.Config{Pace: 1}
	p.Settings().Config(&cfg)
	if cfg.Queue != 32 || cfg.Workers != 4 || cfg.Policy != policy.DropOldest || cfg.Pace != 0 || cfg.DropErrno != unix.EINTR || cfg.DropErrnos[unix.SYS_SETUID] != engine.DropContinue {
		t.Errorf("%+v", cfg)
	}
}

// refusals are policies with mistakes.
var refusals = []struct{ name, text string }{
	{"empty", ""},
	{"only a comment", "# x\n"},
	{"no default", "rules: []\n"},
	{"default is nothing", "default:\n"},
	{"default opens", "default: open\n"},
	{"a list", "- default: continue\n"},
	{"a text", "continue\n"},
	{"two documents", "default: continue\n---\ndefault: log\n"},
	{"syntax", "default: continue\nrules:\n- calls: [mkdir\n  do: log\n"},
	{"a tab", "default: continue\nrules:\n\t- calls: mkdir\n"},
	{"a zero byte", "default: continue\n\x00"},
	{"unknown keys", "default: continue\nrule: []\ntrap: [mkdir]\n"},
	{"unknown keys of a rule", "default: continue\nrules:\n- call: mkdir\n  calls: mkdir\n  do: log\n  if: x\n"},
	{"duplicate keys", "default: continue\nqueue: 3\ndefault: log\nrules:\n- calls: mkdir\n  do: log\n  do: continue\n- calls: rmdir\n  do: log\n  annotations: {a: b, a: c}\n"},
	{"wrong types", "default: [continue]\nqueue: many\nworkers: [3]\npace: {a: b}\nrules:\n- calls: {mkdir: x}\n  do: [log]\n  where: path\n  annotations: [a]\n  log: 1\n  container: {id: x}\n- mkdir\n"},
	{"rules is no list", "default: continue\nrules:\n  calls: mkdir\n"},
	{"rules is nothing", "default: continue\nrules:\n"},
	{"unknown calls", "default: continue\nrules:\n- calls: [mkdri, openat, frobnicate]\n  do: log\n"},
	{"calls twice", "default: continue\nrules:\n- calls: [mkdir, mkdir]\n  do: log\n- calls: [all, mkdir]\n  do: log\n- calls: []\n  do: log\n- do: log\n- calls: rmdir\n"},
	{"answers", "default: allow\nrules:\n- calls: mkdir\n  do: block\n- calls: rmdir\n  do: errno\n- calls: chmod\n  do: errno EPREM\n- calls: open\n  do: inject etc/hosts\n- calls: openat\n  do: inject\n- calls: mknod\n  do: continue please\n- calls: [openat, mkdir]\n  do: open\n- calls: all\n  do: inject /x\n"},
	{"arguments", "default: continue\nrules:\n- calls: [openat, mkdir]\n  where: {flags: O_CREAT}\n  do: deny\n- calls: openat2\n  where: {how: x}\n  do: deny\n- calls: all\n  where: {path: /x}\n  do: deny\n- calls: lseek\n  where: {fd: 3}\n  do: deny\n- calls: [open, symlink]\n  where: {path: /a}\n  do: deny\n- calls: mkdir\n  where: {}\n  do: deny\n- calls: [symlink, umount2]\n  where: {target: /a}\n  do: deny\n"},
	{"values", "default: continue\nrules:\n- calls: openat\n  where: {flags: [O_CRAET, O_RDONLY|O_RDWR, 1..0], path: [etc, \"/a[bc]\", /a/../b], dirfd: x}\n  do: deny\n- calls: connect\n  where: {sockaddr: [10.0.0.1/8, localhost, \"1.2.3.4:99999\", unix:x, \"[::1\"]}\n  do: deny\n- calls: chmod\n  where: {mode: rw}\n  do: deny\n"},
	{"settings", "default: continue\nqueue: 0\nworkers: \"4\"\ndrop-batch: -1\npolicy: drop\npace: soon\nwait-target: 0s\npath: fast\ncpu: first\npriority: high\nmax-in-handlers: 0\ndeadline: 5\nlate: EWHAT\ndrop-errno: EAGAIN,raed=EINTR\n"},
	{"drop-errno", "default: continue\ndrop-errno: 4\n"},
	{"limits of a rule", "default: continue\nrules:\n- calls: mkdir\n  do: log\n  deadline: 0s\n  late: 5\n"},
	{"unreachable", "default: continue\nrules:\n- calls: [mkdir, rmdir]\n  do: deny\n- calls: [rmdir, chmod]\n  where: {path: /x}\n  do: deny\n- calls: all\n  container: web-*\n  do: log\n- calls: mknod\n  container: web-7\n  do: deny\n- calls: all\n  container: web-*\n  do: continue\n"},
	{"unreachable by conditions", "default: continue\nrules:\n- calls: mkdir\n  where: {path: [/a/**, /b]}\n  do: deny\n- calls: mkdir\n  where: {path: /a/x, mode: 0}\n  do: deny\n- calls: mkdir\n  where: {path: /a/x/*}\n  do: deny\n"},
	{"looked at", "default: errno EPERM\nrules:\n- calls: openat\n  where: {path: /tmp/**}\n  do: continue\n- calls: connect\n  where: {sockaddr: 127.0.0.1}\n  do: log\n"},
	{"anchors", "default: continue\nrules:\n- &a\n  calls: mkdir\n  do: log\n- *a\n- calls: rmdir\n  container: *-web\n  do: log\n- calls: chmod\n  metadata: !x\n  do: log\n- <<: *a\n  calls: chown\n"},
	{"a bare star", "default: continue\nrules:\n- calls: *\n  do: log\n"},
	{"a question", "? default\n: continue\n"},
	{"patterns", "default: continue\nrules:\n- calls: mkdir\n  container: \"a{b,c}\"\n  metadata: \"x\\\\\"\n  annotations: {}\n  do: log\n"},
}

// Each thing that can be wrong is told with its place and what to do, all of a file at once.
func TestParseRefuses(t *testing.T) {
	var got strings.Builder
	for _, c := range refusals {
		_, err := Parse("p.yaml", []byte(c.text))
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		fmt.Fprintf(&got, "== %s\n%v\n", c.name, err)
	}
	golden(t, "testdata/refused.golden", got.String())
	for _, deep := range []string{strings.Repeat("[", 200<<10), "a: 1\n" + strings.Repeat("- ", 100<<10), strings.Repeat("{a: ", 50<<10)} {
		if _, err := Parse("p", []byte(deep)); err == nil || !strings.Contains(err.Error(), "deep") {
			t.Errorf("deep: %v", err)
		}
	}
	if _, err := Parse("p", make([]byte, 2<<20)); err == nil || !strings.Contains(err.Error(), "is it the right file?") {
		t.Errorf("two megabytes: %v", err)
	}
}

var update = flag.Bool("update", false, "write the golden files")

// golden compares got with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || got != string(want) {
		t.Errorf("%s: %v; go test -update writes it, and here is what it was now:\n%s", name, err, got)
	}
}
