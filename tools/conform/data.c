/* SPDX-License-Identifier: Apache-2.0 */
/* From a case to a problem with its inputs. Whatever no sequence uses is NaN: gaps, padding, keys beyond a length. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/conform/conform.h"

static bool packs_q(conform_packing packing)
{
    return packing == CONFORM_PACK_BOTH || packing == CONFORM_PACK_Q || packing == CONFORM_PACK_GAPS ||
           packing == CONFORM_PACK_Q_LENS;
}

static bool packs_kv(conform_packing packing)
{
    return packing == CONFORM_PACK_BOTH || packing == CONFORM_PACK_KV || packing == CONFORM_PACK_GAPS ||
           packing == CONFORM_PACK_KV_LENS_Q;
}

static bool has_lens_q(conform_packing packing)
{
    return packing == CONFORM_LENS_Q || packing == CONFORM_LENS_BOTH || packing == CONFORM_PACK_KV_LENS_Q;
}

static bool has_lens_kv(conform_packing packing)
{
    return packing == CONFORM_LENS || packing == CONFORM_PACK_Q_LENS || packing == CONFORM_LENS_BOTH;
}

/* Of sequence n, where the longest has `length`: long, empty, single and middling ones, out of step. */
static int64_t rows_of(int32_t n, int32_t length)
{
    const int32_t lengths[] = {length, 0, length > 0, length / 2, length / 3};
    return lengths[n % 5];
}

static int64_t keys_of(int32_t n, int32_t length)
{
    const int32_t lengths[] = {length, length / 2, 0, length > 0, length - length / 4};
    return lengths[n % 5];
}

/* The first key of sequence n, of so many: some, none, all, the last. */
static int64_t first_of(int32_t n, int64_t keys)
{
    const int64_t firsts[] = {keys / 3, 0, keys, keys > 0 ? keys - 1 : 0};
    return firsts[n % 4];
}

/* The lists that the description has, as 32-bit integers instead. */
static bool narrow_lists(conform_data *data, size_t count)
{
    fa_attention_desc *d = &data->desc;
    const int64_t **const wide[] = {&d->cu_rows_q, &d->cu_rows_kv, &d->lens_q, &d->lens_kv, &d->first_kv};
    const int32_t **const narrow[] = {&d->cu_rows_q32, &d->cu_rows_kv32, &d->lens_q32, &d->lens_kv32,
                                      &d->first_kv32};
    int32_t *to = data->narrow = malloc(5 * count * sizeof(int32_t));
    for (int list = 0; to && list < 5; list++, to += count) {
        bool is_lens = list >= 2;
        if (!*wide[list])
            continue;
        for (size_t n = 0; n < count - is_lens; n++)
            to[n] = (int32_t)(*wide[list])[n];
        *narrow[list] = to;
        *wide[list] = NULL;
    }
    return to != NULL;
}

/* The keys of a tensor are a multiple of this: whole groups that share scales, of k and of v. */
static int64_t grain_of(const conform_case *c)
{
    const int32_t k = c->k_scales.keys ? c->k_scales.keys : 1, v = c->v_scales.keys ? c->v_scales.keys : 1;
    return k > v ? k : v; /* powers of two */
}

static bool make_offsets(const conform_case *c, const conform_sizes *sizes, conform_data *data)
{
    int64_t before = c->packing == CONFORM_PACK_GAPS ? 2 : 0;
    size_t bytes = ((size_t)c->batch + 1) * sizeof(int64_t);
    data->offsets_q = malloc(bytes);
    data->offsets_kv = malloc(bytes);
    data->lens_q = malloc(bytes);
    data->lens_kv = malloc(bytes);
    data->first_kv = malloc(bytes);
    if (!data->offsets_q || !data->offsets_kv || !data->lens_q || !data->lens_kv || !data->first_kv)
        return false;
    data->offsets_q[0] = data->offsets_kv[0] = before;
    for (int32_t n = 0; n < c->batch; n++) {
        data->offsets_q[n + 1] = data->offsets_q[n] + rows_of(n, sizes->len_q);
        data->offsets_kv[n + 1] = data->offsets_kv[n] + keys_of(n, sizes->len_kv);
        data->lens_q[n] = rows_of(n, sizes->len_q);
        data->lens_kv[n] = has_lens_kv(c->packing) ? keys_of(n, sizes->len_kv) : sizes->len_kv;
        if (c->packing == CONFORM_LENS_BOTH && sizes->len_q == sizes->len_kv)
            data->lens_kv[n] = data->lens_q[n]; /* a padded encoder */
        data->first_kv[n] = first_of(n, packs_kv(c->packing) ? keys_of(n, sizes->len_kv) : data->lens_kv[n]);
    }
    if (packs_q(c->packing) || packs_kv(c->packing))
        data->desc.sequences = c->batch;
    data->desc.cu_rows_q = packs_q(c->packing) ? data->offsets_q : NULL;
    data->desc.cu_rows_kv = packs_kv(c->packing) ? data->offsets_kv : NULL;
    data->desc.lens_q = has_lens_q(c->packing) ? data->lens_q : NULL;
    data->desc.lens_kv = has_lens_kv(c->packing) || c->page > 0 || (grain_of(c) > 1 && !packs_kv(c->packing))
                             ? data->lens_kv
                             : NULL; /* pages and groups hold more */
    data->desc.first_kv = c->first ? data->first_kv : NULL;
    data->desc.dynamic_lengths = c->test == CONFORM_LENGTHS ? 1 : c->test == CONFORM_DEVICE_LENGTHS ? 2 : 0;
    return !c->narrow || narrow_lists(data, (size_t)c->batch + 1);
}

bool conform_data_uses_row(const conform_data *data, int64_t batch, int64_t row)
{
    for (int64_t n = 0; n < conform_sequences(&data->desc); n++) {
        conform_part p = conform_part_q(&data->desc, n);
        if (p.batch == batch && row >= p.begin && row < p.begin + p.count)
            return true;
    }
    return false;
}

bool conform_data_changed(const conform_data *data)
{
    for (int t = 0; t < CONFORM_INPUTS; t++) {
        if (data->memory[t] && memcmp(data->memory[t], data->pristine[t], data->bytes[t]) != 0)
            return true;
    }
    return false;
}

/* Strides of a tensor in a layout; the first element stands `*lead` elements into its memory. */
static void lay_out(conform_layout layout, bool is_kv, fa_tensor *t, int64_t *lead)
{
    const bool prunes = t->dtype == FA_BITMAP_F16; /* strides count bytes */
    const int64_t *s = t->shape, block = t->dtype == FA_E8M0 ? 2 : prunes ? 4 : fa_dtype_block(t->dtype);
    const int64_t last = prunes ? t->stride[3] : 1;
    int64_t row = prunes ? last : s[3];
    *lead = 0;
    if (layout == CONFORM_BSHD || layout == CONFORM_PACKED) {
        *t = (fa_tensor){t->dtype, {s[0], s[1], s[2], s[3]}, {s[2] * s[1] * row, row, s[1] * row, last}};
    } else if (layout == CONFORM_VIEW) {
        row += 3 * block;
        int64_t head = (s[2] + 2) * row + 5 * block;
        *t = (fa_tensor){t->dtype, {s[0], s[1], s[2], s[3]}, {s[1] * head + 7 * block, head, row, last}};
        *lead = 11 * block;
    } else if (layout == CONFORM_BROADCAST && is_kv) {
        *t = (fa_tensor){t->dtype, {s[0], s[1], s[2], s[3]}, {0, 0, row, last}};
    } else if (layout == CONFORM_OVERLAP && is_kv) {
        row = (row + 1) / 2;
        int64_t head = s[2] * row + s[3];
        *t = (fa_tensor){t->dtype, {s[0], s[1], s[2], s[3]}, {s[1] * head, head, row, 1}};
    }
}

enum { SPARE_PAGES = 3 }; /* of the pool, in no table */

/* Sizes of scales and zeros for k or v. */
static void make_scales(const conform_scales *s, const fa_tensor *of, fa_tensor *scale, fa_tensor *zero)
{
    if (!s->name)
        return;
    *scale = fa_tensor_make(s->type, s->batch ? of->shape[0] : 1, s->head ? of->shape[1] : 1,
                            s->keys ? of->shape[2] / s->keys : 1, s->dims ? of->shape[3] / s->dims : 1);
    *zero = s->zero ? *scale : (fa_tensor){0};
    zero->dtype = s->zero ? FA_F16 : FA_F32;
}

/* A tensor of k or v. */
static fa_tensor make_cache(const conform_case *c, fa_dtype dtype, kv_rows rows, int64_t batch, int64_t keys,
                            int32_t dim)
{
    if (dtype == FA_BITMAP_F16)
        return fa_tensor_make_bitmap(batch, c->heads_kv, keys, dim, kv_kept(rows, dim));
    return fa_tensor_make(dtype, batch, c->heads_kv, keys, dim);
}

static void make_tensors(const conform_case *c, const conform_sizes *sizes, conform_data *data)
{
    fa_attention_desc *d = &data->desc;
    int64_t behind = c->packing == CONFORM_PACK_GAPS ? 3 : 0;
    int64_t batch_q = c->batch, rows = sizes->len_q, batch_kv = c->batch, keys = sizes->len_kv;
    if (packs_q(c->packing)) {
        batch_q = 1;
        rows = data->offsets_q[c->batch] + behind;
    }
    if (packs_kv(c->packing)) {
        batch_kv = 1;
        keys = data->offsets_kv[c->batch] + behind;
    }
    keys = (keys + grain_of(c) - 1) / grain_of(c) * grain_of(c);
    if (c->page > 0) {
        int64_t pages = (sizes->len_kv + c->page - 1) / c->page, lines = c->shared_pages ? 1 : c->batch;
        d->page_table = fa_tensor_make(FA_I32, lines, 1, 1, pages);
        batch_kv = lines * pages + SPARE_PAGES;
        keys = c->page;
    }
    d->q = fa_tensor_make(c->q, batch_q, c->heads_q, rows, c->dim_qk);
    d->k = make_cache(c, c->k, c->rows_k, batch_kv, keys, c->dim_qk);
    d->v = make_cache(c, c->v, c->rows_v, batch_kv, keys, c->dim_v);
    d->o = fa_tensor_make(c->o, batch_q, c->heads_q, rows, c->dim_v);
    make_scales(&c->k_scales, &d->k, &d->k_scale, &d->k_zero);
    make_scales(&c->v_scales, &d->v, &d->v_scale, &d->v_zero);
    d->k_factor = c->k_scales.factor;
    d->v_factor = c->v_scales.factor;
    const int64_t full[4] = {c->batch, c->heads_q, sizes->len_q, sizes->len_kv};
    for (int axis = 0; axis < 4; axis++) {
        if (c->bias_axes != CONFORM_NO_AXES)
            d->bias.shape[axis] = c->bias_axes >> axis & 1 ? full[axis] : 1;
        if (c->keep_axes != CONFORM_NO_AXES)
            d->keep.shape[axis] = c->keep_axes >> axis & 1 ? full[axis] : 1;
    }
    d->bias.dtype = c->bias;
    d->keep.dtype = FA_BOOL;
    if (c->keep_bits != 0) {
        d->keep.dtype = FA_I32;
        d->keep_last = c->keep_bits > 0 ? c->keep_bits : 0;
        d->keep.shape[3] = ((c->keep_bits > 0 ? c->keep_bits : sizes->len_kv) + 31) / 32;
    }
}

/* The three tensors of CONFORM_PACKED: one memory, a row of q, k and v at a time. */
static void lay_out_packed(conform_data *data)
{
    fa_attention_desc *d = &data->desc;
    int64_t q = d->q.shape[1] * d->q.shape[3], k = d->k.shape[1] * d->k.shape[3],
            v = d->v.shape[1] * d->v.shape[3];
    int64_t row = q + k + v;
    const int64_t lead[] = {0, q, q + k};
    for (int t = CONFORM_Q; t <= CONFORM_V; t++) {
        fa_tensor *tensor = conform_tensor(d, t);
        const int64_t stride[4] = {tensor->shape[2] * row, tensor->shape[3], row, 1};
        memcpy(tensor->stride, stride, sizeof(stride));
        data->home[t] = CONFORM_Q;
        data->offset[t] = (size_t)lead[t] * fa_dtype_size(tensor->dtype);
    }
}

/* Axes of bias or keep that are full, but have one element. */
static void repeat_axes(const conform_case *c, fa_tensor *t)
{
    if (c->repeats == 0 || t->shape[0] == 0)
        return;
    *t = conform_strides(*t);
    for (int axis = 0; axis < 4; axis++) {
        if (c->repeats >> axis & 1)
            t->stride[axis] = 0;
    }
    if (!t->stride[0] && !t->stride[1] && !t->stride[2] && !t->stride[3])
        *t = (fa_tensor){t->dtype, {1, 1, 1, 1}, {0}}; /* strides of 0 would mean contiguous */
}

/* What other libraries leave in the strides of axes that have one element. */
static void set_singles(fa_attention_desc *d)
{
    static const int64_t odd[] = {7, -1, INT64_MAX, 0};
    fa_tensor *const tensors[] = {&d->q,          &d->k,       &d->v,       &d->o,      &d->bias,  &d->keep,
                                  &d->page_table, &d->k_scale, &d->v_scale, &d->k_zero, &d->v_zero};
    for (int t = 0; t < 11; t++) {
        if (tensors[t]->shape[0] == 0)
            continue;
        *tensors[t] = conform_strides(*tensors[t]);
        for (int axis = 0; axis < 4; axis++) {
            if (tensors[t]->shape[axis] == 1)
                tensors[t]->stride[axis] = odd[(t + axis) % 4];
        }
    }
}

static bool allocate(conform_data *data)
{
    for (int t = 0; t < CONFORM_INPUTS; t++) {
        size_t span;
        if (fa_tensor_span(conform_tensor(&data->desc, t), &span) != FA_OK)
            return false;
        size_t end = data->offset[t] + span, *bytes = &data->bytes[data->home[t]];
        *bytes = span > 0 && end > *bytes ? end : *bytes;
    }
    for (int t = 0; t < CONFORM_INPUTS; t++) {
        if (data->bytes[t] == 0)
            continue;
        data->memory[t] = malloc(data->bytes[t]);
        data->pristine[t] = malloc(data->bytes[t]);
        if (!data->memory[t] || !data->pristine[t])
            return false;
        memset(data->memory[t], 0xff, data->bytes[t]); /* NaN in every type */
    }
    const void **const inputs[CONFORM_INPUTS] = {
        &data->inputs.q,      &data->inputs.k,          &data->inputs.v,       &data->inputs.bias,
        &data->inputs.keep,   &data->inputs.page_table, &data->inputs.k_scale, &data->inputs.v_scale,
        &data->inputs.k_zero, &data->inputs.v_zero};
    for (int t = 0; t < CONFORM_INPUTS; t++) {
        unsigned char *home = data->memory[data->home[t]];
        *inputs[t] = home ? home + data->offset[t] : NULL;
    }
    return true;
}

/* Each used page of each sequence is another of the pool; entries behind a length are no pages. */
static void deal_pages(const paging *order, conform_data *data, conform_random *random)
{
    const bool in_order = order && order->seed == PAGES_IN_ORDER;
    conform_random own = conform_random_of(order ? (uint64_t)order->seed : 0, "pages");
    const fa_attention_desc *d = &data->desc;
    const int64_t lines = d->page_table.shape[0], pages = d->page_table.shape[3];
    int32_t *table = data->memory[CONFORM_PAGES];
    for (int64_t i = 0; table && i < lines * pages; i++) {
        const int64_t other = in_order ? i : conform_random_below(order ? &own : random, (uint32_t)i + 1);
        table[i] = table[other];
        table[other] = (int32_t)i + 1; /* page 0 is a spare one */
    }
    for (int64_t i = 0; table && lines > 1 && i < lines * pages; i++) {
        const conform_part p = conform_part_kv(d, i / pages);
        const int64_t page = i % pages, size = d->k.shape[2];
        if (page * size >= p.count || (page + 1) * size <= p.first)
            table[i] = i % 2 ? -1 - (int32_t)i : INT32_MAX - (int32_t)i;
    }
}

void conform_data_keep(conform_data *data)
{
    for (int t = 0; t < CONFORM_INPUTS; t++) {
        if (data->memory[t])
            memcpy(data->pristine[t], data->memory[t], data->bytes[t]);
    }
}

/* Of rows that keep some of their elements: those that nothing was stored in yet keep as many as they can. */
static void tame_rows(const fa_tensor *given, unsigned char *base)
{
    const fa_tensor t = conform_strides(*given);
    const uint16_t one = fa_f32_to_f16(1);
    for (int64_t row = 0; row < t.shape[0] * t.shape[1] * t.shape[2]; row++) {
        unsigned char *at = base + conform_index(&t, row / t.shape[2] / t.shape[1],
                                                 row / t.shape[2] % t.shape[1], row % t.shape[2]);
        for (int64_t i = (t.shape[3] + 31) / 32 * 4; i < t.stride[3]; i += 2) {
            if (at[i] == 0xff && at[i + 1] == 0xff)
                memcpy(at + i, &one, sizeof(one));
        }
    }
}

/* Copies of the inputs, 1 where nothing was stored yet. */
static bool make_tame(conform_data *data)
{
    for (int t = CONFORM_Q; t <= CONFORM_V; t++) {
        fa_dtype dtype = conform_tensor(&data->desc, t)->dtype;
        if (!data->memory[t])
            continue;
        data->tame[t] = malloc(data->bytes[t]);
        if (!data->tame[t])
            return false;
        memcpy(data->tame[t], data->memory[t], data->bytes[t]);
        if (dtype == FA_BITMAP_F16) {
            tame_rows(conform_tensor(&data->desc, t), (unsigned char *)data->tame[t] + data->offset[t]);
            continue;
        }
        for (size_t i = 0; i < data->bytes[t] / fa_dtype_size(dtype) * (size_t)fa_dtype_block(dtype); i++) {
            if (isnan(conform_load(dtype, data->tame[t], (int64_t)i)))
                conform_store(dtype, data->tame[t], (int64_t)i, 1);
        }
    }
    return true;
}

void conform_data_exchange(conform_data *data)
{
    for (int t = 0; t < CONFORM_INPUTS; t++) {
        if (!data->tame[t])
            continue;
        memcpy(data->pristine[t], data->tame[t], data->bytes[t]);
        memcpy(data->tame[t], data->memory[t], data->bytes[t]);
        memcpy(data->memory[t], data->pristine[t], data->bytes[t]);
    }
}

bool conform_data_make(const conform_case *c, const conform_sizes *sizes, uint64_t seed, conform_data *data)
{
    conform_random random = conform_random_of(seed, c->name);
    *data = (conform_data){0};
    data->tuning = (fa_tuning){
        .struct_size = sizeof(data->tuning),
        .block_q = sizes->block_q,
        .block_kv = sizes->block_kv,
        .splits = c->splits,
    };
    data->desc = (fa_attention_desc){
        .struct_size = sizeof(data->desc),
        .scale = c->scale_zero ? 0 : c->scale,
        .scale_is_set = c->scale_zero,
        .softcap = c->softcap,
        .mask = c->mask,
        .alignment = c->alignment,
        .window_left = c->window_left,
        .window_right = c->window_right,
        .prefix = c->prefix,
        .diagonal_offset = c->diagonal_offset,
        .want_lse = !c->no_lse,
        .want_status = c->test == CONFORM_LOST_PAGES,
        .tuning = &data->tuning,
    };
    if (!make_offsets(c, sizes, data) || !conform_fill_heads(c, data, &random))
        return false;
    make_tensors(c, sizes, data);
    for (int t = 0; t < CONFORM_INPUTS; t++) {
        int64_t lead = 0;
        data->home[t] = t;
        if (t <= CONFORM_V)
            lay_out(c->layout, t != CONFORM_Q, conform_tensor(&data->desc, t), &lead);
        if ((t == CONFORM_K_SCALE || t == CONFORM_V_ZERO) && conform_tensor(&data->desc, t)->shape[0] > 0 &&
            (c->layout == CONFORM_BSHD || c->layout == CONFORM_VIEW))
            lay_out(c->layout, false, conform_tensor(&data->desc, t), &lead);
        data->offset[t] = conform_bytes(conform_tensor(&data->desc, t)->dtype, lead);
    }
    int64_t lead_of_o;
    lay_out(c->layout, false, &data->desc.o, &lead_of_o);
    if (c->layout == CONFORM_PACKED)
        lay_out_packed(data);
    if (c->layout == CONFORM_SHARED) {
        fa_tensor k = conform_strides(data->desc.k);
        memcpy(data->desc.v.stride, k.stride, sizeof(k.stride));
        data->home[CONFORM_V] = CONFORM_K;
        data->desc.v_in_k = c->latent;
    }
    repeat_axes(c, &data->desc.bias);
    repeat_axes(c, &data->desc.keep);
    if (c->singles)
        set_singles(&data->desc);
    if (!allocate(data))
        return false;
    deal_pages(c->order, data, &random);
    conform_fill(c, data, &random);
    if (!conform_make_lists(c, sizes, data, &random) || !conform_make_near(c, data))
        return false;
    if (c->hazard >= CONFORM_NAN_Q && !make_tame(data))
        return false;
    conform_place_hazard(data, c->hazard);
    conform_data_keep(data);
    return true;
}

void conform_data_free(conform_data *data)
{
    for (int t = 0; t < CONFORM_INPUTS; t++) {
        free(data->memory[t]);
        free(data->pristine[t]);
        free(data->tame[t]);
    }
    free(data->offsets_q);
    free(data->offsets_kv);
    free(data->lens_q);
    free(data->lens_kv);
    free(data->first_kv);
    free(data->narrow);
    free(data->slopes);
    free(data->factors);
    free(data->sinks);
    free(data->list_mask);
    free(data->list_indptr);
    free(data->list_indices);
    free(data->near_at);
    *data = (conform_data){0};
}
