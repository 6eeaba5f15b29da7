/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Not a test: a measurement. A causal prompt of f16 with 32 query heads, 8 KV heads and 128 dims, in which each 512 rows look for the same
 * seven chunks of 512 keys: how long a gate takes that finds these and the own one (MoBA), and how much of dense attention's time it
 * saves. Beside it what the gate of each row does one after the other: means, scores, choice. The median of several runs, each waited
 * for.
 *
 *   time_gate BACKEND [TOKENS, 65536]
 */
#include <fastattn/reference.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/gpu/measure.h"

enum { HEADS = 8, GROUP = 4, DIM = 128, CHUNK = 512, ROWS = 128, TOPK = 8, TURNS = 9 };

static fa_device *device;
static fa_queue *queue;
static uint64_t state = 1;

/* A direction of a chunk of a head: signs. */
static float direction(int head, int64_t chunk, int dim)
{
    return sign_of(((uint64_t)chunk * HEADS + (uint64_t)head) * DIM + (uint64_t)dim + 1);
}

/* (heads, tokens, dim): keys of a chunk lie around its direction. */
static fa_buffer *draw_keys(int64_t tokens, float strength)
{
    const size_t count = (size_t)(HEADS * tokens) * DIM;
    uint16_t *x = malloc(count * sizeof(*x));
    for (size_t i = 0; x && i < count; i++) {
        const int64_t token = (int64_t)(i / DIM) % tokens;
        const int head = (int)(i / DIM / (size_t)tokens);
        x[i] = fa_f32_to_f16(strength * direction(head, token / CHUNK, (int)(i % DIM)) + draw_float(&state));
    }
    fa_buffer *buffer = buffer_of(device, queue, count * sizeof(*x), x);
    free(x);
    return buffer;
}

/* Rows of a chunk look for the same earlier chunks, in all heads of a group. */
static fa_buffer *draw_rows(int64_t tokens)
{
    const size_t count = (size_t)(HEADS * GROUP * tokens) * DIM;
    uint16_t *x = malloc(count * sizeof(*x));
    int64_t sought[TOPK - 1] = {0};
    for (size_t row = 0; x && row < count / DIM; row++) {
        const int64_t token = (int64_t)row % tokens, own = token / CHUNK;
        const int head = (int)((int64_t)row / tokens / GROUP);
        if (token % CHUNK == 0) {
            state = (uint64_t)(own * HEADS + head) + 1;
            sought[0] = draw(&state) % (own + 1);
            for (int n = 1; n < TOPK - 1; n++) /* apart where there are enough */
                sought[n] = (sought[0] + n * (own + 1) / (TOPK - 1)) % (own + 1);
        }
        for (int d = 0; d < DIM; d++) {
            float sum = draw_float(&state);
            for (int n = 0; n < TOPK - 1; n++)
                sum += 0.5f * direction(head, sought[n], d);
            x[row * DIM + (size_t)d] = fa_f32_to_f16(sum);
        }
    }
    fa_buffer *buffer = buffer_of(device, queue, count * sizeof(*x), x);
    free(x);
    return buffer;
}

/* All that is timed, and which of it. */
typedef struct scene {
    fa_plan *dense, *sparse;
    fa_gate *gate;
    fa_attention_args args;
    fa_gate_args gated;
    fa_pooling *pooling;
    fa_row_scores *scores;
    fa_select *select;
    fa_pooling_args pooled;
    fa_row_scores_args scored;
    fa_select_args selected;
} scene;

static void run_dense(const void *what)
{
    const scene *s = what;
    fa_attention_args args = s->args;
    args.work = NULL;
    need(fa_plan_run(s->dense, queue, &args));
}

static void run_sparse(const void *what)
{
    const scene *s = what;
    need(fa_plan_run(s->sparse, queue, &s->args));
}

static void run_gate(const void *what)
{
    const scene *s = what;
    const fa_device_lists lists = {.struct_size = sizeof(lists), .mask = s->gated.mask};
    need(fa_gate_run(s->gate, queue, &s->gated));
    need(fa_plan_schedule_lists(s->sparse, queue, &lists, s->args.work, 0));
}

static void run_pooling(const void *what)
{
    const scene *s = what;
    need(fa_pooling_run(s->pooling, queue, &s->pooled));
}

static void run_scores(const void *what)
{
    const scene *s = what;
    need(fa_row_scores_run(s->scores, queue, &s->scored));
}

static void run_select(const void *what)
{
    const scene *s = what;
    need(fa_select_run(s->select, queue, &s->selected));
}

static double measure(void (*run)(const void *), const scene *s)
{
    return measure_median(queue, TURNS, run, s);
}

/* The part of blocks that lists have, of those that a causal mask shows. */
static double density(const scene *s, const fa_block_lists *l)
{
    const size_t bytes = (size_t)(l->heads * l->row_blocks * l->key_blocks);
    uint8_t *mask = malloc(bytes);
    double listed = 0, shown = 0;
    if (!mask)
        return 0;
    need(fa_buffer_read(queue, s->gated.mask, 0, mask, bytes));
    for (size_t i = 0; i < bytes; i++) {
        const int64_t c = (int64_t)i % l->key_blocks, r = (int64_t)i / l->key_blocks % l->row_blocks;
        listed += mask[i];
        shown += c * l->block_keys < (r + 1) * l->block_rows;
    }
    free(mask);
    return listed / shown;
}

static void measure_gate(scene *s, const fa_gate_desc *gate, fa_attention_desc desc, double dense)
{
    fa_block_lists lists = {.struct_size = sizeof(lists)};
    const fa_device_lengths lengths = {.struct_size = sizeof(lengths)};
    need(fa_gate_create(device, gate, &s->gate));
    need(fa_gate_lists(s->gate, &lists));
    desc.lists = &lists;
    desc.dynamic_lengths = 2;
    need(fa_plan_create(device, &desc, &s->sparse));
    s->gated.mask =
        buffer_of(device, queue, (size_t)(lists.heads * lists.row_blocks * lists.key_blocks), NULL);
    s->gated.workspace = buffer_of(device, queue, fa_gate_workspace(s->gate), NULL);
    s->args.work = buffer_of(device, queue, fa_plan_work(s->sparse), NULL);
    s->args.workspace = buffer_of(device, queue, fa_plan_workspace(s->sparse) + 1, NULL);
    need(fa_plan_schedule_device(s->sparse, queue, &lengths, s->args.work, 0));
    const double gating = measure(run_gate, s), sparse = measure(run_sparse, s), saved = dense - sparse;
    (void)printf("%-22s gate and lists %9.3f ms, attention %9.3f ms, density %.3f, gate / saved %.3f\n",
                 gate->pool_q ? "mean of 128 rows" : "each row (the paper's)", gating * 1e3, sparse * 1e3,
                 density(s, &lists), gating / saved);
    fa_buffer *const all[] = {s->gated.mask, s->gated.workspace, s->args.work, s->args.workspace};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        fa_buffer_destroy(all[i]);
    fa_plan_destroy(s->sparse);
    fa_gate_destroy(s->gate);
}

/* The objects of a gate of each row, and their memory. */
static void make_parts(scene *s, const fa_gate_desc *gate)
{
    const int64_t rows = gate->q.shape[2], chunks = (rows + CHUNK - 1) / CHUNK,
                  lists = HEADS * ((rows + ROWS - 1) / ROWS);
    const fa_sparse_shape shape = {
        .rows = rows, .keys = rows, .block_rows = 1, .block_keys = CHUNK, .mask = gate->mask};
    const fa_pooling_desc pooling = {sizeof(pooling), gate->k, CHUNK};
    const fa_row_scores_desc scores = {.struct_size = sizeof(scores),
                                       .shape = shape,
                                       .q = gate->q,
                                       .k = fa_tensor_make(FA_F32, 1, HEADS, chunks, DIM),
                                       .scale = 1};
    const fa_select_desc select = {.struct_size = sizeof(select),
                                   .shape = shape,
                                   .batch = 1,
                                   .heads = HEADS * GROUP,
                                   .topk = gate->topk,
                                   .own = 1,
                                   .list_rows = ROWS,
                                   .list_heads = GROUP,
                                   .want_mask = 1};
    need(fa_pooling_create(device, &pooling, &s->pooling));
    need(fa_row_scores_create(device, &scores, &s->scores));
    need(fa_select_create(device, &select, &s->select));
    fa_buffer *const means = buffer_of(device, queue, (size_t)(HEADS * chunks) * DIM * sizeof(float), NULL);
    fa_buffer *const products =
        buffer_of(device, queue, (size_t)(HEADS * GROUP * rows * chunks) * sizeof(float), NULL);
    s->pooled = (fa_pooling_args){.struct_size = sizeof(s->pooled), .x = s->args.k, .means = means};
    s->scored = (fa_row_scores_args){
        .struct_size = sizeof(s->scored), .q = s->args.q, .k = means, .scores = products};
    s->selected = (fa_select_args){
        .struct_size = sizeof(s->selected),
        .scores = products,
        .bits = buffer_of(device, queue, (size_t)(lists * ((chunks + 31) / 32)) * sizeof(uint32_t), NULL),
        .mask = buffer_of(device, queue, (size_t)(lists * chunks), NULL)};
}

static void measure_parts(scene *s, const fa_gate_desc *gate)
{
    make_parts(s, gate);
    const double pooling = measure(run_pooling, s), scores = measure(run_scores, s),
                 select = measure(run_select, s);
    (void)printf("%-22s means %9.3f ms, scores %9.3f ms, choice %9.3f ms\n", "of it", pooling * 1e3,
                 scores * 1e3, select * 1e3);
    fa_buffer *const all[] = {s->pooled.means, s->scored.scores, s->selected.bits, s->selected.mask};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        fa_buffer_destroy(all[i]);
    fa_select_destroy(s->select);
    fa_row_scores_destroy(s->scores);
    fa_pooling_destroy(s->pooling);
}

static void measure_all(int64_t tokens)
{
    fa_attention_desc desc = {
        .struct_size = sizeof(desc),
        .q = fa_tensor_make(FA_F16, 1, HEADS * GROUP, tokens, DIM),
        .k = fa_tensor_make(FA_F16, 1, HEADS, tokens, DIM),
        .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT,
    };
    desc.o = desc.q;
    desc.v = desc.k;
    scene s = {.gated = {.struct_size = sizeof(s.gated)}, .args = {.struct_size = sizeof(s.args)}};
    need(fa_plan_create(device, &desc, &s.dense));
    s.gated.q = s.args.q = draw_rows(tokens);
    s.gated.k = s.args.k = draw_keys(tokens, 1);
    s.args.v = draw_keys(tokens, 0);
    s.args.o = buffer_of(device, queue, (size_t)(HEADS * GROUP * tokens) * DIM * sizeof(uint16_t), NULL);
    s.args.workspace = buffer_of(device, queue, fa_plan_workspace(s.dense) + 1, NULL);
    const double dense = measure(run_dense, &s);
    (void)printf("%lld tokens, dense %.3f ms\n", (long long)tokens, dense * 1e3);
    fa_buffer_destroy(s.args.workspace);
    fa_gate_desc gate = {.struct_size = sizeof(gate),
                         .q = desc.q,
                         .k = desc.k,
                         .block_rows = ROWS,
                         .block_keys = CHUNK,
                         .mask = desc.mask,
                         .topk = TOPK,
                         .per_kv_head = 1};
    measure_gate(&s, &gate, desc, dense);
    measure_parts(&s, &gate);
    gate.pool_q = 1;
    measure_gate(&s, &gate, desc, dense);
    fa_buffer *const all[] = {s.args.q, s.args.k, s.args.v, s.args.o};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        fa_buffer_destroy(all[i]);
    fa_plan_destroy(s.dense);
}

int main(int count, char **arguments)
{
    const int64_t tokens = count > 2 ? strtoll(arguments[2], NULL, 10) : 65536;
    fa_context *context;
    need(fa_context_create(NULL, &context));
    need(fa_device_open(context, count > 1 ? arguments[1] : NULL, NULL, &device));
    need(fa_queue_create(device, &queue));
    measure_all(tokens);
    fa_queue_destroy(queue);
    fa_device_close(device);
    fa_context_destroy(context);
    return EXIT_SUCCESS;
}
