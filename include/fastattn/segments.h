/* SPDX-License-Identifier: Apache-2.0 */
/** Caches in segments: a sequence's keys lie in several tensors, each of a format of its own, and are attended to as one. */
#ifndef FASTATTN_SEGMENTS_H
#define FASTATTN_SEGMENTS_H

#include "attention.h"
#include "device.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

#define FA_SEGMENTS_MAX 8

/**
 * One segment: where some of each sequence's keys lie, and in which format. The fields mean what they mean in
 * fa_attention_desc, and have the same defaults. Keys are numbered from 0 within the segment.
 */
typedef struct fa_segment {
    size_t struct_size; /* sizeof(fa_segment) */
    fa_tensor k, v;
    fa_tensor page_table;
    fa_tensor k_scale, v_scale, k_zero, v_zero;
    float k_factor, v_factor;
    const int64_t *lens_kv;
    const int64_t *first_kv;
    const int32_t *lens_kv32;
    const int32_t *first_kv32;
} fa_segment;

/**
 * The attention of rows to all keys of their sequence, which lie in segments:
 *  - KIVI: a body whose keys are quantised by channel in groups of tokens, and the newest keys in f16.
 *  - A staircase by age (SAQ): old keys in 2 bits, newer ones in 4, the newest in f16.
 *  - ZipCache: salient keys in 4 bits, others in 2, each set in a tensor of its own.
 *
 * `attention` says what all segments have in common: q, o, scale, softcap, mask, rows, sinks, LSE, dynamic_lengths, tuning.
 * What fa_segment has is absent there: shapes all 0, numbers 0, lists NULL; and cu_rows_kv.
 *
 * A row sees every key of all segments but the last. In the last, it sees what the mask shows: nothing is hidden, or a
 * causal mask or window_right counts from the end of the last segment (FA_ALIGN_BOTTOM_RIGHT, diagonal_offset), with so many
 * keys in it that the first row of each sequence sees all of the segments before. So the order of the other segments, and of
 * keys in them, has no meaning. FA_UNSUPPORTED, by name: what depends on where a key stands, which is window_left, prefix,
 * ALiBi, bias, keep and positions from the top left with a mask; and lens_q, packed rows that belong to no sequence,
 * want_status and v_in_k.
 */
typedef struct fa_segments_desc {
    size_t struct_size; /* sizeof(fa_segments_desc) */
    const fa_attention_desc *attention;
    int64_t segments; /* 1 to FA_SEGMENTS_MAX */
    const fa_segment *const *segment;
    /* A factor of each dim of v, of each segment (channel-separable quantisation, ZipCache): an element of v is its factor
     * times what the segment says. It costs nothing for a key, as rows of o are multiplied. f32, of shape (batch or 1,
     * heads_kv or 1, rows of q or 1, dim_v). shape all 0: none. */
    fa_tensor v_channels;
    int64_t
        v_channels_stride; /* elements from one segment's factors to the next one's; 0: all have the same */
} fa_segments_desc;

/** A prepared attention to segments. It never changes. Any number of threads may run one. */
typedef struct fa_segments fa_segments;

/**
 * Prepares it on `device`: a plan for each segment, and the merge of their states by LSE (none where there is one segment
 * without v_channels). Everything is copied out of desc. Destroy with fa_segments_destroy(). *segments is NULL on failure.
 *
 * FA_INVALID: NULL; a field is wrong, which the message names, with the segment's number where it is a segment's; the last
 * segment has so few keys that a row does not see all keys before it. FA_UNSUPPORTED: as above; or the device does not serve
 * a segment, or v's factors. FA_OUT_OF_MEMORY. FA_COMPILE. FA_DEVICE_LOST. Thread-safe.
 */
FA_API fa_status fa_segments_create(fa_device *device, const fa_segments_desc *desc, fa_segments **segments);

/** Destroys segments that no queue still runs. NULL is allowed. */
FA_API void fa_segments_destroy(fa_segments *segments);

/** The bytes of scratch memory that each run needs, whatever its lengths. 0 for NULL. Thread-safe. */
FA_API size_t fa_segments_workspace(const fa_segments *segments);

/** The bytes of the work of one run. 0 without dynamic_lengths, and for NULL. Thread-safe. */
FA_API size_t fa_segments_work(const fa_segments *segments);

/**
 * Writes the work of runs with other lengths, as fa_plan_schedule() does. `lengths` has a pointer for each segment, whose
 * lens_kv and first_kv are those of the segment; other lists are NULL, and `sequences` is 0: rows are the description's. A
 * NULL pointer leaves what the work says of that segment, as it was written before. So a step of a generation writes what
 * grows: the newest segment, and every so often an older one.
 *
 * Errors are those of fa_plan_schedule(). FA_INVALID further: the last segment would have so few keys that a row does not see
 * all keys before it. Lists are checked before anything is written.
 */
FA_API fa_status fa_segments_schedule(const fa_segments *segments, fa_queue *queue,
                                      const fa_lengths *const *lengths, fa_buffer *work, size_t work_offset);

/**
 * The same on the device, as fa_plan_schedule_device() does it; the description has dynamic_lengths 2. Of each segment, which is
 * not NULL, exactly the lists are given that the description gives for it, and cu_rows_q where it has that. Nobody looks
 * whether cu_rows_q is as it was, and whether rows see all keys before the last segment: if not, results are another
 * problem's.
 */
FA_API fa_status fa_segments_schedule_device(const fa_segments *segments, fa_queue *queue,
                                             const fa_device_lengths *const *lengths, fa_buffer *work,
                                             size_t work_offset);

/** The memory of one segment: given exactly where its fa_segment has the tensor, else NULL. Offsets as in fa_attention_args. */
typedef struct fa_segment_args {
    size_t struct_size; /* sizeof(fa_segment_args) */
    fa_buffer *k, *v, *page_table, *k_scale, *v_scale, *k_zero, *v_zero;
    size_t k_offset, v_offset, page_table_offset, k_scale_offset, v_scale_offset, k_zero_offset,
        v_zero_offset;
} fa_segment_args;

/** The memory of one run. `work` is that of fa_segments_schedule(); NULL: the description's own lengths. */
typedef struct fa_segments_args {
    size_t struct_size; /* sizeof(fa_segments_args) */
    fa_buffer *q, *o, *lse, *v_channels, *workspace, *work;
    size_t q_offset, o_offset, lse_offset, v_channels_offset; /* multiples of fa_dtype_align() of each */
    size_t workspace_offset;                                  /* a multiple of 64                       */
    size_t work_offset;                                       /* a multiple of 256                      */
    const fa_segment_args *const *segment;                    /* one for each segment                   */
} fa_segments_args;

/**
 * Enqueues all segments and the merge on a queue of the device: checks, errors and lifetimes are those of fa_plan_run(). On
 * failure o and lse are not written. Several threads may run one fa_segments, each on its own queue.
 */
FA_API fa_status fa_segments_run(const fa_segments *segments, fa_queue *queue, const fa_segments_args *args);

#ifdef __cplusplus
}
#endif
#endif
