/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu/segments_scene.h"

#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

const format formats[FORMATS] = {
    {"f32", FA_F32, FA_F32, 0, 0, 0, 0, false, false},
    [F16] = {"f16", FA_F16, FA_F16, 0, 0, 0, 0, false, false},
    {"KIVI, 4 bits", FA_U4, FA_U4, 16, 1, 1, 16, true, true},
    {"KIVI, 2 bits", FA_U2, FA_U2, 16, 1, 1, 16, true, true},
    {"ZipCache, salient", FA_U4, FA_U4, 16, 1, 1, DIM, true, true},
    {"ZipCache, others", FA_U2, FA_U2, 16, 1, 1, DIM, true, true},
    {"VidKV", FA_U2U1, FA_I2, 16, 1, 16, 1, true, false},
    [Q8_0] = {"q8_0", FA_Q8_0, FA_Q8_0, 0, 0, 0, 0, false, false},
    {"e4m3", FA_E4M3, FA_E4M3, 0, 0, 0, 0, false, false},
};

int64_t at_of(const fa_tensor *t, int64_t b, int64_t h, int64_t j, int64_t d)
{
    return ((b * t->shape[1] + h) * t->shape[2] + j) * t->shape[3] + d;
}

/* What one group of keys and dims is stored with. */
static void fit(side *s, int64_t b, int64_t h, int64_t j0, int64_t keys, int64_t d0, int64_t dims, bool zeros)
{
    float group[KEYS * DIM], scale, zero = 0;
    const int64_t at = at_of(&s->scale, b, h, j0 / keys, d0 / dims);
    for (int64_t i = 0; i < keys * dims; i++)
        group[i] = s->x[at_of(&s->t, b, h, j0 + i / dims, d0 + i % dims)];
    const fa_dtype dtype = s->t.dtype != FA_U2U1 ? s->t.dtype : d0 % 32 < 16 ? FA_U2 : FA_U1;
    fa_elements_fit(dtype, group, keys * dims, 1, &scale, zeros ? &zero : NULL);
    s->scales[at] = fa_f32_to_f16(scale);
    s->zeros[at] = fa_f32_to_f16(zero);
}

static void quantise(side *s, int keys, int dims, bool zeros)
{
    const int64_t *shape = s->t.shape;
    if (keys > 0) {
        s->scale = fa_tensor_make(FA_F16, shape[0], shape[1], shape[2] / keys, shape[3] / dims);
        s->zero = zeros ? s->scale : s->zero;
        for (int64_t line = 0; line < shape[0] * shape[1]; line++) {
            for (int64_t j = 0; j < shape[2]; j += keys) {
                for (int64_t d = 0; d < DIM; d += dims)
                    fit(s, line / shape[1], line % shape[1], j, keys, d, dims, zeros);
            }
        }
    }
    for (int64_t row = 0; row < shape[0] * shape[1] * shape[2]; row++) {
        double scale[DIM], zero[DIM];
        float number[DIM];
        for (int64_t d = 0; d < DIM; d++) {
            const int64_t at =
                keys > 0 ? at_of(&s->scale, 0, row / shape[2], row % shape[2] / keys, d / dims) : 0;
            scale[d] = keys > 0 ? (double)fa_f16_to_f32(s->scales[at]) : 1;
            zero[d] = zeros ? (double)fa_f16_to_f32(s->zeros[at]) : 0;
            number[d] = scale[d] > 0 ? (float)(((double)s->x[row * DIM + d] - zero[d]) / scale[d]) : 0;
        }
        fa_elements_store(s->t.dtype, s->codes, row * DIM, number, DIM);
        for (int64_t d = 0; d < DIM; d++)
            s->decoded[row * DIM + d] =
                (float)(scale[d] * (double)fa_element(s->t.dtype, s->codes, row * DIM + d) + zero[d]);
    }
}

static void make_side(side *s, fa_dtype dtype, bool paged, int keys, int dims, bool zeros,
                      random_state *random)
{
    memset(s, 0, sizeof(*s));
    s->t = paged ? fa_tensor_make(dtype, BATCH * KEYS / PAGE, HEADS_KV, PAGE, DIM)
                 : fa_tensor_make(dtype, BATCH, HEADS_KV, KEYS, DIM);
    for (int i = 0; i < CACHE; i++)
        s->x[i] = random_float(random, -2, 2) * (i % DIM == 5 ? 3 : 1);
    quantise(s, keys, dims, zeros);
}

void make_cache(cache *c, int kind, bool paged, random_state *random)
{
    const format *f = &formats[kind];
    *c = (cache){.segment = {.struct_size = sizeof(c->segment)}, .name = f->name, .paged = paged};
    make_side(&c->k, f->k, paged, f->k_keys, f->k_dims, f->k_zeros, random);
    make_side(&c->v, f->v, paged, f->v_keys, f->v_dims, f->v_zeros, random);
    c->segment.k = c->k.t;
    c->segment.v = c->v.t;
    c->segment.k_scale = c->k.scale;
    c->segment.v_scale = c->v.scale;
    c->segment.k_zero = c->k.zero;
    c->segment.v_zero = c->v.zero;
    if (paged)
        c->segment.page_table = fa_tensor_make(FA_I32, BATCH, 1, 1, KEYS / PAGE);
    for (int i = 0; i < BATCH * KEYS / PAGE; i++)
        c->table[i] = BATCH * KEYS / PAGE - 1 - i;
}

/* Where a key lies in decoded numbers. */
static int64_t place_of(const cache *c, const side *s, int64_t b, int64_t h, int64_t j)
{
    return c->paged ? at_of(&s->t, c->table[b * (KEYS / PAGE) + j / PAGE], h, j % PAGE, 0)
                    : at_of(&s->t, b, h, j, 0);
}

void make_scene(scene *s, int count, int rows, bool packed, bool channels, random_state *random)
{
    for (int i = 0; i < COUNT(s->q); i++)
        s->q[i] = random_float(random, -1, 1);
    for (int i = 0; i < COUNT(s->channels); i++)
        s->channels[i] = channels ? random_float(random, 0.3f, 2) : 1;
    s->desc = make_desc(packed ? 1 : BATCH, HEADS_Q, HEADS_KV, packed ? BATCH * rows : rows, KEYS, DIM);
    s->desc.k = s->desc.v = (fa_tensor){.dtype = FA_F32};
    s->desc.want_lse = 1;
    for (int b = 0; b <= BATCH; b++)
        s->cu[b] = b * rows;
    if (packed) {
        s->desc.sequences = BATCH;
        s->desc.cu_rows_q = s->cu;
    }
    for (int n = 0; n < count; n++) {
        s->list[n] = &s->cache[n].segment;
        s->cache[n].segment.lens_kv = s->cache[n].lens;
        for (int b = 0; b < BATCH; b++)
            s->cache[n].lens[b] = random_between(random, n == count - 1 ? ROWS : 0, KEYS);
    }
    s->segments = (fa_segments_desc){
        .struct_size = sizeof(s->segments), .attention = &s->desc, .segments = count, .segment = s->list};
    if (channels) {
        s->segments.v_channels = fa_tensor_make(FA_F32, packed ? 1 : BATCH, HEADS_KV, 1, DIM);
        s->segments.v_channels_stride = BATCH * HEADS_KV * DIM;
    }
}

static float channel_of(const scene *s, int n, int64_t b, int64_t h, int64_t d)
{
    const int64_t batch = s->segments.v_channels.shape[0] == 1 ? 0 : b;
    return s->channels[((n * BATCH + batch) * HEADS_KV + h) * DIM + d];
}

fa_attention_desc whole_scene(const scene *s, bool exact, float *k, float *v, int64_t lens[BATCH])
{
    enum { ALL = MOST * KEYS };
    const int count = (int)s->segments.segments;
    fa_attention_desc d = s->desc;
    d.k = d.v = fa_tensor_make(FA_F32, BATCH, HEADS_KV, ALL, DIM);
    for (int64_t b = 0; b < BATCH; b++) {
        lens[b] = 0;
        for (int n = 0; n < count; n++) {
            const cache *c = &s->cache[n];
            for (int64_t j = 0; j < c->lens[b]; j++, lens[b]++) {
                for (int64_t i = 0; i < HEADS_KV * DIM; i++) {
                    const int64_t h = i / DIM, e = i % DIM,
                                  to = ((b * HEADS_KV + h) * ALL + lens[b]) * DIM + e;
                    const int64_t from_k = place_of(c, &c->k, b, h, j) + e,
                                  from_v = place_of(c, &c->v, b, h, j) + e;
                    k[to] = exact ? c->k.x[from_k] : c->k.decoded[from_k];
                    v[to] = (exact ? c->v.x[from_v] : c->v.decoded[from_v]) * channel_of(s, n, b, h, e);
                }
            }
        }
    }
    d.lens_kv = lens;
    return d;
}

/* Factors of channels round v once more here, and o there. */
void check_scene(const scene *s)
{
    static float k[MOST * CACHE], v[MOST * CACHE];
    static double o[STATES * DIM], lse[STATES], bound[STATES], bound_lse[STATES];
    int64_t lens[BATCH];
    const fa_attention_desc d = whole_scene(s, false, k, v, lens);
    const fa_inputs inputs = {.q = s->q, .k = k, .v = v};
    const int rows = (int)(d.q.shape[0] * d.q.shape[1] * d.q.shape[2]);
    const double channels = s->segments.v_channels_stride ? 0x1p-22 * 12 : 0;
    ck_assert_int_eq(fa_reference_attention(context, &d, &inputs, o, lse), FA_OK);
    ck_assert_int_eq(
        fa_reference_limit(context, &d, &inputs, FA_F32, (int)s->segments.segments + 1, bound, bound_lse),
        FA_OK);
    for (int i = 0; i < rows; i++) {
        ck_assert_double_lt(bound[i], 1e-3);
        ck_assert_msg(fabs((double)s->lse[i] - lse[i]) <= bound_lse[i], "LSE of row %d is %g, expected %g", i,
                      (double)s->lse[i], lse[i]);
        for (int e = i * DIM; e < (i + 1) * DIM; e++)
            ck_assert_msg(fabs((double)s->o[e] - o[e]) <= bound[i] + channels + 1e-7,
                          "row %d, dim %d is %g, expected %g", i, e % DIM, (double)s->o[e], o[e]);
    }
}

static fa_buffer *keep_buffer(memory_of *m, fa_buffer *buffer)
{
    for (int i = 0; i < COUNT(m->buffer); i++) {
        if (!m->buffer[i])
            return m->buffer[i] = buffer;
    }
    ck_abort_msg("no room for a buffer");
    return NULL;
}

void make_cache_memory(const scene *s, int n, memory_of *m)
{
    const cache *c = &s->cache[n];
    m->list[n] = &m->own[n];
    m->own[n] = (fa_segment_args){
        .struct_size = sizeof(m->own[n]),
        .k = keep_buffer(m, upload(c->k.codes, sizeof(c->k.codes))),
        .v = keep_buffer(m, upload(c->v.codes, sizeof(c->v.codes))),
        .page_table = c->paged ? keep_buffer(m, upload(c->table, sizeof(c->table))) : NULL,
    };
    if (c->k.scale.shape[0] > 0) {
        m->own[n].k_scale = keep_buffer(m, upload(c->k.scales, sizeof(c->k.scales)));
        m->own[n].v_scale = keep_buffer(m, upload(c->v.scales, sizeof(c->v.scales)));
    }
    if (c->k.zero.shape[0] > 0)
        m->own[n].k_zero = keep_buffer(m, upload(c->k.zeros, sizeof(c->k.zeros)));
    if (c->v.zero.shape[0] > 0)
        m->own[n].v_zero = keep_buffer(m, upload(c->v.zeros, sizeof(c->v.zeros)));
}

void make_operands(const scene *s, memory_of *m)
{
    *m = (memory_of){.args = {.struct_size = sizeof(m->args), .segment = m->list}};
    m->args.q = keep_buffer(m, upload(s->q, sizeof(s->q)));
    m->args.o = keep_buffer(m, upload(s->o, sizeof(s->o)));
    m->args.lse = keep_buffer(m, upload(s->lse, sizeof(s->lse)));
    if (s->segments.v_channels_stride)
        m->args.v_channels = keep_buffer(m, upload(s->channels, sizeof(s->channels)));
}

void make_memory(const scene *s, const fa_segments *segments, memory_of *m)
{
    fa_buffer *workspace;
    make_operands(s, m);
    for (int n = 0; n < s->segments.segments; n++)
        make_cache_memory(s, n, m);
    ck_assert_int_eq(fa_buffer_create(device, 64 + fa_segments_workspace(segments), &workspace), FA_OK);
    m->args.workspace = keep_buffer(m, workspace);
    m->args.workspace_offset = 64;
}

void release_memory(memory_of *m)
{
    for (int i = 0; i < COUNT(m->buffer); i++)
        fa_buffer_destroy(m->buffer[i]);
}

void run_scene(scene *s, const fa_segments *segments, const memory_of *m)
{
    ck_assert_msg(fa_segments_run(segments, queue, &m->args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, m->args.o, 0, s->o, sizeof(s->o)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, m->args.lse, 0, s->lse, sizeof(s->lse)), FA_OK);
    check_scene(s);
}

bool create_segments(const scene *s, fa_segments **segments)
{
    const fa_status status = fa_segments_create(device, &s->segments, segments);
    if (status == FA_UNSUPPORTED && strcmp(backend, "cuda") == 0) {
        assert_message("segment[");
        return false;
    }
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    return true;
}

void change_left_window(scene *s)
{
    s->desc.window_left = 4;
}

void change_top_left(scene *s)
{
    s->desc.mask = FA_MASK_CAUSAL_TOP_LEFT;
}

void change_slopes(scene *s)
{
    s->desc.alibi_slopes = s->sinks;
}
