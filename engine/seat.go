package engine

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/unknot/unknot/engine/internal/placement"
	"golang.org/x/sys/unix"
)

// A seat is a receive thread's claim to a CPU. Engines of many processes, as below a `make -j` of
// supervised commands, would all pin to the same one; so each says where it is by an abstract UNIX socket, whose name
// others find in /proc/net/unix and which is gone when its process is. Processes of other network
// namespaces do not see it.
type seat struct {
	cpu int // or placement.Anywhere
	fd  int // of the socket, or noFD
	why string
}

const seatName = "@unknot/receive/" // then the CPU, the process and a number

var seatNumber atomic.Uint32

// takeSeat chooses a receive thread's own CPU: the configured one, or the one with the fewest seats of mine and of
// other processes. Of equals it is one that follows from our process id, since many may choose at one time.
func takeSeat(c *Config, cpus []int, mine []int) seat {
	s := seat{cpu: placement.Anywhere, fd: noFD, why: "it is not pinned"}
	switch {
	case c.CPU > 0:
		s.cpu, s.why = int(c.CPU)-1, "as configured"
		return s
	case c.CPU == AnyCPU || len(cpus) < 2:
		return s
	}
	taken := map[int]int{}
	list, _ := os.ReadFile("/proc/net/unix") // without it, our own seats
	others := countSeats(list, taken)
	for _, cpu := range mine {
		taken[cpu] += 1 << 16 // never two of one engine on a CPU while there is another
	}
	for i := range cpus {
		cpu := cpus[(os.Getpid()+i)%len(cpus)]
		if s.cpu < 0 || taken[cpu] < taken[s.cpu] {
			s.cpu = cpu
		}
	}
	s.why = fmt.Sprintf("the fewest of %d receive threads of other engines are there", others)
	if others == 0 {
		s.why = "no other engine is seen"
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return s // it is only there for others
	}
	name := fmt.Sprintf("%s%d/%d/%d", seatName, s.cpu, os.Getpid(), seatNumber.Add(1))
	if unix.Bind(fd, &unix.SockaddrUnix{Name: name}) != nil {
		_ = unix.Close(fd)
		return s
	}
	s.fd = fd
	return s
}

// countSeats adds the seats of other processes in a listing like /proc/net/unix to taken, by CPU.
func countSeats(list []byte, taken map[int]int) (others int) {
	self := []byte(strconv.Itoa(os.Getpid()))
	for line := range bytes.Lines(list) {
		_, name, ok := bytes.Cut(line, []byte(seatName))
		if !ok {
			continue
		}
		parts := bytes.Split(bytes.TrimSpace(name), []byte("/"))
		cpu, err := strconv.Atoi(string(parts[0]))
		if err != nil || len(parts) != 3 || bytes.Equal(parts[1], self) {
			continue
		}
		taken[cpu]++
		others++
	}
	return others
}

func (s *seat) leave() {
	if s.fd != noFD {
		_ = unix.Close(s.fd)
		s.fd = noFD
	}
}
