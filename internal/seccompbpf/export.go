//go:build cgo

// Package seccompbpf takes finished programs out of libseccomp, which here only
// compiles: its own Load sets TSYNC and would filter the whole process.
package seccompbpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// Export has libseccomp write the program of f into memory. Its ExportBPFMem
// would need libseccomp 2.6.
func Export(f *seccomp.ScmpFilter) ([]unix.SockFilter, error) {
	raw, err := exported(f.ExportBPF)
	if err != nil {
		return nil, err
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

// PFC has libseccomp write f as its pseudo filter code.
func PFC(f *seccomp.ScmpFilter) ([]byte, error) { return exported(f.ExportPFC) }

// exported returns what export writes into a file.
func exported(export func(*os.File) error) ([]byte, error) {
	// A pipe, since a file may have a limit of size (RLIMIT_FSIZE).
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("export filter: pipe: %w", err)
	}
	defer r.Close()
	written := make(chan error, 1)
	go func() {
		err := export(w)
		if err != nil {
			err = fmt.Errorf("libseccomp: export filter: %w", err)
		}
		written <- errors.Join(err, w.Close())
	}()
	raw, err := io.ReadAll(r)
	if err := errors.Join(err, <-written); err != nil {
		return nil, fmt.Errorf("export filter: %w", err)
	}
	return raw, nil
}
