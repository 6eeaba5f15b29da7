/* SPDX-License-Identifier: Apache-2.0 */
/* Caches in segments on a backend, whose name is the argument: against the oracle of all their keys in one tensor. */
#include <fastattn/reference.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/gpu/on_backend.h"

enum { BATCH = 2, HEADS_Q = 4, HEADS_KV = 2, KEYS = 48, PAGE = 16, DIM = 32, ROWS = 3, MOST = 4 };
enum { CACHE = BATCH * HEADS_KV * KEYS * DIM, STATES = BATCH * HEADS_Q * ROWS };

/* k or v of a segment: what it is made of, its codes with their scales, and the numbers that these stand for. */
typedef struct side {
    fa_tensor t, scale, zero;
    float x[CACHE], decoded[CACHE];
    unsigned char codes[CACHE * sizeof(float)];
    uint16_t scales[CACHE], zeros[CACHE];
} side;

/* A scale in f16, and a zero, for each group of so many keys and dims; groups of 0 keys: no scales. */
typedef struct format {
    const char *name;
    fa_dtype k, v;
    int k_keys, k_dims, v_keys, v_dims;
    bool k_zeros, v_zeros;
} format;

static const format formats[] = {
    {"f32", FA_F32, FA_F32, 0, 0, 0, 0, false, false},
    {"f16", FA_F16, FA_F16, 0, 0, 0, 0, false, false},
    {"KIVI, 4 bits", FA_U4, FA_U4, 16, 1, 1, 16, true, true},
    {"KIVI, 2 bits", FA_U2, FA_U2, 16, 1, 1, 16, true, true},
    {"ZipCache, salient", FA_U4, FA_U4, 16, 1, 1, DIM, true, true},
    {"ZipCache, others", FA_U2, FA_U2, 16, 1, 1, DIM, true, true},
    {"VidKV", FA_U2U1, FA_I2, 16, 1, 16, 1, true, false},
    {"q8_0", FA_Q8_0, FA_Q8_0, 0, 0, 0, 0, false, false},
    {"e4m3", FA_E4M3, FA_E4M3, 0, 0, 0, 0, false, false},
};

static int64_t at_of(const fa_tensor *t, int64_t b, int64_t h, int64_t j, int64_t d)
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

typedef struct cache {
    fa_segment segment;
    const char *name;
    bool paged;
    side k, v;
    int32_t table[BATCH * KEYS / PAGE];
    int64_t lens[BATCH];
} cache;

typedef struct scene {
    fa_attention_desc desc;
    fa_segments_desc segments;
    const fa_segment *list[MOST];
    cache cache[MOST];
    int64_t cu[BATCH + 1];
    float channels[MOST * BATCH * HEADS_KV * DIM], sinks[HEADS_Q];
    float q[STATES * DIM], o[STATES * DIM], lse[STATES];
} scene;

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

static void make_cache(cache *c, int kind, bool paged, random_state *random)
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

/* Sequences of `rows` query rows; lists that the scene holds are filled here. */
static void make_scene(scene *s, int count, int rows, bool packed, bool channels, random_state *random)
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

/* All keys in one tensor, and as many as there are; `exact`: what was stored, before it was quantised. */
static fa_attention_desc whole(const scene *s, bool exact, float *k, float *v, int64_t lens[BATCH])
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

/* Within what f32 arithmetic may be off; factors of channels round v once more here, and o there. */
static void check_scene(const scene *s)
{
    static float k[MOST * CACHE], v[MOST * CACHE];
    static double o[STATES * DIM], lse[STATES], bound[STATES], bound_lse[STATES];
    int64_t lens[BATCH];
    const fa_attention_desc d = whole(s, false, k, v, lens);
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

typedef struct memory_of {
    fa_segments_args args;
    fa_segment_args own[MOST];
    const fa_segment_args *list[MOST];
    fa_buffer *buffer[6 + 7 * MOST];
} memory_of;

static fa_buffer *keep_buffer(memory_of *m, fa_buffer *buffer)
{
    for (int i = 0; i < COUNT(m->buffer); i++) {
        if (!m->buffer[i])
            return m->buffer[i] = buffer;
    }
    ck_abort_msg("no room for a buffer");
    return NULL;
}

static void make_memory(const scene *s, const fa_segments *segments, memory_of *m)
{
    fa_buffer *workspace;
    *m = (memory_of){.args = {.struct_size = sizeof(m->args), .segment = m->list}};
    for (int n = 0; n < s->segments.segments; n++) {
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
    ck_assert_int_eq(fa_buffer_create(device, 64 + fa_segments_workspace(segments), &workspace), FA_OK);
    m->args.q = keep_buffer(m, upload(s->q, sizeof(s->q)));
    m->args.o = keep_buffer(m, upload(s->o, sizeof(s->o)));
    m->args.lse = keep_buffer(m, upload(s->lse, sizeof(s->lse)));
    m->args.workspace = keep_buffer(m, workspace);
    m->args.workspace_offset = 64;
    if (s->segments.v_channels_stride)
        m->args.v_channels = keep_buffer(m, upload(s->channels, sizeof(s->channels)));
}

static void release_memory(memory_of *m)
{
    for (int i = 0; i < COUNT(m->buffer); i++)
        fa_buffer_destroy(m->buffer[i]);
}

static void run_scene(scene *s, const fa_segments *segments, const memory_of *m)
{
    ck_assert_msg(fa_segments_run(segments, queue, &m->args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, m->args.o, 0, s->o, sizeof(s->o)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, m->args.lse, 0, s->lse, sizeof(s->lse)), FA_OK);
    check_scene(s);
}

/* One that the device serves; false where it serves no scales, by name. */
static bool create(const scene *s, fa_segments **segments)
{
    const fa_status status = fa_segments_create(device, &s->segments, segments);
    if (status == FA_UNSUPPORTED && strcmp(backend, "cuda") == 0) {
        assert_message("segment[");
        return false;
    }
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    return true;
}

/* With the description's lengths, then with others, of all segments and of the last alone; from the device too. */
static void check_segments(scene *s, random_state *random)
{
    fa_segments *segments;
    memory_of m;
    const int count = (int)s->segments.segments;
    if (!create(s, &segments))
        return;
    make_memory(s, segments, &m);
    run_scene(s, segments, &m);
    if (s->desc.dynamic_lengths > 0) {
        fa_lengths lengths[MOST];
        const fa_lengths *list[MOST];
        m.args.work_offset = 256;
        ck_assert_int_eq(fa_buffer_create(device, 256 + fa_segments_work(segments), &m.args.work), FA_OK);
        for (int all = 1; all >= 0; all--) {
            for (int n = 0; n < count; n++) {
                lengths[n] = (fa_lengths){.struct_size = sizeof(fa_lengths), .lens_kv = s->cache[n].lens};
                list[n] = all || n == count - 1 ? &lengths[n] : NULL;
                for (int b = 0; b < BATCH && list[n]; b++)
                    s->cache[n].lens[b] = random_between(random, n == count - 1 ? ROWS : 0, KEYS);
            }
            ck_assert_msg(fa_segments_schedule(segments, queue, list, m.args.work, 256) == FA_OK, "%s",
                          fa_last_error());
            run_scene(s, segments, &m);
        }
        fa_device_lengths from[MOST];
        const fa_device_lengths *device_list[MOST];
        fa_buffer *kept[MOST + 1] = {NULL};
        int32_t cu[BATCH + 1], lens[MOST][BATCH];
        for (int b = 0; b <= BATCH; b++)
            cu[b] = (int32_t)s->cu[b];
        kept[count] = upload(cu, sizeof(cu));
        for (int n = 0; n < count && s->desc.dynamic_lengths == 2; n++) {
            for (int b = 0; b < BATCH; b++)
                lens[n][b] = (int32_t)(s->cache[n].lens[b] = random_between(random, ROWS, KEYS));
            kept[n] = upload(lens[n], sizeof(lens[n]));
            from[n] = (fa_device_lengths){.struct_size = sizeof(from[n]), .lens_kv = kept[n]};
            from[n].cu_rows_q = s->desc.cu_rows_q ? kept[count] : NULL;
            device_list[n] = &from[n];
        }
        if (s->desc.dynamic_lengths == 2) {
            ck_assert_msg(fa_segments_schedule_device(segments, queue, device_list, m.args.work, 256) ==
                              FA_OK,
                          "%s", fa_last_error());
            run_scene(s, segments, &m);
        }
        for (int n = 0; n <= count; n++)
            fa_buffer_destroy(kept[n]);
        fa_buffer_destroy(m.args.work);
    }
    release_memory(&m);
    fa_segments_destroy(segments);
}

START_TEST(segments_of_all_formats)
{
    static scene s;
    random_state random = {21};
    for (int i = slow ? 1 : 0; i < (slow ? 2 : 60) && device; i++) {
        const int count = slow ? 2 : i % MOST + 1, rows = i % 3 == 0 ? ROWS : 1;
        for (int n = 0; n < count; n++)
            make_cache(&s.cache[n],
                       slow ? (n ? 1 : 2 + i) : (int)random_between(&random, 0, COUNT(formats) - 1),
                       !slow && random_bits(&random) % 3 == 0, &random);
        make_scene(&s, count, rows, i % 2 == 1, i % 4 == 1, &random);
        if (rows > 1)
            s.desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        if (i % 5 == 2) {
            s.desc.softcap = 4;
            s.desc.sinks = s.sinks;
            for (int h = 0; h < HEADS_Q; h++)
                s.sinks[h] = random_float(&random, -1, 3);
        }
        s.desc.dynamic_lengths = i % 4 == 0 || i % 6 == 3 ? 1 + (i % 6 == 0 || i % 6 == 3) : 0;
        check_segments(&s, &random);
    }
}
END_TEST

/* What an element's code may be off by: half a step, and what rounding the scale and the zero moved the range by. */
static double off_by(const side *s, int64_t at, int keys, int dims)
{
    const int64_t row = at / DIM, j = row % s->t.shape[2];
    if (keys == 0)
        return s->t.dtype == FA_F16 ? 0x1p-11 * fabs((double)s->x[at]) : 0;
    const int64_t scale_at = at_of(&s->scale, 0, row / s->t.shape[2], j / keys, at % DIM / dims);
    const double scale = (double)fa_f16_to_f32(s->scales[scale_at]),
                 zero = (double)fa_f16_to_f32(s->zeros[scale_at]),
                 range = scale * (double)((1 << fa_dtype_size(s->t.dtype)) - 1);
    return scale / 2 + 0x1p-11 * range + 0x1p-11 * fabs(zero) + 1e-6;
}

/*
 * KIVI in decoding: a body in 4 or 2 bits and a window in f16, against what was never quantised. Scores move by at most
 * e_j = scale sum_d |q_d| (how far k_jd is off), so weights by a factor within exp(+-2 e), which moves o by at most
 * (exp(2 e) - 1) sum_j p_j |v_j - o|, and values by what v is off.
 */
START_TEST(kivi_within_its_bound)
{
    static scene s;
    static float k[MOST * CACHE], v[MOST * CACHE];
    static double o[STATES * DIM], lse[STATES];
    random_state random = {5};
    for (int kind = 2; kind <= 3 && device && !slow; kind++) {
        fa_segments *segments;
        memory_of m;
        int64_t lens[BATCH];
        make_cache(&s.cache[0], kind, false, &random);
        make_cache(&s.cache[1], 1, false, &random);
        make_scene(&s, 2, 1, false, false, &random);
        if (!create(&s, &segments))
            continue;
        make_memory(&s, segments, &m);
        run_scene(&s, segments, &m);
        const fa_attention_desc d = whole(&s, true, k, v, lens);
        const fa_inputs inputs = {.q = s.q, .k = k, .v = v};
        ck_assert_int_eq(fa_reference_attention(context, &d, &inputs, o, lse), FA_OK);
        for (int64_t row = 0; row < BATCH * HEADS_Q; row++) {
            const int64_t b = row / HEADS_Q, h = row % HEADS_Q / (HEADS_Q / HEADS_KV);
            double worst_score = 0, worst_value = 0, spread[DIM] = {0};
            for (int n = 0, all = 0; n < 2; n++) {
                const cache *c = &s.cache[n];
                const format *f = &formats[n == 0 ? kind : 1];
                for (int64_t j = 0; j < c->lens[b]; j++, all++) {
                    const int64_t at = at_of(&c->k.t, b, h, j, 0);
                    const float *key = k + ((b * HEADS_KV + h) * MOST * KEYS + all) * DIM,
                                *value = v + ((b * HEADS_KV + h) * MOST * KEYS + all) * DIM;
                    double score = 0, moved = 0;
                    for (int64_t e = 0; e < DIM; e++) {
                        const double off_k = off_by(&c->k, at + e, f->k_keys, f->k_dims),
                                     off_v = off_by(&c->v, at + e, f->v_keys, f->v_dims);
                        ck_assert_double_le(fabs((double)c->k.x[at + e] - (double)c->k.decoded[at + e]),
                                            off_k);
                        ck_assert_double_le(fabs((double)c->v.x[at + e] - (double)c->v.decoded[at + e]),
                                            off_v);
                        score += (double)s.q[row * DIM + e] * (double)key[e] / sqrt(DIM);
                        moved += fabs((double)s.q[row * DIM + e]) * off_k / sqrt(DIM);
                        worst_value = fmax(worst_value, off_v);
                    }
                    worst_score = fmax(worst_score, moved);
                    for (int64_t e = 0; e < DIM; e++)
                        spread[e] += exp(score - lse[row]) * fabs((double)value[e] - o[row * DIM + e]);
                }
            }
            for (int64_t e = 0; e < DIM; e++) {
                const double bound = (exp(2 * worst_score) - 1) * spread[e] + worst_value + 1e-5;
                ck_assert_double_le(fabs((double)s.o[row * DIM + e] - o[row * DIM + e]), bound);
            }
        }
        release_memory(&m);
        fa_segments_destroy(segments);
    }
}
END_TEST

typedef void change(scene *s);

static void left_window(scene *s)
{
    s->desc.window_left = 4;
}
static void prefix(scene *s)
{
    s->desc.prefix = 2;
}
static void status(scene *s)
{
    s->desc.want_status = 1;
}
static void v_in_k(scene *s)
{
    s->desc.v_in_k = 1;
}
static void top_left(scene *s)
{
    s->desc.mask = FA_MASK_CAUSAL_TOP_LEFT;
}
static void bias(scene *s)
{
    s->desc.bias = fa_tensor_make(FA_F32, 1, 1, 1, KEYS);
}
static void keep(scene *s)
{
    s->desc.keep = fa_tensor_make(FA_BOOL, 1, 1, 1, KEYS);
}
static void slopes(scene *s)
{
    s->desc.alibi_slopes = s->sinks;
}
static void padded_rows(scene *s)
{
    s->desc.lens_q = s->cu; /* 0, and all rows */
}
static void common_keys(scene *s)
{
    s->desc.k = s->cache[0].k.t;
}
static void common_lengths(scene *s)
{
    s->desc.lens_kv = s->cache[0].lens;
}
static void common_factor(scene *s)
{
    s->desc.v_factor = 2;
}
static void no_segments(scene *s)
{
    s->segments.segments = 0;
}
static void missing(scene *s)
{
    s->list[1] = NULL;
}
static void wrong_dim(scene *s)
{
    s->cache[0].segment.k.shape[3] = DIM * 2;
}
static void wrong_scale(scene *s)
{
    s->cache[0].segment.k_scale.shape[2] = 7;
}
static void few_keys(scene *s)
{
    s->cache[1].lens[1] = ROWS - 2;
}
static void wrong_channels(scene *s)
{
    s->segments.v_channels.shape[1] = HEADS_Q;
}
static void stray_stride(scene *s)
{
    s->segments.v_channels = (fa_tensor){.dtype = FA_F32};
}

START_TEST(segments_refused)
{
    static const struct {
        change *change;
        fa_status status;
        const char *message;
    } row[] = {
        {left_window, FA_UNSUPPORTED, "attention->window_left is 4"},
        {prefix, FA_UNSUPPORTED, "attention->prefix is 2"},
        {top_left, FA_UNSUPPORTED, "attention->mask counts from the top left"},
        {bias, FA_UNSUPPORTED, "attention->bias is given"},
        {keep, FA_UNSUPPORTED, "attention->keep is given"},
        {slopes, FA_UNSUPPORTED, "attention->alibi_slopes is given"},
        {padded_rows, FA_UNSUPPORTED, "attention->lens_q is given"},
        {status, FA_UNSUPPORTED, "attention->want_status is 1"},
        {v_in_k, FA_UNSUPPORTED, "attention->v_in_k is 1"},
        {common_keys, FA_INVALID, "attention->k.shape is not all 0"},
        {common_lengths, FA_INVALID, "attention->lens_kv is given"},
        {common_factor, FA_INVALID, "attention->v_factor is 2"},
        {no_segments, FA_INVALID, "segments is 0, expected 1 to 8"},
        {missing, FA_INVALID, "segment[1]: it is NULL"},
        {wrong_dim, FA_INVALID, "segment[0]: "},
        {wrong_scale, FA_INVALID, "segment[0]: k_scale.shape[2] is 7"},
        {few_keys, FA_INVALID, "segment[1]: lens_kv[1] is 1, expected at least 2"},
        {wrong_channels, FA_INVALID, "v_channels.shape[1] is 4, expected 1 or 2"},
        {stray_stride, FA_INVALID, "v_channels_stride is 128, expected 0"},
    };
    static scene s;
    for (int i = 0; i < COUNT(row) && device; i++) {
        random_state random = {3};
        fa_segments *segments;
        make_cache(&s.cache[0], 2, false, &random);
        make_cache(&s.cache[1], 1, false, &random);
        make_scene(&s, 2, ROWS, false, true, &random);
        s.desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        row[i].change(&s);
        ck_assert_msg(fa_segments_create(device, &s.segments, &segments) == row[i].status, "%d: %s", i,
                      fa_last_error());
        assert_message(row[i].message);
        ck_assert_ptr_null(segments);
    }
}
END_TEST

/* Refused, and neither outputs nor work are written. */
START_TEST(runs_refused)
{
    static scene s, before;
    random_state random = {3};
    fa_segments *segments;
    memory_of m;
    if (!device || slow)
        return;
    make_cache(&s.cache[0], 1, true, &random);
    make_cache(&s.cache[1], 1, false, &random);
    make_scene(&s, 2, ROWS, false, true, &random);
    s.desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    s.desc.dynamic_lengths = 1;
    ck_assert_int_eq(fa_segments_create(device, &s.segments, &segments), FA_OK);
    make_memory(&s, segments, &m);
    before = s;
    fa_segments_args bad[7];
    fa_segment_args own = m.own[1];
    const fa_segment_args *list[2] = {&m.own[0], &own};
    for (int i = 0; i < COUNT(bad); i++)
        bad[i] = m.args;
    bad[0].v_channels = NULL;
    bad[1].v_channels = m.args.o;
    bad[2].workspace_offset = 128;
    bad[3].segment = NULL;
    bad[4].segment = list;
    own.page_table = own.k;
    bad[5].o = m.own[0].k;
    bad[6].lse = NULL;
    static const char *const message[] = {
        "args.v_channels is NULL",
        "args.o overlaps args.v_channels",
        "args.workspace has",
        "args.segment is NULL",
        "segment[1]: args.page_table is given",
        "segment[0]: args.o overlaps args.k",
        "args.lse is NULL",
    };
    for (int i = 0; i < COUNT(bad); i++) {
        const fa_status status = fa_segments_run(segments, queue, &bad[i]);
        ck_assert_int_eq(status, FA_INVALID);
        assert_message(message[i]);
    }
    fa_buffer *work;
    unsigned char *bytes = malloc(fa_segments_work(segments)), *found = malloc(fa_segments_work(segments));
    memset(bytes, 0x5a, fa_segments_work(segments));
    work = upload(bytes, fa_segments_work(segments));
    fa_lengths lengths[2] = {{.struct_size = sizeof(fa_lengths), .lens_kv = s.cache[0].lens},
                             {.struct_size = sizeof(fa_lengths), .lens_kv = s.cache[1].lens}};
    const fa_lengths *lengths_list[2] = {&lengths[0], &lengths[1]};
    s.cache[1].lens[0] = 1;
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 0), FA_INVALID);
    assert_message("segment[1]: lens_kv[0] is 1, expected at least 2");
    s.cache[1].lens[0] = KEYS + 1;
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 0), FA_INVALID);
    assert_message("segment[1]: lens_kv[0] is 49, expected 0 to 48");
    s.cache[1].lens[0] = KEYS;
    lengths[0].lens_q = s.cache[0].lens;
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 0), FA_INVALID);
    assert_message("segment[0]: lens_q is given");
    lengths[0].lens_q = NULL;
    lengths[1].cu_rows_kv = s.cache[1].lens;
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 0), FA_INVALID);
    assert_message("segment[1]: cu_rows_kv is given");
    lengths[1].cu_rows_kv = NULL;
    static const int32_t both[BATCH];
    lengths[1].lens_kv32 = both;
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 0), FA_INVALID);
    assert_message("segment[1]: lens_kv32 is given with lens_kv");
    lengths[1].lens_kv32 = NULL;
    const fa_device_lengths *const none[2] = {NULL, NULL};
    ck_assert_int_eq(fa_segments_schedule_device(segments, queue, none, work, 0), FA_INVALID);
    assert_message("lengths[0] is NULL");
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 256), FA_INVALID);
    assert_message("work");
    ck_assert_int_eq(fa_buffer_read(queue, work, 0, found, fa_segments_work(segments)), FA_OK);
    ck_assert_mem_eq(found, bytes, fa_segments_work(segments));
    free(bytes);
    free(found);
    ck_assert_int_eq(fa_buffer_read(queue, m.args.o, 0, s.o, sizeof(s.o)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, m.args.lse, 0, s.lse, sizeof(s.lse)), FA_OK);
    ck_assert_mem_eq(s.o, before.o, sizeof(s.o));
    ck_assert_mem_eq(s.lse, before.lse, sizeof(s.lse));
    fa_buffer_destroy(work);
    release_memory(&m);
    fa_segments_destroy(segments);
    fa_segments_destroy(NULL);
    ck_assert_uint_eq(fa_segments_workspace(NULL) + fa_segments_work(NULL), 0);
    ck_assert_int_eq(fa_segments_create(device, NULL, &segments), FA_INVALID);
    ck_assert_int_eq(fa_segments_create(NULL, &s.segments, &segments), FA_INVALID);
    ck_assert_int_eq(fa_segments_create(device, &s.segments, NULL), FA_INVALID);
}
END_TEST

/* Each request for memory fails once. */
START_TEST(segments_out_of_memory)
{
    static scene s;
    random_state random = {7};
    fa_segments *segments;
    if (!device || strcmp(backend, "openmp") != 0)
        return;
    make_cache(&s.cache[0], 3, false, &random);
    make_cache(&s.cache[1], 1, false, &random);
    make_scene(&s, 2, 1, true, true, &random);
    const long before = atomic_load(&memory.calls);
    ck_assert_int_eq(fa_segments_create(device, &s.segments, &segments), FA_OK);
    fa_segments_destroy(segments);
    const long calls = atomic_load(&memory.calls) - before;
    for (long i = 0; i < calls; i++) {
        memory.fail_at = atomic_load(&memory.calls) + i;
        ck_assert_int_eq(fa_segments_create(device, &s.segments, &segments), FA_OUT_OF_MEMORY);
        ck_assert_ptr_null(segments);
    }
    memory.fail_at = -1;
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("segments");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_add_test(tc, segments_of_all_formats);
    tcase_add_test(tc, kivi_within_its_bound);
    tcase_add_test(tc, segments_refused);
    tcase_add_test(tc, runs_refused);
    tcase_add_test(tc, segments_out_of_memory);
    return run_on_backend(suite);
}
