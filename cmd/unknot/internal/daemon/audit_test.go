package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// childCrowd is a container of many threads, which are more than a short queue holds. It says
// at the end how many calls the kernel made and how many were interrupted, which is what dropped ones are.
func childCrowd(c *testchild.Conn, args []string) error {
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	l, err := notify.Install(prog, notify.TSync)
	if err != nil {
		return err
	}
	hold, err := handIn(args[0], "crowd", l)
	if err != nil {
		return err
	}
	defer hold.Close()
	_ = l.Close()
	var made, dropped atomic.Int64
	var odd atomic.Pointer[string]
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for !stop.Load() {
				switch v, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0); {
				case e == 0 && v > 0:
					made.Add(1)
				case e == unix.EINTR:
					dropped.Add(1)
				default:
					s := fmt.Sprintf("%d, %v", v, e)
					odd.Store(&s)
				}
			}
		})
	}
	return answerCounts(c, &made, nil, func() (string, error) {
		stop.Store(true)
		wg.Wait()
		if s := odd.Load(); s != nil {
			return "", fmt.Errorf("a call returned %s", *s)
		}
		return fmt.Sprintf("%d made, %d dropped", made.Load(), dropped.Load()), nil
	})
}

// A crowd is such a container under a daemon that writes all of its calls down.
type crowd struct {
	*load
	s      *server
	status string
}

// startCrowd starts a daemon with a queue that is too short for a container, and the container.
func startCrowd(t *testing.T, c Config, memory int, change func(*exec.Cmd)) *crowd {
	t.Helper()
	if err := notify.FeatureNotify.Probe(); err != nil {
		t.Skip(err)
	}
	if err := os.WriteFile(c.Policy, []byte("default: continue\nqueue: 2\nworkers: 1\nrules:\n- calls: getppid\n  do: log\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := &crowd{status: filepath.Join(filepath.Dir(c.Socket), "status")}
	c.Status = "unix:" + d.status
	d.s = startWith(t, serveConfig{Config: c, Real: true, Memory: memory}, nil, change)
	d.s.serving(1)
	child := testchild.StartWith(t, testchild.Options{Env: []string{"GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=2"}, Deadline: lifetime}, "crowd", c.Socket)
	child.Expect("ready")
	d.load = &load{child, t}
	return d
}

// metric is a figure of the status page.
func (d *crowd) metric(name string) int {
	d.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.status)
	}}}
	r, err := client.Get("http://unknot/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (.*)$`).FindSubmatch(text)
	if m == nil {
		d.t.Fatalf("no %s in %s", name, text)
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		d.t.Fatal(err)
	}
	return int(v)
}

// ends stops the container and the daemon, and returns what the container counted. The daemon's counts are the same.
func (d *crowd) ends() (made, dropped int) {
	d.t.Helper()
	d.MustSay("stop")
	said := d.MustHear()
	if _, err := fmt.Sscanf(said, "%d made, %d dropped", &made, &dropped); err != nil {
		d.t.Fatalf("%q: %v", said, err)
	}
	d.t.Log(said)
	d.s.says("listener removed", 1)
	r := d.s.log.all("listener removed")[0]
	if r["received"] != float64(made+dropped) || r["dropped"] != float64(dropped) {
		d.t.Errorf("%v, and the container counts %d made and %d dropped", r, made, dropped)
	}
	if n := d.metric(`unknot_notifications_total{outcome="dropped"}`); n != dropped || dropped == 0 {
		d.t.Errorf("%d calls were dropped by the metric, and %d for the container", n, dropped)
	}
	d.s.signal(unix.SIGTERM)
	if code := d.s.end(); code != 0 {
		d.t.Errorf("exit status %d: %s", code, d.s.log)
	}
	return made, dropped
}

// auditOf counts a file's records, and what it says was dropped. Each line is whole.
func auditOf(t *testing.T, name string) (records, dropped int) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var r struct {
			Call, Container, Answer string
			Dropped                 int
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil || !strings.HasSuffix(line, "\n") {
			t.Errorf("%s: %v: %q", name, err, line)
			continue
		}
		if r.Dropped > 0 {
			dropped += r.Dropped
		} else if records++; r.Call != "getppid" || r.Container != "crowd" || r.Answer != "continue" {
			t.Errorf("%s: %s", name, line)
		}
	}
	return records, dropped
}

// All calls are in the files but those that the queue dropped, while the files are rotated.
func TestAuditRotated(t *testing.T) {
	t.Parallel()
	c := home(t)
	c.Audit = filepath.Join(filepath.Dir(c.Socket), "audit")
	d := startCrowd(t, c, 0, func(*exec.Cmd) {})
	const times = 5
	for i := range times {
		d.goesOn(200)
		if err := os.Rename(c.Audit, fmt.Sprint(c.Audit, ".", i)); err != nil {
			t.Fatal(err)
		}
		d.s.signal(unix.SIGHUP)
		eventually(t, "the file is opened anew", func() bool {
			_, err := os.Stat(c.Audit)
			return err == nil
		})
	}
	d.goesOn(200)
	made, _ := d.ends()
	files, err := filepath.Glob(c.Audit + "*")
	if err != nil || len(files) != times+1 {
		t.Fatalf("%v, %v", files, err)
	}
	records := 0
	for _, name := range files {
		n, lost := auditOf(t, name)
		if records += n; n == 0 || lost > 0 {
			t.Errorf("%s has %d records, and %d were dropped", name, n, lost)
		}
	}
	if records != made {
		t.Errorf("%d records of %d calls", records, made)
	}
}

// No call waits for a disk that is full. What finds no room in memory is counted, and written again is what has some later.
func TestAuditFullDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a disk of its own takes root")
	}
	c := home(t)
	disk := filepath.Join(filepath.Dir(c.Socket), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c.Audit = disk + "/audit"
	const size = 2 << 20
	d := startCrowd(t, c, 1<<18, func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `mount -t tmpfs -o size=2m none "$1" && exec "$0"`, exe, disk}
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	})
	// The disk is there as long as somebody has a file of it.
	there, err := os.Open(fmt.Sprintf("/proc/%d/root%s", d.s.cmd.Process.Pid, disk))
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	in := func(name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", there.Fd(), name) }
	d.goesOn(200)
	if err := os.WriteFile(in("filler"), make([]byte, size), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	d.s.says("cannot write audit records", 1)
	if why := fmt.Sprint(d.s.log.all("cannot write audit records")[0]["err"]); !strings.Contains(why, "no space left on device") {
		t.Error(why)
	}
	eventually(t, "there is no room in memory", func() bool {
		d.goesOn(1)
		return d.metric(`unknot_audit_records_total{outcome="dropped"}`) > 0
	})
	d.goesOn(200)
	if err := os.Remove(in("filler")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "records are written again", func() bool { return d.metric("unknot_audit_records_waiting") < 10 })
	d.s.says("audit records are written again", 1)
	d.goesOn(200)
	made, _ := d.ends()
	records, lost := auditOf(t, in("audit"))
	if records+lost != made || lost == 0 {
		t.Errorf("%d records, %d were dropped, of %d calls", records, lost, made)
	}
	d.s.says("audit records were lost", 1)
}
