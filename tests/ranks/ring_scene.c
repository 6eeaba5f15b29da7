/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/ranks/ring_scene.h"

#include <fastattn/reference.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"

static const float sinks[RING_HEADS] = {0.5F, -1, 2, 0, 1, -3};
static const float slopes[RING_HEADS] = {0.5F, 0.25F, 0.125F, 0, 0.0625F, 1};

static float *make_floats(int64_t count, uint64_t state)
{
    float *made = malloc((size_t)count * sizeof(*made));
    for (int64_t i = 0; made && i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        made[i] = 2 * ((float)(int32_t)(state >> 33) / 0x1p30f - 1);
    }
    return made;
}

static fa_tensor tensor_of(const ring_kind *kind, fa_dtype type, int64_t heads, int64_t tokens, int64_t dim)
{
    const int64_t head = kind->by_token ? dim : tokens * dim, token = kind->by_token ? heads * dim : dim;
    return (fa_tensor){type, {RING_BATCH, heads, tokens, dim}, {heads * tokens * dim, head, token, 1}};
}

fa_attention_desc ring_scene_describe(const ring_kind *kind, int64_t tokens)
{
    const fa_dtype type = kind->f16 ? FA_F16 : FA_F32;
    return (fa_attention_desc){
        .struct_size = sizeof(fa_attention_desc),
        .q = tensor_of(kind, FA_F32, RING_HEADS, tokens, RING_DIM_QK),
        .k = tensor_of(kind, type, RING_KV, tokens, RING_DIM_QK),
        .v = tensor_of(kind, type, RING_KV, tokens, RING_DIM_V),
        .o = tensor_of(kind, type, RING_HEADS, tokens, RING_DIM_V),
        .mask = kind->mask,
        .sinks = kind->sinks ? sinks : NULL,
        .want_lse = !kind->no_lse,
        .window_left = kind->window_left,
        .window_right = kind->window_right,
        .alibi_slopes = kind->slopes ? slopes : NULL,
        .softcap = kind->softcap,
    };
}

static void round_all(const ring_kind *kind, float *x, int64_t count)
{
    for (int64_t i = 0; kind->f16 && i < count; i++)
        x[i] = fa_f16_to_f32(fa_f32_to_f16(x[i]));
}

fa_status ring_scene_make(fa_context *context, const ring_kind *kind, int32_t ranks, ring_scene *s)
{
    const int64_t keys = RING_BATCH * RING_KV * kind->tokens, rows = RING_BATCH * RING_HEADS * kind->tokens;
    *s = (ring_scene){.kind = *kind};
    s->q = make_floats(rows * RING_DIM_QK, 1);
    s->k = make_floats(keys * RING_DIM_QK, 2);
    s->v = make_floats(keys * RING_DIM_V, 3);
    s->o = calloc((size_t)rows * RING_DIM_V, sizeof(double));
    s->lse = calloc((size_t)rows, sizeof(double));
    s->o_bound = calloc((size_t)rows, sizeof(double));
    s->lse_bound = calloc((size_t)rows, sizeof(double));
    if (!s->q || !s->k || !s->v || !s->o || !s->lse || !s->o_bound || !s->lse_bound)
        return FA_OUT_OF_MEMORY;
    round_all(kind, s->k, keys * RING_DIM_QK);
    round_all(kind, s->v, keys * RING_DIM_V);
    ring_kind plain = *kind;
    plain.f16 = plain.by_token = plain.no_lse = 0;
    const fa_attention_desc d = ring_scene_describe(&plain, kind->tokens);
    const fa_inputs inputs = {.q = s->q, .k = s->k, .v = s->v};
    const fa_status status = fa_reference_attention(context, &d, &inputs, s->o, s->lse);
    /* Each rank's keys may be split as well. */
    return status == FA_OK
               ? fa_reference_limit(context, &d, &inputs, FA_F32, ranks + 16, s->o_bound, s->lse_bound)
               : status;
}

void ring_scene_release(ring_scene *s)
{
    free(s->q);
    free(s->k);
    free(s->v);
    free(s->o);
    free(s->lse);
    free(s->o_bound);
    free(s->lse_bound);
}

/* A rank's tokens: one chunk behind the other. */
typedef struct own_tokens {
    int64_t first[2], count[2];
} own_tokens;

static int64_t token_of(const own_tokens *t, int64_t row)
{
    return row < t->count[0] ? t->first[0] + row : t->first[1] + row - t->count[0];
}

static int64_t place(const fa_tensor *t, int64_t b, int64_t h, int64_t row)
{
    return b * t->stride[0] + h * t->stride[1] + row * t->stride[2];
}

static void *take(const fa_tensor *t, const own_tokens *own, int64_t tokens, const float *from)
{
    const int64_t heads = t->shape[1], dim = t->shape[3];
    char *made = malloc((size_t)(t->shape[0] * heads * t->shape[2] * dim) * fa_dtype_size(t->dtype) + 1);
    for (int64_t i = 0; made && i < t->shape[0] * heads * t->shape[2]; i++) {
        const int64_t b = i / (heads * t->shape[2]), h = i / t->shape[2] % heads, row = i % t->shape[2];
        for (int64_t d = 0; d < dim; d++)
            fa_store(t->dtype, made, place(t, b, h, row) + d,
                     from ? from[((b * heads + h) * tokens + token_of(own, row)) * dim + d] : NAN);
    }
    return made;
}

typedef struct ring_memory {
    void *host[5];
    fa_buffer *buffer[5], *workspace;
} ring_memory;
enum { Q, K, V, O, LSE };

static fa_status fill(fa_device *device, const fa_attention_desc *d, const ring_scene *s,
                      const own_tokens *own, ring_memory *m)
{
    const fa_tensor *tensor[] = {&d->q, &d->k, &d->v, &d->o};
    const float *from[] = {s->q, s->k, s->v, NULL};
    fa_status status = FA_OK;
    for (int i = 0; i < 5 && status == FA_OK; i++) {
        const int64_t rows = d->q.shape[2];
        const fa_tensor lse = {FA_F32, {RING_BATCH, RING_HEADS, rows, 1}, {RING_HEADS * rows, rows, 1, 1}};
        size_t bytes = 0;
        m->host[i] = take(i < LSE ? tensor[i] : &lse, own, s->kind.tokens, i < LSE ? from[i] : NULL);
        status = m->host[i] ? fa_tensor_span(i < LSE ? tensor[i] : &lse, &bytes) : FA_OUT_OF_MEMORY;
        if (status == FA_OK)
            status = fa_buffer_wrap_host(device, m->host[i], bytes, &m->buffer[i]);
    }
    return status;
}

static int compare(const fa_attention_desc *d, const ring_scene *s, const own_tokens *own,
                   const ring_memory *m)
{
    const double unit = s->kind.f16 ? 0x1p-11 : 0;
    const int64_t rows = d->q.shape[2];
    const float *lse = m->host[LSE];
    int wrong = 0;
    for (int64_t i = 0; i < RING_BATCH * RING_HEADS * rows; i++) {
        const int64_t b = i / (RING_HEADS * rows), h = i / rows % RING_HEADS, row = i % rows,
                      whole = (b * RING_HEADS + h) * s->kind.tokens + token_of(own, row);
        const int second = row >= own->count[0];
        const int64_t in_chunk = second ? row - own->count[0] : row,
                      begin = second ? RING_BATCH * RING_HEADS * own->count[0] : 0,
                      at = begin + (b * RING_HEADS + h) * own->count[second] + in_chunk;
        wrong +=
            d->want_lse ? !(fabs((double)lse[at] - s->lse[whole]) <= s->lse_bound[whole]) : !isnan(lse[at]);
        for (int64_t e = 0; e < RING_DIM_V; e++) {
            const double expected = s->o[whole * RING_DIM_V + e],
                         bound = s->o_bound[whole] + unit * (fabs(expected) + s->o_bound[whole] + 0x1p-14);
            const float found = fa_load(d->o.dtype, m->host[O], place(&d->o, b, h, row) + e);
            wrong += !(fabs((double)found - expected) <= bound);
        }
    }
    return wrong;
}

static fa_status run(fa_ring *ring, const fa_attention_desc *d, fa_queue *queue, const ring_memory *m)
{
    const fa_attention_args args = {.struct_size = sizeof(args),
                                    .q = m->buffer[Q],
                                    .k = m->buffer[K],
                                    .v = m->buffer[V],
                                    .o = m->buffer[O],
                                    .lse = d->want_lse ? m->buffer[LSE] : NULL,
                                    .workspace = m->workspace};
    const fa_status status = fa_ring_run(ring, queue, &args);
    return status == FA_OK ? fa_queue_wait(queue) : status;
}

fa_status ring_scene_run(fa_device *device, const fa_transport *t, const ring_scene *s, int *wrong)
{
    own_tokens own;
    ring_memory m = {.workspace = NULL};
    fa_ring *ring = NULL;
    fa_queue *queue = NULL;
    fa_status status = fa_ring_share(s->kind.tokens, t->ranks, t->rank, own.first, own.count);
    if (status != FA_OK)
        return status;
    const fa_attention_desc d = ring_scene_describe(&s->kind, own.count[0] + own.count[1]);
    const fa_ring_desc desc = {.struct_size = sizeof(desc), .attention = &d, .tokens = s->kind.tokens};
    status = fa_ring_create(device, t, &desc, &ring);
    if (status == FA_OK)
        status = fill(device, &d, s, &own, &m);
    if (status == FA_OK)
        status = fa_queue_create(device, &queue);
    if (status == FA_OK)
        status = fa_buffer_create(device, fa_ring_workspace(ring), &m.workspace);
    for (int turn = 0; turn < 2 && status == FA_OK; turn++)
        status = run(ring, &d, queue, &m);
    if (status == FA_OK)
        *wrong += compare(&d, s, &own, &m);
    fa_queue_destroy(queue);
    fa_ring_destroy(ring);
    fa_buffer_destroy(m.workspace);
    for (int i = 0; i < 5; i++) {
        fa_buffer_destroy(m.buffer[i]);
        free(m.host[i]);
    }
    return status;
}
