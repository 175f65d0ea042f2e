package trace

// The objects are committed, one for each architecture since they read its
// registers. To build them again: clang-14, llvm-14 and nothing else; no headers
// are included, and the compiler's version is fixed, so that the same source
// gives the same bytes everywhere. Both architectures are little-endian.

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -mcpu=v3 -Wall -Wextra -Werror -I../internal/bpf/headers" -target amd64,arm64 kernel bpf/trace.bpf.c
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -mcpu=v3 -Wall -Wextra -Werror -I../internal/bpf/headers" -target amd64,arm64 -output-suffix _test index bpf/index.bpf.c
