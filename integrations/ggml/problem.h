/* SPDX-License-Identifier: Apache-2.0 */
/* One GGML_OP_FLASH_ATTN_EXT in the library's words. */
#ifndef FASTATTN_GGML_PROBLEM_H
#define FASTATTN_GGML_PROBLEM_H

#include <fastattn/fastattn.h>
#include <stdbool.h>

struct ggml_tensor;

#define FG_MAX_HEADS 1024

/* All that a plan depends on, but the sinks. Compared and hashed as bytes: those between the fields are 0. */
typedef struct fg_problem {
    fa_tensor q, k, v, o;
    fa_tensor bias; /* the mask, as far as it is one to add; shape all 0: none   */
    fa_tensor keep; /* its bits, where it is more than an interval; shape all 0: none */
    float scale, softcap, max_bias;
    int32_t v_in_k, has_sinks;
    /* What the mask says beside. */
    int32_t causal, has_lengths;
    int64_t window;
} fg_problem;

/* Reads shapes and parameters of a node, no data. False, and why, if the library has no words for it. */
bool fg_problem_read(const struct ggml_tensor *node, fg_problem *problem, const char **reason);

/* `desc` points to `factors` and to `sinks`, of problem->q.shape[1] elements, where it has these. */
void fg_problem_describe(const fg_problem *problem, float factors[FG_MAX_HEADS], const float *sinks,
                         fa_attention_desc *desc);

/* The bits of the problem's mask, for each of its heads and sequences: a contiguous tensor. */
fa_tensor fg_problem_bits(const fg_problem *problem);

uint64_t fg_problem_hash(const fg_problem *problem);

#endif
