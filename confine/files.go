package confine

import (
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// closeBut closes the descriptors of the calling thread's table that are not in
// keep, which is in order. The table must be the thread's own.
func closeBut(keep []int) error {
	refused := closeRanges(keep)
	if refused == nil {
		return nil
	}
	// Not there before Linux 5.9, and refused by old container profiles. What
	// was closed before the refusal is gone, the rest is closed one by one.
	if err := closeEach(keep); err != nil {
		return fmt.Errorf("close_range(2): %w; and one by one: %w", refused, err)
	}
	return nil
}

func closeRanges(keep []int) error {
	next := uint(0)
	for _, fd := range keep {
		if uint(fd) > next {
			if err := unix.CloseRange(next, uint(fd)-1, 0); err != nil {
				return err
			}
		}
		next = uint(fd) + 1
	}
	return unix.CloseRange(next, ^uint(0)>>32, 0)
}

// closeEach is closeBut by close(2) for each descriptor that /proc lists. It
// uses no os.File, whose descriptor another thread could close.
func closeEach(keep []int) error {
	const path = "/proc/thread-self/fd"
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	var fds []int
	for buf := make([]byte, 4096); ; {
		n, err := unix.ReadDirent(dir, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err) // the thread ends with this
		}
		if n == 0 {
			break
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			fd, err := strconv.Atoi(name)
			if err != nil {
				return fmt.Errorf("%s has %q", path, name)
			}
			fds = append(fds, fd)
		}
	}
	for _, fd := range append(fds, dir) {
		if _, kept := slices.BinarySearch(keep, fd); kept {
			continue
		}
		// The listing has the directory itself, so it may be closed by now.
		if err := unix.Close(fd); err != nil && err != unix.EBADF && err != unix.EINTR {
			return fmt.Errorf("close descriptor %d: %w", fd, err)
		}
	}
	return nil
}
