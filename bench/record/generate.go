package record

// As in bench/trace: no headers from outside, a fixed compiler, objects committed.

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -mcpu=v3 -Wall -Wextra -Werror -I../internal/bpf/headers" -target amd64,arm64 -type row kernel bpf/record.bpf.c
