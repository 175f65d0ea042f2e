package confine

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// verifier starts the goroutine that will look at thread tid once the thread
// asks it to. It runs elsewhere, since tid is locked to its own goroutine. drop
// ends it.
func verifier(tid int, blocked uint64, st *Status) (ask func() error, drop func()) {
	asked, answer := make(chan struct{}), make(chan error, 1)
	dir := taskDir(tid)
	go func() {
		if _, ok := <-asked; ok {
			answer <- verify(dir, blocked, st)
		}
	}()
	ask = func() error {
		asked <- struct{}{}
		return <-answer
	}
	return ask, func() { close(asked) }
}

// handlerLimit is how long verify takes signals that are blocked beyond those
// that should be for those of a handler that the thread happens to be in.
const handlerLimit = time.Second

// taskDir is where /proc has the calling thread, tid. In that of another PID namespace
// the thread has another number.
func taskDir(tid int) string {
	if to, err := os.Readlink("/proc/thread-self"); err == nil {
		return "/proc/" + to
	}
	return "/proc/self/task/" + strconv.Itoa(tid)
}

// verify compares what /proc says of the thread there with what it should be.
func verify(dir string, blocked uint64, st *Status) error {
	// While a handler runs, what sigaction(2) says is blocked too, and the
	// runtime's preemption (SIGURG) may come at any time: look again.
	var got map[string]string
	for deadline := time.Now().Add(handlerLimit); ; time.Sleep(time.Millisecond) {
		var err error
		if got, err = status(dir); err != nil {
			return err
		}
		mask, err := strconv.ParseUint(got["SigBlk"], 16, 64)
		if err != nil || mask == blocked || mask&blocked != blocked || time.Now().After(deadline) {
			break
		}
	}
	want := [][2]string{
		{"Seccomp", "2"}, // a filter
		{"SigBlk", fmt.Sprintf("%016x", blocked)},
	}
	if st.NoNewPrivs { // else it may be set all the same, by whoever started us
		want = append(want, [2]string{"NoNewPrivs", "1"})
	}
	for _, want := range want {
		if got[want[0]] != want[1] {
			return fmt.Errorf("%s/status has %s %q, not %q", dir, want[0], got[want[0]], want[1])
		}
	}
	if st.Level != Private {
		return nil
	}
	entries, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return err
	}
	var fds []int
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return fmt.Errorf("%s/fd has %q", dir, e.Name())
		}
		fds = append(fds, fd)
	}
	slices.Sort(fds)
	if !slices.Equal(fds, st.FDs) {
		return fmt.Errorf("%s/fd has %v, not %v", dir, fds, st.FDs)
	}
	return nil
}

// status returns the fields of the file status in dir.
func status(dir string) (map[string]string, error) {
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		fields[k] = strings.TrimSpace(v)
	}
	return fields, nil
}
