/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef UNKNOT_FLIGHTS_H
#define UNKNOT_FLIGHTS_H

#include <kernel.h>

/*
 * The notifications received and not yet answered: an open hash table in an
 * array, since the kernel's hash map took as long as all the rest of these
 * programs. It has a near part, which fits a core's cache and is enough for some
 * hundred in flight, and a far part for MaxInFlight, used when the near one is
 * full: one large table, whose every slot is touched in turn, cost 3% of a
 * supervisor's throughput. A notification lives in the first free slot of
 * NEAR_WAYS slots from its home in the near part on, then FAR_WAYS in the far
 * part; if none is free it is lost, and counted as overflow.
 *
 * Ids are a counter of each filter with a random 64-bit start, so that two
 * listeners have the same id in flight is not to be expected, and the listener
 * need not be part of the key. Multiplied by 2^64 / golden ratio, the ids of one
 * listener are spread evenly however many there are.
 */
struct flight {
	__u64 id; /* 0: the slot is free */
	__u64 received;
	__u64 dispatched; /* first ID_VALID; 0: none yet */
	__u64 answered;   /* entry of the last SEND; 0: none yet */
	/* With stages only: */
	__u64 receiver_ran; /* when the receiver last got a CPU before received */
	__u32 pid;          /* of the target's thread, as the receiver sees it; 0: it does not */
	__u32 drop;         /* the answer is a drop's */
	__u32 woken;        /* the answer has woken a target */
	__u32 receiver;     /* its number in the list of receivers, plus 1; 0: none of them */
	__u32 pad[2];       /* a cache line */
};

volatile const __u32 near_log2 = 9; /* log2 of the size of the near part */
volatile const __u32 far_log2 = 17;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, (1 << 9) + (1 << 17));
	__type(key, __u32);
	__type(value, struct flight);
} flights SEC(".maps");

#define NEAR_WAYS 4
#define FAR_WAYS 8
#define WAYS (NEAR_WAYS + FAR_WAYS)

/* slot returns the number of the n-th place where the notification with this hash may be. */
INLINE __u32 slot(__u64 hash, __u32 n)
{
	if (n < NEAR_WAYS)
		return ((hash >> (64 - near_log2)) + n) & ((1U << near_log2) - 1);
	return (1U << near_log2) + (((hash >> (64 - far_log2)) + n) & ((1U << far_log2) - 1));
}

INLINE struct flight *flight_at(__u32 slot)
{
	return bpf_map_lookup_elem(&flights, &slot);
}

INLINE __u64 hash(__u64 id)
{
	return id * 0x9e3779b97f4a7c15ULL;
}

volatile const __u32 sampled = ~0U; /* one in 2^32 / sampled is followed; ~0: all */

INLINE bool sampling(void)
{
	return sampled != ~0U;
}

/* drawn says which of evenly distributed hashes are in the sample. */
INLINE bool drawn(__u64 hash)
{
	return (__u32)(hash >> 32) <= sampled;
}

/*
 * With sampling most ids that are asked for are in no flight. How many flights there
 * are, and how many have their home in a place, is kept aside: looking at the first
 * takes not even the id, at the second a load, into the table one for each way.
 */
#define HOMES 1024

__u32 in_flight, homes[HOMES];

INLINE void tally(__u64 id, __u32 n)
{
	if (!sampling())
		return;
	__sync_fetch_and_add(&in_flight, n);
	__sync_fetch_and_add(&homes[hash(id) >> 54], n);
}

/* idle: whatever the id, it is in no flight. */
INLINE bool idle(void)
{
	return sampling() && !in_flight;
}

/* flying says whether an id may be in a flight. */
INLINE bool flying(__u64 id)
{
	return !sampling() || homes[hash(id) >> 54];
}

/* find returns the notification in flight with this id, and its slot in *at. */
INLINE struct flight *find(__u64 id, __u32 *at)
{
	__u64 h = hash(id);

	if (!id)
		return 0; /* asked for by programs that test whether a descriptor is a listener */
#pragma unroll
	for (int i = 0; i < WAYS; i++) {
		__u32 k = slot(h, i);
		struct flight *f = flight_at(k);

		if (f && f->id == id) {
			*at = k;
			return f;
		}
	}
	return 0;
}

/* claim takes a free slot: id goes in first, and nobody asks for it before its RECV returned. */
INLINE struct flight *claim(__u64 id, __u32 *at)
{
	__u64 h = hash(id);

#pragma unroll
	for (int i = 0; i < WAYS; i++) {
		__u32 k = slot(h, i);
		struct flight *f = flight_at(k);

		if (f && !f->id && !__sync_val_compare_and_swap(&f->id, 0, id)) {
			tally(id, 1);
			*at = k;
			return f;
		}
	}
	return 0;
}

/* release frees a slot: an exchange, so that what was read from it is not read later than that. */
INLINE void release(struct flight *f)
{
	tally(f->id, -1);
	__sync_lock_test_and_set(&f->id, 0);
}

#endif
