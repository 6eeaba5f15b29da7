/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Policies for caches: which keys of a cache stay, and what stands for those that go, as the field's papers choose them. They are
 * functions on the host and need no device. What they make are lists for a mix (mix.h), which compresses keys and values on any
 * device, or slots for appends (append.h). docs/sparse.md shows the way from lists to attention, and what each policy promises.
 *
 * What holds for all of them. Heads are those of k and v; with a batch, its entries follow each other as further heads. All that is
 * given is read during the call, and no longer. The same arguments give the same results on every machine. Nothing is written unless
 * the call succeeds. FA_INVALID: NULL where it is not allowed; a field that is wrong, which the message names with its value.
 * FA_OUT_OF_MEMORY. Thread-safe.
 */
#ifndef FASTATTN_POLICIES_H
#define FASTATTN_POLICIES_H

#include "attention.h"
#include "context.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Where a policy writes its lists: the caller's memory. The new keys of all heads are packed one behind the other, head by head: those
 * of head h are cu_keys[h] to cu_keys[h + 1] - 1, and each is made of one list. So cu_keys is cu_rows_kv32 of an attention in
 * which each KV head is a sequence of its own, with the query heads of its group as heads: q of shape (heads, group, rows, dim),
 * which is the same memory. The mix has `from` of shape (1, heads, keys, dim) and `to` of (1, 1, cu_keys[heads], dim).
 */
typedef struct fa_policy_lists {
    size_t struct_size; /* sizeof(fa_policy_lists)                                                    */
    int32_t *cu_keys;   /* (heads + 1)                                                                */
    int32_t *offsets;   /* room for heads * keys + 1; cu_keys[heads] + 1 are written                  */
    int32_t *rows;      /* room for heads * keys; offsets[cu_keys[heads]] are written: h * keys + key */
    float *weights;     /* the same; NULL: not wanted, where a list has one key or a policy says so   */
} fa_policy_lists;

/**
 * RazorAttention (arXiv 2407.15891). Retrieval heads keep all keys. Any other keeps the first `sinks` keys and the last
 * max(recent, keys / ratio), rounded down; the keys between are dropped, and their mean is one key and value more, the compensation
 * token, which counts as often as keys were dropped: its scores get the logarithm of that number. It comes first; keys keep
 * their order behind it. Where nothing is dropped there is none.
 *
 * `bias` is that logarithm for an attention as fa_policy_lists has it: (heads, bias_keys) numbers, which are 0 but for compensation
 * tokens; the description has bias of FA_F32, shape (heads, 1, 1, bias_keys).
 *
 * Defaults are the paper's. What q and k are made of is the caller's: the paper takes keys as they are in the cache, rotated.
 */
typedef struct fa_policy_razor_desc {
    size_t struct_size;       /* sizeof(fa_policy_razor_desc)                              */
    int64_t heads, keys;      /* 1 to FA_MAX_LENGTH, together at most 2^31 - 1             */
    const uint8_t *retrieval; /* (heads), not 0 is a retrieval head                        */
    int64_t sinks;            /* N0; 0: 4; -1: none                                        */
    int64_t recent;           /* S0; 0: 4000                                               */
    double ratio;             /* C, at least 1; 0: 5                                       */
    int64_t bias_keys;        /* of a head, `keys` or more, as a cache that grows needs; 0: keys */
} fa_policy_razor_desc;

/** Makes the lists and the bias. Weights are wanted; `bias` may be NULL. */
FA_API fa_status fa_policy_razor(const fa_policy_razor_desc *desc, const fa_policy_lists *lists, float *bias);

/**
 * How much each query head is an echo head and an induction head, from a prompt of tokens at random that repeats after `period` of
 * them (the paper: 2500 tokens, four times). The echo score is the weight that a row gives to the same token in all repetitions
 * before, the induction score that of the tokens behind those; both are means over the rows from the second repetition on. Weights
 * are those of causal attention. The paper says which tokens they are; that all repetitions before count, and the mean, is our reading.
 *
 * `lse` is that of attention (heads_q, rows), f32. Without it (NULL) it is computed here, in time as rows * rows * dim for each head,
 * in the place of rows * rows / period * dim.
 */
typedef struct fa_policy_razor_scores_desc {
    size_t struct_size;        /* sizeof(fa_policy_razor_scores_desc)                   */
    int64_t heads_q, heads_kv; /* heads_q is a multiple                                 */
    int64_t rows, dim;         /* rows are as many as keys. 1 to FA_MAX_LENGTH          */
    const float *q, *k;        /* (heads_q, rows, dim), (heads_kv, rows, dim)           */
    const float *lse;
    double scale;   /* of the products, finite; 0: 1/sqrt(dim)                          */
    int64_t period; /* 2 to rows - 1                                                    */
} fa_policy_razor_scores_desc;

/** Writes heads_q scores of each kind. */
FA_API fa_status fa_policy_razor_scores(const fa_policy_razor_scores_desc *desc, double *induction,
                                        double *echo);

/**
 * Chooses retrieval heads among all query heads of a model: the induction_part with the largest induction scores and the echo_part
 * with the largest echo scores, each the nearest number of heads, and one at least; 0: the paper's, 0.14 and 0.01. Of equal scores the lower head comes
 * first. A KV head keeps all keys if one of its query heads was chosen, which is our choice for groups. retrieval is (heads_q /
 * group). Parts are from 0 to 1, -1 is none.
 */
FA_API fa_status fa_policy_razor_heads(fa_context *context, int64_t heads_q, int64_t group,
                                       const double *induction, const double *echo, double induction_part,
                                       double echo_part, uint8_t *retrieval);

/**
 * PrefixKV (arXiv 2412.03409): how many keys each layer keeps of a budget for all layers. A layer's keys, the most important first,
 * have a cumulative importance, as a part of the layer's whole. Each layer keeps its shortest prefix that has `ratio` of its
 * importance or more, with one ratio for all layers: the largest whose prefixes are `budget` keys or fewer, found by bisection, exact to
 * the last bit. Of equal importance the lower key comes first. Sums are in double.
 */
typedef struct fa_policy_prefix_desc {
    size_t struct_size; /* sizeof(fa_policy_prefix_desc)                                       */
    int64_t layers, keys;
    const float *
        importance; /* (layers, keys), such as fa_saliency_run()'s: finite, at least 0, and not 0 in all of a layer */
    int64_t budget; /* keys of all layers: `layers` or more                            */
} fa_policy_prefix_desc;

/** Writes `counts` (layers), and if it is not NULL `kept` (layers, keys): the first counts[l] of layer l are its keys, ascending. */
FA_API fa_status fa_policy_prefix(fa_context *context, const fa_policy_prefix_desc *desc, double *ratio,
                                  int64_t *counts, int32_t *kept);

/**
 * KVMerger (arXiv 2407.08454): neighbouring keys that are alike become one. Keys of a head are a set if each is more like the
 * next than `threshold`, by the cosine of the two. The last `recent` keys and the `heavy` ones of most importance among the others stay
 * themselves, and no set goes across them. In a set the key of most importance is the pivot p; key i of it has the weight
 *     w_i = g_i / sum g,   g_i = exp(-|k_p - k_i|^2 / (2 sigma^2)),
 * and so has its value. Of equal importance the lower key comes first. Sums are in double.
 *
 * The paper's threshold depends on the model; 0 is 0.75, its number for Llama 2 as far as we know. With sigma 0, sigma is the root
 * mean square of the distances of the others of the set from its pivot, which is our choice: the paper derives one from the set too.
 */
typedef struct fa_policy_merge_desc {
    size_t struct_size;       /* sizeof(fa_policy_merge_desc)                             */
    int64_t heads, keys, dim; /* 1 to FA_MAX_LENGTH, heads and keys together at most 2^31 - 1 */
    const float *k;           /* (heads, keys, dim)                                        */
    const float *importance;  /* (heads, keys), no NaN: aggregated attention, as fa_saliency_run()'s sums */
    double threshold;         /* -1 to 1; 0: 0.75                                          */
    double sigma;             /* finite, at least 0                                        */
    int64_t recent, heavy;    /* at least 0                                                */
} fa_policy_merge_desc;

/** Makes the lists. Weights are wanted. */
FA_API fa_status fa_policy_merge(fa_context *context, const fa_policy_merge_desc *desc,
                                 const fa_policy_lists *lists);

/**
 * ZipVL (arXiv 2410.08584): how many tokens of a layer are important, and which. They are as many as are needed so that the largest
 * weights sum to `part` of all or more; those of the largest saliency are chosen. One choice serves both
 *  - the prompt: q, k and v of the important tokens alone are gathered (a mix with `lists`), attended to with the description's
 *    causal mask, whose order they keep, and their rows of o scattered (a mix with places);
 *  - the cache: important tokens go to `slots` of a cache of more bits, the others to `other_slots` of one of fewer, each by an
 *    append (append.h); both are then attended to as segments (segments.h).
 * Heads of a layer choose together, by their sums; with `each_head` each on its own. Of equal ones the lower key comes first. Sums are
 * in double.
 */
typedef struct fa_policy_zip_desc {
    size_t struct_size;    /* sizeof(fa_policy_zip_desc)                                          */
    int64_t heads, keys;   /* 1 to FA_MAX_LENGTH, together at most 2^31 - 1                       */
    const float *weights;  /* (heads, keys), finite, at least 0: fa_saliency_run() with `sums`    */
    const float *saliency; /* (heads, keys), no NaN: fa_saliency_run() without; NULL: the weights */
    double part;           /* above 0, at most 1; 0: the paper's, 0.975                           */
    int32_t each_head;     /* 0 or 1                                                              */
} fa_policy_zip_desc;

/**
 * Where it writes. Lists, whose `struct_size` is set, are of important tokens, for each head, and have no weights. `slots` and
 * `other_slots` are (keys), with each_head (heads, keys), and may be NULL: where a token goes in a cache that has the tokens of all
 * heads (with each_head, else of one) one behind the other; -1 where it does not go.
 */
FA_API fa_status fa_policy_zip(fa_context *context, const fa_policy_zip_desc *desc,
                               const fa_policy_lists *lists, int32_t *slots, int32_t *other_slots);

#ifdef __cplusplus
}
#endif
#endif
