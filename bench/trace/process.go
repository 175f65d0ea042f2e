package trace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Process is one that is watched until it ends, by a pidfd (Linux 5.3), so that a
// process that gets its number later is not taken for it. Where pidfds are refused,
// its number has to do. Methods may be called from any goroutine until Close.
type Process struct {
	pid int // in our PID namespace
	fd  int // pidfd; -1: none
}

// OpenProcess returns the process with an id in our own PID namespace. It fails if
// there is none, or if the id is that of a thread that is no process's first.
func OpenProcess(pid int) (*Process, error) {
	if err := checkProcess(pid); err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case err == nil:
		return &Process{pid, fd}, nil
	case errors.Is(err, unix.ESRCH):
		return nil, fmt.Errorf("trace: no process %d in this PID namespace: %w", pid, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // of a thread; the latter from Linux 6.15 on
		return nil, fmt.Errorf("trace: %d is a thread: trace its process: %w", pid, err)
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
		return nil, fmt.Errorf("trace: watch process %d: pidfd_open: %w", pid, err)
	}
	return &Process{pid, -1}, nil
}

// Ended reports whether all of the process's threads have, also if it is a zombie
// because its parent does not wait for it.
func (p *Process) Ended() bool {
	if p.fd < 0 {
		return errors.Is(unix.Kill(p.pid, 0), unix.ESRCH) || p.isZombie()
	}
	for {
		fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == 1 && fds[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0
		}
	}
}

// isZombie asks /proc: the first thread is one, and there is no other.
func (p *Process) isZombie() bool {
	dir, ok := p.Dir()
	if !ok {
		return false
	}
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return false
	}
	_, state, _ := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(" "))
	tasks, err := os.ReadDir(dir + "/task")
	return err == nil && len(tasks) == 1 && len(state) > 0 && (state[0] == 'Z' || state[0] == 'X')
}

// Close gives up watching.
func (p *Process) Close() error {
	if p.fd < 0 {
		return nil
	}
	return unix.Close(p.fd)
}

// Dir returns the process's directory in /proc, which may be that of another PID
// namespace, where the process has another number. It is false if the process cannot be
// seen there, or /proc is not mounted.
func (p *Process) Dir() (string, bool) {
	pid := p.pid
	if !OwnProc() {
		if pid = p.numberInProc(); pid <= 0 {
			return "", false
		}
	}
	dir := "/proc/" + strconv.Itoa(pid)
	_, err := os.Stat(dir)
	return dir, err == nil
}

// numberInProc is what /proc says of our pidfd: 0 or -1 if the process is not in it.
func (p *Process) numberInProc() int {
	if p.fd < 0 {
		return 0
	}
	info, err := os.ReadFile("/proc/thread-self/fdinfo/" + strconv.Itoa(p.fd))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(field(info, "Pid"))
	if err != nil {
		return 0
	}
	return n
}

// Name is the name of the program, or nothing where /proc does not tell.
func (p *Process) Name() string {
	dir, ok := p.Dir()
	if !ok {
		return ""
	}
	comm, err := os.ReadFile(dir + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(comm))
}

// Threads returns the ids of the process's threads in our own PID namespace.
func (p *Process) Threads() (tids []int, err error) {
	dir, ok := p.Dir()
	if !ok {
		return nil, fmt.Errorf("trace: process %d is not seen in /proc: %w", p.pid, fs.ErrNotExist)
	}
	tasks, err := os.ReadDir(dir + "/task")
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	depth := len(nsPIDs("self"))
	for _, t := range tasks {
		// One that has no number here has ended.
		if numbers := nsPIDs(strings.TrimPrefix(dir, "/proc/") + "/task/" + t.Name()); len(numbers) >= depth && depth > 0 {
			tids = append(tids, numbers[depth-1])
		}
	}
	return tids, nil
}

// HoldsListener reports whether one of the process's threads, each of which may have
// a file table of its own, holds a listener. It is also true if we may not look.
func (p *Process) HoldsListener() bool {
	dir, ok := p.Dir()
	if !ok {
		return !p.Ended()
	}
	links, _ := filepath.Glob(dir + "/task/*/fd/*")
	if len(links) == 0 {
		return !p.Ended()
	}
	return slices.ContainsFunc(links, isListener)
}

// isListener reports whether a link in /proc/PID/fd leads to a listener.
func isListener(link string) bool {
	to, err := os.Readlink(link)
	return err == nil && to == "anon_inode:seccomp notify"
}

// A Holder holds a listener.
type Holder struct {
	PID  int // in our own PID namespace
	Name string
}

// ListenerHolders returns the processes that hold a listener, as far as this user
// sees them in /proc and they have a number in our own PID namespace.
func ListenerHolders() (found []Holder) {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	seen := map[string]bool{}
	depth, own := len(nsPIDs("self")), OwnProc()
	for _, l := range links {
		dir := strings.Split(l, "/")[2]
		if seen[dir] || !isListener(l) {
			continue
		}
		seen[dir] = true
		pid, err := strconv.Atoi(dir)
		if err != nil {
			continue
		}
		if !own {
			// At our depth it may be a number of a namespace beside ours.
			numbers := nsPIDs(dir)
			if depth == 0 || len(numbers) < depth {
				continue
			}
			pid = numbers[depth-1]
		}
		p, err := OpenProcess(pid)
		if err != nil {
			continue
		}
		if d, ok := p.Dir(); ok && d == "/proc/"+dir {
			found = append(found, Holder{pid, p.Name()})
		}
		_ = p.Close()
	}
	return found
}

// nsPIDs are a process's numbers: in the PID namespace of /proc, and in those inside
// it down to its own.
func nsPIDs(dir string) (numbers []int) {
	status, err := os.ReadFile("/proc/" + dir + "/status")
	if err != nil {
		return nil
	}
	for f := range strings.FieldsSeq(field(status, "NSpid")) {
		n, err := strconv.Atoi(f)
		if err != nil {
			return nil
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// field returns what a file of /proc says after a name at a line's beginning.
func field(file []byte, name string) string {
	for s := bufio.NewScanner(bytes.NewReader(file)); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && k == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// OwnProc reports whether /proc shows our own PID namespace: we have one number there.
func OwnProc() bool { return len(nsPIDs("self")) == 1 }

// checkProcess reports whether tgid is a process: the filter would silently
// match nothing if it were a thread, or nobody.
func checkProcess(tgid int) error {
	if tgid < 0 {
		return fmt.Errorf("trace: process id %d is negative", tgid)
	}
	if err := unix.Kill(tgid, 0); errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("trace: no process %d in this PID namespace: %w", tgid, err)
	}
	if !OwnProc() {
		return nil // nothing to check by
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tgid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // hidden from us (hidepid)
	} else if err != nil {
		return nil
	}
	if leader, err := strconv.Atoi(field(status, "Tgid")); err == nil && leader != tgid {
		return fmt.Errorf("trace: %d is a thread of process %d: trace that", tgid, leader)
	}
	return nil
}
