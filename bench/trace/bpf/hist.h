/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The buckets of package engine/hist. hist_index must equal hist.Index for
 * every value; TestBucketsEqualHist runs it in the kernel to see that it does.
 */
#ifndef UNKNOT_HIST_H
#define UNKNOT_HIST_H

#include <kernel.h>

#define SUB_BITS 5
#define MAX_BITS 41
#define BUCKETS ((MAX_BITS - SUB_BITS + 1) << SUB_BITS)
#define SUB_COUNT (1 << SUB_BITS)

struct hist {
	__u64 counts[BUCKETS];
};

/*
 * What a histogram's buckets do not say. Apart from them, so that all that a call
 * adds to is close together: where each system call empties the TLB (page-table
 * isolation without PCIDs), a page more costs as much as a stage.
 */
struct total {
	__u64 sum;
	__u64 max;
};

/* The position of the highest bit. BPF has no instruction for it. */
INLINE __u32 log2_u64(__u64 v)
{
	__u32 e = 0;

	if (v >> 32) { v >>= 32; e += 32; }
	if (v >> 16) { v >>= 16; e += 16; }
	if (v >> 8) { v >>= 8; e += 8; }
	if (v >> 4) { v >>= 4; e += 4; }
	if (v >> 2) { v >>= 2; e += 2; }
	return e + (v >> 1);
}

INLINE __u32 hist_index(__s64 v)
{
	__u32 e;

	if (v < SUB_COUNT)
		return v < 0 ? 0 : v;
	e = log2_u64(v);
	if (e >= MAX_BITS)
		return BUCKETS - 1;
	return (e - SUB_BITS + 1) << SUB_BITS | ((__u64)v >> (e - SUB_BITS) & (SUB_COUNT - 1));
}

INLINE void hist_add(struct hist *h, struct total *t, __u64 v)
{
	__u32 i = hist_index(v);

	asm volatile("" : "+r"(i)); /* hides from the compiler that i is in range, which the verifier cannot see */
	if (i < BUCKETS)
		h->counts[i]++;
	t->sum += v;
	if (v > t->max)
		t->max = v;
}

#endif
