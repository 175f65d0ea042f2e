package rules

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/syscalls"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	testchild.Main(m, testchild.Roles{"caller": childCaller})
}

func mustParse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func box(id string) agent.State { return agent.State{Container: agent.Container{ID: id}} }

// childCaller is a thread under a filter that traps the calls that it is told by number, and obeys:
//
//	NAME ARG …   makes that call; an argument is a number, or text after a colon, or bytes in hexadecimal after a #; says
//	             the result, and of a descriptor what can be read there
//	times N NAME ARG …
//	in DIR, root DIR   go there
func childCaller(c *testchild.Conn, args []string) error {
	done := make(chan error, 1)
	osthread.Start(func() { done <- caller(c, args) })
	return <-done
}

func caller(c *testchild.Conn, args []string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	var nrs []int
	for _, a := range args {
		if nr, ok := syscalls.Native().Number(a); ok {
			nrs = append(nrs, int(nr))
		}
	}
	prog, err := notify.TrapProgram(nrs...)
	if err != nil {
		return err
	}
	l, err := notify.Install(prog, 0)
	if err != nil {
		return err
	}
	if err := notify.SendListener(c.UnixConn, l); err != nil {
		return err
	}
	_ = l.Close()
	for {
		line, err := c.Hear()
		if err != nil {
			return nil // the test is over
		}
		if err := c.Say("%s", obey(strings.Fields(line))); err != nil {
			return err
		}
	}
}

func obey(words []string) string {
	times := 1
	if words[0] == "times" {
		times, _ = strconv.Atoi(words[1])
		words = words[2:]
	}
	switch words[0] {
	case "in":
		return fmt.Sprint(unix.Chdir(words[1]))
	case "root":
		return fmt.Sprint(unix.Chroot(words[1]))
	}
	nr, ok := syscalls.Native().Number(words[0])
	if !ok {
		return "no such call"
	}
	var args []any
	for _, w := range words[1:] {
		if text, ok := strings.CutPrefix(w, ":"); ok {
			args = append(args, text)
		} else if text, ok := strings.CutPrefix(w, "#"); ok {
			b, _ := hex.DecodeString(text)
			args = append(args, b)
		} else {
			n, _ := strconv.ParseInt(w, 0, 64)
			args = append(args, int(n))
		}
	}
	var v uintptr
	var errno unix.Errno
	for range times {
		v, errno = raw(uintptr(nr), args...)
	}
	if errno != 0 {
		return unix.ErrnoName(errno)
	}
	if !strings.HasPrefix(words[0], "open") && words[0] != "creat" {
		return fmt.Sprint(v)
	}
	flags, err := unix.FcntlInt(v, unix.F_GETFD, 0)
	var b [100]byte
	n, _ := unix.Pread(int(v), b[:], 0)
	return fmt.Sprintf("%q cloexec=%d %v", b[:max(0, n)], flags&unix.FD_CLOEXEC, err)
}

// A caller is such a child under a real engine.
type kernel struct {
	*testchild.Child
	t      *testing.T
	e      *engine.Engine
	router *Router
	audit  *Audit
	log    bytes.Buffer
	stop   func()
}

func newKernel(t *testing.T, policy string, change func(*engine.Config), calls ...string) *kernel {
	t.Helper()
	k := &kernel{t: t, Child: testchild.Start(t, "caller", calls...)}
	l, err := notify.RecvListener(k.UnixConn)
	if err != nil {
		t.Fatal(err)
	}
	k.audit = NewAudit(&k.log, AuditOptions{})
	k.router = NewRouter(mustParse(t, policy), k.audit)
	cfg := engine.Config{Handler: k.router, Workers: 2}
	k.router.Policy().Settings().Config(&cfg)
	if change != nil {
		change(&cfg)
	}
	if k.e, err = engine.New(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err = k.e.AddWith(l, engine.SourceOptions{Tag: NewTag(box("box"))}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.e.Run(ctx) }()
	stopped := false
	k.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if c := k.e.Counters(); c.Balance() != 0 || c.Unanswered+c.DuplicateAnswers+c.Spent+c.Panicked+c.Failed > 0 {
			t.Errorf("%+v", c)
		}
		_ = k.audit.Close()
	}
	t.Cleanup(k.stop)
	return k
}

func (k *kernel) do(line, want string) {
	k.t.Helper()
	k.MustSay("%s", line)
	if got := k.MustHear(); got != want {
		k.t.Errorf("%s: %s, want %s", line, got, want)
	}
}

func (k *kernel) records() (all []map[string]any) {
	k.t.Helper()
	k.stop()
	for line := range strings.Lines(k.log.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			k.t.Errorf("%v: %s", err, line)
		}
		all = append(all, r)
	}
	return all
}

// files makes files with their names in them.
func files(t *testing.T, names ...string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(n)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, n), []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// The target's open is answered with another file, as its own flags say, or in its place.
func TestOpenAndInject(t *testing.T) {
	dir := files(t, "mine", "other", "secret", "sub/secret", "elsewhere/secret", "elsewhere/deep/x")
	if err := os.Symlink("elsewhere/deep", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	k := newKernel(t, strings.ReplaceAll(`default: errno EACCES
rules:
- calls: [open, openat, openat2, creat]
  where: {path: DIR/mine}
  do: inject DIR/other
  log: true
- calls: [open, openat, openat2, creat]
  where: {path: [DIR/secret, DIR/new*, DIR/none]}
  do: open
`, "DIR", dir), nil, openers...)
	how := func(flags uint64, more string) string {
		return fmt.Sprintf("#%016x%032x%s", reverse(flags), 0, more)
	}
	k.do("openat -100 :"+dir+"/mine 0x80000", `"other" cloexec=1 <nil>`)
	k.do("openat -100 :"+dir+"/mine 0", `"other" cloexec=0 <nil>`)
	k.do("openat2 -100 :"+dir+"/mine "+how(0x80000, "")+" 24", `"other" cloexec=1 <nil>`)
	k.do("openat2 -100 :"+dir+"/mine "+how(0, "00")+" 25", `"other" cloexec=0 <nil>`)
	k.do("openat2 -100 :"+dir+"/mine "+how(0, "01")+" 25", "E2BIG")
	k.do("openat2 -100 :"+dir+"/mine "+how(0, "")+" 23", "EINVAL")
	k.do("openat2 -100 :"+dir+"/mine 8 24", "EFAULT")
	k.do("openat -100 8 0", "EFAULT")
	k.do("openat -100 :"+dir+"/mine 0x10000", map[bool]string{true: "ENOTDIR", false: `"other" cloexec=0 <nil>`}[unix.O_DIRECTORY == 0x10000])
	k.do("openat -100 :"+dir+"/sub/../secret 0", `"secret" cloexec=0 <nil>`)
	k.do("openat -100 :"+dir+"/sub/secret 0", "EACCES")
	k.do("openat -100 :"+dir+"/none 0", "ENOENT")
	k.do("openat -100 :"+dir+"/new1 0102 0600", `"" cloexec=0 <nil>`)
	if st, err := os.Stat(dir + "/new1"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("created: %v, %v", st, err)
	}
	// By a name below the working directory, and below a descriptor.
	k.do("in "+dir+"/sub", "<nil>")
	k.do("openat -100 :../secret 0", `"secret" cloexec=0 <nil>`)
	k.do("openat -100 :secret 0", "EACCES")
	k.do("openat -100 :../mine 0", `"other" cloexec=0 <nil>`)
	k.do("openat 77 :secret 0", "EBADF")
	// What the rule compared is opened, also where the kernel would have gone another way.
	k.do("openat -100 :"+dir+"/link/../secret 0", `"secret" cloexec=0 <nil>`)
	// Below a directory that is taken for the root, which is not what the rules' paths are.
	inRoot := fmt.Sprintf("#%032x%016x", 0, reverse(unix.RESOLVE_IN_ROOT))
	k.do("openat2 -100 :/../../secret "+inRoot+" 24", "EACCES") // sub/secret
	k.do("in "+dir, "<nil>")
	k.do("openat2 -100 :/../secret "+inRoot+" 24", "ENOSYS")
	k.do("openat2 -100 :/mine "+inRoot+" 24", `"other" cloexec=0 <nil>`)
	k.do("openat2 -100 :"+dir+"/mine "+inRoot+" 24", "EACCES")
	if _, ok := syscalls.Native().Number("open"); ok {
		k.do("open :"+dir+"/mine 0", `"other" cloexec=0 <nil>`)
		k.do("creat :"+dir+"/new2 0644", `"" cloexec=0 <nil>`)
	}
	for _, r := range k.records() {
		failed := strings.HasPrefix(fmt.Sprint(r["answer"]), "E")
		if !failed && (r["answer"] != "inject" || r["file"] != dir+"/other") || failed && r["file"] != nil || r["container"] != "box" || r["comm"] == "" || r["pid"] == 0.0 {
			t.Errorf("%v", r)
		}
	}
}

// reverse is v with its bytes in memory's order, as a number that is written in hexadecimal.
func reverse(v uint64) (r uint64) {
	for range 8 {
		r, v = r<<8|v&0xff, v>>8
	}
	return r
}

// What a rule is told of paths are the target's, below its own root.
func TestPathsBelowARoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chroot takes root")
	}
	dir := files(t, "root/etc/passwd", "root/tmp/x")
	k := newKernel(t, "default: continue\nrules:\n- calls: openat\n  where: {path: /etc/passwd}\n  do: deny EROFS\n  log: true\n", nil, "openat")
	k.do("root "+dir+"/root", "<nil>")
	k.do("in /tmp", "<nil>")
	k.do("openat -100 :x 0", `"root/tmp/x" cloexec=0 <nil>`)
	k.do("openat -100 :../etc/passwd 0", "EROFS")
	k.do("openat -100 :/etc/passwd 0", "EROFS")
	if r := k.records(); len(r) != 2 {
		t.Errorf("%v", r)
	}
}

// An open that hangs is ended by its rule's deadline, or by the file's.
func TestLate(t *testing.T) {
	dir := files(t, "x")
	for _, name := range []string{"a", "b"} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k := newKernel(t, strings.ReplaceAll(`default: continue
deadline: 20ms
late: EIO
rules:
- calls: openat
  where: {path: DIR/a}
  deadline: 40ms
  late: EBUSY
  do: open
  log: true
- calls: openat
  where: {path: DIR/x}
  deadline: 10m
  do: open
  log: true
- calls: openat
  do: open
  log: true
`, "DIR", dir), nil, "openat")
	k.do("openat -100 :"+dir+"/a 0", "EBUSY")
	k.do("openat -100 :"+dir+"/b 0", "EIO")
	k.do("openat -100 :"+dir+"/x 0", `"x" cloexec=0 <nil>`)
	r := k.records()
	answers := map[any]int{} // a handler that is late writes its record later than the next one
	for _, r := range r {
		answers[r["answer"]]++
	}
	if len(r) != 3 || answers["late"] != 2 || answers["open"] != 1 {
		t.Errorf("%v", r)
	}
	if c := k.e.Counters(); c.Late != 2 {
		t.Errorf("%+v", c)
	}
}

// A rule's deadline is not for calls that only pass it, however long the look takes.
func TestLateIsForTheRulesOwnCalls(t *testing.T) {
	dir := files(t, "x")
	k := newKernel(t, strings.ReplaceAll(`default: continue
rules:
- calls: openat
  where: {path: DIR/a}
  deadline: 1us
  late: EBUSY
  do: open
- calls: openat
  do: open
`, "DIR", dir), nil, "openat")
	for range 500 {
		k.do("openat -100 :"+dir+"/x 0", `"x" cloexec=0 <nil>`)
	}
	if c := k.e.Counters(); c.Late != 0 {
		t.Errorf("%+v", c)
	}
}

// On a receive thread that has confined itself, what needs the target is done elsewhere.
func TestConfined(t *testing.T) {
	dir := files(t, "mine", "other")
	for _, inline := range []bool{true, false} {
		k := newKernel(t, strings.ReplaceAll("default: continue\nrules:\n- calls: openat\n  where: {path: DIR/mine}\n  do: inject DIR/other\n  log: true\n- calls: openat\n  where: {path: DIR/*}\n  do: deny EROFS\n- calls: openat\n  do: log\n- calls: getppid\n  do: errno EDOM\n", "DIR", dir), func(cfg *engine.Config) {
			cfg.Inline = inline
			cfg.ThreadHook = func(engine.Thread) error {
				osthread.SetConfined([]uint32{}) // it is not, but says so
				return nil
			}
		}, "openat", "getppid")
		k.do("openat -100 :"+dir+"/mine 0", `"other" cloexec=0 <nil>`)
		k.do("openat -100 :"+dir+"/x 0", "EROFS")
		k.do("openat -100 :/dev/null 0", `"" cloexec=0 <nil>`)
		k.do("getppid", "EDOM")
		// Two workers may write in any order.
		answers := map[any]int{}
		for _, r := range k.records() {
			answers[r["answer"]]++
		}
		if len(answers) != 2 || answers["inject"] != 1 || answers["continue"] != 1 {
			t.Errorf("inline %v: %v", inline, answers)
		}
	}
}

// A call whose rules need no memory allocates nothing and takes no lock: it goes on while others hold those that there are.
func TestQuickAllocatesNothing(t *testing.T) {
	const calls = 4000
	for _, c := range []struct{ rules, want string }{
		{"default: continue\n", ""},
		{"default: continue\nrules:\n- calls: getppid\n  container: \"b*\"\n  do: errno EDOM\n", "EDOM"},
		{"default: errno EPERM\nrules:\n- calls: openat\n  where: {path: /x}\n  do: deny\n- calls: kill\n  where: {signal: [SIGKILL, SIGTERM], pid: 1..}\n  do: deny EBUSY\n- calls: kill\n  do: continue\n", ""},
	} {
		for _, inline := range []bool{true, false} {
			k := newKernel(t, c.rules, func(cfg *engine.Config) { cfg.Inline = inline }, "getppid", "kill")
			call := "getppid"
			if strings.Contains(c.rules, "kill") {
				call = "kill 0 0"
			}
			k.MustSay("times 10 %s", call) // the view is made
			k.MustHear()
			p := k.router.Policy()
			p.mu.Lock()
			k.audit.mu.Lock()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			k.MustSay("times %d %s", calls, call)
			if got := k.MustHear(); c.want != "" && got != c.want || c.want == "" && strings.HasPrefix(got, "E") {
				t.Errorf("%s: %s", call, got)
			}
			runtime.ReadMemStats(&after)
			p.mu.Unlock()
			k.audit.mu.Unlock()
			if got := after.Mallocs - before.Mallocs; got > calls/20 {
				t.Errorf("%s, inline %v: %d allocations for %d calls", c.rules, inline, got, calls)
			}
			k.stop()
		}
	}
}
