/* SPDX-License-Identifier: Apache-2.0 */
#include "problem.h"

#include "mask.h"

#include <ggml.h>
#include <math.h>
#include <string.h>

static bool dtype_of(enum ggml_type type, fa_dtype *dtype)
{
    switch (type) {
    case GGML_TYPE_F32: *dtype = FA_F32; return true;
    case GGML_TYPE_F16: *dtype = FA_F16; return true;
    case GGML_TYPE_BF16: *dtype = FA_BF16; return true;
    case GGML_TYPE_Q8_0: *dtype = FA_Q8_0; return true;
    case GGML_TYPE_Q4_0: *dtype = FA_Q4_0; return true;
    case GGML_TYPE_Q4_1: *dtype = FA_Q4_1; return true;
    case GGML_TYPE_Q5_0: *dtype = FA_Q5_0; return true;
    case GGML_TYPE_Q5_1: *dtype = FA_Q5_1; return true;
    case GGML_TYPE_IQ4_NL: *dtype = FA_IQ4_NL; return true;
    default: return false;
    }
}

/* ggml counts axes from the innermost: `axis` has those of (batch, head, row, dim). nb are bytes between blocks or elements.
 * NULL, or why the library does not read it. */
static const char *read_tensor(const struct ggml_tensor *from, const int axis[4], fa_tensor *to)
{
    if (!dtype_of(from->type, &to->dtype))
        return "a type of elements that the library does not have";
    const size_t size = fa_dtype_size(to->dtype);
    for (int i = 0; i < 4; i++) {
        const size_t bytes = from->nb[axis[i]];
        to->shape[i] = from->ne[axis[i]];
        if (to->shape[i] < 1)
            return "an empty tensor";
        if (i == 3 ? bytes != size : to->shape[i] > 1 && bytes % size != 0)
            return "rows that are not contiguous, or do not begin at whole elements";
        if (i == 3)
            to->stride[i] = 1;
        else if (to->shape[i] > 1)
            to->stride[i] = (int64_t)(bytes / size) * fa_dtype_block(to->dtype);
    }
    return NULL;
}

static bool shares_rows(const struct ggml_tensor *k, const struct ggml_tensor *v)
{
    return k->data && k->data == v->data && k->type == v->type && k->nb[1] == v->nb[1] &&
           k->nb[2] == v->nb[2] && k->nb[3] == v->nb[3] && v->ne[0] <= k->ne[0];
}

bool fg_problem_read(const struct ggml_tensor *node, fg_problem *p, const char **reason)
{
    static const int inner[4] = {3, 2, 1, 0}, outer[4] = {3, 1, 2, 0};
    const struct ggml_tensor *q = node->src[0], *k = node->src[1], *v = node->src[2];
    const struct ggml_tensor *mask = node->src[3], *sinks = node->src[4];
    memset(p, 0, sizeof(*p));
    const char *why = read_tensor(q, inner, &p->q);
    if (!why)
        why = read_tensor(k, inner, &p->k);
    if (!why)
        why = read_tensor(v, inner, &p->v);
    if (!why)
        why = read_tensor(node, outer, &p->o);
    if (!why && mask)
        why = read_tensor(mask, inner, &p->bias);
    *reason = why;
    if (why)
        return false;
    if (p->q.shape[1] > FG_MAX_HEADS)
        *reason = "too many heads";
    else if (k->ne[2] != v->ne[2] || k->ne[3] != v->ne[3] || k->ne[3] != q->ne[3])
        *reason = "k, v and q do not have the same heads and sequences";
    else if (mask && mask->type != GGML_TYPE_F16)
        *reason = "a mask that is not f16";
    else if (mask &&
             ((mask->ne[2] != 1 && mask->ne[2] != q->ne[2]) || (mask->ne[3] != 1 && mask->ne[3] != q->ne[3])))
        *reason = "a mask that repeats after some heads or sequences";
    else if (mask && (mask->ne[0] < k->ne[1] || mask->ne[1] < q->ne[1]))
        *reason = "a mask that is smaller than rows and keys";
    else if (sinks && (sinks->type != GGML_TYPE_F32 || sinks->nb[0] != sizeof(float)))
        *reason = "sinks that are not f32 beside each other";
    if (*reason)
        return false;
    if (mask) { /* without its padding */
        p->bias.shape[2] = q->ne[1];
        p->bias.shape[3] = k->ne[1];
    }
    float parameters[3];
    memcpy(parameters, node->op_params, sizeof(parameters));
    p->scale = parameters[0];
    p->max_bias = parameters[1];
    p->softcap = parameters[2];
    p->v_in_k = shares_rows(k, v);
    p->has_sinks = sinks != NULL;
    return true;
}

/* The factors of ALiBi's bias, which is in the mask: attention.h has them. */
static void bias_factors(float max_bias, int64_t heads, float *factors)
{
    int64_t n = 1;
    while (2 * n <= heads)
        n *= 2;
    for (int64_t h = 0; h < heads; h++) {
        const float exponent = h < n ? (float)(h + 1) : (float)(2 * (h - n) + 1) / 2;
        factors[h] = exp2f(-max_bias * exponent / (float)n);
    }
}

void fg_problem_describe(const fg_problem *p, float factors[FG_MAX_HEADS], const float *sinks,
                         fa_attention_desc *desc)
{
    *desc = (fa_attention_desc){
        .struct_size = sizeof(*desc),
        .q = p->q,
        .k = p->k,
        .v = p->v,
        .o = p->o,
        .scale = p->scale,
        .scale_is_set = 1,
        .softcap = p->softcap,
        .mask = p->causal ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE,
        .window_left = p->window,
        .dynamic_lengths = p->has_lengths,
        .bias = p->bias,
        .keep = p->keep,
        .sinks = sinks,
        .v_in_k = p->v_in_k,
    };
    if (p->max_bias > 0 && p->bias.shape[0] > 0) {
        bias_factors(p->max_bias, p->q.shape[1], factors);
        desc->bias_factors = factors;
    }
}

fa_tensor fg_problem_bits(const fg_problem *p)
{
    return fa_tensor_make(FA_I32, p->bias.shape[0], p->bias.shape[1], p->bias.shape[2],
                          fg_mask_words(p->bias.shape[3]));
}

uint64_t fg_problem_hash(const fg_problem *problem)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < sizeof(*problem) / sizeof(uint64_t); i++) {
        uint64_t word;
        memcpy(&word, (const char *)problem + i * sizeof(word), sizeof(word));
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    return hash;
}
