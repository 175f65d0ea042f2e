package confine

import (
	"os"
	"slices"
	"strings"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

const stderr = 2

// facts are the numbers that a table of rules is made with.
type facts struct {
	Config
	Thread
	poller
	cookies [3]uintptr
	pid     int
	page    bool // every rule of every configuration, for documentation
}

// Rules returns every rule that some configuration has, to be read; numbers of
// descriptors and the like are made up. [Plan.Rules] returns those of a thread.
func Rules() []Rule {
	f := facts{Config: Config{LogFD: 3, UIDs: []IDPair{{0, 1}}, GIDs: []IDPair{{0, 1}}, Profiling: true}, page: true}
	_ = f.Config.fill()
	f.Listeners = []int{4}
	return f.rules()
}

// rules builds the table. Calls that the runtime makes were read in Go 1.26 and
// seen in the tests that each rule names.
func (f *facts) rules() []Rule {
	var t []Rule
	has := func(only string, yes bool) (string, bool) { return only, yes || f.page }
	add := func(r Rule) {
		if r.Key == "" {
			r.Key = r.Syscall
		}
		if !slices.Contains(f.without, r.Key) {
			t = append(t, r)
		}
	}
	cookies := func(from uint) (cs []Cond) {
		for i, c := range f.cookies {
			cs = append(cs, is64(from+uint(i), uint64(c), "the cookies in the unused arguments"))
		}
		return cs
	}

	// The job.
	for _, req := range f.Requests {
		name, ok := requestNames[req]
		if !ok {
			name = "another request"
		}
		when := []Cond{is32(1, req, name)}
		if f.Level == Private {
			when = append(when, is32(0, uint32(f.Listeners[0]), "fd is the listener (at level private)"))
		}
		add(Rule{Key: "ioctl/" + name, Syscall: "ioctl", When: append(when, cookies(3)...), Why: requestWhy[req], Test: requestTest[req]})
	}
	if f.Epoll >= 0 {
		add(Rule{Key: "epoll_pwait/own", Syscall: "epoll_pwait", When: []Cond{is32(0, uint32(f.Epoll), "fd is the thread's epoll instance")}, Why: "waits for notifications", Test: "serve"})
	}
	add(Rule{Syscall: "ppoll", When: []Cond{is64(3, 0, "no signal mask")},
		Why: "waits for a listener that is not in epoll because it was busy, and without those that rest, which level-triggered epoll would report all the time (package engine, policy block and overload)", Test: "rest"})
	if f.Wake >= 0 {
		add(Rule{Key: "read/wake", Syscall: "read", When: []Cond{is32(0, uint32(f.Wake), "fd is the thread's eventfd"), is64(2, 8, "8 bytes")}, Why: "takes wake-ups", Test: "serve"})
	}
	if only, ok := has("level private", f.Level == Private); ok {
		add(Rule{Key: "close/listener", Syscall: "close", When: []Cond{is32(0, uint32(f.Listeners[0]), "fd is the listener")}, Only: only,
			Why: "gives up the listener: targets see ENOSYS once the process has closed its own too", Test: "close"})
	}
	if only, ok := has("another LogFD", f.LogFD != stderr); ok {
		add(Rule{Key: "write/log", Syscall: "write", When: append([]Cond{is32(0, uint32(f.LogFD), "fd is the log")}, cookies(3)...), Only: only, Why: "logs (Plan.LogWriter)", Test: "log"})
	}
	add(Rule{Key: "write/stderr", Syscall: "write", When: []Cond{is32(0, stderr, "fd is 2")},
		Why: "the runtime prints panics, throws and GODEBUG=gctrace there, on whichever thread; the log, if it is standard error", Test: "panic"})

	// Files fail rather than kill: code that is not ours looks for a time zone or
	// a null device, and can go on without.
	for _, name := range []string{"openat", "openat2", "fstat", "newfstatat", "statx", "faccessat", "faccessat2", "readlinkat",
		"open", "creat", "stat", "lstat", "access", "readlink"} {
		only := ""
		if slices.Contains(notOnARM64, name) {
			only = "amd64"
		}
		add(Rule{Syscall: name, Errno: unix.ENOSYS, Only: only, Why: "a stray look at a file fails, it does not kill", Test: "files"})
	}

	// What the Go runtime does on a thread that allocates, blocks, starts and
	// ends stops of the world, and ends.
	if f.poller.epoll >= 0 {
		add(Rule{Key: "epoll_pwait/runtime", Syscall: "epoll_pwait", When: []Cond{is32(0, uint32(f.poller.epoll), "fd is the runtime's epoll instance")},
			Why: "the thread that ends a stop of the world polls once (startTheWorldWithSema)", Test: "gc"})
		add(Rule{Key: "write/runtime", Syscall: "write", When: []Cond{is32(0, uint32(f.poller.event), "fd is the runtime's eventfd"), is64(2, 8, "8 bytes")},
			Why: "wakes the poller for a timer that is due earlier (netpollBreak)", Test: "timers"})
	}
	for _, op := range []struct {
		op   uint32
		name string
	}{{futexWaitPrivate, "WAIT"}, {futexWakePrivate, "WAKE"}} {
		add(Rule{Key: "futex/" + op.name, Syscall: "futex", When: []Cond{is32(1, op.op, "FUTEX_"+op.name+"_PRIVATE")}, Why: "parks and wakes: locks, goroutines, threads", Test: "serve"})
	}
	add(Rule{Key: "futex/WAIT-shared", Syscall: "futex", When: []Cond{is32(1, futexWait, "FUTEX_WAIT, not private"), is64(3, 0, "no timeout")},
		Why: "the thread's end under musl: it waits for the lock of the list of threads, which the kernel gives up when another thread has ended", Test: "goexit-musl"})
	add(Rule{Syscall: "sched_yield", Why: "spinning locks and the garbage collector (osyield)", Test: "gc"})
	add(Rule{Syscall: "nanosleep", Why: "a panic stops the others first (usleep in freezetheworld)", Test: "panic"})
	add(Rule{Syscall: "getpid", Why: "goes before tgkill (signalM)", Test: "gc"})
	add(Rule{Syscall: "gettid", Why: "code that the filter would kill asks first whether it runs here, and fails (osthread.Confined)", Test: "asks"})
	add(Rule{Syscall: "tgkill", When: []Cond{is32(0, uint32(f.pid), "the process itself"), is32(2, uint32(unix.SIGURG), "SIGURG")},
		Why: "preempts other threads when it starts a garbage collection or stops the world", Test: "gc"})
	if only, ok := has("not strict signals", f.Signals != Strict); ok {
		add(Rule{Syscall: "rt_sigreturn", Only: only, Why: "returns from SIGURG, SIGPROF, a nil dereference and the engine's signal", Test: "signal"})
	}
	add(Rule{Syscall: "rt_sigprocmask", Why: "the thread's end (sigblock)", Test: "goexit"})
	add(Rule{Syscall: "sigaltstack", Why: "the thread's end (unminit)", Test: "goexit"})
	for _, prot := range []struct {
		prot uint64
		name string
	}{{unix.PROT_NONE, "PROT_NONE"}, {unix.PROT_READ | unix.PROT_WRITE, "PROT_READ, PROT_WRITE"}} {
		flags := Cond{3, all64 &^ (unix.MAP_FIXED | unix.MAP_NORESERVE | unix.MAP_STACK), unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, "private, anonymous (and FIXED, NORESERVE, STACK)"}
		test := "alloc"
		if prot.prot == unix.PROT_NONE {
			test = "reserve"
		}
		add(Rule{Key: "mmap/" + prot.name, Syscall: "mmap", When: []Cond{is64(2, prot.prot, prot.name), flags, is32(4, low32, "no file")},
			Why: "the heap grows; never executable memory", Test: test})
	}
	add(Rule{Syscall: "munmap", Why: "the C library unmaps stacks of ended threads when one more ends; the heap, where its address is taken", Test: "goexit-last with cgo"})
	for _, a := range []struct {
		advice    uint32
		name      string
		why, test string
	}{
		{unix.MADV_DONTNEED, "DONTNEED", "gives heap and, at the thread's end, its stack back", "scavenge"},
		{unix.MADV_FREE, "FREE", "gives heap back with GODEBUG=madvdontneed=0", "scavenge-free"},
		{unix.MADV_HUGEPAGE, "HUGEPAGE", "heap with huge pages (sysHugePage, Go 1.21)", ""},
		{unix.MADV_NOHUGEPAGE, "NOHUGEPAGE", "heap without huge pages (GODEBUG=disablethp=1, Go 1.21)", "alloc-nothp"},
		{unix.MADV_COLLAPSE, "COLLAPSE", "heap with huge pages (sysHugePageCollapse, Go 1.21, Linux 6.1)", ""},
	} {
		add(Rule{Key: "madvise/" + a.name, Syscall: "madvise", When: []Cond{is32(2, a.advice, "MADV_"+a.name)}, Why: a.why, Test: a.test})
	}
	add(Rule{Syscall: "prctl", Errno: unix.EPERM, When: []Cond{is32(0, unix.PR_SET_VMA, "PR_SET_VMA"), is64(1, unix.PR_SET_VMA_ANON_NAME, "PR_SET_VMA_ANON_NAME")},
		Why: "Go 1.25 and later names its mappings where the kernel has CONFIG_ANON_VMA_NAME, and ignores this error"})
	if f.Profiling && !f.page {
		add(Rule{Syscall: "timer_create", When: []Cond{is32(0, unix.CLOCK_THREAD_CPUTIME_ID, "the thread's CPU time")}, Why: "a CPU profile's timer", Test: "profile"})
	} else {
		add(Rule{Syscall: "timer_create", Errno: unix.EPERM, Why: "a CPU profile that starts later falls back to the process's timer (with Profiling: allowed, on the thread's CPU time)", Test: "profile"})
	}
	if only, ok := has("Profiling", f.Profiling); ok {
		add(Rule{Syscall: "timer_settime", Only: only, Why: "a CPU profile's timer", Test: "profile"})
	}
	add(Rule{Syscall: "timer_delete", Why: "ends a CPU profile that ran before", Test: "profile-before"})
	add(Rule{Syscall: "clock_gettime", Why: "time, where the kernel's vDSO cannot tell it (clock sources other than tsc and the like)"})
	add(Rule{Syscall: "gettimeofday", Why: "the race detector's allocator (Go 1.26), which does not use the vDSO"})
	add(Rule{Syscall: "getrandom", Why: "random numbers on kernels without it in the vDSO (before Linux 6.11)"})
	add(Rule{Syscall: "restart_syscall", Why: "the kernel makes it for a sleep that SIGSTOP and SIGCONT interrupted", Test: "stopcont"})
	add(Rule{Syscall: "exit", Why: "the thread's end", Test: "goexit"})
	add(Rule{Syscall: "exit_group", Why: "the process's end: os.Exit, a panic", Test: "osexit"})

	f.setIDs(add, "uid", f.UIDs, os.Getuid(), os.Geteuid(), "setuid", "setreuid", "setresuid")
	f.setIDs(add, "gid", f.GIDs, os.Getgid(), os.Getegid(), "setgid", "setregid", "setresgid")
	return t
}

// setIDs allows the transitions to the new id of each pair that applies: every
// argument is that id, or -1 for one that stays.
func (f *facts) setIDs(add func(Rule), kind string, pairs []IDPair, real, effective int, one, two, three string) {
	saved := savedID(kind)
	for _, p := range pairs {
		if !f.page && !slices.Contains([]int{real, effective, saved}, int(p.From)) {
			continue
		}
		const keep = low32
		text := "each argument is an allowed new " + kind + " or -1"
		rule := func(name string, ids ...uint32) {
			if len(ids) > 1 && !slices.Contains(ids, p.To) {
				return // changes nothing
			}
			r := Rule{Syscall: name, Only: strings.ToUpper(kind) + "s", Why: "the C library and Go make the change on every thread", Test: "set" + kind}
			for i, id := range ids {
				r.When = append(r.When, is32(uint(i), id, text))
			}
			add(r)
		}
		rule(one, p.To)
		for _, a := range []uint32{keep, p.To} {
			for _, b := range []uint32{keep, p.To} {
				rule(two, a, b)
				for _, c := range []uint32{keep, p.To} {
					rule(three, a, b, c)
				}
			}
		}
	}
}

func savedID(kind string) (saved int) {
	if kind == "uid" {
		_, _, saved = unix.Getresuid()
	} else {
		_, _, saved = unix.Getresgid()
	}
	return saved
}

// From include/uapi/linux/futex.h.
const (
	futexWait        = 0
	futexWaitPrivate = 0 | 128
	futexWakePrivate = 1 | 128
)

var (
	requestNames = map[uint32]string{notify.IoctlRecv: "NOTIF_RECV", notify.IoctlSend: "NOTIF_SEND", notify.IoctlIDValid: "NOTIF_ID_VALID"}
	requestWhy   = map[uint32]string{notify.IoctlRecv: "receives", notify.IoctlSend: "answers: inline handlers, drops, stops", notify.IoctlIDValid: "asks whether a target still waits"}
	requestTest  = map[uint32]string{notify.IoctlRecv: "serve", notify.IoctlSend: "serve", notify.IoctlIDValid: "serve"}
	notOnARM64   = []string{"open", "creat", "stat", "lstat", "access", "readlink"}
)
