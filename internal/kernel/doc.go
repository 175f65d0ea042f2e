// Package kernel is the seam between engine and notify on the one side and Linux on the other: the system calls by which they are told of
// notifications, answer them and wake their threads. In an ordinary build each is the system call, inlined into its caller. Under
// the build tag fakekernel each is a call of package notifytest's fake, so that the whole engine runs without a kernel, in virtual time:
// docs/decisions/24-fake-kernel.md. Under the tag faults each is Linux's behind
// what a test injects (docs/decisions/24-faults.md). Package osthread has its own half of the seam, for threads.
package kernel
