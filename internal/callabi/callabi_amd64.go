// Package callabi makes system calls by the other ABIs of the machine, for
// tests that a filter is no less a filter for them.
package callabi

// Int80 makes an i386 call by int $0x80. The result is what the kernel left in
// eax: negative errnos are not translated.
func Int80(nr, a1, a2, a3 uint32) int32
