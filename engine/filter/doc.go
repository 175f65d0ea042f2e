// Package filter compiles system call names into the BPF program that hands
// those calls to a listener. It uses libseccomp, which knows every ABI's
// numbers, only as a compiler: notify.Install loads the program, because
// libseccomp's own Load would confine the whole process (TSYNC).
//
// A program on Linux may make system calls by more ABIs than its own, whenever
// it likes, so a filter that knows one ABI is no filter. Here:
//
//   - 32-bit calls (i386 on amd64, also by int $0x80 from 64-bit programs; arm on
//     arm64) are trapped by the same names, because 32-bit programs are run under
//     supervisors and must keep working. What one 64-bit call does may have other
//     names there, and these are trapped with it: mmap traps mmap2, wait4 traps
//     waitpid, connect traps socketcall with SYS_CONNECT ([Twins]). The notification's
//     Arch and NR are those of the 32-bit ABI. [Options.Refuse32] refuses all of them
//     with ENOSYS instead.
//   - x32 calls on amd64 get ENOSYS. That is what kernels say that have no x32,
//     and they are nearly all: no program can rely on it.
//
// What no filter of system calls sees: operations submitted through io_uring. To
// supervise those, name io_uring_setup and refuse it.
//
// Names younger than the libseccomp in use are known up to Linux 6.18. Without
// cgo nothing here works, and the error says so (errors.ErrUnsupported).
package filter
