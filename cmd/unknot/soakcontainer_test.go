package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// A soakSpec is what a container of the soak does.
type soakSpec struct {
	Socket, Dir, ID string
	Threads         int
	Calls           []string      // which each thread makes in turn, of soakCalls
	Pause           time.Duration // after each call
	Signals         bool          // its threads are signalled all the time
	Churn           int           // instead: so many containers in a row in each thread, each of which makes Calls once

	Again *soakReport // it was another image before, which made these, and has the filter
}

// A soakReport is what became of a container's calls, by their names.
type soakReport struct {
	Done        map[string]int // with what was to be expected
	Interrupted map[string]int // EINTR
	Without     int            // ENOSYS
	Odd         string         // the first call that returned something else
	Hung        string         // a call that did not return
	Longest     time.Duration
}

func (r *soakReport) add(o *soakReport) {
	for name, n := range o.Done {
		r.Done[name] += n
	}
	for name, n := range o.Interrupted {
		r.Interrupted[name] += n
	}
	r.Without += o.Without
	r.Longest = max(r.Longest, o.Longest)
	if r.Odd == "" {
		r.Odd = o.Odd
	}
	if r.Hung == "" {
		r.Hung = o.Hung
	}
}

func newSoakReport() *soakReport {
	return &soakReport{Done: map[string]int{}, Interrupted: map[string]int{}}
}

// A soakCall is a call with what it has to return under the policies of the soak.
type soakCall struct {
	nr     int
	logged bool // all policies write it down
	make   func(dir string) (right bool, err error)
}

// expects makes a call right that fails so.
func expects(err error, any ...syscall.Errno) (bool, error) {
	return slices.ContainsFunc(any, func(e syscall.Errno) bool { return errors.Is(err, e) }), err
}

// soakCalls are calls that Go's runtime does not make by itself, on any architecture.
var soakCalls = map[string]soakCall{
	"continue": {unix.SYS_GETPPID, false, func(string) (bool, error) {
		v, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
		if e != 0 {
			return false, e
		}
		return int(v) > 0, nil
	}},
	"errno": {unix.SYS_FCHMODAT, false, func(dir string) (bool, error) {
		return expects(unix.Fchmodat(unix.AT_FDCWD, dir+"/none", 0, 0), unix.ENOMEDIUM, unix.EBUSY)
	}},
	"log": {unix.SYS_GETPGID, true, func(string) (bool, error) {
		v, err := unix.Getpgid(0)
		return v > 0, err
	}},
	"deny": {unix.SYS_MKDIRAT, true, func(dir string) (bool, error) {
		return expects(unix.Mkdirat(unix.AT_FDCWD, dir+"/denied/x", 0), unix.EACCES)
	}},
	"not denied": {unix.SYS_MKDIRAT, true, func(dir string) (bool, error) {
		return expects(unix.Mkdirat(unix.AT_FDCWD, dir+"/there", 0), unix.EEXIST)
	}},
	"inject":      {unix.SYS_OPENAT2, true, func(dir string) (bool, error) { return reads(dir+"/in", "injected") }},
	"open":        {unix.SYS_OPENAT2, true, func(dir string) (bool, error) { return reads(dir+"/opened", "opened") }},
	"not opened":  {unix.SYS_OPENAT2, true, func(dir string) (bool, error) { return reads(dir+"/plain", "plain") }},
	"never opens": {unix.SYS_OPENAT2, true, func(dir string) (bool, error) { _, err := reads(dir+"/fifo", ""); return expects(err, unix.EIO) }},
}

// soakMix are all calls but the one that waits for its deadline.
var soakMix = []string{"continue", "log", "errno", "deny", "inject", "continue", "not denied", "open", "log", "not opened"}

// reads opens a file with openat2 and compares what is in it.
func reads(name, want string) (bool, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC})
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	b := make([]byte, 64)
	n, err := unix.Read(fd, b)
	return err == nil && string(b[:n]) == want, err
}

// soakHung is after how many ticks a call is hung. Ticks are counted, and no clock is asked: all may be stopped for a while.
const (
	soakTick = 50 * time.Millisecond
	soakHung = 30 * time.Second / soakTick
)

// A soaked is a container of the soak, from within.
type soaked struct {
	soakSpec
	prog    []unix.SockFilter
	stop    atomic.Bool
	paused  atomic.Bool // who has it call is stopped
	threads []*soakThread
	over    sync.WaitGroup
}

// A soakThread is one that calls.
type soakThread struct {
	tid   int
	call  atomic.Pointer[string] // in which it is
	ticks atomic.Int64           // for how long
	did   *soakReport
}

// soakContainer is the child: it says "ready", makes calls until it hears "stop", and says what became of them. When it
// hears "exec" it goes on as another image, and says "ready" again.
func soakContainer(c *testchild.Conn, args []string) error {
	s := &soaked{}
	if err := json.Unmarshal([]byte(args[0]), &s.soakSpec); err != nil {
		return err
	}
	var nrs []int
	for _, call := range soakCalls {
		nrs = append(nrs, call.nr)
	}
	var err error
	if s.prog, err = notify.TrapProgram(nrs...); err != nil {
		return err
	}
	beat, err := os.Open(filepath.Join(s.Dir, "beat"))
	if err != nil {
		return err
	}
	if s.Churn == 0 && s.Again == nil {
		hold, err := s.install(notify.TSync, s.ID)
		if err != nil {
			return err
		}
		defer hold.Close()
	}
	s.begin()
	go s.watch(beat)
	if s.Signals {
		go s.signal()
	}
	if err := c.Say("ready"); err != nil {
		return err
	}
	word, err := c.Hear()
	if err != nil {
		return nil // nobody wants to know any more
	}
	total := s.end()
	if word == "exec" && total.Hung == "" {
		s.Again = total
		told, err := json.Marshal(s.soakSpec)
		if err != nil {
			return err
		}
		return c.Exec("soak", string(told))
	}
	said, err := json.Marshal(total)
	if err != nil {
		return err
	}
	return c.Say("%s", said)
}

// install does what a runtime does for a container: a filter, and its listener for the agent. Runtimes keep the connection.
func (s *soaked) install(flags notify.InstallFlags, id string) (*net.UnixConn, error) {
	l, err := notify.Install(s.prog, flags)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.Socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(agent.State{FDs: []string{"seccompFd"}, PID: os.Getpid(), Metadata: "soak", Container: agent.Container{ID: id}})
	if err == nil {
		_, _, err = conn.WriteMsgUnix(b, unix.UnixRights(l.FD()), nil)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// begin starts the threads.
func (s *soaked) begin() {
	started := make(chan int)
	for i := range s.Threads {
		th := &soakThread{did: newSoakReport()}
		if i == 0 && s.Again != nil {
			th.did.add(s.Again)
		}
		s.threads = append(s.threads, th)
		s.over.Add(1)
		if s.Churn > 0 {
			go s.churn(th, i)
			continue
		}
		osthread.Start(func() {
			defer s.over.Done()
			started <- unix.Gettid()
			s.calls(th, i)
		})
		th.tid = <-started
	}
}

// churn has containers of a thread each come and go.
func (s *soaked) churn(th *soakThread, i int) {
	defer s.over.Done()
	for n := 0; n < s.Churn && !s.stop.Load(); n++ {
		gone := make(chan struct{})
		osthread.Start(func() {
			defer close(gone)
			conn, err := s.install(0, fmt.Sprintf("%s-%d-%d", s.ID, i, n))
			if err != nil {
				th.did.Odd = fmt.Sprintf("a container does not start: %v", err)
				return
			}
			defer conn.Close()
			for _, name := range s.Calls {
				s.call(th, name)
			}
		})
		<-gone
		time.Sleep(s.Pause)
	}
}

// calls has a thread make its calls.
func (s *soaked) calls(th *soakThread, i int) {
	for ; !s.stop.Load(); i++ {
		if s.paused.Load() {
			time.Sleep(soakTick)
			continue
		}
		s.call(th, s.Calls[i%len(s.Calls)])
		if s.Pause > 0 {
			time.Sleep(s.Pause)
		}
	}
}

func (s *soaked) call(th *soakThread, name string) {
	th.ticks.Store(0)
	th.call.Store(&name)
	begun := time.Now()
	right, err := soakCalls[name].make(s.Dir)
	th.did.Longest = max(th.did.Longest, time.Since(begun))
	th.call.Store(nil)
	switch {
	case errors.Is(err, unix.EINTR):
		th.did.Interrupted[name]++
	case errors.Is(err, unix.ENOSYS):
		th.did.Without++
		time.Sleep(time.Millisecond)
	case right:
		th.did.Done[name]++
	default:
		th.did.Done[name]++
		if th.did.Odd == "" {
			th.did.Odd = fmt.Sprintf("%s: %v", name, err)
		}
	}
}

// watch counts for how long calls last, and has all threads pause while the beat does.
func (s *soaked) watch(beat *os.File) {
	last, same := [8]byte{}, 0
	for ; ; time.Sleep(soakTick) {
		var now [8]byte
		_, _ = beat.ReadAt(now[:], 0)
		if same++; now != last {
			last, same = now, 0
		}
		s.paused.Store(same > 10)
		for _, th := range s.threads {
			th.ticks.Add(1)
		}
	}
}

// signal signals the threads, whose calls are interrupted and made again.
func (s *soaked) signal() {
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, unix.SIGUSR1)
	for !s.stop.Load() {
		time.Sleep(2 * time.Millisecond)
		_ = unix.Tgkill(os.Getpid(), s.threads[rand.IntN(len(s.threads))].tid, unix.SIGUSR1)
		select {
		case <-heard:
		default:
		}
	}
}

// end stops the threads. A call that does not return is hung.
func (s *soaked) end() *soakReport {
	s.stop.Store(true)
	done := make(chan struct{})
	go func() {
		s.over.Wait()
		close(done)
	}()
	total := newSoakReport()
	for {
		select {
		case <-done:
			for _, th := range s.threads {
				total.add(th.did)
			}
			return total
		case <-time.After(soakTick):
		}
		for _, th := range s.threads {
			if name := th.call.Load(); name != nil && th.ticks.Load() > int64(soakHung) {
				total.Hung = fmt.Sprintf("%s, thread %d", *name, th.tid)
				return total
			}
		}
	}
}

// soakNames are the calls' names in records, of those that are written down.
var soakNames = map[int]string{unix.SYS_GETPGID: "getpgid", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_OPENAT2: "openat2"}

// records are how many records a report's calls have.
func (r *soakReport) records() map[string]int {
	all := map[string]int{}
	for _, name := range slices.Collect(maps.Keys(r.Done)) {
		if c := soakCalls[name]; c.logged {
			all[soakNames[c.nr]] += r.Done[name]
		}
	}
	return all
}
