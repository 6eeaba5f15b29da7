/* SPDX-License-Identifier: Apache-2.0 */
/* Segments of caches: the problem of each, and the plans that run them. */
#ifndef FA_CORE_SEGMENTS_H
#define FA_CORE_SEGMENTS_H

#include <fastattn/segments.h>

#include "core/attention/problem.h"
#include "core/parts/parts.h"

struct fa_segments {
    fa_device *device;
    int64_t count;
    fa_problem problem[FA_SEGMENTS_MAX]; /* of each segment, with the outputs of all */
    fa_parts parts;
    fa_tensor channels; /* normalised; absent: all 0 */
    size_t channels_span;
    int64_t *cu_rows;                    /* sequences + 1 offsets; NULL where rows are not packed */
    size_t work_at[FA_SEGMENTS_MAX + 1]; /* where a segment's work begins; then the bytes of all */
};

_Static_assert(FA_SEGMENTS_MAX <= FA_PARTS_MOST, "a plan for each segment");

/* Fills all but the plans of segments that are all 0 but for their device. Release it, whatever this returns. */
fa_status fa_segments_read(const fa_segments_desc *desc, fa_segments *segments);
void fa_segments_release(fa_segments *segments);

/* What segment n computes, with the outputs of all. */
fa_status fa_segments_describe(const fa_segments_desc *desc, int64_t n, fa_attention_desc *described);

/* Whether lengths of a run are ones that segment n may have. `lengths` may be NULL. */
fa_status fa_segments_check_lengths(const fa_segments *segments, int64_t n, const fa_lengths *lengths);

/* A segment's memory and that of all, as its plan and its problem have it. */
fa_attention_args fa_segments_args_of(const fa_segments_args *all, const fa_segment_args *own);

/* Where the factors of channels lie, beside what is written. FA_INVALID. */
fa_status fa_segments_check_channels(const fa_segments *segments, const fa_segments_args *args);

/* The same status, whose message begins with the segment's number. */
fa_status fa_segments_name(fa_status status, int64_t n);

#endif
