// Package syscalls names system calls and their arguments, as a notification has them: numbers and registers, of the
// ABI of the program that calls.
//
// It needs no cgo and no kernel. The names are a generated table, of the kernel's headers that golang.org/x/sys
// was made from. A call that is younger has no name here, and a number that is not in the table none either.
//
// [Decode] says what the registers of a call hold, for those that supervisors trap: which of them is a descriptor,
// a flag, a pointer and to what. It does not read the target's memory.
//
// # Traps
//
// A call has another number in each ABI, and one program may call by several: on amd64 a 64-bit program can make
// calls of i386 by int $0x80. Compare names, or numbers together with the ABI ([ABIOf]).
//
// Some calls have other names in older ABIs, and other arguments with the same name: i386's stat64, chown32 and
// socketcall, whose arguments are in memory.
package syscalls

//go:generate go run ./internal/gen
