/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/ranks/layer_scene.h"

#include <fastattn/reference.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"

enum { INNER = HEADS * DIM };
static const int64_t packed_rows[PACKED + 1] = {0, 11, 120, 143}, padded_rows[BATCH] = {75, 40};

static float next_float(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 33) / 0x1p30f - 1;
}

static float *make_floats(size_t count, uint64_t seed)
{
    float *made = malloc(count * sizeof(*made));
    for (size_t i = 0; made && i < count; i++)
        made[i] = next_float(&seed);
    return made;
}

/* Heads [first, first + heads) of KV, and the query heads of their groups. Rows of q and o have all heads of a rank beside
 * each other; q's those of all ranks. */
static fa_attention_desc describe(const layer_scene *s, int64_t first, int64_t heads)
{
    const int64_t batch = s->kind.packed ? 1 : BATCH, rows = TOKENS / batch, q_heads = heads * GROUP;
    static const int64_t cu_keys[PACKED + 1] = {0, KEYS, 2 * KEYS - 30, 2 * KEYS};
    fa_attention_desc d = {
        .struct_size = sizeof(d),
        .q = {.shape = {batch, q_heads, rows, DIM}, .stride = {rows * INNER, DIM, INNER, 1}},
        .o = {.shape = {batch, q_heads, rows, DIM}, .stride = {rows * q_heads * DIM, DIM, q_heads * DIM, 1}},
        .k = {.shape = {batch, heads, BATCH * KEYS / batch, DIM},
              .stride = {HEADS_KV * KEYS * DIM, BATCH * KEYS / batch * DIM, DIM, 1}},
        .mask = s->kind.mask,
        .window_left = s->kind.window_left,
    };
    d.v = d.k;
    if (s->kind.packed) {
        d.sequences = PACKED;
        d.cu_rows_q = packed_rows;
        d.cu_rows_kv = cu_keys;
    }
    if (s->kind.padded)
        d.lens_q = padded_rows;
    if (s->kind.alibi)
        d.alibi_slopes = s->slopes + first * GROUP;
    return d;
}

static int64_t k_offset(const layer_scene *s, int64_t first)
{
    return first * (s->kind.packed ? BATCH * KEYS : KEYS) * DIM;
}

static bool has_row(const layer_scene *s, int64_t token)
{
    return s->kind.packed ? token < packed_rows[PACKED]
                          : !s->kind.padded || token % ROWS < padded_rows[token / ROWS];
}

/*
 * The sum of products in double precision. An element of a rank's product has inner products and sums, and then there are the
 * sums over ranks: in whatever order, it is off by at most ((1 + 2^-24)^n - 1) of the sum of magnitudes, with n of all of them.
 * Attention is off by its own limit in each element of o. A type of 16 bits rounds each rank's product, and at most each sum.
 */
static void sum_exactly(layer_scene *s, const double *o, const double *limit)
{
    const double rounding = pow(1 + 0x1p-24, INNER + s->ranks) - 1,
                 unit = s->kind.y == FA_F16    ? 0x1p-11
                        : s->kind.y == FA_BF16 ? 0x1p-8
                                               : 0,
                 last = pow(1 + unit, s->ranks) - 1;
    const int64_t rows = s->kind.packed ? TOKENS : ROWS;
    for (int64_t t = 0; t < TOKENS; t++) {
        for (int64_t j = 0; j < WIDTH; j++) {
            double sum = 0, magnitude = 0, off = 0;
            for (int64_t i = 0; i < INNER; i++) {
                const int64_t row = (t / rows * HEADS + i / DIM) * rows + t % rows;
                const double w = (double)fa_load(s->kind.w, s->w, i * WIDTH + j), x = o[row * DIM + i % DIM];
                sum += x * w;
                magnitude += (fabs(x) + limit[row]) * fabs(w);
                off += limit[row] * fabs(w);
            }
            s->exact[t * WIDTH + j] = sum;
            s->bound[t * WIDTH + j] =
                has_row(s, t) ? off + magnitude * (rounding + last * (1 + rounding)) + s->ranks * 0x1p-25
                              : -1;
        }
    }
}

fa_status layer_scene_make(fa_context *context, const layer_kind *kind, int32_t ranks, layer_scene *s)
{
    const size_t outputs = (size_t)TOKENS * WIDTH, states = (size_t)TOKENS * HEADS;
    *s = (layer_scene){.kind = *kind, .ranks = ranks};
    s->q = make_floats((size_t)TOKENS * INNER, 1);
    s->k = make_floats((size_t)BATCH * HEADS_KV * KEYS * DIM, 2);
    s->v = make_floats((size_t)BATCH * HEADS_KV * KEYS * DIM, 3);
    s->slopes = make_floats(HEADS, 5);
    s->w = make_floats((size_t)INNER * WIDTH, 4);
    s->exact = malloc(outputs * sizeof(double));
    s->bound = malloc(outputs * sizeof(double));
    double *o = calloc(states * DIM, sizeof(*o)), *limit = calloc(states, sizeof(*limit)),
           *lse = calloc(states, sizeof(*lse));
    fa_status status = FA_OUT_OF_MEMORY;
    if (s->q && s->k && s->v && s->w && s->slopes && s->exact && s->bound && o && limit && lse) {
        for (size_t i = 0; kind->w != FA_F32 && i < (size_t)INNER * WIDTH; i++)
            fa_store(kind->w, s->w, (int64_t)i, ((const float *)s->w)[i]);
        const fa_attention_desc d = describe(s, 0, HEADS_KV);
        const fa_inputs inputs = {.q = s->q, .k = s->k, .v = s->v};
        status = fa_reference_attention(context, &d, &inputs, o, NULL);
        if (status == FA_OK)
            status = fa_reference_limit(context, &d, &inputs, FA_F32, 16, limit, lse);
        if (status == FA_OK)
            sum_exactly(s, o, limit);
    }
    free(o);
    free(limit);
    free(lse);
    return status;
}

void layer_scene_release(layer_scene *s)
{
    free(s->q);
    free(s->k);
    free(s->v);
    free(s->slopes);
    free(s->w);
    free(s->exact);
    free(s->bound);
}

/* The test's own projection. */
typedef struct callback {
    const layer_scene *scene;
    const layer_options *options;
    const float *o;
    int64_t first_row, inner; /* of w */
    void *y;
    int64_t next; /* tokens come in their order, and none twice */
} callback;

static fa_status project(void *user, int64_t first, int64_t count)
{
    callback *c = user;
    const layer_kind *kind = &c->scene->kind;
    if (first != c->next || (c->options->fails_at >= first && c->options->fails_at < first + count))
        return FA_IO;
    c->next = first + count;
    for (int64_t t = first; t < first + count; t++) {
        for (int64_t j = 0; j < WIDTH; j++) {
            double sum = 0;
            for (int64_t i = 0; i < c->inner; i++)
                sum += (double)c->o[t * c->inner + i] *
                       (double)fa_load(kind->w, c->scene->w, (c->first_row + i) * WIDTH + j);
            fa_store(kind->y, c->y, t * WIDTH + j, (float)sum);
        }
    }
    return FA_OK;
}

/* Buffers over the memory of a run. */
typedef struct memory_of_layer {
    fa_buffer *q, *k, *v, *o, *workspace;
    float *o_memory;
} memory_of_layer;

static fa_status run_layer(fa_device *device, const layer_scene *s, fa_sharded_layer *layer, callback *c,
                           int64_t first_kv, memory_of_layer *m, fa_queue *queue)
{
    const size_t o_bytes = (size_t)(TOKENS * c->inner) * sizeof(float);
    const size_t q_bytes = (size_t)TOKENS * INNER * sizeof(float),
                 k_bytes = (size_t)BATCH * HEADS_KV * KEYS * DIM * sizeof(float);
    fa_status status = FA_OK;
    if ((status = fa_buffer_wrap_host(device, s->q, q_bytes, &m->q)) != FA_OK ||
        (status = fa_buffer_wrap_host(device, s->k, k_bytes, &m->k)) != FA_OK ||
        (status = fa_buffer_wrap_host(device, s->v, k_bytes, &m->v)) != FA_OK ||
        (status = fa_buffer_wrap_host(device, m->o_memory, o_bytes, &m->o)) != FA_OK ||
        (status = fa_buffer_create(device, fa_sharded_layer_workspace(layer), &m->workspace)) != FA_OK)
        return status;
    const fa_attention_args attention = {
        .struct_size = sizeof(attention),
        .q = m->q,
        .k = m->k,
        .v = m->v,
        .o = m->o,
        .workspace = m->workspace,
        .q_offset = (size_t)(first_kv * GROUP * DIM) * sizeof(float),
        .k_offset = (size_t)k_offset(s, first_kv) * sizeof(float),
        .v_offset = (size_t)k_offset(s, first_kv) * sizeof(float),
    };
    const fa_sharded_layer_args args = {
        .struct_size = sizeof(args),
        .attention = &attention,
        .w = c->options->callback
                 ? NULL
                 : (const char *)s->w + (size_t)(c->first_row * WIDTH) * fa_dtype_size(s->kind.w),
        .y = c->y,
    };
    for (int turn = 0; turn < 2 && status == FA_OK; turn++) {
        memset(m->o_memory, 0, o_bytes);
        memset(c->y, 0x7f, (size_t)TOKENS * WIDTH * fa_dtype_size(s->kind.y));
        c->next = 0;
        status = fa_sharded_layer_run(layer, queue, &args);
    }
    return status;
}

fa_status layer_scene_run(fa_device *device, const fa_transport *t, const layer_scene *s,
                          const layer_options *options, void *y, fa_sharded_layer_info *info, int64_t *first)
{
    const int64_t first_kv = HEADS_KV * t->rank / t->ranks,
                  heads_kv = HEADS_KV * (t->rank + 1) / t->ranks - first_kv;
    const fa_attention_desc attention = describe(s, first_kv, heads_kv);
    callback c = {.scene = s,
                  .options = options,
                  .first_row = first_kv * GROUP * DIM,
                  .inner = heads_kv * GROUP * DIM,
                  .y = y};
    const fa_sharded_layer_desc desc = {
        .struct_size = sizeof(desc),
        .attention = &attention,
        .width = WIDTH,
        .y = s->kind.y,
        .w = s->kind.w,
        .chunks = options->chunks,
        .own_gemm = options->own_gemm,
        .project = options->callback ? project : NULL,
        .project_user = &c,
        .project_enqueues = options->enqueues,
    };
    memory_of_layer m = {.o_memory = malloc((size_t)TOKENS * INNER * sizeof(float))};
    fa_sharded_layer *layer = NULL;
    fa_queue *queue = NULL;
    c.o = m.o_memory;
    fa_status status = m.o_memory ? fa_sharded_layer_create(device, t, &desc, &layer) : FA_OUT_OF_MEMORY;
    if (status == FA_OK)
        status = fa_queue_create(device, &queue);
    if (status == FA_OK && info) {
        status = fa_sharded_layer_get_info(layer, info);
        memcpy(first, info->first, (size_t)(info->chunks + 1) * sizeof(*first));
    }
    if (status == FA_OK)
        status = run_layer(device, s, layer, &c, first_kv, &m, queue);
    fa_queue_destroy(queue);
    fa_sharded_layer_destroy(layer);
    fa_buffer_destroy(m.q);
    fa_buffer_destroy(m.k);
    fa_buffer_destroy(m.v);
    fa_buffer_destroy(m.o);
    fa_buffer_destroy(m.workspace);
    free(m.o_memory);
    return status;
}

int layer_scene_compare(const layer_scene *s, const void *y)
{
    int wrong = 0;
    for (int64_t i = 0; i < TOKENS * WIDTH; i++)
        wrong += s->bound[i] >= 0 && !(fabs((double)fa_load(s->kind.y, y, i) - s->exact[i]) <= s->bound[i]);
    return wrong;
}
