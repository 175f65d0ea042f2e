//go:build cgo

// Package seccompbpf takes finished programs out of libseccomp, which here only
// compiles: its own Load sets TSYNC and would filter the whole process.
package seccompbpf

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// Export has libseccomp write the program of f into memory. Its ExportBPFMem
// would need libseccomp 2.6.
func Export(f *seccomp.ScmpFilter) ([]unix.SockFilter, error) {
	fd, err := unix.MemfdCreate("unknot-filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("export filter: memfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), "unknot-filter")
	defer file.Close()
	if err := f.ExportBPF(file); err != nil {
		return nil, fmt.Errorf("libseccomp: export filter: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("export filter: %w", err)
	}
	raw, err := io.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf("export filter: %w", err)
	}
	const size = 8 // struct sock_filter
	if len(raw) == 0 || len(raw)%size != 0 {
		return nil, fmt.Errorf("export filter: %d bytes are no BPF program", len(raw))
	}
	prog := make([]unix.SockFilter, len(raw)/size)
	if _, err := binary.Decode(raw, binary.NativeEndian, prog); err != nil {
		return nil, fmt.Errorf("export filter: %w", err)
	}
	return prog, nil
}
