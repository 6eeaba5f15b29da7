/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HyperAttention of one batch entry, level by level. The rows of a level are cut into sequences, which the level's plans have as packed
 * ones. Some meet keys before them; the others meet none, and get empty states.
 */
#ifndef FA_CORE_HYPER_H
#define FA_CORE_HYPER_H

#include <fastattn/hyper.h>
#include <fastattn/merge.h>
#include <fastattn/permute.h>
#include <stdbool.h>

#include "core/attention/problem.h"

enum { FA_HYPER_LEVELS = 30 };

/* A workspace, by what lies in it. States are f32 outputs, and LSEs behind all of them: two parts and what is merged already. */
enum {
    FA_HYPER_BUCKETS_Q,
    FA_HYPER_BUCKETS_K,
    FA_HYPER_ORDER_Q,
    FA_HYPER_ORDER_K,
    FA_HYPER_SORTED_Q,
    FA_HYPER_SORTED_K,
    FA_HYPER_SORTED_V,
    FA_HYPER_SAMPLED_K,
    FA_HYPER_SAMPLED_V,
    FA_HYPER_STATES,
    FA_HYPER_LSES,
    FA_HYPER_SCRATCH,
    FA_HYPER_PLACES
};

/* How a level cuts rows and keys into sequences, of which some meet keys. Offsets are of sequences + 1. */
typedef struct fa_hyper_cut {
    int64_t sequences, room, active; /* active: those that meet keys    */
    int64_t rows, keys;              /* of the longest of these         */
    int64_t most_rows, most_keys;    /* of the longest of all           */
    int64_t block_rows, block_keys;
    int64_t *cu_q, *cu_kv, *cu_sampled;
    bool *meets;
} fa_hyper_cut;

typedef struct fa_hyper_level {
    fa_sort *sort_q, *sort_k;
    fa_gather *sample_k, *sample_v;
    fa_plan *diagonal, *sampled;
    int64_t sampled_keys;
    size_t numbers_at,
        weights_at; /* in `drawn`: int32 numbers of sorted keys; f32 logarithms of a sequence each */
} fa_hyper_level;

struct fa_hyper {
    fa_device *device;
    fa_hyper_desc desc;
    fa_attention_desc entry; /* attention of one batch entry */
    fa_problem problem;
    bool has_problem;
    fa_plan *exact; /* of what is exact: all, or the ends of the recursion; NULL: nothing is */
    fa_hash *hash_q, *hash_k;
    fa_gather *gather_q, *gather_k, *gather_v, *scatter_o, *scatter_lse;
    fa_merge *join, *add, *finish;
    int levels; /* 0: all is exact */
    fa_hyper_level level[FA_HYPER_LEVELS];
    fa_buffer *drawn;
    size_t at[FA_HYPER_PLACES], state_bytes, lse_bytes, workspace;
};

/* How many levels there are; 0: all is exact. */
int fa_hyper_levels(const fa_hyper *h);

/*
 * Cuts level `level`, or where that is the number of levels, into what is exact. What is made is released by
 * fa_hyper_cut_release(), whatever this returns.
 */
fa_status fa_hyper_cut_make(const fa_hyper *h, int level, fa_hyper_cut *cut);
void fa_hyper_cut_release(const fa_hyper *h, fa_hyper_cut *cut);

/* Makes a level, and counts the bytes that are drawn for it. What is made is released whatever this returns. */
fa_status fa_hyper_level_make(fa_hyper *h, int level, size_t *drawn);
void fa_hyper_level_release(fa_hyper_level *level);

/* Draws them. */
fa_status fa_hyper_level_draw(const fa_hyper *h, int level, char *drawn);

#endif
