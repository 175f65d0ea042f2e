package target

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

var accesses = flag.Int("accesses", 1500, "how many times TestHostileTargets reads and writes; 100000 takes minutes")

// Everybody here has two pages at fixedAt. A target's first is full of its nonce, which its calls tell; in its second
// the supervisor writes the nonce's complement. A stranger's are full of canary. So whose memory was read, and who was
// written, can be told from any eight bytes. A process that executes has another nonce.
const canary = 0x5354524e5354524e

// hostileEnv marks a target or stranger of the stress, of which there are many: they do without a test child's socket.
const hostileEnv = "UNKNOT_TEST_HOSTILE"

// life is that of a target which nobody kills: only a failure waits for its end.
const life = 2 * time.Minute

// The exit status of who was written what is not its own.
const (
	exitStranger = 77
	exitTarget   = 78
)

func hostile(role string) {
	var err error
	switch role {
	case "stranger-for-long": // until it is told
		enough := make(chan os.Signal, 1)
		signal.Notify(enough, unix.SIGUSR1)
		err = stranger(enough)
	case "stranger":
		enough := make(chan os.Signal, 1)
		time.AfterFunc(time.Duration(rand.IntN(30))*time.Millisecond, func() { enough <- unix.SIGUSR1 })
		err = stranger(enough)
	default:
		err = hostileTarget(role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, role, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func fill(p []byte, word uint64) {
	for i := 0; i < len(p); i += 8 {
		binary.NativeEndian.PutUint64(p[i:], word)
	}
}

// stranger looks whether its memory stays its own, to the end and then once more.
func stranger(enough <-chan os.Signal) error {
	if err := mapPages(); err != nil {
		return err
	}
	fill(pages(), canary)
	for over := false; ; {
		if whoseElse(pages(), canary) {
			os.Exit(exitStranger)
		}
		if over {
			return nil
		}
		select {
		case <-enough:
			over = true
		case <-time.After(time.Millisecond):
		}
	}
}

// whoseElse reports whether there is another word in p than these, or none.
func whoseElse(p []byte, words ...uint64) bool {
	for i := 0; i+8 <= len(p); i += 8 {
		w := binary.NativeEndian.Uint64(p[i:])
		ok := false
		for _, want := range words {
			ok = ok || w == want
		}
		if !ok {
			return true
		}
	}
	return false
}

// hostileTarget calls from two threads, and meanwhile unmaps what the calls name, starts strangers, executes itself.
//
// A calm one only calls.
func hostileTarget(role string) error {
	nonce := rand.Uint64() | 0x0101010101010101 // no byte is 0, and none of the complement
	nonce &^= 0x8080808080808080
	if err := mapPages(); err != nil {
		return err
	}
	fill(pages()[:page], nonce)
	if role != "again" {
		runtime.LockOSThread()
		prog, err := notify.TrapProgram(unix.SYS_GETPPID)
		if err != nil {
			return err
		}
		l, err := notify.Install(prog, notify.TSync)
		if err != nil {
			return err
		}
		c, err := net.FileConn(os.NewFile(3, "socket"))
		if err != nil {
			return err
		}
		if err := notify.SendListener(c.(*net.UnixConn), l); err != nil {
			return err
		}
		_ = l.Close()
		_ = c.Close()
		runtime.UnlockOSThread()
	}
	runtime.GOMAXPROCS(6)
	for range 2 {
		go func() {
			runtime.LockOSThread()
			for i := uintptr(0); ; i++ {
				_, _, e := unix.Syscall(unix.SYS_GETPPID, fixedAt+i%64*8, uintptr(nonce), fixedAt+page+i%32*8)
				if e == unix.ENOSYS {
					os.Exit(0) // the supervisor is gone
				}
			}
		}()
	}
	if role == "calm" {
		time.Sleep(life)
		return nil
	}
	var started time.Time
	for end := time.Now().Add(life); time.Now().Before(end); time.Sleep(time.Duration(rand.IntN(400)) * time.Microsecond) {
		if whoseElse(pages()[page:], 0, ^nonce) {
			os.Exit(exitTarget)
		}
		switch rand.IntN(100) {
		case 0, 1:
			env := append(slicesWithout(os.Environ(), hostileEnv), hostileEnv+"=again")
			return syscall.Exec("/proc/self/exe", os.Args[:1], env)
		case 2, 3:
			if time.Since(started) > 20*time.Millisecond { // there are few thread ids
				_, _ = spawn("stranger")
				started = time.Now()
			}
		default:
			at := uintptr(fixedAt + page*rand.IntN(2))
			if err := unmapAt(at, page); err != nil {
				return err
			}
			if rand.IntN(2) == 0 {
				runtime.Gosched()
			}
			if err := mapAt(at, page, unix.PROT_READ|unix.PROT_WRITE); err != nil {
				return err
			}
			if at == fixedAt {
				fill(pages()[:page], nonce)
			}
		}
	}
	return nil
}

func slicesWithout(env []string, name string) (rest []string) {
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			rest = append(rest, e)
		}
	}
	return rest
}

// spawn starts one of these, which nobody here waits for by its id.
func spawn(role string, files ...uintptr) (int, error) {
	env := append(slicesWithout(os.Environ(), hostileEnv), hostileEnv+"="+role, "GODEBUG=asyncpreemptoff=1", "GORACE=atexit_sleep_ms=0")
	return syscall.ForkExec("/proc/self/exe", os.Args[:1], &syscall.ProcAttr{Env: env, Files: append([]uintptr{0, 1, 2}, files...)})
}

// reaper waits for all children, and those whose parents ended, and counts who was written.
type reaper struct {
	written atomic.Int32
	odd     atomic.Int32
	mu      sync.Mutex
	dead    map[int]chan struct{} // by id; whoever asks after it died has a closed one
}

func (r *reaper) run() {
	for {
		var st unix.WaitStatus
		pid, err := unix.Wait4(-1, &st, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil { // ECHILD: none at the moment
			time.Sleep(time.Millisecond)
			continue
		}
		switch {
		case st.Exited() && (st.ExitStatus() == exitStranger || st.ExitStatus() == exitTarget):
			r.written.Add(1)
		case st.Exited() && st.ExitStatus() != 0, st.Signaled() && st.Signal() != unix.SIGKILL:
			r.odd.Add(1)
		}
		r.mu.Lock()
		if c := r.dead[pid]; c != nil {
			close(c)
			delete(r.dead, pid)
		}
		r.mu.Unlock()
	}
}

// start starts a target or stranger and returns a channel that is closed at its end.
func (r *reaper) start(role string, files ...uintptr) (int, <-chan struct{}, error) {
	r.mu.Lock() // the reaper must not have it before we know its id
	defer r.mu.Unlock()
	pid, err := spawn(role, files...)
	c := make(chan struct{})
	if err == nil {
		r.dead[pid] = c
	}
	return pid, c, err
}

// initInNamespace makes this process, the first in its pid namespace, fit to look at others.
func initInNamespace() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("process %d, want 1", os.Getpid())
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	return os.NewSyscallError("mount /proc", unix.Mount("proc", "/proc", "proc", 0, ""))
}

// inPIDNamespace is for children that are to be the first process in a pid namespace.
func inPIDNamespace(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	// And in a user namespace, also if the test is root: before Linux 6.14 pid_max is the whole machine's.
	if err := tryUserNamespace(); err != nil {
		t.Skip(err)
	}
	sys := ownUserNamespace()
	sys.Cloneflags |= unix.CLONE_NEWPID | unix.CLONE_NEWNS
	return sys
}

// What threads have an id one after the other is made likely here: there are few ids.
func TestHostileTargets(t *testing.T) {
	sys := inPIDNamespace(t)
	s := testchild.StartWith(t, testchild.Options{Sys: sys, Deadline: 4*time.Minute + time.Duration(*accesses)*10*time.Millisecond},
		"stress", strconv.Itoa(*accesses))
	t.Log(s.MustHear())
	if st := s.Wait(); st.ExitStatus() != 0 {
		t.Errorf("status %d: %s", st.ExitStatus(), s.Stderr())
	}
}

type tally struct {
	n, read, wrote, gone, fault atomic.Int64
	wrong                       atomic.Int64
}

func childStress(c *testchild.Conn, args []string) error {
	want, _ := strconv.ParseInt(args[0], 10, 64)
	if err := initInNamespace(); err != nil {
		return err
	}
	ids := "few thread ids"
	if err := os.WriteFile("/proc/sys/kernel/pid_max", []byte("2000"), 0o644); err != nil { // the namespace's
		ids = "all thread ids, " + err.Error()
	}
	runtime.GOMAXPROCS(8)
	r := &reaper{dead: map[int]chan struct{}{}}
	go r.run()
	var sum tally
	var lives, kills atomic.Int64
	var seen sync.Map // thread ids
	var reused atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, 3)
	missing := func() bool {
		return sum.gone.Load() == 0 || sum.fault.Load() == 0 || sum.read.Load() == 0 || sum.wrote.Load() == 0
	}
	var failed atomic.Bool
	end := time.Now().Add(life) // few accesses may not be enough for one of each
	for range 3 {
		wg.Go(func() {
			for !failed.Load() && (sum.n.Load() < want || missing() && time.Now().Before(end)) {
				if err := oneLife(r, &sum, &seen, &reused, &kills); err != nil {
					fmt.Fprintln(os.Stderr, err)
					errs <- err
					failed.Store(true) // the others need not go on
					return
				}
				lives.Add(1)
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	if r.written.Load() != 0 || sum.wrong.Load() != 0 || r.odd.Load() != 0 {
		return fmt.Errorf("%d processes were written what is not theirs, %d reads were wrong, %d odd ends", r.written.Load(), sum.wrong.Load(), r.odd.Load())
	}
	if missing() {
		return errors.New("something did not happen at all")
	}
	return c.Say("%d accesses to %d targets, %d killed, %s, %d used again: %d read, %d written, %d gone, %d not mapped; none wrong, no stranger written",
		sum.n.Load(), lives.Load(), kills.Load(), ids, reused.Load(), sum.read.Load(), sum.wrote.Load(), sum.gone.Load(), sum.fault.Load())
}

// oneLife serves one target until it is killed.
func oneLife(r *reaper, sum *tally, seen *sync.Map, reused, kills *atomic.Int64) (err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	pid, dead, err := r.start("first", uintptr(pair[1]))
	_ = unix.Close(pair[1])
	f := os.NewFile(uintptr(pair[0]), "socket")
	conn, cerr := net.FileConn(f)
	_ = f.Close()
	if err = errors.Join(err, cerr); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}()
	_ = conn.SetDeadline(time.Now().Add(life))
	l, err := notify.RecvListener(conn.(*net.UnixConn))
	_ = conn.Close()
	if err != nil {
		return err
	}
	defer l.Close()
	calls := 2 + rand.IntN(15)
	for n, killed := 0, false; ; n++ {
		var notif notify.Notif
		err := l.Recv(&notif)
		switch notify.OutcomeOf(err) {
		case notify.Done:
		case notify.Retry:
			continue
		case notify.Stale:
			select {
			case <-dead: // strangers that it started have the filter too, and make no calls
				return nil
			default:
				runtime.Gosched()
			}
			continue
		default:
			return err
		}
		if was, had := seen.Swap(notif.PID, l); had && was != l {
			reused.Add(1)
		}
		if n >= calls && !killed {
			killed = true
			// In mid-access.
			go func() {
				for range rand.IntN(4) {
					runtime.Gosched()
				}
				_ = unix.Kill(pid, unix.SIGKILL)
			}()
			kills.Add(1)
		}
		sum.access(l, &notif)
		_ = l.Send(&notify.Resp{ID: notif.ID, Val: 1})
	}
}

// access reads twice and writes once, as the call says.
func (s *tally) access(l *notify.Listener, n *notify.Notif) {
	t := New(l, n)
	nonce := n.Data.Args[1]
	count := func(err error) bool {
		s.n.Add(1)
		switch {
		case err == nil:
			return true
		case err == ErrGone:
			s.gone.Add(1)
		case errors.Is(err, unix.EFAULT):
			s.fault.Add(1)
		default:
			fmt.Fprintln(os.Stderr, err)
			s.wrong.Add(1)
		}
		return false
	}
	var buf [256]byte
	_, err := t.ReadMem(n.Data.Args[0], buf[:])
	if count(err) {
		s.read.Add(1)
		if whoseElse(buf[:], nonce, 0) {
			fmt.Fprintf(os.Stderr, "nonce %x, read % x\n", nonce, buf)
			s.wrong.Add(1)
		}
	} else if err == ErrGone && buf != [256]byte{} {
		s.wrong.Add(1)
	}
	str, err := t.String(fixedAt+page-64, PathMax)
	if count(err) {
		s.read.Add(1)
		for b := []byte(str); len(b) > 0; b = b[min(8, len(b)):] {
			var own, wrote [8]byte
			binary.NativeEndian.PutUint64(own[:], nonce)
			binary.NativeEndian.PutUint64(wrote[:], ^nonce)
			if w := b[:min(8, len(b))]; !bytes.HasPrefix(own[:], w) && !bytes.HasPrefix(wrote[:], w) {
				fmt.Fprintf(os.Stderr, "nonce %x, string % x\n", nonce, str)
				s.wrong.Add(1)
				break
			}
		}
	}
	var ours [64]byte
	fill(ours[:], ^nonce)
	if _, err := t.WriteMem(n.Data.Args[2], ours[:]); count(err) {
		s.wrote.Add(1)
	}
}

// The worst case, made to happen: the target dies in mid-access, and a stranger has its thread's id at once.
func TestAStrangerWithTheTargetsID(t *testing.T) {
	s := testchild.StartWith(t, testchild.Options{Sys: inPIDNamespace(t)}, "stranger")
	s.Expect("read: the stranger's memory was read, and withheld")
	s.Expect("write: the stranger was not written")
	if st := s.Wait(); st.ExitStatus() != 0 {
		t.Errorf("status %d: %s", st.ExitStatus(), s.Stderr())
	}
}

func childStranger(c *testchild.Conn, _ []string) error {
	if err := initInNamespace(); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte("400"), 0o644); err != nil {
		return c.Say("no thread id can be chosen: %v", err)
	}
	r := &reaper{dead: map[int]chan struct{}{}}
	go r.run()
	for _, what := range []string{"read", "write"} {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		pid, dead, err := r.start("calm", uintptr(pair[1]))
		if err != nil {
			return err
		}
		_ = unix.Close(pair[1])
		f := os.NewFile(uintptr(pair[0]), "socket")
		conn, err := net.FileConn(f)
		if err != nil {
			return err
		}
		l, err := notify.RecvListener(conn.(*net.UnixConn))
		if err != nil {
			return err
		}
		var n notify.Notif
		for {
			if err := l.Recv(&n); err == nil {
				break
			} else if o := notify.OutcomeOf(err); o != notify.Retry && o != notify.Stale {
				return err
			}
		}
		t := New(l, &n)
		var end <-chan struct{}
		replace := func() {
			beforeRead, beforeWrite = nil, nil
			_ = unix.Kill(pid, unix.SIGKILL)
			<-dead
			for range 100 { // threads of ours may take the id in between
				_ = os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(t.tid-1)), 0o644)
				var other int
				if other, end, err = r.start("stranger-for-long"); other == t.tid {
					break
				}
			}
			var own [8]byte
			for range 60_000 { // until it has its canary
				if _, err := t.read(fixedAt, own[:]); err == nil && binary.NativeEndian.Uint64(own[:]) == canary {
					return
				}
				time.Sleep(time.Millisecond)
			}
			err = errors.New("no stranger has the target's id")
		}
		var buf [64]byte
		var got error
		if what == "read" {
			beforeRead = replace
			_, got = t.ReadMem(fixedAt, buf[:])
		} else {
			beforeWrite = replace
			_, got = t.WriteMem(fixedAt+page, bytes.Repeat([]byte("w"), 64))
		}
		if err != nil {
			return err
		}
		if got != ErrGone || buf != [64]byte{} {
			return fmt.Errorf("%s: %v, % x", what, got, buf)
		}
		_ = unix.Kill(t.tid, unix.SIGUSR1) // the stranger
		<-end
		if r.written.Load() != 0 {
			return fmt.Errorf("%s: the stranger was written", what)
		}
		says := map[string]string{"read": "the stranger's memory was read, and withheld", "write": "the stranger was not written"}
		if err := c.Say("%s: %s", what, says[what]); err != nil {
			return err
		}
		_ = l.Close()
		_ = conn.Close()
	}
	return nil
}
