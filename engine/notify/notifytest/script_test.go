//go:build !fakekernel

package notifytest_test

import (
	"embed"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/notify/notifytest"
	"golang.org/x/sys/unix"
)

var (
	update  = flag.Bool("update", false, "write what the scripts print on the fake")
	scripts = flag.Int("scripts", 12, "random scripts to run on both kernels")
	seed    = flag.Uint64("seed", 0, "of the first random script; 0: another one each time")
)

// A world is a kernel under a script: the running one or the fake. What it returns is printed.
//
// Threads are named a, b, c; notifications by what the script calls them.
type world interface {
	call(thread string)                    // returns when the call waits for its answer
	recv() (notify.Notif, error)           // EAGAIN where it would sleep
	send(notify.Resp) error                //
	valid(id uint64) error                 //
	addFD(notify.AddFD) (int, error)       //
	setFlags(uint64) error                 //
	raw(what string, id uint64) unix.Errno // an ioctl with something wrong about it
	poll() int16                           //
	signal(thread string, restart bool)    // returns when the thread has seen it, or is past seeing it
	kill()                                 // the process, and its parent knows
	close()                                // the listener
	waits(thread string) bool              // it waits in a call, also one that came again
	result(thread string) string           // of a call that is over; waits for its end
	name(tid uint32) string                //
}

// A runner runs a script's lines.
type runner struct {
	w   world
	ids map[string]notify.Notif
	at  map[string]bool // threads in a call
	out strings.Builder
}

func run(w world, lines []string) string {
	r := &runner{w: w, ids: map[string]notify.Notif{}, at: map[string]bool{}}
	for _, l := range lines {
		fmt.Fprintf(&r.out, "%s\n", l)
		r.line(strings.Fields(l))
	}
	return r.out.String()
}

func (r *runner) says(format string, args ...any) { fmt.Fprintf(&r.out, "\t"+format+"\n", args...) }

// errno prints how an ioctl ended.
func (r *runner) errno(err error) {
	var e unix.Errno
	switch {
	case err == nil:
		r.says("ok")
	case errors.As(err, &e):
		r.says("%s", unix.ErrnoName(e))
	default:
		r.says("%v", err)
	}
}

// look prints the results of a thread's call unless it still waits.
func (r *runner) look(t string) {
	if r.at[t] && !r.w.waits(t) {
		r.ended(t)
	}
}

// ended prints the results of those that were in a call, which is over. They are not
// asked whether they wait: one that has been woken seems to until it runs.
func (r *runner) ended(threads ...string) {
	for _, t := range threads {
		if r.at[t] {
			delete(r.at, t)
			r.says("%s: %s", t, r.w.result(t))
		}
	}
}

func (r *runner) everybody() []string { return slices.Sorted(maps.Keys(r.at)) }

func (r *runner) line(f []string) {
	if len(f) == 0 || strings.HasPrefix(f[0], "#") {
		return
	}
	arg := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	n := r.ids[arg(1)]
	if arg(1) == "nobody" {
		n.ID = 1
	}
	num, _ := strconv.ParseInt(arg(2), 0, 64)
	after := func(err error) {
		r.errno(err)
		if err == nil {
			r.ended(r.w.name(n.PID))
		}
	}
	switch f[0] {
	case "call":
		r.w.call(f[1])
		r.at[f[1]] = true
		r.look(f[1])
	case "recv":
		got, err := r.w.recv()
		if err != nil {
			r.errno(err)
			break
		}
		r.ids[f[1]] = got
		r.says("%s of %s", f[1], r.w.name(got.PID))
	case "send":
		after(r.w.send(notify.Resp{ID: n.ID, Val: num}))
	case "fail":
		after(r.w.send(notify.Resp{ID: n.ID, Error: -int32(num)}))
	case "continue":
		after(r.w.send(notify.Resp{ID: n.ID, Flags: notify.RespContinue}))
	case "valid":
		r.errno(r.w.valid(n.ID))
	case "addfd", "addfd-send":
		a := notify.AddFD{ID: n.ID}
		if f[0] == "addfd-send" {
			a.Flags = notify.AddFDSend
		}
		if arg(2) != "" {
			a.Flags, a.NewFD = a.Flags|notify.AddFDSetFD, uint32(num)
		}
		fd, err := r.w.addFD(a)
		if err != nil {
			r.errno(err)
		} else if a.Flags&notify.AddFDSetFD != 0 {
			r.says("%d", fd)
		} else {
			r.says("ok") // the number is the target's affair
		}
		if err == nil && a.Flags&notify.AddFDSend != 0 {
			if t := r.w.name(n.PID); r.at[t] {
				delete(r.at, t)
				got := r.w.result(t)
				if a.Flags&notify.AddFDSetFD == 0 && !strings.HasPrefix(got, "-") {
					got = "its number"
				}
				r.says("%s: %s", t, got)
			}
		}
	case "flags":
		num, _ := strconv.ParseUint(arg(1), 0, 64)
		r.errno(r.w.setFlags(num))
	case "raw":
		if e := r.w.raw(f[1], r.ids[arg(2)].ID); e != 0 {
			r.errno(e)
		} else {
			r.errno(nil)
		}
	case "poll":
		ev := r.w.poll()
		var s []string
		for bit, name := range map[int16]string{unix.POLLIN: "IN", unix.POLLOUT: "OUT", unix.POLLHUP: "HUP", unix.POLLERR: "ERR", unix.POLLNVAL: "NVAL"} {
			if ev&bit != 0 {
				s = append(s, name)
			}
		}
		slices.Sort(s)
		r.says("%s", strings.Join(s, " "))
	case "signal", "break":
		r.w.signal(f[1], f[0] == "signal")
		r.look(f[1])
	case "kill":
		r.w.kill()
		r.at = map[string]bool{}
	case "close":
		r.w.close()
		r.ended(r.everybody()...)
	default:
		r.says("no such word")
	}
}

// fake is the world of this package.
type fake struct {
	k       *notifytest.Kernel
	f       *notifytest.Filter
	l       *notify.Listener
	p       *notifytest.Process
	threads map[string]*notifytest.Thread
}

func newFake(p notifytest.Profile, flags notify.InstallFlags) *fake {
	k := notifytest.New(p)
	w := &fake{k: k, f: k.Install(flags), threads: map[string]*notifytest.Thread{}}
	w.p = w.f.ProcessWith(notifytest.Counting(1 << 20))
	for _, t := range threadNames {
		w.threads[t] = w.p.Thread()
	}
	w.l = w.f.Listener()
	return w
}

var threadNames = []string{"a", "b", "c"}

func (w *fake) call(t string)                         { w.threads[t].Start(notify.Data{NR: unix.SYS_GETPPID}) }
func (w *fake) send(r notify.Resp) error              { return w.l.Send(&r) }
func (w *fake) valid(id uint64) error                 { return w.l.IDValid(id) }
func (w *fake) addFD(a notify.AddFD) (int, error)     { return w.l.AddFD(&a) }
func (w *fake) setFlags(f uint64) error               { return w.l.SetFlags(f) }
func (w *fake) raw(what string, id uint64) unix.Errno { return raw(w.f.Ioctl, what, id) }
func (w *fake) poll() int16                           { return w.f.Poll() }
func (w *fake) signal(t string, restart bool)         { w.threads[t].Signal(restart) }
func (w *fake) kill()                                 { w.p.Kill() }
func (w *fake) close()                                { _ = w.l.Close() }
func (w *fake) waits(t string) bool                   { _, waits := w.threads[t].Waiting(); return waits }
func (w *fake) recv() (notify.Notif, error) {
	n, e := w.f.TryRecv()
	if e != 0 {
		return n, e
	}
	return n, nil
}
func (w *fake) result(t string) string {
	switch r := w.threads[t].Wait(); {
	case r.Continued:
		return "its parent" // which is what getppid returns
	default:
		return r.String()
	}
}
func (w *fake) name(tid uint32) string {
	for name, t := range w.threads {
		if t.TID == int(tid) {
			return name
		}
	}
	return "?"
}

// running is the profile of the running kernel, by its release: what a distribution has put back is not known.
func running(t *testing.T) notifytest.Profile {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	is := version(release)
	best := notifytest.Linux5_0
	for _, p := range notifytest.Profiles() {
		if version(p.Name) <= is {
			best = p
		}
	}
	return best
}

func version(release string) int {
	var major, minor int
	_, _ = fmt.Sscanf(release, "%d.%d", &major, &minor)
	return major<<16 | minor
}

// scriptFiles are in the program, which runs where no source is: scripts/kernels.sh.
//
//go:embed testdata/scripts
var scriptFiles embed.FS

// TestScripts runs the scripts on the fake and on the running kernel. The first line says for what filter they are.
func TestScripts(t *testing.T) {
	files, err := fs.Glob(scriptFiles, "testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := scriptFiles.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for l := range strings.Lines(string(b)) {
				if l = strings.TrimRight(l, "\n"); !strings.HasPrefix(l, "\t") {
					lines = append(lines, l)
				}
			}
			var flags notify.InstallFlags
			if strings.Contains(lines[0], "wait-killable") {
				flags = notify.WaitKillableRecv
			}
			got := run(newFake(notifytest.Linux6_18, flags), lines)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(b) {
				t.Errorf("the fake of Linux %s says\n%s", notifytest.Linux6_18.Name, diff(string(b), got))
			}
			both(t, flags, lines)
		})
	}
}

// both runs a script on the running kernel and on the fake of its kind.
func both(t *testing.T, flags notify.InstallFlags, lines []string) {
	t.Helper()
	p := running(t)
	if flags&notify.WaitKillableRecv != 0 && !p.WaitKillable {
		t.Skipf("Linux %s has no WAIT_KILLABLE_RECV", p.Name)
	}
	want := run(newFake(p, flags), lines)
	if got := run(newReal(t, flags), lines); got != want {
		t.Errorf("the running kernel, and the fake of Linux %s:\n%s", p.Name, diff(got, want))
	}
}

// diff shows two texts up to where they part.
func diff(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(as), len(bs)) {
		if as[i] != bs[i] {
			return strings.Join(as[:i], "\n") + "\n-" + as[i] + "\n+" + bs[i]
		}
	}
	return a + "\n---\n" + b
}

// TestRandomScripts writes scripts by chance and runs them on both. A failure says by which seed.
func TestRandomScripts(t *testing.T) {
	first := *seed
	if first == 0 {
		first = rand.Uint64()
	}
	p := running(t)
	for i := range uint64(*scripts) {
		s := first + i
		var flags notify.InstallFlags
		if s%2 == 1 && p.WaitKillable {
			flags = notify.WaitKillableRecv
		}
		lines := random(s, p, flags)
		if both(t, flags, lines); t.Failed() {
			t.Fatalf("go test -run RandomScripts -scripts 1 -seed %d", s)
		}
	}
}

// random writes a script that never has RECV wait, as the fake shows.
func random(s uint64, p notifytest.Profile, flags notify.InstallFlags) (lines []string) {
	rng := rand.New(rand.NewPCG(s, 24))
	w := newFake(p, flags)
	r := &runner{w: w, ids: map[string]notify.Notif{}, at: map[string]bool{}}
	names := []string{"nobody"}
	dead, closed := false, false
	fds := 500
	if os.Getpid()/100 == fds/100 {
		fds += 100 // a call that continues returns that process's id
	}
	for len(lines) < 40 && !closed {
		one := func(of []string) string { return of[rng.IntN(len(of))] }
		n := one(names[max(0, len(names)-4):])
		l := ""
		switch rng.IntN(20) {
		case 0, 1, 2, 3, 4:
			if t := one(threadNames); !dead && !w.waits(t) {
				l = "call " + t
			}
		case 5, 6, 7, 8:
			if w.poll()&unix.POLLIN != 0 {
				l = fmt.Sprintf("recv n%d", len(names))
				names = append(names, fmt.Sprintf("n%d", len(names)))
			}
		case 9, 10:
			l = fmt.Sprintf("send %s %d", n, 10_000_000+rng.IntN(1000))
		case 11:
			l = fmt.Sprintf("fail %s %d", n, 1+rng.IntN(100))
		case 12:
			l = one([]string{"continue " + n, "valid " + n})
		case 13:
			l = one([]string{"addfd " + n, "addfd-send " + n, fmt.Sprintf("addfd %s %d", n, fds+rng.IntN(9)), fmt.Sprintf("addfd-send %s %d", n, fds+rng.IntN(9))})
		case 14:
			l = one([]string{"flags 0", "flags 1", "flags 2"})
		case 15, 16:
			if t := one(threadNames); !dead && w.waits(t) {
				l = one([]string{"signal ", "break "}) + t
			}
		case 17, 18:
			l = one([]string{"poll", "raw recv-dirty", "raw flags-pointer", "raw valid-wrong " + n, "raw nothing", "raw send-flags " + n, "raw continue-value " + n})
		case 19:
			if len(lines) > 25 {
				switch rng.IntN(3) {
				case 0:
					l, dead = "kill", true
				case 1:
					l, closed = "close", true
				}
			}
		}
		if l == "" || dead && w.poll()&unix.POLLIN != 0 {
			continue
		}
		lines = append(lines, l)
		r.line(strings.Fields(l))
	}
	return lines
}
