/* SPDX-License-Identifier: Apache-2.0 */
/** Cascades: sequences whose caches begin with the same pages attend to these once, together. */
#ifndef FASTATTN_CASCADE_H
#define FASTATTN_CASCADE_H

#include "attention.h"
#include "context.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* At most so many levels of shared pages. A sequence's own keys are one more level, the last. */
#define FA_CASCADE_MAX_LEVELS 7

/**
 * How the attention of packed rows to a paged cache is divided into levels (cascade attention in FlashInfer; Hydragen). A
 * level has groups of neighbouring sequences, and the rows of a group attend as one packed sequence to pages that all of
 * them begin with. The last level is the problem itself with first_kv: what of its keys is each sequence's own. Each
 * level gives a state for each row, an output and its LSE; merged (fa_merge_desc) they are the problem's result.
 *
 * A cascade never changes. Any number of threads may use one.
 */
typedef struct fa_cascade fa_cascade;

/**
 * Finds the levels of `desc` by its page table in host memory. The levels are those whose runs read and write the fewest
 * bytes, as modelled: a group's keys are read once for each 64 of its rows (of all heads of a KV head together); each
 * level reads q, and writes a state of each row, which the merge reads. Where sharing does not pay, there are no levels
 * but the last. No device is needed. Everything is copied out of desc and the table. Destroy with fa_cascade_destroy().
 * *cascade is NULL on failure.
 *
 * desc has page_table; its rows are packed (cu_rows_q), and each row belongs to a sequence. (A tensor of one row for each
 * sequence, of axes sequence, head, 1, dim, is one of axes 1, head, sequence, dim with its strides.) `page_table` is the table's
 * first element. Pages are shared only as far as they are full and every row of both sequences sees all of their keys, so with
 * window_left those of the prefix, or of sequences that no window cuts yet. Sequences share that have the same first_kv, from
 * that key on. `keep` and bias are looked up where the keys stand; if they tell rows or sequences apart, sequences share where
 * all have one row, or as many as lie evenly from sequence to sequence; keep_last bits leave the keys before to be shared. With
 * ALiBi, keys behind the first row's position are each sequence's own, and with alibi_stride those share that have the same
 * slopes, to the bit.
 * Only neighbours share: see fa_cascade_order(). Where sequences part at more than 16 pages, one after another, what they share
 * beyond that may count as their own.
 *
 * FA_INVALID: NULL; desc is wrong; a page that a sequence uses is not one of k's. FA_UNSUPPORTED: rows that are not
 * packed. FA_OUT_OF_MEMORY. Thread-safe.
 */
FA_API fa_status fa_cascade_find(fa_context *context, const fa_attention_desc *desc,
                                 const int32_t *page_table, fa_cascade **cascade);

/** Destroys a cascade that no queue still runs. NULL is allowed. */
FA_API void fa_cascade_destroy(fa_cascade *cascade);

/**
 * An order of the sequences in which those that begin with the same pages are neighbours: order[i] is the number of the
 * sequence that comes i-th. A caller that packs rows in this order shares the most. Arguments and errors are those of
 * fa_cascade_find(); `order` has room for one number of each sequence. Thread-safe.
 */
FA_API fa_status fa_cascade_order(fa_context *context, const fa_attention_desc *desc,
                                  const int32_t *page_table, int64_t *order);

/**
 * Finds the levels and prepares them to run on `device`: a plan for each, and the merge. As fa_cascade_find(), and further
 * FA_UNSUPPORTED: the device does not serve a level. FA_COMPILE. FA_DEVICE_LOST. The cascade's shared pages lie on the
 * device from then on: a sequence keeps its pages of all levels but the last. Destroy it before the device, and when no queue
 * runs it.
 */
FA_API fa_status fa_cascade_create(fa_device *device, const fa_attention_desc *desc,
                                   const int32_t *page_table, fa_cascade **cascade);

/** The bytes of scratch memory that each run needs. 0 for NULL and for a cascade of fa_cascade_find(). Thread-safe. */
FA_API size_t fa_cascade_workspace(const fa_cascade *cascade);

/** The bytes of the work of one run, as fa_plan_work() of the last level. 0 also for a cascade of fa_cascade_find(). */
FA_API size_t fa_cascade_work(const fa_cascade *cascade);

/**
 * Writes the work of a run with other lengths, as fa_plan_schedule() does: what grows are the sequences' own keys, in the
 * last level. `lengths` are the problem's, for all of its sequences: cu_rows_q as they were, first_kv NULL, as it is the
 * description's, and lens_kv such that each row still sees all keys of its sequence's other levels, behind which the bits of
 * keep_last begin; with ALiBi, none of these lies behind the sequence's first row. Further FA_INVALID: they are not; or the
 * cascade is one of fa_cascade_find().
 */
FA_API fa_status fa_cascade_schedule(const fa_cascade *cascade, fa_queue *queue, const fa_lengths *lengths,
                                     fa_buffer *work, size_t work_offset);

/**
 * The same on the device, as fa_plan_schedule_device() does it; the description has dynamic_lengths 2. `lengths` are the
 * problem's, with first_kv NULL. Nobody looks whether cu_rows_q is as it was, whether each row still sees all keys of its
 * sequence's other levels, and whether with ALiBi these lie before its rows: if not, results are another problem's.
 */
FA_API fa_status fa_cascade_schedule_device(const fa_cascade *cascade, fa_queue *queue,
                                            const fa_device_lengths *lengths, fa_buffer *work,
                                            size_t work_offset);

/**
 * Enqueues all levels and the merge on a queue of the cascade's device: what fa_plan_run() does with a plan of the problem,
 * with the same arguments, checks and errors, but workspace and work are the cascade's. A status (want_status) is of the last
 * level's pages; those of others were checked when the cascade was made. FA_INVALID also for a cascade of
 * fa_cascade_find(). Several threads may run one cascade, each on its own queue.
 */
FA_API fa_status fa_cascade_run(const fa_cascade *cascade, fa_queue *queue, const fa_attention_args *args);

/** What a cascade consists of, and what it saves. Bytes are modelled, not measured. */
typedef struct fa_cascade_info {
    size_t struct_size; /* sizeof(fa_cascade_info), set by the caller                            */
    int64_t levels;     /* of shared pages; 0 where sharing does not pay                         */
    int64_t sequences;
    double bytes_flat; /* that the problem reads of k and v without a cascade                   */
    double bytes;      /* that the cascade reads of k and v, and what its further levels read and write */
    const int64_t
        *first_kv; /* of the last level: where each sequence's own keys begin. The cascade's memory */
} fa_cascade_info;

/** Fills `info`. FA_INVALID: NULL, or struct_size is wrong. Thread-safe. */
FA_API fa_status fa_cascade_get_info(const fa_cascade *cascade, fa_cascade_info *info);

/**
 * One level of shared pages. Its groups are packed sequences without a mask, and cover all rows; a group that has no keys
 * gives empty states. Who runs a level with ALiBi alone looks after where its rows stand: fa_cascade_run() does. The lists are
 * the cascade's memory.
 */
typedef struct fa_cascade_level {
    size_t struct_size; /* sizeof(fa_cascade_level), set by the caller                      */
    int64_t groups;
    int64_t pages;               /* of a line of the table                                           */
    const int64_t *cu_rows_q;    /* groups + 1 offsets into the problem's rows                       */
    const int64_t *lens_kv;      /* the keys of each group, 0 or whole pages, those before first_kv too */
    const int32_t *page_table;   /* (groups, pages): the pages that begin with a group's first key   */
    const int64_t *cu_sequences; /* groups + 1: which sequences a group consists of                 */
} fa_cascade_level;

/** Fills `out` for a level, 0 to levels - 1. FA_INVALID: NULL, no such level, or struct_size is wrong. Thread-safe. */
FA_API fa_status fa_cascade_get_level(const fa_cascade *cascade, int64_t level, fa_cascade_level *out);

#ifdef __cplusplus
}
#endif
#endif
