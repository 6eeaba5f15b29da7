/* SPDX-License-Identifier: Apache-2.0 */
/* A level: its sorts, its plans with their lists, and what is drawn for it. */
#include <math.h>
#include <string.h>

#include "core/backend.h"
#include "core/context.h"
#include "core/hyper/hyper.h"
#include "core/portable/lang.h"
#include "core/size.h"
#include "core/sparse/mask.h"
#include "core/status.h"

/* Its own stream, apart from that of directions. */
static const uint64_t SAMPLES = (uint64_t)1 << 32;

/* Number i that is drawn of the keys of a sequence. */
static int64_t draw(const fa_hyper *h, int level, const fa_hyper_cut *cut, int64_t n, int64_t i)
{
    const uint64_t bits = fa_sparse_random(h->desc.seed, SAMPLES + (uint64_t)level, (uint64_t)n, (uint64_t)i);
    return (int64_t)(bits % (uint64_t)(cut->cu_kv[n + 1] - cut->cu_kv[n]));
}

static fa_status make_sort(const fa_hyper *h, int64_t heads, int64_t count, int64_t pieces, const int64_t *cu,
                           fa_sort **sort)
{
    const fa_sort_desc d = {.struct_size = sizeof(d),
                            .lists = heads,
                            .count = count,
                            .buckets = (int64_t)1 << h->desc.directions,
                            .pieces = pieces,
                            .cu_pieces = cu};
    return fa_sort_create(h->device, &d, sort);
}

/* Keys that no sequence meets are one more piece. */
static fa_status make_sorts(const fa_hyper *h, fa_hyper_cut *cut, fa_hyper_level *l)
{
    const int64_t keys = h->entry.k.shape[2];
    FA_TRY(make_sort(h, h->problem.heads_q, h->entry.q.shape[2], cut->sequences, cut->cu_q, &l->sort_q));
    cut->cu_kv[cut->sequences + 1] = keys;
    return make_sort(h, h->problem.heads_kv, keys, cut->sequences + 1, cut->cu_kv, &l->sort_k);
}

static fa_attention_desc packed_desc(const fa_hyper *h, const fa_hyper_cut *cut, int64_t keys,
                                     const int64_t *cu_kv)
{
    const fa_problem *p = &h->problem;
    const int64_t rows = h->entry.q.shape[2];
    fa_attention_desc d = h->entry;
    d.q = fa_tensor_make(d.q.dtype, 1, p->heads_q, rows, p->dim_qk);
    d.k = fa_tensor_make(d.k.dtype, 1, p->heads_kv, keys, p->dim_qk);
    d.v = fa_tensor_make(d.v.dtype, 1, p->heads_kv, keys, p->dim_v);
    d.o = fa_tensor_make(FA_F32, 1, p->heads_q, rows, p->dim_v);
    d.mask = FA_MASK_NONE;
    d.want_lse = 1;
    d.sequences = cut->sequences;
    d.cu_rows_q = cut->cu_q;
    d.cu_rows_kv = cu_kv;
    return d;
}

/* The block of keys that a row block meets, of so many of the sequence. */
static int64_t own_block(const fa_hyper_cut *cut, int64_t n, int64_t row_block)
{
    return FA_MIN(row_block, fa_ceil_div(cut->cu_kv[n + 1] - cut->cu_kv[n], cut->block_keys) - 1);
}

static fa_status make_diagonal(const fa_hyper *h, const fa_hyper_cut *cut, fa_hyper_level *l)
{
    const int64_t row_blocks = fa_ceil_div(cut->most_rows, cut->block_rows),
                  lists = cut->sequences * row_blocks;
    fa_attention_desc d = packed_desc(h, cut, h->entry.k.shape[2], cut->cu_kv);
    int32_t *numbers = fa_alloc_zeroed(h->device->context, (2 * (size_t)lists + 1) * sizeof(*numbers));
    if (!numbers)
        return FA_OUT_OF_MEMORY;
    int32_t *indices = numbers + lists + 1, count = 0;
    for (int64_t i = 0; i < lists; i++) {
        const int64_t n = i / row_blocks;
        if (cut->meets[n])
            indices[count++] = (int32_t)own_block(cut, n, i % row_blocks);
        numbers[i + 1] = count;
    }
    d.lists = &(fa_block_lists){.struct_size = sizeof(*d.lists),
                                .block_rows = (int32_t)cut->block_rows,
                                .block_keys = (int32_t)cut->block_keys,
                                .sequences = cut->sequences,
                                .heads = 1,
                                .row_blocks = row_blocks,
                                .key_blocks = fa_ceil_div(cut->most_keys, cut->block_keys),
                                .indptr = numbers,
                                .indices = indices};
    const fa_status status = fa_plan_create(h->device, &d, &l->diagonal);
    fa_release(h->device->context, numbers, (2 * (size_t)lists + 1) * sizeof(*numbers));
    return status;
}

/* Lists of single keys: those drawn that are not in the row block's own block. */
static fa_status make_sampled(const fa_hyper *h, int level, const fa_hyper_cut *cut, fa_hyper_level *l)
{
    const int64_t row_blocks = fa_ceil_div(cut->most_rows, cut->block_rows), sample = h->desc.sample,
                  lists = cut->sequences * row_blocks;
    fa_attention_desc d = packed_desc(h, cut, cut->active * sample, cut->cu_sampled);
    size_t bytes = 0;
    if (!fa_grow(&bytes, (size_t)lists, (size_t)sample))
        return fa_fail(FA_OUT_OF_MEMORY, "sample is %lld, with %lld blocks of rows too many for memory",
                       (long long)sample, (long long)lists);
    uint8_t *mask = fa_alloc(h->device->context, bytes);
    if (!mask)
        return FA_OUT_OF_MEMORY;
    for (int64_t i = 0; i < lists * sample; i++) {
        const int64_t list = i / sample, n = list / row_blocks;
        mask[i] = cut->meets[n] && draw(h, level, cut, n, i % sample) / cut->block_keys !=
                                       own_block(cut, n, list % row_blocks);
    }
    d.bias = fa_tensor_make(FA_F32, cut->sequences, 1, 1, 1);
    d.lists = &(fa_block_lists){.struct_size = sizeof(*d.lists),
                                .block_rows = (int32_t)cut->block_rows,
                                .block_keys = 1,
                                .sequences = cut->sequences,
                                .heads = 1,
                                .row_blocks = row_blocks,
                                .key_blocks = sample,
                                .mask = mask};
    const fa_status status = fa_plan_create(h->device, &d, &l->sampled);
    fa_release(h->device->context, mask, bytes);
    return status;
}

static fa_status make_sample(const fa_hyper *h, const fa_hyper_cut *cut, const fa_tensor *of, int64_t dim,
                             fa_gather **gather)
{
    const int64_t heads = h->problem.heads_kv, count = cut->active * h->desc.sample;
    const fa_gather_desc d = {.struct_size = sizeof(d),
                              .from = fa_tensor_make(of->dtype, 1, heads, of->shape[2], dim),
                              .to = fa_tensor_make(of->dtype, 1, heads, count, dim),
                              .order = fa_tensor_make(FA_I32, 1, 1, count, 1)};
    return fa_gather_create(h->device, &d, gather);
}

static fa_status make(const fa_hyper *h, int level, fa_hyper_cut *cut, fa_hyper_level *l)
{
    int64_t count;
    FA_TRY(fa_hyper_cut_make(h, level, cut));
    if (!fa_mul_i64(cut->active, h->desc.sample, &count) || count > FA_MAX_LENGTH)
        return fa_fail(FA_UNSUPPORTED,
                       "sample is %lld, of %lld sequences: at most %d keys are sampled in all",
                       (long long)h->desc.sample, (long long)cut->active, FA_MAX_LENGTH);
    FA_TRY(make_sorts(h, cut, l));
    FA_TRY(make_sample(h, cut, &h->entry.k, h->problem.dim_qk, &l->sample_k));
    FA_TRY(make_sample(h, cut, &h->entry.v, h->problem.dim_v, &l->sample_v));
    FA_TRY(make_diagonal(h, cut, l));
    return make_sampled(h, level, cut, l);
}

fa_status fa_hyper_level_make(fa_hyper *h, int level, size_t *drawn)
{
    fa_hyper_level *l = &h->level[level];
    fa_hyper_cut cut;
    const fa_status status = make(h, level, &cut, l);
    l->numbers_at = *drawn;
    l->sampled_keys = cut.active * h->desc.sample;
    l->weights_at = l->numbers_at + fa_align64((size_t)l->sampled_keys * sizeof(int32_t));
    *drawn = l->weights_at + fa_align64((size_t)cut.sequences * sizeof(float));
    fa_hyper_cut_release(h, &cut);
    return status;
}

void fa_hyper_level_release(fa_hyper_level *l)
{
    fa_sort_destroy(l->sort_q);
    fa_sort_destroy(l->sort_k);
    fa_gather_destroy(l->sample_k);
    fa_gather_destroy(l->sample_v);
    fa_plan_destroy(l->diagonal);
    fa_plan_destroy(l->sampled);
}

fa_status fa_hyper_level_draw(const fa_hyper *h, int level, char *drawn)
{
    const fa_hyper_level *l = &h->level[level];
    const int64_t sample = h->desc.sample;
    int32_t *number = (int32_t *)(void *)(drawn + l->numbers_at);
    float *weight = (float *)(void *)(drawn + l->weights_at);
    fa_hyper_cut cut;
    const fa_status status = fa_hyper_cut_make(h, level, &cut);
    for (int64_t n = 0; status == FA_OK && n < cut.sequences; n++) {
        if (!cut.meets[n])
            continue;
        for (int64_t i = 0; i < sample; i++)
            *number++ = (int32_t)(cut.cu_kv[n] + draw(h, level, &cut, n, i));
        weight[n] = (float)log((double)(cut.cu_kv[n + 1] - cut.cu_kv[n]) / (double)sample);
    }
    fa_hyper_cut_release(h, &cut);
    return status;
}
