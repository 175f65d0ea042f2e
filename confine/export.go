package confine

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// A Format is how [Export] writes a filter.
type Format uint8

const (
	// Table is a Markdown table of the rules, each with its reason ([WriteRules]).
	Table Format = iota
	// PFC is libseccomp's pseudo filter code (seccomp_export_pfc(3)), for people. It takes cgo.
	PFC
	// BPF is the program itself: an array of struct sock_filter in the machine's byte order, as seccomp_export_bpf(3)
	// writes it and tools such as bubblewrap's --seccomp read it.
	BPF
)

var formatNames = []string{"table", "pfc", "bpf"}

func (f Format) String() string { return formatNames[f] }

// ParseFormat is the inverse of [Format.String].
func ParseFormat(name string) (Format, error) {
	if i := slices.Index(formatNames, name); i >= 0 {
		return Format(i), nil
	}
	return 0, fmt.Errorf("no format %q: the formats are table, pfc, bpf", name)
}

// What a thread is not known by before it is there. Numbers that look made up, so that nobody takes them for a thread's.
var (
	exportThread = Thread{Listeners: []int{1001}, Epoll: 1002, Wake: 1003}
	exportPoller = poller{epoll: 1004, event: 1005}
)

const (
	exportCookie = 0xc00c1e0000000000 // and 1, 2, 3
	exportPID    = 1000
)

// Export writes what c lets a receive thread do, and loads nothing. The numbers of descriptors, the cookies and the
// process id are those of no thread: the listener is 1001, its epoll instance 1002, its eventfd 1003, the runtime's
// two are 1004 and 1005, the process is 1000, and the cookies are 0xc00c1e0000000001 to 3. So the same c gives the
// same bytes with the same compiler, which can be kept and compared. It asks the kernel nothing: what one without
// landlock or with [Config].Best lacks does not change the filter, except that the level may be [Shared].
func Export(w io.Writer, format Format, c Config) error {
	if err := c.fill(); err != nil {
		return err
	}
	f := facts{Config: c, Thread: exportThread, poller: exportPoller, pid: exportPID}
	for i := range f.cookies {
		cookie := uint64(exportCookie) + uint64(i) + 1
		f.cookies[i] = uintptr(cookie)
	}
	switch rules := f.rules(); format {
	case Table:
		return WriteRules(w, rules)
	case PFC:
		return writePFC(w, rules, c.OnViolation)
	case BPF:
		prog, err := compile(rules, c.OnViolation)
		if err != nil {
			return err
		}
		return binary.Write(w, binary.NativeEndian, prog)
	}
	return fmt.Errorf("confine: format %d: no such format", format)
}
