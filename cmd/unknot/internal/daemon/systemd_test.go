package daemon

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// manager is a script that runs systemd's user manager in namespaces of its own, where it is in nobody's way. $1 is a
// directory, $2 the name of a cgroup.
const manager = `
mount --make-rprivate / || exit 9
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system || exit 9 # without that there is "no systemd" here
for c in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
	[ -e "$c/cgroup.procs" ] || continue
	mkdir -p "$c/$2" && echo $$ > "$c/$2/cgroup.procs" || exit 9
done
export XDG_RUNTIME_DIR="$1/run" HOME="$1/home"
unshare --cgroup /lib/systemd/systemd --user # not as process 1
exit $?
`

// A boss of flesh and blood: systemd itself, with the units of examples/serve.
type realBoss struct {
	t   *testing.T
	dir string
	pid int // of unshare, the parent of process 1
}

// systemctl is systemctl --user, within the namespaces.
func (b *realBoss) systemctl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	init, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", b.pid, b.pid))
	if err != nil || len(init) == 0 {
		return "", fmt.Errorf("process 1 of the namespace: %q: %w", init, err)
	}
	in := []string{"--target", strings.TrimSpace(string(init)), "--mount", "--pid", "systemctl", "--user"}
	cmd := exec.CommandContext(ctx, "nsenter", append(in, args...)...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+b.dir+"/run")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (b *realBoss) must(args ...string) string {
	b.t.Helper()
	out, err := b.systemctl(args...)
	if err != nil {
		log, _ := os.ReadFile(b.dir + "/log")
		b.t.Fatalf("systemctl %s: %v: %s\n%s", strings.Join(args, " "), err, out, log)
	}
	return out
}

// property is one of the service's.
func (b *realBoss) property(name string) string {
	b.t.Helper()
	return b.must("show", "unknot.service", "-P", name)
}

// startSystemd starts systemd with the units, or skips the test.
func startSystemd(t *testing.T, c serveConfig) *realBoss {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: systemd runs in namespaces and in a cgroup of its own")
	}
	for _, tool := range []string{"/lib/systemd/systemd", "systemctl", "unshare", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("no systemd here: ", err)
		}
	}
	b := &realBoss{t: t, dir: filepath.Dir(c.Config.Socket)}
	units := b.dir + "/home/.config/systemd/user"
	for _, dir := range []string{b.dir + "/run", units} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b.write(units, c)
	log, err := os.Create(b.dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cgroup := fmt.Sprintf("unknot-test-%d", os.Getpid())
	ctx, cancel := context.WithTimeout(context.Background(), lifetime)
	cmd := exec.CommandContext(ctx, "unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "sh", "-c", manager, "sh", b.dir, cgroup)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.pid = cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cancel()
		<-ended
		for _, at := range []string{"systemd/", "unified/", ""} { // from the leaves on
			all := "/sys/fs/cgroup/" + at + cgroup
			_ = exec.Command("find", all, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+").Run()
		}
	})
	for end := time.Now().Add(patient); ; time.Sleep(20 * time.Millisecond) {
		if _, err := b.systemctl("show", "-P", "Version"); err == nil {
			return b
		}
		select {
		case err := <-ended:
			ended <- err
			said, _ := os.ReadFile(b.dir + "/log")
			t.Skipf("systemd does not run in a namespace here: %v: %s", err, said)
		default:
		}
		if time.Now().After(end) {
			said, _ := os.ReadFile(b.dir + "/log")
			t.Skipf("systemd does not run in a namespace here: %s", said)
		}
	}
}

// write writes the units of examples/serve, for this program and its socket.
func (b *realBoss) write(units string, c serveConfig) {
	b.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	said, err := c.told()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, name := range []string{"unknot.service", "unknot.socket"} {
		text, err := os.ReadFile("../../../../examples/serve/" + name)
		if err != nil {
			b.t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte("/run/unknot/agent.sock"), []byte(c.Config.Socket))
		if err := os.WriteFile(units+"/"+name, text, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	program := fmt.Sprintf("[Service]\nExecStartPre=\nExecStart=\nExecStart=%s\nEnvironment='%s=%s'\nLogsDirectory=\nStandardError=append:%s/serve.log\n", exe, serveEnv, said, b.dir)
	if err := os.MkdirAll(units+"/unknot.service.d", 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(units+"/unknot.service.d/test.conf", []byte(program), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// systemd itself restarts the service, or finds it killed, under load: no call fails but those that were held, and
// containers that are gone are forgotten.
func TestSystemd(t *testing.T) {
	t.Parallel()
	c := home(t)
	c.Keep = KeepSystemd
	b := startSystemd(t, serveConfig{Config: c, Hold: true})
	defer func() {
		if t.Failed() {
			for _, name := range []string{"/log", "/serve.log"} {
				text, _ := os.ReadFile(b.dir + name)
				t.Logf("%s: %s", name, text)
			}
		}
	}()
	b.must("start", "unknot.socket")
	early := startLoad(t, c.Socket, 1, often) // by which the service is started
	early.goesOn(10)
	stored := func() string { return b.property("NFileDescriptorStore") }
	if n := stored(); n != "2" {
		t.Errorf("%s descriptors are stored", n)
	}
	for what, do := range map[string]func(){
		"restart": func() { b.must("restart", "unknot.service") },
		"kill": func() {
			pid := b.property("MainPID")
			b.must("kill", "-s", "KILL", "--kill-who=main", "unknot.service")
			eventually(t, "it is started again", func() bool {
				return b.property("MainPID") != pid && b.property("ActiveState") == "active" && b.property("MainPID") != "0"
			})
		},
	} {
		t.Run(what, func(t *testing.T) {
			before := heldBy(t, b.dir+"/serve.log")
			load := startLoad(t, c.Socket, 4, often)
			for range rounds() / 2 {
				load.goesOn(300)
				do()
			}
			load.goesOn(300)
			held := heldBy(t, b.dir+"/serve.log") - before
			if what == "restart" && held > 0 {
				t.Errorf("%d calls were held by services that ended in order", held)
			}
			load.right(held)
			_ = load.Close()
			eventually(t, "containers that are gone are forgotten", func() bool { return stored() == "2" })
		})
	}
	pid := b.property("MainPID")
	b.must("reload", "unknot.service")
	eventually(t, "the reload is over", func() bool { return b.property("ActiveState") == "active" })
	if text := b.property("StatusText"); !strings.Contains(text, "1 containers' listeners, 0 rules") {
		t.Errorf("status %q", text)
	}
	if b.property("MainPID") != pid {
		t.Error("a reload is no restart")
	}
	early.goesOn(10)
	early.right(heldBy(t, b.dir+"/serve.log"))
}

// heldBy is how many calls daemons found that their predecessors had held, by their log.
func heldBy(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l := &lines{}
	_, _ = l.Write(text)
	return l.held()
}
