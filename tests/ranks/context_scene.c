/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/ranks/context_scene.h"

#include <fastattn/reference.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"

enum {
    KV_SIZE = SEQUENCES * CTX_KV * CACHE * CTX_DIM,
    STATES = SEQUENCES * CTX_HEADS * CTX_MOST_ROWS,
    O_SIZE = STATES * CTX_DIM,
};

/* The keys of each sequence. */
static const int64_t lens[SEQUENCES] = {CACHE, 77, 3};
static const float sinks[CTX_HEADS] = {0.5F, -1, 2, 0, 1, -3};

/* The first key of a rank. With three keys and more ranks than that, some have none. */
static int64_t first_key(int64_t len, int32_t rank, int32_t ranks)
{
    return len * rank / ranks;
}

static bool is_f16(const context_kind *kind, int32_t rank)
{
    return kind->f16 && rank % 2 == 1;
}

static float next_float(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 33) / 0x1p30f - 1;
}

static float *make_floats(size_t count, uint64_t seed)
{
    float *made = malloc(count * sizeof(*made));
    for (size_t i = 0; made && i < count; i++)
        made[i] = 2 * next_float(&seed);
    return made;
}

/* What a cache of f16 holds of its rank's keys. */
static void round_keys(const context_kind *kind, int32_t ranks, float *x)
{
    for (int32_t rank = 0; rank < ranks; rank++) {
        for (int64_t i = 0; is_f16(kind, rank) && i < KV_SIZE; i++) {
            const int64_t len = lens[i / (CTX_KV * CACHE * CTX_DIM)], key = i / CTX_DIM % CACHE;
            if (key >= first_key(len, rank, ranks) && key < first_key(len, rank + 1, ranks))
                x[i] = fa_f16_to_f32(fa_f32_to_f16(x[i]));
        }
    }
}

static fa_attention_desc describe(const context_kind *kind, fa_dtype cache, const int64_t *keys)
{
    fa_attention_desc d = {
        .struct_size = sizeof(d),
        .q = fa_tensor_make(FA_F32, SEQUENCES, CTX_HEADS, kind->rows, CTX_DIM),
        .o = fa_tensor_make(kind->f16 ? FA_F16 : FA_F32, SEQUENCES, CTX_HEADS, kind->rows, CTX_DIM),
        .k = fa_tensor_make(cache, SEQUENCES, CTX_KV, CACHE, CTX_DIM),
        .lens_kv = keys,
        .want_lse = 1,
    };
    d.v = d.k;
    return d;
}

fa_status context_scene_make(fa_context *context, const context_kind *kind, int32_t ranks, context_scene *s)
{
    *s = (context_scene){.kind = *kind};
    s->q = make_floats(O_SIZE, 1);
    s->k = make_floats(KV_SIZE, 2);
    s->v = make_floats(KV_SIZE, 3);
    s->o = calloc(O_SIZE, sizeof(double));
    s->lse = calloc(STATES, sizeof(double));
    s->o_bound = calloc(STATES, sizeof(double));
    s->lse_bound = calloc(STATES, sizeof(double));
    if (!s->q || !s->k || !s->v || !s->o || !s->lse || !s->o_bound || !s->lse_bound)
        return FA_OUT_OF_MEMORY;
    round_keys(kind, ranks, s->k);
    round_keys(kind, ranks, s->v);
    fa_attention_desc d = describe(kind, FA_F32, lens);
    d.sinks = kind->sinks ? sinks : NULL;
    const fa_inputs inputs = {.q = s->q, .k = s->k, .v = s->v};
    fa_status status = fa_reference_attention(context, &d, &inputs, s->o, s->lse);
    /* Each rank's keys may be split as well. */
    return status == FA_OK
               ? fa_reference_limit(context, &d, &inputs, FA_F32, ranks + 16, s->o_bound, s->lse_bound)
               : status;
}

void context_scene_release(context_scene *s)
{
    free(s->q);
    free(s->k);
    free(s->v);
    free(s->o);
    free(s->lse);
    free(s->o_bound);
    free(s->lse_bound);
}

/* A rank's cache: its keys of each sequence, from its first row on; beyond them what no key may be. */
static void take_keys(fa_dtype type, int32_t rank, int32_t ranks, const float *from, void *cache)
{
    for (int64_t i = 0; i < KV_SIZE; i++) {
        const int64_t len = lens[i / (CTX_KV * CACHE * CTX_DIM)], key = i / CTX_DIM % CACHE,
                      first = first_key(len, rank, ranks), count = first_key(len, rank + 1, ranks) - first;
        fa_store(type, cache, i, key < count ? from[i + first * CTX_DIM] : NAN);
    }
}

typedef struct memory_of_context {
    fa_buffer *q, *k, *v, *o, *lse, *workspace, *work;
    void *cache_k, *cache_v;
    float *o_memory, *lse_memory;
} memory_of_context;

static fa_status run(fa_device *device, fa_sharded_context *c, const context_scene *s, const int64_t *keys,
                     memory_of_context *m, fa_queue *queue)
{
    const fa_plan *plan = fa_sharded_context_plan(c);
    fa_status status;
    if ((status = fa_buffer_wrap_host(device, s->q, O_SIZE * sizeof(float), &m->q)) != FA_OK ||
        (status = fa_buffer_wrap_host(device, m->cache_k, KV_SIZE * sizeof(float), &m->k)) != FA_OK ||
        (status = fa_buffer_wrap_host(device, m->cache_v, KV_SIZE * sizeof(float), &m->v)) != FA_OK ||
        (status = fa_buffer_wrap_host(device, m->o_memory, O_SIZE * sizeof(float), &m->o)) != FA_OK ||
        (status = fa_buffer_wrap_host(device, m->lse_memory, STATES * sizeof(float), &m->lse)) != FA_OK ||
        (status = fa_buffer_create(device, fa_sharded_context_workspace(c), &m->workspace)) != FA_OK)
        return status;
    if (fa_plan_work(plan) > 0) {
        const fa_lengths lengths = {.struct_size = sizeof(lengths), .lens_kv = keys};
        if ((status = fa_buffer_create(device, fa_plan_work(plan), &m->work)) != FA_OK ||
            (status = fa_plan_schedule(plan, queue, &lengths, m->work, 0)) != FA_OK)
            return status;
    }
    const fa_attention_args args = {.struct_size = sizeof(args),
                                    .q = m->q,
                                    .k = m->k,
                                    .v = m->v,
                                    .o = m->o,
                                    .lse = m->lse,
                                    .workspace = m->workspace,
                                    .work = m->work};
    status = fa_sharded_context_run(c, queue, &args);
    return status == FA_OK ? fa_queue_wait(queue) : status;
}

static int compare(const context_scene *s, const memory_of_context *m)
{
    const double unit = s->kind.f16 ? 0x1p-11 : 0;
    int wrong = 0;
    for (int64_t row = 0; row < SEQUENCES * CTX_HEADS * s->kind.rows; row++) {
        wrong += !(fabs((double)m->lse_memory[row] - s->lse[row]) <= s->lse_bound[row]);
        for (int64_t e = row * CTX_DIM; e < (row + 1) * CTX_DIM; e++) {
            const double bound = s->o_bound[row] + unit * (fabs(s->o[e]) + s->o_bound[row]) + unit * 0x1p-14;
            wrong +=
                !(fabs((double)fa_load(s->kind.f16 ? FA_F16 : FA_F32, m->o_memory, e) - s->o[e]) <= bound);
        }
    }
    return wrong;
}

fa_status context_scene_run(fa_device *device, const fa_transport *t, const context_scene *s, int *wrong)
{
    const fa_dtype type = is_f16(&s->kind, t->rank) ? FA_F16 : FA_F32;
    int64_t keys[SEQUENCES];
    for (int n = 0; n < SEQUENCES; n++)
        keys[n] = first_key(lens[n], t->rank + 1, t->ranks) - first_key(lens[n], t->rank, t->ranks);
    fa_attention_desc d = describe(&s->kind, type, s->kind.dynamic ? NULL : keys);
    d.dynamic_lengths = s->kind.dynamic;
    d.sinks = s->kind.sinks && t->rank == t->ranks - 1 ? sinks : NULL;
    memory_of_context m = {
        .cache_k = malloc(KV_SIZE * sizeof(float)),
        .cache_v = malloc(KV_SIZE * sizeof(float)),
        .o_memory = malloc(O_SIZE * sizeof(float)),
        .lse_memory = malloc(STATES * sizeof(float)),
    };
    fa_sharded_context *c = NULL;
    fa_queue *queue = NULL;
    fa_status status = m.cache_k && m.cache_v && m.o_memory && m.lse_memory ? FA_OK : FA_OUT_OF_MEMORY;
    if (status == FA_OK) {
        take_keys(type, t->rank, t->ranks, s->k, m.cache_k);
        take_keys(type, t->rank, t->ranks, s->v, m.cache_v);
        status = fa_sharded_context_create(device, t, &d, &c);
    }
    if (status == FA_OK)
        status = fa_queue_create(device, &queue);
    if (status == FA_OK)
        status = run(device, c, s, keys, &m, queue);
    if (status == FA_OK)
        *wrong += compare(s, &m);
    fa_queue_destroy(queue);
    fa_sharded_context_destroy(c);
    fa_buffer_destroy(m.q);
    fa_buffer_destroy(m.k);
    fa_buffer_destroy(m.v);
    fa_buffer_destroy(m.o);
    fa_buffer_destroy(m.lse);
    fa_buffer_destroy(m.workspace);
    fa_buffer_destroy(m.work);
    free(m.cache_k);
    free(m.cache_v);
    free(m.o_memory);
    free(m.lse_memory);
    return status;
}
