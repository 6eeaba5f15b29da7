/* SPDX-License-Identifier: Apache-2.0 */
/* Which bytes a tensor has in memory, and whether two tensors share one. */
#ifndef FA_CORE_OVERLAP_H
#define FA_CORE_OVERLAP_H

#include <fastattn/attention.h>
#include <stdbool.h>

enum { FA_EXTENT_AXES = 4 };

/* Runs of contiguous bytes, which repeat along axes: the gaps between them are not the tensor's. */
typedef struct fa_extent {
    const void *storage; /* addresses are compared within one storage only; NULL: the host's memory */
    uintptr_t begin;
    size_t span; /* from `begin` to the end of the last run */
    size_t run;  /* bytes of one run */
    int axes;
    uint64_t count[FA_EXTENT_AXES],
        stride[FA_EXTENT_AXES]; /* runs, each at least 2, and bytes between them */
} fa_extent;

/* Of a normalised tensor of `span` bytes. */
fa_extent fa_extent_of_tensor(const fa_tensor *tensor, size_t span, const void *storage, uintptr_t begin);

/* Of `span` bytes without a gap. */
fa_extent fa_extent_of_bytes(size_t span, const void *storage, uintptr_t begin);

/* Repeats it `count` times, `stride` bytes apart. It has an axis left for that, and the whole fits in memory. */
void fa_extent_repeat(fa_extent *extent, int64_t count, size_t stride);

typedef enum fa_meeting {
    FA_APART,    /* no byte belongs to both                                                          */
    FA_MEET,     /* some byte does                                                                   */
    FA_UNDECIDED /* telling would take too long: strides that no layout of a tensor's axes gives     */
} fa_meeting;

/* Exact where it decides. In bounded time, and at once where one ends before the other begins. */
fa_meeting fa_extents_meet(const fa_extent *a, const fa_extent *b);

#endif
