package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/cmd/unknot/internal/status"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testchild"
	"github.com/unknot/unknot/internal/testgrowth"
	"golang.org/x/sys/unix"
)

var (
	soakFor     = flag.Duration("soak", 0, "how long TestSoakServe goes on; 0: for one cycle, with -long two")
	soakProgram = flag.String("soak-program", "", "the unknot that TestSoakServe soaks; otherwise the test's own")
)

// patiently waits for what must happen, and counts no time in which all of this was stopped. A long soak is one of the many
// that a machine has to do.
func patiently(so func() bool) bool {
	last, left := time.Now(), hung
	if *soakFor > 0 {
		left *= 4
	}
	for ; left > 0; time.Sleep(20 * time.Millisecond) {
		if so() {
			return true
		}
		now := time.Now()
		left -= min(now.Sub(last), time.Second)
		last = now
	}
	return false
}

// TestSoakServe is days of a daemon in a short time: containers come, call, storm, are interrupted, stopped and killed, and go,
// while policies change, files are rotated, the disk fills up and clients misbehave. One daemon goes on all the time. Another
// one is killed and replaced all the time. After each cycle all containers are gone, and both have to be as they were: it
// takes two to see.
func TestSoakServe(t *testing.T) {
	if testing.Short() {
		t.Skip("days of a daemon, in half a minute")
	}
	if err := notify.FeatureNotify.Probe(); err != nil {
		t.Skip(err)
	}
	for _, one := range []struct {
		name string
		soak func(*soak) *soakReport
	}{{"steady", (*soak).steady}, {"changing", (*soak).changing}} {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			s := newSoak(t, one.name == "steady")
			total := newSoakReport()
			for n := 0; s.more(n); n++ {
				s.cycle = n
				t.Run(fmt.Sprint("cycle ", n), func(t *testing.T) {
					s.t = t
					total.add(one.soak(s))
				})
				if s.t = t; t.Failed() {
					return
				}
			}
			s.ends()
			testgrowth.Flat(s.t, s.points, soakLimits, *soakFor > 0)
			t.Logf("%d containers; calls as expected %v; interrupted %v; ENOSYS %d; longest %v; %v",
				s.containers, sum(total.Done), sum(total.Interrupted), total.Without, total.Longest, s.counts)
		})
	}
}

func sum(m map[string]int) (n int) {
	for _, k := range m {
		n += k
	}
	return n
}

// A soak is one of the daemons, its containers and what it has to account for.
type soak struct {
	t     *testing.T
	begun time.Time
	cycle int
	step  time.Duration // some things last so long

	dir     string
	disk    *os.File // the directory of the audit file, on a file system of its own; nil: in dir
	audit   string
	client  *status.Client
	http    *http.Client
	daemons int // started by us so far
	all     []*exec.Cmd
	cmd     *exec.Cmd // the newest, and its end
	ended   chan struct{}
	box     *box   // for real containers; nil: they cannot be had
	bundle  string // of box

	rotated    int
	containers int
	records    map[string]map[string]int // of a cycle, by container and call
	names      map[string]int            // of all, by call; those that say gone are apart
	gone       map[string]int
	lost, torn int     // that the file says were dropped; lines that are no records
	unwritten  float64 // records that found no room, as the daemon counts them
	held       int     // calls of daemons that died
	counts     map[string]int
	points     []testgrowth.Point
}

// soakPolicies are taken in turn. The last one is none.
var soakPolicies = []string{`default: continue
queue: QUEUE
workers: 2
deadline: 20s
late: EIO
rules:
- calls: fchmodat
  do: errno ENOMEDIUM
- calls: [mkdir, mkdirat]
  where: {path: [DIR/denied/**, /denied/**]}
  do: deny EACCES
  log: true
- calls: openat2
  where: {path: DIR/in}
  do: inject DIR/out
  log: true
- calls: openat2
  where: {path: DIR/fifo}
  do: open
  deadline: 200ms
  log: true
- calls: openat2
  where: {path: DIR/opened}
  do: open
  log: true
- calls: [mkdir, mkdirat, getpgid, openat2]
  do: log
`, `default: continue
queue: QUEUE
workers: 2
deadline: 20s
late: EIO
rules:
- calls: fchmodat
  metadata: soak
  do: errno EBUSY
- calls: [mkdir, mkdirat]
  where: {path: [DIR/denied/**, /denied/*]}
  do: errno EACCES
  log: true
- calls: openat2
  where: {path: DIR/fifo}
  do: open
  deadline: 100ms
  log: true
- calls: openat2
  where: {path: [DIR/in, DIR/in/**]}
  do: inject DIR/out
  log: true
- calls: [mkdir, mkdirat, getpgid]
  do: log
- calls: openat2
  do: open
  log: true
`, `default: perhaps
rules: 7
`}

func newSoak(t *testing.T, steady bool) *soak {
	t.Helper()
	dir, err := os.MkdirTemp("", "soak") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the logs of all daemons are in %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	s := &soak{t: t, begun: time.Now(), dir: dir, step: 100 * time.Millisecond, records: map[string]map[string]int{}, names: map[string]int{}, gone: map[string]int{}, counts: map[string]int{}}
	if *soakFor > 0 {
		s.step = time.Second
	}
	exe := *soakProgram
	if exe == "" {
		exe, err = os.Executable()
	}
	if err == nil {
		exe, err = filepath.Abs(exe)
	}
	errs := []error{err, os.Chmod(dir, 0o755), os.Symlink(exe, dir+"/unknot"), unix.Mkfifo(dir+"/fifo", 0o644),
		os.Mkdir(dir+"/there", 0o755), os.Mkdir(dir+"/audit", 0o755), os.WriteFile(dir+"/beat", make([]byte, 8), 0o644)}
	for name, text := range map[string]string{"in": "none", "out": "injected", "opened": "opened", "plain": "plain"} {
		errs = append(errs, os.WriteFile(dir+"/"+name, []byte(text), 0o644))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	s.audit = dir + "/audit"
	if s.client, err = status.NewClient("unix:" + dir + "/status"); err != nil {
		t.Fatal(err)
	}
	s.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", dir+"/status")
	}}}
	s.beats()
	s.policy(0)
	s.start(steady && os.Geteuid() == 0)
	if os.Geteuid() == 0 {
		s.realContainers()
	}
	return s
}

// beats shows containers that we are not stopped.
func (s *soak) beats() {
	f, err := os.OpenFile(s.dir+"/beat", os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	s.t.Cleanup(func() {
		close(stop)
		<-stopped
		_ = f.Close()
	})
	go func() {
		defer close(stopped)
		for n := uint64(1); ; n++ {
			_, _ = f.WriteAt(binary.NativeEndian.AppendUint64(nil, n), 0)
			select {
			case <-stop:
				return
			case <-time.After(soakTick):
			}
		}
	}()
}

// more reports whether there is a next cycle.
func (s *soak) more(n int) bool {
	switch {
	case *soakFor == 0 && !*long:
		return n < 1
	case *soakFor == 0:
		return n < 2
	}
	return n < 4 || time.Since(s.begun) < *soakFor
}

// policy writes one of the policies.
func (s *soak) policy(i int) {
	s.t.Helper()
	queue := "64" // which is never full
	if s.disk != nil || strings.Contains(s.t.Name(), "steady") {
		queue = "4"
	}
	text := strings.NewReplacer("DIR", s.dir, "QUEUE", queue).Replace(soakPolicies[i])
	if err := os.WriteFile(s.dir+"/policy.yaml", []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// start starts the program, whose audit file may be on a small disk of its own.
func (s *soak) start(disk bool, args ...string) {
	s.t.Helper()
	args = append([]string{"serve", "--socket", s.dir + "/s", "--config", s.dir + "/policy.yaml", "--audit", s.audit + "/log",
		"--status", "unix:" + s.dir + "/status", "--confine", "best"}, args...)
	log, err := os.Create(s.log(s.daemons))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	c := exec.Command(s.dir+"/unknot", args...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if disk {
		script := `mount -t tmpfs -o size=64m none "$1" && shift && exec "$@"`
		c = exec.Command("/bin/sh", append([]string{"-c", script, "sh", s.audit, s.dir + "/unknot"}, args...)...)
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Unshareflags: unix.CLONE_NEWNS}
	}
	c.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	c.Stderr = log
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(ended)
	}()
	if s.daemons++; s.daemons == 1 {
		s.t.Cleanup(s.kill)
	}
	s.all, s.cmd, s.ended = append(s.all, c), c, ended
	s.says("msg=serving", 1)
	if disk {
		// The disk is there as long as somebody has a file of it.
		if s.disk, err = os.Open(fmt.Sprintf("/proc/%d/root%s", c.Process.Pid, s.audit)); err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { _ = s.disk.Close() })
	}
}

// kill ends what is left of the program.
func (s *soak) kill() {
	for _, c := range s.all {
		killSession(c.Process.Pid)
	}
	<-s.ended
}

func (s *soak) log(n int) string { return fmt.Sprintf("%s/log.%d", s.dir, n) }

// says waits until the newest log has n lines with a text.
func (s *soak) says(text string, n int) (said string) {
	s.t.Helper()
	over := false
	if !patiently(func() bool {
		select {
		case <-s.ended:
			over = true
		default:
		}
		b, _ := os.ReadFile(s.log(s.daemons - 1))
		said = string(b)
		return strings.Count(said, text) >= n || over && text == "msg=serving"
	}) || strings.Count(said, text) < n {
		s.t.Fatalf("does not say %q %d times: %s", text, n, said)
	}
	return said
}

// pid is the daemon's, which is the newest that serves.
func (s *soak) pid() int {
	s.t.Helper()
	said := s.says("msg=serving", 1)
	_, said, _ = strings.Cut(said[strings.LastIndex(said, "msg=serving"):], " pid=")
	said, _, _ = strings.Cut(said, "\n")
	pid, err := strconv.Atoi(said)
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

// in is a file beside the audit file.
func (s *soak) in(name string) string {
	if s.disk == nil {
		return s.audit + "/" + name
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", s.disk.Fd(), name)
}

// get is a page of the daemon's.
func (s *soak) get(path string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), hung)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://unknot"+path, nil)
	if err != nil {
		return "", err
	}
	r, err := s.http.Do(q)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = errors.New(r.Status)
	}
	return string(b), err
}

// metrics are all figures of the page, by name and labels.
func (s *soak) metrics() (map[string]float64, error) {
	text, err := s.get("/metrics")
	if err != nil {
		return nil, err
	}
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			if all[line[:i]], err = strconv.ParseFloat(strings.TrimSpace(line[i:]), 64); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// until waits until the daemon's figures are so. In between it may not answer.
func (s *soak) until(what string, so func(m map[string]float64) bool) (m map[string]float64) {
	s.t.Helper()
	var err error
	if !patiently(func() bool {
		m, err = s.metrics()
		return err == nil && so(m)
	}) {
		var figures []string
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if !strings.Contains(name, "_bucket{") && strings.HasPrefix(name, "unknot_") && !strings.HasPrefix(name, "unknot_s") {
				figures = append(figures, fmt.Sprint(name, " ", m[name]))
			}
		}
		s.t.Fatalf("not so: %s: %v\n%s", what, err, strings.Join(figures, "\n"))
	}
	return m
}

// scraped has the page asked all the time, until stop.
func (s *soak) scraped(mayFail bool) (stop func()) {
	done, over := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			_, err := s.metrics()
			if _, err2 := s.client.Snapshot(context.Background()); err == nil {
				err = err2
			}
			if err != nil && !mayFail {
				over <- err
				return
			}
			select {
			case <-done:
				over <- nil
				return
			case <-time.After(s.step):
			}
		}
	}()
	return func() {
		s.t.Helper()
		close(done)
		if err := <-over; err != nil {
			s.t.Errorf("the page does not answer: %v", err)
		}
	}
}

// reload has a policy taken, or refused.
func (s *soak) reload(i int) {
	s.t.Helper()
	what := `unknot_policy_reloads_total{outcome="taken"}`
	if i == len(soakPolicies)-1 {
		what = `unknot_policy_reloads_total{outcome="refused"}`
	}
	s.counts["reloads"]++
	s.policy(i)
	before := s.until("there are counts", func(m map[string]float64) bool { return true })[what]
	s.hup()
	s.until(what, func(m map[string]float64) bool { return m[what] == before+1 })
}

func (s *soak) hup() {
	s.t.Helper()
	if err := unix.Kill(s.cmd.Process.Pid, unix.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
}

// rotate renames the audit file, and reads it once a new one is there, and all records are written. Under load the old
// one may be written to for a moment.
func (s *soak) rotate() {
	s.t.Helper()
	s.rotated++
	old := s.in(fmt.Sprint("old.", s.rotated))
	if err := os.Rename(s.in("log"), old); err != nil {
		s.t.Fatal(err)
	}
	s.hup()
	if !patiently(func() bool {
		_, err := os.Stat(s.in("log"))
		return err == nil
	}) {
		s.t.Fatal("the audit file is not opened anew")
	}
}

// read counts what is in the files that were rotated, and removes them.
func (s *soak) read() {
	s.t.Helper()
	files, err := filepath.Glob(s.in("old.*"))
	if err != nil || len(files) == 0 {
		s.t.Fatal("no files: ", err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			s.t.Fatal(err)
		}
		for in := bufio.NewScanner(f); in.Scan(); {
			var r struct {
				Container, Call, Answer string
				Dropped                 int
			}
			if err := json.Unmarshal(in.Bytes(), &r); err != nil {
				s.torn++
				continue
			}
			switch {
			case r.Dropped > 0:
				s.lost += r.Dropped
			case r.Answer == "gone":
				s.gone[r.Call]++
			default:
				s.names[r.Call]++
				if s.records[r.Container] == nil {
					s.records[r.Container] = map[string]int{}
				}
				s.records[r.Container][r.Call]++
			}
		}
		_ = f.Close()
		if err := os.Remove(name); err != nil {
			s.t.Fatal(err)
		}
	}
}

// A soakChild is a container's process.
type soakChild struct {
	*testchild.Child
	soakSpec
	s *soak
}

// begin starts a container.
func (s *soak) begin(spec soakSpec) *soakChild {
	s.t.Helper()
	spec.Socket, spec.Dir, spec.ID = s.dir+"/s", s.dir, fmt.Sprintf("%s-%d", spec.ID, s.cycle)
	said, err := json.Marshal(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	env := []string{"GOMAXPROCS=8"}
	if !spec.Signals {
		env = append(env, "GODEBUG=asyncpreemptoff=1")
	}
	c := &soakChild{testchild.StartWith(s.t, testchild.Options{Env: env, Deadline: *soakFor + time.Hour}, "soak", string(said)), spec, s}
	c.ready()
	s.containers += max(1, spec.Churn*spec.Threads)
	return c
}

// hears waits for a line of the child, however long all of this is stopped.
func (c *soakChild) hears() string {
	c.s.t.Helper()
	var line string
	var err error
	heard := make(chan struct{})
	go func() {
		line, err = c.Hear()
		close(heard)
	}()
	if !patiently(func() bool {
		select {
		case <-heard:
			return true
		default:
			return false
		}
	}) {
		c.s.t.Fatalf("container %s says nothing", c.ID)
	}
	if err != nil {
		_ = c.Wait()
		c.s.t.Fatalf("container %s: %v: %s", c.ID, err, c.Stderr())
	}
	return line
}

func (c *soakChild) ready() {
	c.s.t.Helper()
	if said := c.hears(); said != "ready" {
		c.s.t.Fatalf("container %s says %q", c.ID, said)
	}
}

// exec has a container go on as another image.
func (c *soakChild) exec() {
	c.s.t.Helper()
	c.MustSay("exec")
	c.ready()
}

// end stops a container. All its calls must have returned, and none without an answer.
func (c *soakChild) end() *soakReport {
	c.s.t.Helper()
	c.MustSay("stop")
	r := &soakReport{}
	if err := json.Unmarshal([]byte(c.hears()), r); err != nil {
		c.s.t.Fatal(err)
	}
	c.Wait()
	_ = c.Close()
	if r.Without > 0 || r.Hung != "" || r.Odd != "" {
		c.s.t.Errorf("container %s: %d calls failed with ENOSYS, hung: %q, odd: %q", c.ID, r.Without, r.Hung, r.Odd)
	}
	return r
}

// dies kills a container in the midst of its calls.
func (c *soakChild) dies() {
	_ = c.Cmd.Process.Kill()
	c.Wait()
	_ = c.Close()
}

// recorded checks that a container's calls are in the file, if it was never interrupted.
func (s *soak) recorded(id string, want map[string]int) {
	s.t.Helper()
	got := s.records[fmt.Sprintf("%s-%d", id, s.cycle)]
	for call, n := range want {
		if got[call] != n {
			s.t.Errorf("container %s made %d of %s, and %d are written down", id, n, call, got[call])
		}
	}
}

// rude are clients that do not do as runtimes do. None is in the way of the others.
func (s *soak) rude() (hangUp func()) {
	s.t.Helper()
	var all []*net.UnixConn
	for _, text := range []string{"", "{", "garbage\n", `{"fds":["seccompFd"],"state":{"id":"x"}}`, `{"fds":["seccompFd"],"pid":1,"state":{"id":"x"}}`} {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.dir + "/s", Net: "unix"})
		if err != nil {
			s.t.Error(err)
			continue
		}
		var rights []byte
		if strings.Contains(text, `"pid":1`) {
			rights = unix.UnixRights(1, 2) // which are no listeners
		}
		if text != "" {
			_, _, _ = c.WriteMsgUnix([]byte(text), rights, nil)
		}
		all = append(all, c)
		s.counts["rude clients"]++
	}
	return func() {
		for _, c := range all {
			_ = c.Close()
		}
	}
}

// realContainers prepares for containers of runc, if it can run some here.
func (s *soak) realContainers() {
	for _, tool := range []string{"runc", "busybox"} {
		if _, err := exec.LookPath(tool); err != nil {
			s.t.Logf("no containers of runc among the others: %v", err)
			return
		}
	}
	s.box = newBox(s.t)
	profile := s.box.dir + "/seccomp.json"
	writeJSON(s.t, profile, map[string]any{
		"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": s.dir + "/s", "listenerMetadata": "runc",
		"syscalls": []any{map[string]any{"names": []string{"mkdir", "mkdirat", "getpgid"}, "action": "SCMP_ACT_NOTIFY"}},
	})
	plain := s.box.bundle("runc", "", []string{"true"})
	if out, err := s.runc(plain); err != nil {
		s.t.Logf("no containers of runc among the others: it cannot run any here: %v: %s", err, out)
		s.box = nil
		return
	}
	s.bundle = s.box.bundle("runc", profile, []string{"sh", "-c", "mkdir /denied/x; mkdir /tmp"})
}

// runc runs a bundle.
func (s *soak) runc(bundle string) (string, error) {
	c := exec.Command("runc", "--root", s.box.dir+"/runc", "run", "--bundle", bundle, fmt.Sprintf("%s-%d", s.box.name, s.cycle))
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	c.WaitDelay = time.Second
	if err := c.Start(); err != nil {
		return "", err
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	var err error
	if !patiently(func() bool {
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	}) {
		_ = c.Process.Kill()
		<-done
		return out.String(), errors.New("hung")
	}
	return out.String(), err
}

// real runs a container of runc.
func (s *soak) real() {
	s.t.Helper()
	if s.box == nil {
		return
	}
	out, _ := s.runc(s.bundle) // whose last mkdir fails
	if !strings.Contains(out, "mkdir: can't create directory '/denied/x': Permission denied") || !strings.Contains(out, "'/tmp': File exists") {
		s.t.Errorf("runc: %s", out)
	}
	s.containers++
}

// residents begins the containers that are there for the whole of each cycle.
func (s *soak) residents() (calm, inline, nervous, waits *soakChild) {
	return s.begin(soakSpec{ID: "calm", Threads: 2, Calls: soakMix, Pause: 5 * time.Millisecond}),
		s.begin(soakSpec{ID: "inline", Threads: 2, Calls: []string{"continue", "errno"}, Pause: 3 * time.Millisecond}),
		s.begin(soakSpec{ID: "nervous", Threads: 3, Calls: soakMix, Pause: 5 * time.Millisecond, Signals: true}),
		s.begin(soakSpec{ID: "waits", Threads: 1, Calls: []string{"never opens", "log"}, Pause: 20 * time.Millisecond})
}

// steady is a cycle of a daemon that goes on.
func (s *soak) steady() *soakReport {
	total := newSoakReport()
	s.records = map[string]map[string]int{}
	stop := s.scraped(false)
	calm, inline, nervous, waits := s.residents()
	churn := s.begin(soakSpec{ID: "churn", Threads: 3, Calls: soakMix, Churn: 8, Pause: s.step / 10})
	hangUp := s.rude()

	s.reload(s.cycle % 2)
	s.storms(total)
	again := s.begin(soakSpec{ID: "calm", Threads: 1, Calls: soakMix, Pause: 5 * time.Millisecond}) // as exec does
	s.reload(2)
	s.rotate()
	inline.exec()
	s.full(total)
	s.real()
	_ = waits.Cmd.Process.Signal(unix.SIGSTOP)
	time.Sleep(s.step)
	s.reload((s.cycle + 1) % 2)
	_ = waits.Cmd.Process.Signal(unix.SIGCONT)
	hangUp()

	want := map[string]int{}
	for _, c := range []*soakChild{calm, again, inline, churn} {
		r := c.end()
		if n := sum(r.Interrupted); n > 0 {
			s.t.Errorf("container %s: %d calls were interrupted", c.ID, n)
		}
		if c.soakSpec.ID == calm.ID {
			for call, n := range r.records() {
				want[call] += n
			}
		}
		total.add(r)
	}
	for _, c := range []*soakChild{nervous, waits} {
		total.add(c.end())
	}
	stop()
	s.rest()
	if s.balance() {
		s.recorded("calm", want)
	} else {
		s.counts["cycles in which records found no room"]++
	}
	if n := sum(total.Interrupted); n == 0 {
		s.t.Error("no call was dropped")
	}
	s.point()
	return total
}

// storms are containers that call as fast as they can, more threads than the queue holds. One is killed in it. Calls are
// dropped in them.
func (s *soak) storms(total *soakReport) {
	s.t.Helper()
	for _, storm := range []struct {
		id    string
		calls []string
		dies  bool
	}{{"killed", soakMix, true}, {"storm", soakMix, false}, {"inline storm", []string{"continue", "errno"}, false}} {
		const dropped = `unknot_notifications_total{outcome="dropped"}`
		before := s.until("there are counts", func(map[string]float64) bool { return true })[dropped]
		c := s.begin(soakSpec{ID: storm.id, Threads: 8, Calls: storm.calls})
		time.Sleep(s.step / 2)
		if storm.id != "inline storm" { // which waits in no queue
			s.until("a call is dropped", func(m map[string]float64) bool { return m[dropped] > before })
		}
		if storm.dies {
			c.dies()
			s.counts["killed containers"]++
			continue
		}
		total.add(c.end())
	}
}

// full fills the disk of the audit file, while a container has much written down.
func (s *soak) full(total *soakReport) {
	s.t.Helper()
	if s.disk == nil {
		return
	}
	const failed, lost = "unknot_audit_errors_total", `unknot_audit_records_total{outcome="dropped"}`
	before := s.until("there are counts", func(map[string]float64) bool { return true })
	f, err := os.Create(s.in("filler"))
	if err != nil {
		s.t.Fatal(err)
	}
	for some := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(some)
	}
	if _ = f.Close(); !errors.Is(err, unix.ENOSPC) {
		s.t.Fatal(err)
	}
	c := s.begin(soakSpec{ID: "writer", Threads: 8, Calls: []string{"log"}})
	s.until("records cannot be written", func(m map[string]float64) bool { return m[failed] > before[failed] })
	if s.cycle%4 == 3 {
		s.until("there is no room for records", func(m map[string]float64) bool { return m[lost] > before[lost] })
	}
	time.Sleep(s.step)
	if err := os.Remove(s.in("filler")); err != nil {
		s.t.Fatal(err)
	}
	total.add(c.end())
	s.counts["full disks"]++
}

// rest waits until all containers are gone for the daemon, too, and all records are written.
func (s *soak) rest() {
	s.t.Helper()
	s.until("all is over", func(m map[string]float64) bool {
		busy := m["unknot_listeners"] + m["unknot_audit_records_waiting"]
		for _, state := range []string{"queued", "held", "in_handlers", "detached"} {
			busy += m[`unknot_notifications{state="`+state+`"}`]
		}
		return busy == 0
	})
}

// balance checks that the records are the notifications less those that were dropped, and reports whether all of this
// cycle's found room.
func (s *soak) balance() (room bool) {
	s.t.Helper()
	m, err := s.metrics()
	now, err2 := s.client.Snapshot(context.Background())
	if err := errors.Join(err, err2); err != nil {
		s.t.Fatal(err)
	}
	unwritten := m[`unknot_audit_records_total{outcome="dropped"}`]
	if !patiently(func() bool { // the line that says how many comes after the records
		s.rotate()
		s.read()
		return s.lost == int(unwritten)
	}) {
		s.t.Errorf("%v records found no room, and the file says %d", unwritten, s.lost)
	}
	if n := now.Counters; n.Balance() != 0 || n.Failed+n.Panicked+n.Unanswered+n.DuplicateAnswers+n.Refused+n.RecvFailed > 0 {
		s.t.Errorf("the engine: %+v", n)
	}
	var received, answered, dropped, stale, records, gone int
	for _, c := range now.Calls {
		if c.Name == "getppid" || c.Name == "fchmodat" {
			continue
		}
		received += int(c.Received)
		answered += int(c.Answered)
		dropped += int(c.Dropped)
		stale += int(c.Stale)
		records += s.names[c.Name]
		gone += s.gone[c.Name]
		if unwritten == 0 && (s.names[c.Name] != int(c.Answered) || s.gone[c.Name] > int(c.Stale)) {
			s.t.Errorf("%s: %d received, %d answered, %d dropped, %d stale, and %d records, %d that say gone", c.Name, c.Received, c.Answered, c.Dropped, c.Stale, s.names[c.Name], s.gone[c.Name])
		}
	}
	// Calls whose target was gone before a handler had them are stale, and have no record.
	all := records + gone + s.lost
	if all > received-dropped || all < received-dropped-stale || records > answered || records+s.lost < answered || s.torn > 0 {
		s.t.Errorf("%d notifications, %d answered, %d dropped, %d stale; %d records, %d that say gone, %d that found no room, and %d that are none", received, answered, dropped, stale, records, gone, s.lost, s.torn)
	}
	s.counts["notifications to write down"], s.counts["of them dropped by the queue"], s.counts["of them stale"] = received, dropped, stale
	s.counts["records"], s.counts["records that say gone"], s.counts["records without room"] = records, gone, s.lost
	room = unwritten == s.unwritten
	s.unwritten = unwritten
	return room
}

// changing is a cycle of daemons that are killed and replaced.
func (s *soak) changing() *soakReport {
	total := newSoakReport()
	s.records = map[string]map[string]int{}
	stop := s.scraped(true)
	calm, inline, nervous, waits := s.residents()
	hangUp := s.rude()
	held := s.held

	kills := s.cycle%2 == 0
	if kills && *soakFor > 0 {
		s.killDaemon(4)
	}
	storm := s.begin(soakSpec{ID: "storm", Threads: 4, Calls: soakMix})
	time.Sleep(s.step / 2)
	if kills {
		s.killDaemon(5)
	}
	churn := s.begin(soakSpec{ID: "churn", Threads: 2, Calls: soakMix, Churn: 10, Pause: s.step / 5})
	if kills || *soakFor > 0 {
		s.takeOver()
	}
	storm.dies()
	s.counts["killed containers"]++
	s.reload(s.cycle % 2)
	again := s.begin(soakSpec{ID: "calm", Threads: 1, Calls: soakMix, Pause: 5 * time.Millisecond})
	inline.exec()
	s.rotate()
	if !kills {
		s.killKeeper()
	}
	s.real()
	s.reload(2)
	s.policy(1)
	if *soakFor > 0 {
		s.takeOver()
	}
	hangUp()

	want, interrupted := map[string]int{}, 0
	for _, c := range []*soakChild{calm, again, inline, churn, nervous, waits} {
		r := c.end()
		if c.soakSpec.ID == calm.ID {
			for call, n := range r.records() {
				want[call] += n
			}
		}
		total.add(r)
		if c != nervous { // whose calls that were interrupted and made again may fill the queue
			interrupted += sum(r.Interrupted)
		}
	}
	stop()
	s.rest()
	if interrupted > s.held-held {
		s.t.Errorf("%d calls were interrupted, and daemons that died held %d", interrupted, s.held-held)
	}
	s.rotate()
	s.read()
	if s.lost > 0 || s.torn > s.counts["killed daemons"] {
		s.t.Errorf("%d records found no room, and %d are torn", s.lost, s.torn)
	}
	if !kills {
		s.recorded("calm", want)
	}
	s.point()
	return total
}

// killDaemon kills the daemon, whose keeper starts another one. The daemon has so many containers by then: one whose listener has been
// sent by its runtime, and is not kept yet, is lost.
func (s *soak) killDaemon(containers float64) {
	s.t.Helper()
	s.until("all listeners are kept", func(m map[string]float64) bool { return m["unknot_listeners"] == containers })
	n := strings.Count(s.says("msg=serving", 1), "msg=serving")
	if err := unix.Kill(s.pid(), unix.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	s.says("msg=serving", n+1)
	s.counts["killed daemons"]++
	s.hold()
}

// hold counts what a daemon's predecessor had held.
func (s *soak) hold() {
	s.t.Helper()
	pid := s.pid()
	if !patiently(func() bool {
		now, err := s.client.Snapshot(context.Background())
		return err == nil && now.Info.PID == pid
	}) {
		s.t.Fatal("the new daemon shows no page")
	}
	s.held += int(s.until("there are counts", func(map[string]float64) bool { return true })["unknot_calls_interrupted_total"])
}

// takeOver has another process take over. The old one ends well.
func (s *soak) takeOver() {
	s.t.Helper()
	cmd, over, pid := s.cmd, s.ended, s.pid()
	s.start(false, "--take-over")
	if !patiently(func() bool {
		_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		select {
		case <-over:
			return err != nil
		default:
			return false
		}
	}) {
		s.t.Fatal("the old daemon does not end")
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws != 0 && ws != syscall.WaitStatus(unix.SIGKILL) {
		s.t.Errorf("the old daemon: %s", ended(ws))
	}
	s.counts["hand-overs"]++
	s.hold()
}

// killKeeper kills the keeper. Its daemon goes on, until another one takes over.
func (s *soak) killKeeper() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	s.says("the keeper is gone", 1)
	s.counts["killed keepers"]++
	s.takeOver()
}

// ends ends the daemon.
func (s *soak) ends() {
	s.t.Helper()
	_ = s.cmd.Process.Signal(unix.SIGTERM)
	if !patiently(func() bool {
		select {
		case <-s.ended:
			return true
		default:
			return false
		}
	}) {
		s.t.Fatal("the daemon does not end")
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		s.t.Errorf("exit status %d", code)
	}
	for _, name := range []string{"s", "s.link", "s.policy", "status"} {
		if _, err := os.Lstat(s.dir + "/" + name); err == nil {
			s.t.Errorf("%s is left", name)
		}
	}
}
