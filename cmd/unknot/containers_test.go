package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/internal/ellipsis"
	"golang.org/x/sys/unix"
)

// A shown is a row of the table in docs/serve.md: a policy, a command in a container under it, and what is seen.
type shown struct{ policy, command, want string }

var shownRow = regexp.MustCompile(`(?m)^\| \[.*\]\(\.\./(examples/policy/.*\.yaml)\) \| ` + "`(.*)` \\| `(.*)` \\|$")

func documented(t *testing.T) (all []shown) {
	t.Helper()
	text, err := os.ReadFile("../../docs/serve.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range shownRow.FindAllStringSubmatch(string(text), -1) {
		all = append(all, shown{"../../" + m[1], m[2], m[3]})
	}
	if len(all) < 5 {
		t.Fatalf("the table has %d rows", len(all))
	}
	return all
}

// A containerRuntime starts containers of a root file system.
type containerRuntime struct {
	name  string
	needs []string
	flags []string // of the filter
	// begin is the command that runs a command in a new container, detached or not. A profile "" is none.
	begin func(b *box, detached bool, profile string, command []string) []string
	exec  func(b *box, command []string) []string
	end   func(b *box) []string
}

var containerRuntimes = []containerRuntime{
	ociRuntime("runc", nil),
	ociRuntime("crun", []string{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}),
	podman("runc"),
	podman("crun"),
}

// ociRuntime is one that takes bundles.
func ociRuntime(name string, flags []string) containerRuntime {
	with := func(b *box, args ...string) []string {
		return append([]string{b.program(name), "--root", b.dir + "/" + name}, args...)
	}
	return containerRuntime{
		name: name, needs: []string{name}, flags: flags,
		begin: func(b *box, detached bool, profile string, command []string) []string {
			args := []string{"run", "--bundle", b.bundle(name, profile, command)}
			id := b.name + "-once"
			if detached {
				args, id = append(args, "--detach"), b.name
			}
			return with(b, append(args, id)...)
		},
		exec: func(b *box, command []string) []string {
			return with(b, append([]string{"exec", b.name}, command...)...)
		},
		end: func(b *box) []string { return with(b, "delete", "--force", b.name) },
	}
}

// podman is podman over a runtime.
func podman(name string) containerRuntime {
	with := func(b *box, args ...string) []string {
		return append([]string{"podman", "--root", b.dir + "/storage", "--runroot", b.dir + "/podman", "--storage-driver", "vfs", "--runtime", b.program(name)}, args...)
	}
	return containerRuntime{
		name: "podman-" + name, needs: []string{"podman", name},
		begin: func(b *box, detached bool, profile string, command []string) []string {
			args := []string{"run", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"}
			if profile != "" {
				args = append(args, "--security-opt", "seccomp="+profile)
			}
			if detached {
				args = append(args, "--detach", "--name", b.name)
			} else {
				args = append(args, "--rm")
			}
			return with(b, append(append(args, "--rootfs", b.dir+"/rootfs"), command...)...)
		},
		exec: func(b *box, command []string) []string {
			return with(b, append([]string{"exec", b.name}, command...)...)
		},
		end: func(b *box) []string { return with(b, "rm", "--force", "--time", "0", b.name) },
	}
}

// A box is what containers of a test are made of.
type box struct {
	t         *testing.T
	dir, name string
	bundles   int
}

// newBox makes a root file system of busybox.
func newBox(t *testing.T) *box {
	t.Helper()
	dir, err := os.MkdirTemp("", "box") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, dir: dir, name: filepath.Base(dir)}
	t.Cleanup(func() {
		b.alone()
		_ = os.RemoveAll(dir)
	})
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed: ", err)
	}
	program, err := os.ReadFile(busybox)
	errs := []error{err, os.Chmod(dir, 0o755)}
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc", "srv"} {
		errs = append(errs, os.MkdirAll(dir+"/rootfs/"+d, 0o755))
	}
	errs = append(errs, os.WriteFile(dir+"/rootfs/bin/busybox", program, 0o755),
		os.WriteFile(dir+"/rootfs/etc/hostname", []byte("box\n"), 0o644), os.WriteFile(dir+"/rootfs/etc/os-release", []byte("NAME=box\n"), 0o644))
	for _, applet := range []string{"sh", "nc", "true", "mkdir", "mkfifo", "cat", "sleep"} {
		errs = append(errs, os.Symlink("busybox", dir+"/rootfs/bin/"+applet))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return b
}

// alone waits until no process is there of those that podman has clean up behind us, who would make the directory anew.
func (b *box) alone() {
	b.t.Helper()
	var name string
	var line []byte
	if !within(hung, func() bool {
		processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, name = range processes {
			if line, _ = os.ReadFile(name); bytes.Contains(line, []byte(b.dir+"/")) {
				return false
			}
		}
		return true
	}) {
		b.t.Errorf("is still there: %s: %q", name, line)
	}
}

// within reports whether something is so before the time is over.
func within(limit time.Duration, so func() bool) bool {
	for end := time.Now().Add(limit); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// program is a runtime, or what makes it work on this machine.
func (b *box) program(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		b.t.Skip(err)
	}
	if _, err := os.Stat("/sys/fs/cgroup/unified"); name != "crun" || err != nil {
		return path
	}
	// crun does not take a hierarchy of control groups that is half the old and half the new.
	wrapped := b.dir + "/crun-here"
	text := "#!/bin/sh\nexec unshare -m --propagation private sh -c 'umount /sys/fs/cgroup/unified; exec crun --cgroup-manager=disabled \"$@\"' crun \"$@\"\n"
	if err := os.WriteFile(wrapped, []byte(text), 0o755); err != nil {
		b.t.Fatal(err)
	}
	return wrapped
}

// bundle is a container's, with the runtime's usual configuration.
func (b *box) bundle(runtime, profile string, command []string) string {
	b.t.Helper()
	b.bundles++
	dir := fmt.Sprintf("%s/bundle%d", b.dir, b.bundles)
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	usual := exec.Command(runtime, "spec")
	usual.Dir = dir
	if out, err := usual.CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
	var spec map[string]any
	name := dir + "/config.json"
	readJSON(b.t, name, &spec)
	process := spec["process"].(map[string]any)
	process["terminal"], process["args"] = false, command
	spec["root"] = map[string]any{"path": b.dir + "/rootfs"}
	if profile != "" {
		var seccomp map[string]any
		readJSON(b.t, profile, &seccomp)
		spec["linux"].(map[string]any)["seccomp"] = seccomp
	}
	writeJSON(b.t, name, spec)
	return dir
}

func readJSON(t *testing.T, name string, v any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func writeJSON(t *testing.T, name string, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(name, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a command with a deadline. What it starts is killed with it, but for what is detached.
func (b *box) run(args []string) (out string, err error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hung)
	defer cancel()
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	text, err := os.CreateTemp(b.dir, "output") // of which the end does not wait for who is detached
	if err != nil {
		b.t.Fatal(err)
	}
	defer text.Close()
	c.Stdout, c.Stderr = text, text
	err = c.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("hung: %v", args)
	}
	said, _ := os.ReadFile(text.Name())
	return string(said), err
}

func (b *box) must(args []string) {
	b.t.Helper()
	if out, err := b.run(args); err != nil {
		b.t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// await waits until a file has text, and returns it all.
func (b *box) await(file, text string, times int) string {
	b.t.Helper()
	var got []byte
	if !within(hung, func() bool {
		got, _ = os.ReadFile(file)
		return bytes.Count(got, []byte(text)) >= times
	}) {
		b.t.Fatalf("%s does not have %q %d times: %s", file, text, times, got)
	}
	return string(got)
}

// The policies in the documentation do in containers what stands there: in new ones, in those that are detached, and in
// what is executed in them later, while the policy changes under them. By default a runtime does one of the two for each
// policy, and the next one the other; with -long each does both.
func TestPoliciesInContainers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts 40 containers")
	}
	if os.Geteuid() != 0 {
		t.Skip("containers of these runtimes take root")
	}
	all := documented(t)
	for n, r := range containerRuntimes {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			for _, tool := range r.needs {
				if _, err := exec.LookPath(tool); err != nil {
					t.Skip(err)
				}
			}
			b := newBox(t)
			if out, err := b.run(r.begin(b, false, "", []string{"true"})); err != nil {
				t.Skipf("it cannot run containers here: %v: %s", err, out)
			}
			if err := os.Mkdir(b.dir+"/run", 0o755); err != nil {
				t.Fatal(err)
			}
			socket, policy, audit, log := b.dir+"/run/s", b.dir+"/policy.yaml", b.dir+"/audit", b.dir+"/log"
			profile := b.dir + "/seccomp.json"
			var seccomp map[string]any
			readJSON(t, "../../examples/policy/seccomp.json", &seccomp)
			seccomp["listenerPath"] = socket
			if r.flags != nil {
				seccomp["flags"] = r.flags
			}
			writeJSON(t, profile, seccomp)
			copyFile(t, all[0].policy, policy, 0o644)

			serve := b.serve(log, "--socket", socket, "--config", policy, "--audit", audit)
			b.await(log, "msg=serving", 1)
			b.must(r.begin(b, true, profile, []string{"sleep", "1000"}))
			end := sync.OnceFunc(func() { b.must(r.end(b)) })
			defer end()
			for i, row := range all {
				copyFile(t, row.policy, policy, 0o644)
				if err := serve.Process.Signal(unix.SIGHUP); err != nil {
					t.Fatal(err)
				}
				b.await(log, "msg=\"policy reloaded\"", i+1)
				if *long || (i+n)%2 == 0 {
					b.shows(row, audit, r.exec(b, words(row.command)))
				}
				if *long || (i+n)%2 == 1 {
					b.shows(row, audit, r.begin(b, false, profile, words(row.command)))
				}
			}
			end()
			b.await(log, "listener hangs up", 2)
			if err := serve.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if ws := waited(t, serve); ws != 0 {
				t.Errorf("serve: %s", ended(ws))
			}
		})
	}
}

// serve starts unknot serve, whose standard error goes to a file.
func (b *box) serve(log string, args ...string) *exec.Cmd {
	b.t.Helper()
	to, err := os.Create(log)
	if err != nil {
		b.t.Fatal(err)
	}
	defer to.Close()
	c := exec.Command("/proc/self/exe", append([]string{"serve"}, args...)...)
	c.Args[0] = "unknot" // by which the keeper's child is the command, too
	c.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	c.Stderr = to
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		killSession(c.Process.Pid)
		_ = c.Wait()
		if b.t.Failed() {
			said, _ := os.ReadFile(log)
			b.t.Logf("serve: %s", said)
		}
	})
	return c
}

// shows runs a command in a container and looks whether the documented is seen: printed, or among the records.
func (b *box) shows(row shown, audit string, args []string) {
	b.t.Helper()
	before, err := os.ReadFile(audit)
	if err != nil {
		b.t.Fatal(err)
	}
	out, _ := b.run(args) // which may fail, as it shall
	if !strings.HasPrefix(row.want, "{") {
		if !hasLine(row.want, out) {
			b.t.Errorf("%s: %v: %s; want %s", row.policy, args, out, row.want)
		}
		return
	}
	var now []byte
	if !within(hung, func() bool {
		if now, err = os.ReadFile(audit); err != nil {
			b.t.Fatal(err)
		}
		return hasLine(row.want, string(now[len(before):]))
	}) {
		b.t.Errorf("%s: %v: %s; want the record %s, and there are\n%s", row.policy, args, out, row.want, now[len(before):])
	}
}

func hasLine(want, text string) bool {
	for line := range strings.Lines(text) {
		if ellipsis.Match(want, line) {
			return true
		}
	}
	return false
}

// words are those of a command line, of which a text in double quotes is one.
func words(line string) (all []string) {
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			all = append(all, part)
		} else {
			all = append(all, strings.Fields(part)...)
		}
	}
	return all
}

func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Containers of LXC itself are under the policy by their cookie, new ones and those that run while another daemon takes over.
func TestLXCContainers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("containers of this LXC take root")
	}
	if _, err := exec.LookPath("lxc-execute"); err != nil {
		t.Skip("no LXC here: ", err)
	}
	b := newBox(t)
	run := b.dir + "/run"
	root := b.dir + "/lxc/" + b.name
	profile := "2\ndenylist\nmkdir notify\nmkdirat notify\nmknod notify\nmknodat notify\n"
	config := fmt.Sprintf("lxc.uts.name = box\nlxc.rootfs.path = dir:%s/rootfs\nlxc.mount.auto = proc:mixed sys:ro\nlxc.net.0.type = none\n", b.dir)
	under := config + fmt.Sprintf("lxc.seccomp.profile = %s/profile\nlxc.seccomp.notify.proxy = unix:%s/lxc\nlxc.seccomp.notify.cookie = web-1\n", b.dir, run)
	policy := "default: continue\nrules:\n- calls: [mkdir, mkdirat]\n  container: web-*\n  where: {path: /srv/secret}\n  do: deny EACCES\n  log: true\n- calls: [mknod, mknodat]\n  container: web-*\n  do: errno EPERM\n- calls: all\n  do: log\n"
	write := func(name, text string) error { return os.WriteFile(name, []byte(text), 0o644) }
	if err := errors.Join(os.MkdirAll(run, 0o755), os.MkdirAll(root, 0o755), os.Symlink("busybox", b.dir+"/rootfs/bin/rmdir"),
		write(b.dir+"/profile", profile), write(root+"/config", config), write(b.dir+"/policy.yaml", policy)); err != nil {
		t.Fatal(err)
	}
	execute := func(script string) []string {
		return []string{"lxc-execute", "-P", b.dir + "/lxc", "-n", b.name, "--", "/bin/sh", "-c", script}
	}
	if out, err := b.run(execute("true")); err != nil {
		t.Skipf("it cannot run containers here: %v: %s", err, out)
	}
	if err := write(root+"/config", under); err != nil {
		t.Fatal(err)
	}
	args := []string{"--socket", run + "/s", "--lxc-socket", run + "/lxc", "--confine", "off", "--config", b.dir + "/policy.yaml", "--audit", b.dir + "/audit"}
	first := b.serve(b.dir+"/log", args...)
	b.await(b.dir+"/log", "msg=serving", 1)
	out, err := b.run(execute("mkdir /srv/secret; mkdir /srv/open && rmdir /srv/open; mkfifo /tmp/pipe; true"))
	if err != nil || out != "mkdir: can't create directory '/srv/secret': Permission denied\nmkfifo: /tmp/pipe: Operation not permitted\n" {
		t.Errorf("%v: %q", err, out)
	}
	for _, want := range []string{
		`{"time":"…Z","container":"web-1","pid":…,"comm":"mkdir","call":"mkdir","args":{"path":"/srv/secret","mode":"0777"},"answer":"EACCES","wait_ns":…}`,
		`{"time":"…Z","container":"web-1","pid":…,"comm":"mkdir","call":"mkdir","args":{"path":"/srv/open","mode":"0777"},"answer":"continue","wait_ns":…}`,
	} {
		if !within(hung, func() bool {
			text, _ := os.ReadFile(b.dir + "/audit")
			return hasLine(want, string(text))
		}) {
			t.Errorf("no record %s", want)
		}
	}
	// One that calls all the time. Between two daemons its monitor says ENOSYS.
	done := make(chan error, 1)
	go func() {
		out, err := b.run(execute("while [ ! -e /stop ]; do mkdir /srv/secret 2>>/said; echo tick >>/ticks; done"))
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		done <- err
	}()
	refused := "Permission denied"
	b.await(b.dir+"/rootfs/said", refused, 5)
	b.serve(b.dir+"/log2", append(args, "--take-over")...)
	b.await(b.dir+"/log2", "msg=serving", 1)
	if ws := waited(t, first); ws != 0 {
		t.Errorf("serve: %s", ended(ws))
	}
	said, _ := os.ReadFile(b.dir + "/rootfs/said")
	b.await(b.dir+"/rootfs/said", refused, bytes.Count(said, []byte(refused))+5)
	if err := write(b.dir+"/rootfs/stop", ""); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	said, _ = os.ReadFile(b.dir + "/rootfs/said")
	for line := range strings.Lines(string(said)) {
		if !strings.Contains(line, refused) && !strings.Contains(line, "Function not implemented") {
			t.Errorf("a call said %q", line)
		}
	}
}
