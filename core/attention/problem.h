/* SPDX-License-Identifier: Apache-2.0 */
/* An attention problem after validation: everything explicit, nothing left to check. */
#ifndef FA_CORE_ATTENTION_PROBLEM_H
#define FA_CORE_ATTENTION_PROBLEM_H

#include <fastattn/plan.h>
#include <stdbool.h>

#include "core/attention/lists.h"
#include "core/attention/near.h"
#include "core/portable/decode.h"
#include "core/portable/mask.h"
#include "core/portable/table.h"

struct fa_context;

/* Features as bits of a set. */
#define FA_FEATURE(constant, name, term) FA_FEATURE_BIT_##constant,
enum {
#include "core/attention/features.inc"
    FA_FEATURES
};
#undef FA_FEATURE
#define FA_FEATURE(constant, name, term) FA_FEATURE_##constant = 1 << FA_FEATURE_BIT_##constant,
enum {
#include "core/attention/features.inc"
    FA_FEATURE_ALL = (1 << FA_FEATURES) - 1
};
#undef FA_FEATURE
#define FA_FEATURE(constant, name, term) | ((term) ? FA_FEATURE_##constant : 0)
enum {
    FA_FEATURE_TERMS = 0 /* those that are terms of scores */
#include "core/attention/features.inc"
};
#undef FA_FEATURE

/* Any scale or zero that is a tensor of its own. */
#define FA_FEATURE_SCALES (FA_FEATURE_K_SCALE | FA_FEATURE_V_SCALE | FA_FEATURE_K_ZERO | FA_FEATURE_V_ZERO)

const char *fa_feature_name(unsigned feature);

/* One entry of a dense batch, or one packed sequence. */
typedef struct fa_sequence {
    int64_t q_batch, q_row;   /* where its rows begin in q and o    */
    int32_t q_head;           /* and its heads: 0 where it has all  */
    int64_t kv_batch, kv_row; /* where its keys begin in k and v; 0 where they lie in pages */
    int32_t number;           /* of its entry in bias, keep and the page table */
    int32_t first; /* the number of the first key that it uses; here, keys count from that one on */
    int32_t len_q, len_kv;
    fa_mask mask;
} fa_sequence;

#define FA_OPERAND(constant, field, written, feature) FA_##constant,
enum {
#include "core/attention/operands.inc"
    FA_OPERANDS
};
#undef FA_OPERAND

typedef struct fa_operand {
    const char *name;
    bool written;     /* by a run */
    unsigned feature; /* that a problem has where it has this operand; 0: every problem has it */
} fa_operand;

extern const fa_operand fa_operands[FA_OPERANDS];

typedef struct fa_problem {
    /* Normalised: an axis of size 1 has stride 0, but the last has 1; bias and keep have 0 where repeated. */
    /* FA_LSE is a (batch, heads_q, rows, 1) tensor. */
    fa_tensor tensor[FA_OPERANDS];
    size_t span[FA_OPERANDS]; /* bytes, 0 where absent or empty                              */
    int32_t heads_q, heads_kv, group;
    int32_t dim_qk, dim_v;
    float scale, softcap;
    unsigned features;
    fa_mask_rule rule;
    bool packed_q, packed_kv; /* sequences follow each other on the row axis                  */
    bool dynamic;             /* runs may have lengths of their own                           */
    bool on_device;           /* which may lie on the device                                  */
    bool want_status;         /* runs say whether their pages were the pool's                 */
    bool has_lens_q, has_lens_kv, has_first_kv; /* what the description gives                 */
    int32_t
        row_lists; /* lists of keys of each row of q, each a sequence of one row; 0: q has sequences of rows */
    int64_t sequences;
    fa_sequence *sequence;
    fa_scales k_scales, v_scales;
    bool keep_bits;    /* keep holds 32 keys in an element                                  */
    int32_t keep_last; /* its bits are of so many keys at the end; 0: of all                */
    fa_lists lists;
    fa_near near;
    float *alibi_slopes, *bias_factors, *sinks; /* heads_q each, or NULL                               */
    int32_t alibi_stride; /* between the slopes of two sequences: heads_q, or 0 where all have the same */
    int64_t alibi_lists;  /* of heads_q slopes: of each number that sequences have, or one          */
    int32_t max_len_q, max_len_kv;
    int32_t max_key;  /* one past the largest number of a key that a sequence uses                     */
    int64_t keys;     /* that a sequence can have: rows of k, or what its pages hold                   */
    fa_tuning tuning; /* its kernel is copied to kernel_name, "" for none */
    char kernel_name[64];
} fa_problem;

/* A caller's description of any version as one of ours; what it points to stays the caller's. */
fa_status fa_problem_read_desc(const fa_attention_desc *theirs, fa_attention_desc *ours);

/* FA_UNSUPPORTED where a description has lists of key blocks or a neighbourhood; `of` is what does not serve them. */
fa_status fa_problem_refuse_lists(const fa_attention_desc *desc, const char *of);

/*
 * FA_UNSUPPORTED where a description says, beside its mask, which rows there are and which keys they see, or where keys stand: windows,
 * lengths, bias and the like. `of` is what does not serve them; they are the fields of its `attention`.
 */
fa_status fa_problem_refuse_choices(const fa_attention_desc *desc, const char *of);

/* Validates and normalises. On failure the problem is empty and needs no release. */
fa_status fa_problem_init(const struct fa_context *context, const fa_attention_desc *desc,
                          fa_problem *problem);
void fa_problem_release(const struct fa_context *context, fa_problem *problem);

/*
 * The same problem with other lengths. `room` holds as many sequences as the problem has, and is what *made points to:
 * nothing of *made is released. FA_INVALID names the list that is wrong.
 */
fa_status fa_problem_with_lengths(const fa_problem *problem, const fa_lengths *lengths, fa_sequence *room,
                                  fa_problem *made);

/* The most rows, and keys, that a sequence of other lengths may have. */
int32_t fa_problem_most_rows(const fa_problem *problem);
int32_t fa_problem_most_keys(const fa_problem *problem);

/* The most rows of q that a sequence may have, as its tensor is. */
static inline int64_t fa_problem_rows(const fa_problem *p)
{
    return p->row_lists > 0 ? 1 : p->tensor[FA_Q].shape[2];
}

/* The row of the LSE array, and of a (batch, head, row) tensor, that belongs to row i of a sequence. */
static inline int64_t fa_problem_lse_index(const fa_problem *p, const fa_sequence *s, int head, int64_t i)
{
    const int64_t *o = p->tensor[FA_O].shape;
    return (s->q_batch * o[1] + s->q_head + head) * o[2] + s->q_row + i;
}

/* How many slopes there are, where there are any. */
static inline size_t fa_problem_slopes(const fa_problem *p)
{
    return (size_t)p->heads_q * (size_t)p->alibi_lists;
}

/* The slope of a head of sequence n. */
static inline float fa_problem_slope(const fa_problem *p, int64_t n, int64_t head)
{
    return p->alibi_slopes[n * p->alibi_stride + head];
}

/* Index of bias or keep for (sequence, head, row) and the first key used; the next key is stride[3], 0 or 1, further. */
static inline int64_t fa_problem_extra_offset(const fa_tensor *t, int64_t n, int64_t head, int64_t row,
                                              int32_t first)
{
    return n * t->stride[0] + head * t->stride[1] + row * t->stride[2] + first * t->stride[3];
}

/* Bit i: whether `keep`, which the problem has, keeps key + i of sequence n, for `count` keys, at most 32; keys count from the
 * first one used. Bits from `count` on may be anything. */
static inline uint32_t fa_problem_kept(const fa_problem *p, const void *keep, int64_t n, int64_t head,
                                       int64_t row, const fa_mask *mask, int32_t first, int32_t key,
                                       int32_t count)
{
    const fa_tensor *t = &p->tensor[FA_KEEP];
    if (!p->keep_bits) {
        const uint8_t *at =
            (const uint8_t *)keep + fa_problem_extra_offset(t, n, head, row, first) + key * t->stride[3];
        uint32_t kept = 0;
        for (int32_t i = 0; i < count; i++)
            kept |= (uint32_t)(at[i * t->stride[3]] != 0) << i;
        return kept;
    }
    const uint32_t *word = (const uint32_t *)keep + fa_problem_extra_offset(t, n, head, row, 0);
    const int32_t bit = p->keep_last > 0 ? key - (mask->len_kv - p->keep_last) : first + key;
    const int32_t before = bit < 0 ? (-bit < count ? -bit : count) : 0; /* keys that bits say nothing of */
    uint32_t kept = (uint32_t)(((uint64_t)1 << before) - 1);
    for (int32_t i = before; i < count; i += 32 - ((bit + i) & 31))
        kept |= word[((bit + i) >> 5) * t->stride[3]] >> ((bit + i) & 31) << i;
    return kept;
}

/* Whether it keeps one key. */
static inline bool fa_problem_keeps(const fa_problem *p, const void *keep, int64_t n, int64_t head,
                                    int64_t row, const fa_mask *mask, int32_t first, int32_t key)
{
    return (fa_problem_kept(p, keep, n, head, row, mask, first, key, 1) & 1) != 0;
}

#endif
