package daemon

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

var machine = flag.Bool("systemd", false, "TestSystemdItself: this machine was made for it (scripts/kernels.sh -s systemd)")

// machineLog is where the service writes its log in such a machine.
const machineLog = "/run/unknot-test.log"

// A machineBoss is systemd as the first process of a machine that has the units of examples/serve, as they are.
type machineBoss struct{ *testing.T }

func (b machineBoss) must(args ...string) string {
	b.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(machineLog)
		b.Fatalf("systemctl %s: %v: %s\n%s", strings.Join(args, " "), err, out, log)
	}
	return strings.TrimSpace(string(out))
}

func (b machineBoss) property(name string) string {
	b.Helper()
	return b.must("show", "unknot.service", "-P", name)
}

// stored waits until so many descriptors are in the service's store.
func (b machineBoss) stored(n int) {
	b.Helper()
	eventually(b.T, fmt.Sprint(n, " descriptors are stored"), func() bool { return b.property("NFileDescriptorStore") == strconv.Itoa(n) })
}

// again waits until the service has been started again by itself.
func (b machineBoss) again(pid string) {
	b.Helper()
	eventually(b.T, "it is started again", func() bool {
		now := b.property("MainPID")
		return now != pid && now != "0" && b.property("ActiveState") == "active"
	})
}

var interruptedBy = regexp.MustCompile(`(?m)msg="container taken".* interrupted=(\d+)$`)

// held is how many calls services found that their predecessors had held.
func (b machineBoss) held() (n int) {
	b.Helper()
	text, err := os.ReadFile(machineLog)
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range interruptedBy.FindAllSubmatch(text, -1) {
		k, _ := strconv.Atoi(string(m[1]))
		n += k
	}
	return n
}

// conf writes settings beside the unit's own.
func (b machineBoss) conf(name, text string) {
	b.Helper()
	const dir = "/run/systemd/system/unknot.service.d"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(dir+"/"+name+".conf", []byte("[Service]\n"+text+"\n"), 0o644); err != nil {
		b.Fatal(err)
	}
	b.must("daemon-reload")
}

// systemd is the first process, the program and its units are installed as documented: the socket's first client starts the
// service; restarts, kill -9, new programs, the watchdog and reloads lose and hang no call.
func TestSystemdItself(t *testing.T) {
	if !*machine {
		t.Skip("only in a machine that was made for it: make systemd")
	}
	if comm, _ := os.ReadFile("/proc/1/comm"); strings.TrimSpace(string(comm)) != "systemd" {
		t.Fatalf("the first process is %q", comm)
	}
	// Such a machine is slow.
	patient, lifetime = 5*time.Minute, 20*time.Minute
	const socket, policy, program, pause = "/run/unknot/agent.sock", "/etc/unknot/policy.yaml", "/usr/local/bin/unknot", "5ms"
	b := machineBoss{t}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(machineLog)
			t.Logf("%s", log)
		}
	})
	if err := os.WriteFile(policy, []byte("default: continue\nrules:\n- calls: getppid\n  do: log\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.conf("test", "StandardError=append:"+machineLog)
	b.must("start", "unknot.socket")
	if s := b.property("ActiveState"); s != "inactive" {
		t.Errorf("before the first client the service is %s", s)
	}
	early := startLoad(t, socket, 1, pause, "policy")
	early.goesOn(10)
	b.stored(2)
	t.Logf("%s, started by its socket", strings.Split(b.must("--version"), "\n")[0])
	upgrades := 0
	for _, c := range []struct {
		what  string
		times int
		do    func(pid string)
	}{
		{"restart", 5, func(string) { b.must("restart", "unknot.service") }},
		{"kill -9", 5, func(pid string) {
			b.must("kill", "-s", "KILL", "--kill-whom=main", "unknot.service")
			b.again(pid)
		}},
		{"upgrade", 3, func(string) {
			// As a package does: the new file takes the old one's name.
			upgrades++
			text, err := os.ReadFile(program)
			if err == nil {
				err = os.WriteFile(program+".new", text, 0o755)
			}
			if err == nil {
				err = os.Rename(program+".new", program)
			}
			if err != nil {
				t.Fatal(err)
			}
			b.must("restart", "unknot.service")
		}},
		{"watchdog", 1, func(string) {
			b.conf("watchdog", "WatchdogSec=20s\nTimeoutAbortSec=2s")
			b.must("restart", "unknot.service")
			pid := b.property("MainPID")
			b.must("kill", "-s", "STOP", "--kill-whom=main", "unknot.service")
			b.again(pid)
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			b := machineBoss{t}
			before := b.held()
			load := startLoad(t, socket, 4, pause, "policy")
			b.stored(10)
			begun := time.Now()
			for range c.times {
				load.goesOn(100)
				pid := b.property("MainPID")
				c.do(pid)
				if b.property("MainPID") == pid {
					t.Errorf("process %s goes on", pid)
				}
			}
			load.goesOn(100)
			held := b.held() - before
			if (c.what == "restart" || c.what == "upgrade") && held > 0 {
				t.Errorf("%d calls were held by services that ended in order", held)
			}
			s := load.end()
			t.Logf("%d times in %v: %d calls, %d ENOSYS, 0 hung, %d EINTR of %d held, longest %v", c.times, time.Since(begun).Round(time.Second),
				s.ok+s.interrupted, s.without, s.interrupted, held, (time.Duration(s.longest) * time.Microsecond).Round(time.Millisecond))
			if s.ok == 0 || s.interrupted > held || s.without+s.odd > 0 {
				t.Errorf("%+v", s)
			}
			_ = load.Close()
			b.stored(2)
		})
	}
	pid := b.property("MainPID")
	if err := os.WriteFile(policy, []byte("default: continue\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.must("reload", "unknot.service")
	eventually(t, "the reload is over", func() bool { return b.property("ActiveState") == "active" })
	if text := b.property("StatusText"); !strings.Contains(text, "1 containers' listeners, 0 rules") || b.property("MainPID") != pid {
		t.Errorf("status %q", text)
	}
	early.goesOn(10)
	if s := early.end(); s.without+s.odd > 0 {
		t.Errorf("%+v", s)
	}
	b.must("stop", "unknot.service")
	if s := b.property("Result"); s != "success" {
		t.Errorf("it stopped: %s", s)
	}
}
