/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Runs hist_index in the kernel, for a test that compares it with hist.Index. */
#include "hist.h"

struct sweep {
	__s64 value;
	__u64 index;
};

SEC("syscall")
int index_of(struct sweep *s)
{
	s->index = hist_index(s->value);
	return 0;
}

char _license[] SEC("license") = "GPL";
