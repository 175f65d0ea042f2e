package confine

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testbpf"
	"golang.org/x/sys/unix"
)

// TestExport: what is written is the filter, and the same each time.
func TestExport(t *testing.T) {
	write := func(f Format, c Config) []byte {
		var b, again bytes.Buffer
		if err := Export(&b, f, c); err != nil {
			t.Fatal(err)
		}
		if err := Export(&again, f, c); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), again.Bytes()) {
			t.Errorf("%v: two exports differ", f)
		}
		return b.Bytes()
	}
	recv := [6]uint64{1001, notify.IoctlRecv, 0, 0xc00c1e0000000001, 0xc00c1e0000000002, 0xc00c1e0000000003}
	other := recv
	other[0] = 1006
	guessed := recv
	guessed[5]++
	for _, c := range []struct {
		cfg  Config
		nr   uint32
		args [6]uint64
		want uint32
	}{
		{Config{}, unix.SYS_IOCTL, recv, unix.SECCOMP_RET_ALLOW},
		{Config{}, unix.SYS_IOCTL, other, unix.SECCOMP_RET_KILL_PROCESS},
		{Config{Level: Shared}, unix.SYS_IOCTL, other, unix.SECCOMP_RET_ALLOW},
		{Config{Level: Shared}, unix.SYS_IOCTL, guessed, unix.SECCOMP_RET_KILL_PROCESS},
		{Config{}, unix.SYS_EXECVE, [6]uint64{}, unix.SECCOMP_RET_KILL_PROCESS},
		{Config{OnViolation: Trap}, unix.SYS_EXECVE, [6]uint64{}, unix.SECCOMP_RET_TRAP},
		{Config{}, unix.SYS_RT_SIGRETURN, [6]uint64{}, unix.SECCOMP_RET_ALLOW},
		{Config{Signals: Strict}, unix.SYS_RT_SIGRETURN, [6]uint64{}, unix.SECCOMP_RET_KILL_PROCESS},
	} {
		raw := write(BPF, c.cfg)
		prog := make([]unix.SockFilter, len(raw)/8)
		if n, err := binary.Decode(raw, binary.NativeEndian, prog); err != nil || n != len(raw) {
			t.Fatal(n, err)
		}
		got, err := testbpf.Run(prog, testbpf.Call{Arch: auditArch, NR: c.nr, Args: c.args})
		if err != nil || got != c.want {
			t.Errorf("%+v: call %d %x: %#x (%v), want %#x", c.cfg, c.nr, c.args, got, err, c.want)
		}
	}
	if s := string(write(Table, Config{})); !strings.Contains(s, "| `exit_group` |  | allowed |") {
		t.Errorf("no table: %s", s)
	}
	var b bytes.Buffer
	switch err := Export(&b, PFC, Config{}); {
	case strings.HasPrefix(compiler(), "libseccomp"):
		if err != nil || !strings.Contains(b.String(), "KILL_PROCESS") {
			t.Errorf("no pseudo filter code: %v\n%s", err, b.String())
		}
	case err == nil || !strings.Contains(err.Error(), "cgo"):
		t.Errorf("pseudo filter code without libseccomp: %v", err)
	}
	if err := Export(&b, 99, Config{}); err == nil {
		t.Error("format 99 exists")
	}
	if _, err := ParseFormat("xml"); err == nil {
		t.Error("format xml exists")
	}
}
