/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/ranks/latent_scene.h"

#include <fastattn/reference.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The latent divides by few numbers of ranks. */
enum {
    BATCH = 2,
    HEADS = 4,
    ROWS = 5,
    KEYS = 37,
    LATENT = 38,
    POSITION = 8,
    WIDTH = 20,
    TOKENS = BATCH * ROWS
};

#define SCALE 0.25F /* one for all shards */

/* A row of q or of the cache is the latent, and behind it what carries the position. */
typedef struct whole {
    float q[BATCH][ROWS][HEADS][LATENT + POSITION];
    float k[BATCH][KEYS][LATENT + POSITION];
    float w[HEADS][LATENT][WIDTH]; /* the next matrix */
} whole;

/* What a rank has of it. */
typedef struct shard {
    int64_t first, dims; /* of the latent */
    fa_attention_desc desc;
    float q[TOKENS * HEADS * (LATENT + POSITION)], k[BATCH * KEYS * (LATENT + POSITION)],
        w[HEADS * LATENT * WIDTH], o[TOKENS * HEADS * LATENT];
} shard;

static void fill(whole *all)
{
    uint64_t state = 7;
    float *at = (float *)all;
    for (size_t i = 0; i < sizeof(*all) / sizeof(float); i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        at[i] = (float)(int32_t)(state >> 33) / 0x1p30f - 1;
    }
}

/* The part of a row's latent, and all of its position. */
static float *take_row(const shard *s, const float *row, float *to)
{
    memcpy(to, row + s->first, (size_t)s->dims * sizeof(*to));
    memcpy(to + s->dims, row + LATENT, POSITION * sizeof(*to));
    return to + s->dims + POSITION;
}

static void take(const whole *all, int32_t rank, int32_t ranks, shard *s)
{
    s->first = LATENT * rank / ranks;
    s->dims = LATENT * (rank + 1) / ranks - s->first;
    float *q = s->q, *k = s->k;
    for (int i = 0; i < TOKENS * HEADS; i++)
        q = take_row(s, (const float *)all->q + (size_t)i * (LATENT + POSITION), q);
    for (int i = 0; i < BATCH * KEYS; i++)
        k = take_row(s, (const float *)all->k + (size_t)i * (LATENT + POSITION), k);
    for (int h = 0; h < HEADS; h++)
        memcpy(s->w + h * s->dims * WIDTH, all->w[h][s->first], (size_t)s->dims * sizeof(all->w[0][0]));
    const int64_t dim = s->dims + POSITION;
    s->desc = (fa_attention_desc){
        .struct_size = sizeof(s->desc),
        .q = {FA_F32, {BATCH, HEADS, ROWS, dim}, {ROWS * HEADS * dim, dim, HEADS * dim, 1}},
        .k = fa_tensor_make(FA_F32, BATCH, 1, KEYS, dim),
        .v = {FA_F32, {BATCH, 1, KEYS, s->dims}, {0}},
        .o = {FA_F32, {BATCH, HEADS, ROWS, s->dims}, {ROWS * HEADS * s->dims, s->dims, HEADS * s->dims, 1}},
        .scale = SCALE,
        .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT,
        .v_in_k = 1,
    };
}

/* What a head of a row makes of the dims of the latent that a rank has, as it is defined. */
static void attend(const whole *all, const shard *s, int64_t token, int head, double o[LATENT])
{
    const int64_t batch = token / ROWS, row = token % ROWS;
    const float *q = all->q[batch][row][head];
    double weight[KEYS], sum = 0;
    const int64_t seen = KEYS - ROWS + row + 1;
    for (int64_t j = 0; j < seen; j++) {
        const float *k = all->k[batch][j];
        double score = 0;
        for (int64_t d = s->first; d < s->first + s->dims; d++)
            score += (double)q[d] * (double)k[d];
        for (int d = LATENT; d < LATENT + POSITION; d++)
            score += (double)q[d] * (double)k[d];
        weight[j] = exp((double)SCALE * score);
        sum += weight[j];
    }
    for (int64_t d = 0; d < s->dims; d++) {
        o[d] = 0;
        for (int64_t j = 0; j < seen; j++)
            o[d] += weight[j] / sum * (double)all->k[batch][j][s->first + d];
    }
}

/* What a rank adds to y, and how far f32 may be from it: as in layer_scene.c. */
static fa_status add_exactly(fa_context *context, const whole *all, const shard *s, int32_t ranks,
                             double y[TOKENS][WIDTH], double bound[TOKENS][WIDTH])
{
    double o[LATENT], limit[TOKENS * HEADS], lse[TOKENS * HEADS];
    const double rounding = pow(1 + 0x1p-24, (double)(HEADS * s->dims + ranks)) - 1;
    const fa_inputs inputs = {.q = s->q, .k = s->k};
    const fa_status status = fa_reference_limit(context, &s->desc, &inputs, FA_F32, 16, limit, lse);
    for (int64_t i = 0; i < TOKENS * HEADS && status == FA_OK; i++) {
        const int64_t token = i / HEADS, head = i % HEADS;
        const double off = limit[(token / ROWS * HEADS + head) * ROWS + token % ROWS];
        attend(all, s, token, (int)head, o);
        for (int64_t d = 0; d < s->dims; d++) {
            for (int j = 0; j < WIDTH; j++) {
                const double w = (double)all->w[head][s->first + d][j];
                y[token][j] += o[d] * w;
                bound[token][j] += off * fabs(w) + (fabs(o[d]) + off) * fabs(w) * rounding;
            }
        }
    }
    return status;
}

static fa_status run(fa_device *device, const fa_transport *t, const shard *s, int64_t chunks, float *y)
{
    const fa_sharded_layer_desc desc = {
        .struct_size = sizeof(desc), .attention = &s->desc, .width = WIDTH, .chunks = chunks, .own_gemm = 1};
    fa_sharded_layer *layer = NULL;
    fa_queue *queue = NULL;
    fa_attention_args args = {.struct_size = sizeof(args)};
    fa_status status = fa_sharded_layer_create(device, t, &desc, &layer);
    if (status == FA_OK)
        status = fa_queue_create(device, &queue);
    if (status == FA_OK)
        status = fa_buffer_wrap_host(device, (void *)(uintptr_t)s->q, sizeof(s->q), &args.q);
    if (status == FA_OK)
        status = fa_buffer_wrap_host(device, (void *)(uintptr_t)s->k, sizeof(s->k), &args.k);
    if (status == FA_OK)
        status = fa_buffer_wrap_host(device, (void *)(uintptr_t)s->o, sizeof(s->o), &args.o);
    if (status == FA_OK)
        status = fa_buffer_create(device, fa_sharded_layer_workspace(layer), &args.workspace);
    const fa_sharded_layer_args whole_args = {
        .struct_size = sizeof(whole_args), .attention = &args, .w = s->w, .y = y};
    if (status == FA_OK)
        status = fa_sharded_layer_run(layer, queue, &whole_args);
    fa_queue_destroy(queue);
    fa_buffer_destroy(args.q);
    fa_buffer_destroy(args.k);
    fa_buffer_destroy(args.o);
    fa_buffer_destroy(args.workspace);
    fa_sharded_layer_destroy(layer);
    return status;
}

/* The sum over all shards, as defined. */
static fa_status define(fa_context *context, const whole *all, int32_t ranks, shard *room,
                        double y[TOKENS][WIDTH], double bound[TOKENS][WIDTH])
{
    fa_status status = FA_OK;
    for (int32_t rank = 0; rank < ranks && status == FA_OK; rank++) {
        take(all, rank, ranks, room);
        status = add_exactly(context, all, room, ranks, y, bound);
    }
    return status;
}

fa_status latent_scene_run(fa_context *context, fa_device *device, const fa_transport *t, int64_t chunks,
                           int *wrong)
{
    struct {
        whole all;
        shard own;
        double exact[TOKENS][WIDTH], bound[TOKENS][WIDTH];
        float y[TOKENS][WIDTH];
    } *m = calloc(1, sizeof(*m));
    if (!m)
        return FA_OUT_OF_MEMORY;
    fill(&m->all);
    fa_status status = define(context, &m->all, t->ranks, &m->own, m->exact, m->bound);
    if (status == FA_OK) {
        take(&m->all, t->rank, t->ranks, &m->own);
        status = run(device, t, &m->own, chunks, &m->y[0][0]);
    }
    for (int i = 0; i < TOKENS * WIDTH && status == FA_OK; i++)
        *wrong += !(fabs((double)m->y[i / WIDTH][i % WIDTH] - m->exact[i / WIDTH][i % WIDTH]) <=
                    m->bound[i / WIDTH][i % WIDTH]);
    free(m);
    return status;
}
