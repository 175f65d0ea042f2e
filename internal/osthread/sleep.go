package osthread

import "golang.org/x/sys/unix"

// SleepExactly has the calling thread's sleeps end on time (PR_SET_TIMERSLACK); by default
// the kernel adds up to 50 µs. Threads and processes that it starts inherit it.
func SleepExactly() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) }
