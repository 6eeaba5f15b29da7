/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Not a test: a measurement. Sparse attention end to end, as papers have it: the prefill of a causal prompt, its time over dense
 * attention's, and the error beside it. 8 query heads, 2 KV heads, 128 dims, f16 (f32 on openmp).
 *
 *   time_sparse BACKEND [TOKENS, 65536] [METHOD...]
 *
 * The prompt has planted structure. It consists of runs of 64 to 192 tokens, and each run of each KV head has one of TOKENS / 1024
 * topics. Keys lie around the direction of their topic, and rows look for that of their own: their scores are about 8 there and around
 * 0 elsewhere. So more than nine tenths of a late row's weight are, on average, on some 1024 keys, in eight or so places. Values lie
 * around a direction of their topic too, so that it matters what is attended to. Runs begin anywhere: they are no blocks or chunks.
 */
#include <fastattn/hyper.h>
#include <fastattn/merge.h>
#include <fastattn/nsa.h>
#include <fastattn/permute.h>
#include <fastattn/reference.h>
#include <fastattn/select.h>
#include <fastattn/sparse.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "tests/gpu/measure.h"

enum { HEADS = 2, GROUP = 4, HEADS_Q = HEADS * GROUP, DIM = 128, TOPIC = 1024, TURNS = 5 };

static fa_context *context;
static fa_device *device;
static fa_queue *queue;
static int64_t tokens;
static float *q, *k, *v;       /* in host memory, as the device's types round them */
static fa_attention_desc desc; /* dense */
static fa_attention_args args;
static uint8_t *exact; /* the output of dense attention */
static double dense_seconds;

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes);
    if (!memory) {
        (void)fprintf(stderr, "no memory of %zu bytes\n", bytes);
        exit(EXIT_FAILURE);
    }
    return memory;
}

static size_t count_of(int64_t heads)
{
    return (size_t)(heads * tokens) * DIM;
}

static size_t element(void)
{
    return desc.q.dtype == FA_F16 ? sizeof(uint16_t) : sizeof(float);
}

/* A buffer of numbers, which are rounded in host memory too. */
static fa_buffer *upload(float *x, size_t count)
{
    if (desc.q.dtype == FA_F32)
        return buffer_of(device, queue, count * sizeof(*x), x);
    uint16_t *half = allocate(count * sizeof(*half));
    for (size_t i = 0; i < count; i++) {
        half[i] = fa_f32_to_f16(x[i]);
        x[i] = fa_f16_to_f32(half[i]);
    }
    fa_buffer *buffer = buffer_of(device, queue, count * sizeof(*half), half);
    free(half);
    return buffer;
}

/* The topic of each token of each KV head. */
static int32_t *draw_topics(void)
{
    const uint32_t topics = tokens > 4 * TOPIC ? (uint32_t)(tokens / TOPIC) : 4;
    int32_t *topic = allocate((size_t)(HEADS * tokens) * sizeof(*topic));
    uint64_t state = 1;
    for (int64_t i = 0; i < HEADS * tokens;) {
        const int64_t end = i + 64 + draw(&state) % 129;
        const int32_t drawn = (int32_t)(draw(&state) % topics);
        for (; i < end && i < HEADS * tokens; i++)
            topic[i] = drawn;
    }
    return topic;
}

/* (heads, tokens, dim): noise around a direction of each token's topic. `kind` tells directions of values from those of keys. */
static float *draw_around(const int32_t *topic, int64_t heads, uint64_t kind, float strength)
{
    float *x = allocate(count_of(heads) * sizeof(*x));
    uint64_t state = kind * 16 + (uint64_t)heads;
    for (int64_t row = 0; row < heads * tokens; row++) {
        const int64_t head = row / tokens * HEADS / heads;
        const uint64_t first =
            (kind << 40) + (uint64_t)(topic[head * tokens + row % tokens] * HEADS + head) * DIM + 1;
        for (int64_t n = 0; n < DIM; n++)
            x[row * DIM + n] = strength * sign_of(first + (uint64_t)n) + draw_float(&state);
    }
    return x;
}

static void draw_problem(void)
{
    int32_t *topic = draw_topics();
    q = draw_around(topic, HEADS_Q, 0, 0.7f);
    k = draw_around(topic, HEADS, 0, 1);
    v = draw_around(topic, HEADS, 1, 0.5f);
    free(topic);
    args = (fa_attention_args){.struct_size = sizeof(args)};
    args.q = upload(q, count_of(HEADS_Q));
    args.k = upload(k, count_of(HEADS));
    args.v = upload(v, count_of(HEADS));
    args.o = buffer_of(device, queue, count_of(HEADS_Q) * element(), NULL);
}

/* Numbers that are none, which no method may leave. */
static void spoil_output(void)
{
    const size_t bytes = count_of(HEADS_Q) * element();
    void *none = allocate(bytes);
    memset(none, 0xff, bytes);
    need(fa_buffer_write(queue, args.o, 0, none, bytes));
    free(none);
}

static double number(const uint8_t *x, size_t i)
{
    float wide;
    uint16_t half;
    if (desc.q.dtype == FA_F32) {
        memcpy(&wide, x + i * sizeof(wide), sizeof(wide));
        return (double)wide;
    }
    memcpy(&half, x + i * sizeof(half), sizeof(half));
    return (double)fa_f16_to_f32(half);
}

/* A line of the table. Planning is of the device, or of so many threads of the host. */
static void report(const char *name, const char *where, double planning, double attention)
{
    const size_t count = count_of(HEADS_Q);
    uint8_t *o = allocate(count * element());
    double squares = 0, all = 0, most = 0;
    need(fa_buffer_read(queue, args.o, 0, o, count * element()));
    for (size_t i = 0; i < count; i++) {
        const double expected = number(exact, i), difference = fabs(number(o, i) - expected);
        squares += difference * difference;
        all += expected * expected;
        most = difference <= most || isnan(most) ? most : difference; /* NaN stays */
    }
    free(o);
    (void)printf("%-9s %-7s %11.3f %11.3f %9.3f %9.3f %9.3f %10.2e %10.2e\n", name, where, planning * 1e3,
                 attention * 1e3, planning / dense_seconds, attention / dense_seconds,
                 (planning + attention) / dense_seconds, sqrt(squares / all), most);
    (void)fflush(stdout);
}

/* Says so of a method that the device does not serve at this size. */
static bool refused(const char *name, fa_status status)
{
    if (status != FA_UNSUPPORTED) {
        need(status);
        return false;
    }
    (void)printf("%-9s %s\n", name, fa_last_error());
    return true;
}

/* A plan, and what its runs are given. */
typedef struct prepared {
    fa_plan *plan;
    fa_attention_args args;
} prepared;

static prepared prepare(const fa_attention_desc *d)
{
    prepared p = {.args = args};
    need(fa_plan_create(device, d, &p.plan));
    p.args.workspace = buffer_of(device, queue, fa_plan_workspace(p.plan) + 1, NULL);
    if (d->dynamic_lengths)
        p.args.work = buffer_of(device, queue, fa_plan_work(p.plan), NULL);
    return p;
}

static void discard(prepared *p)
{
    fa_buffer_destroy(p->args.work);
    fa_buffer_destroy(p->args.workspace);
    fa_plan_destroy(p->plan);
}

static void run_prepared(const void *what)
{
    const prepared *p = what;
    need(fa_plan_run(p->plan, queue, &p->args));
}

static void time_dense(void)
{
    prepared p = prepare(&desc);
    dense_seconds = measure_median(queue, TURNS, run_prepared, &p);
    exact = allocate(count_of(HEADS_Q) * element());
    need(fa_buffer_read(queue, args.o, 0, exact, count_of(HEADS_Q) * element()));
    discard(&p);
}

/* MoBA: a gate on the device, and attention with its lists. */
typedef struct moba {
    fa_gate *gate;
    fa_gate_args args;
    prepared attention;
} moba;

static void run_gate(const void *what)
{
    const moba *m = what;
    const fa_device_lists lists = {.struct_size = sizeof(lists), .mask = m->args.mask};
    need(fa_gate_run(m->gate, queue, &m->args));
    need(fa_plan_schedule_lists(m->attention.plan, queue, &lists, m->attention.args.work, 0));
}

static void time_gated(const char *name, const fa_gate_desc *gate)
{
    const fa_device_lengths lengths = {.struct_size = sizeof(lengths)};
    fa_block_lists lists = {.struct_size = sizeof(lists)};
    fa_attention_desc d = desc;
    moba m;
    if (refused(name, fa_gate_create(device, gate, &m.gate)))
        return;
    need(fa_gate_lists(m.gate, &lists));
    d.lists = &lists;
    d.dynamic_lengths = 2;
    m.attention = prepare(&d);
    m.args = (fa_gate_args){.struct_size = sizeof(m.args), .q = args.q, .k = args.k};
    m.args.mask = buffer_of(device, queue, (size_t)(lists.heads * lists.row_blocks * lists.key_blocks), NULL);
    m.args.workspace = buffer_of(device, queue, fa_gate_workspace(m.gate), NULL);
    need(fa_plan_schedule_device(m.attention.plan, queue, &lengths, m.attention.args.work, 0));
    const double planning = measure_median(queue, TURNS, run_gate, &m);
    report(name, "device", planning, measure_median(queue, TURNS, run_prepared, &m.attention));
    discard(&m.attention);
    fa_buffer_destroy(m.args.mask);
    fa_buffer_destroy(m.args.workspace);
    fa_gate_destroy(m.gate);
}

static void time_moba(const char *name)
{
    const fa_gate_desc gate = {.struct_size = sizeof(gate), .q = desc.q, .k = desc.k, .mask = desc.mask};
    time_gated(name, &gate);
}

static void time_moba_blocks(const char *name)
{
    const fa_gate_desc gate = {.struct_size = sizeof(gate),
                               .q = desc.q,
                               .k = desc.k,
                               .mask = desc.mask,
                               .block_rows = 128,
                               .per_kv_head = 1};
    time_gated(name, &gate);
}

typedef struct hyper {
    fa_hyper *hyper;
    fa_attention_args args;
} hyper;

static void run_hyper(const void *what)
{
    const hyper *h = what;
    need(fa_hyper_run(h->hyper, queue, &h->args));
}

/* HyperAttention sorts within the run. */
static void time_hyper(const char *name)
{
    const fa_hyper_desc d = {.struct_size = sizeof(d), .attention = &desc, .seed = 1};
    hyper h = {.args = args};
    if (refused(name, fa_hyper_create(device, &d, &h.hyper)))
        return;
    h.args.workspace = buffer_of(device, queue, fa_hyper_workspace(h.hyper) + 1, NULL);
    report(name, "device", 0, measure_median(queue, TURNS, run_hyper, &h));
    fa_buffer_destroy(h.args.workspace);
    fa_hyper_destroy(h.hyper);
}

typedef struct nsa {
    fa_nsa *nsa;
    fa_nsa_args args;
} nsa;

static void run_nsa(const void *what)
{
    const nsa *n = what;
    need(fa_nsa_run(n->nsa, queue, &n->args));
}

/* Means of tokens, as an untrained model has them. */
static void compress(const float *x, float *compressed)
{
    const fa_nsa_compress_desc d = {.struct_size = sizeof(d),
                                    .heads = HEADS,
                                    .dim = DIM,
                                    .keys = tokens,
                                    .x = x,
                                    .compressed = compressed};
    need(fa_nsa_compress(&d));
}

/* Gates that let the selected branch alone through: no other sum is dense attention without training. All three are computed. */
static fa_buffer *make_gates(void)
{
    const size_t count = (size_t)tokens * HEADS_Q * 3;
    float *gates = allocate(count * sizeof(*gates));
    for (size_t i = 0; i < count; i++)
        gates[i] = i % 3 == 1;
    fa_buffer *buffer = buffer_of(device, queue, count * sizeof(*gates), gates);
    free(gates);
    return buffer;
}

/* The rows of a KV head whose blocks one thread selects in one call, and what it made of them. */
enum { PART = 1024, MOST_THREADS = 64 };

typedef struct part {
    fa_block_mask *mask;
    fa_block_lists lists;
} part;

typedef struct selection {
    const float *compressed;
    part *parts;
    int64_t parts_of_head;
    int threads, thread;
} selection;

static void select_part(const selection *s, int64_t n, float *rows_q)
{
    const int64_t head = n / s->parts_of_head, begin = n % s->parts_of_head * PART;
    const int64_t rows = tokens - begin < PART ? tokens - begin : PART;
    const size_t bytes = (size_t)(rows * DIM) * sizeof(*q);
    const fa_nsa_select_desc d = {
        .struct_size = sizeof(d),
        .shape = {.rows = rows, .keys = begin + rows, .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT},
        .heads_q = GROUP,
        .heads_kv = 1,
        .dim = DIM,
        .q = rows_q,
        .compressed = s->compressed + head * fa_nsa_compressed(tokens, 32, 16) * DIM};
    for (int64_t h = 0; h < GROUP; h++)
        memcpy(rows_q + h * rows * DIM, q + ((head * GROUP + h) * tokens + begin) * DIM, bytes);
    s->parts[n].lists.struct_size = sizeof(s->parts[n].lists);
    need(fa_nsa_select(context, &d, &s->parts[n].mask));
    need(fa_block_mask_lists(s->parts[n].mask, &s->parts[n].lists));
}

/* Later rows take longer: a thread takes every `threads`-th part. */
static void *select_parts(void *what)
{
    const selection *s = what;
    float *rows_q = allocate((size_t)(GROUP * PART * DIM) * sizeof(*rows_q));
    for (int64_t n = s->thread; n < HEADS * s->parts_of_head; n += s->threads)
        select_part(s, n, rows_q);
    free(rows_q);
    return NULL;
}

/* The lists of all parts behind each other, which are those of all rows. */
static fa_block_lists join_parts(const part *parts, int64_t count)
{
    int32_t *indptr = allocate((size_t)(HEADS * tokens + 1) * sizeof(*indptr));
    int64_t lists = 0, blocks = 0;
    for (int64_t n = 0; n < count; n++)
        blocks += parts[n].lists.indptr[parts[n].lists.row_blocks];
    int32_t *indices = allocate((size_t)blocks * sizeof(*indices));
    indptr[0] = 0;
    for (int64_t n = 0; n < count; n++) {
        const fa_block_lists *l = &parts[n].lists;
        const int32_t first = indptr[lists];
        memcpy(indices + first, l->indices, (size_t)l->indptr[l->row_blocks] * sizeof(*indices));
        for (int64_t row = 1; row <= l->row_blocks; row++)
            indptr[++lists] = first + l->indptr[row];
    }
    return (fa_block_lists){.struct_size = sizeof(fa_block_lists),
                            .block_rows = 1,
                            .block_keys = 64,
                            .sequences = 1,
                            .heads = HEADS,
                            .row_blocks = tokens,
                            .key_blocks = (tokens + 63) / 64,
                            .indptr = indptr,
                            .indices = indices};
}

/* One for each processor. */
static int count_threads(void)
{
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return processors < 1 ? 1 : processors < MOST_THREADS ? (int)processors : MOST_THREADS;
}

static fa_block_lists select_blocks(const float *compressed, int threads)
{
    const int64_t of_head = (tokens + PART - 1) / PART;
    part *parts = allocate((size_t)(HEADS * of_head) * sizeof(*parts));
    selection all[MOST_THREADS];
    pthread_t running[MOST_THREADS];
    for (int n = 0; n < threads; n++) {
        all[n] = (selection){compressed, parts, of_head, threads, n};
        if (pthread_create(&running[n], NULL, select_parts, &all[n]) != 0)
            exit(EXIT_FAILURE);
    }
    for (int n = 0; n < threads; n++)
        (void)pthread_join(running[n], NULL);
    const fa_block_lists lists = join_parts(parts, HEADS * of_head);
    for (int64_t n = 0; n < HEADS * of_head; n++)
        fa_block_mask_destroy(parts[n].mask);
    free(parts);
    return lists;
}

static void time_nsa(const char *name)
{
    const int threads = count_threads();
    const int64_t compressed = fa_nsa_compressed(tokens, 32, 16);
    const size_t count = (size_t)(HEADS * compressed) * DIM;
    float *compressed_k = allocate(count * sizeof(float)), *compressed_v = allocate(count * sizeof(float));
    char where[16];
    fa_nsa_desc d = {.struct_size = sizeof(d), .attention = &desc};
    nsa n = {.args = {.struct_size = sizeof(n.args), .q = args.q, .k = args.k, .v = args.v, .o = args.o}};
    d.compressed_k = d.compressed_v = fa_tensor_make(desc.q.dtype, 1, HEADS, compressed, DIM);
    need(fa_nsa_create(device, &d, &n.nsa));
    (void)snprintf(where, sizeof(where), "host/%d", threads);
    n.args.gates = make_gates();
    n.args.workspace = buffer_of(device, queue, fa_nsa_workspace(n.nsa) + 1, NULL);
    n.args.work = buffer_of(device, queue, fa_nsa_work(n.nsa), NULL);
    const double begin = fa_clock();
    compress(k, compressed_k);
    compress(v, compressed_v);
    const fa_block_lists lists = select_blocks(compressed_k, threads);
    need(fa_nsa_schedule(n.nsa, queue, &lists, n.args.work, 0));
    n.args.compressed_k = upload(compressed_k, count);
    n.args.compressed_v = upload(compressed_v, count);
    need(fa_queue_wait(queue));
    const double planning = fa_clock() - begin;
    report(name, where, planning, measure_median(queue, TURNS, run_nsa, &n));
    fa_buffer *const all[] = {n.args.compressed_k, n.args.compressed_v, n.args.gates, n.args.workspace,
                              n.args.work};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        fa_buffer_destroy(all[i]);
    fa_nsa_destroy(n.nsa);
    free((void *)lists.indptr);
    free((void *)lists.indices);
    free(compressed_k);
    free(compressed_v);
}

/* PBS-Attn: k and v are moved, other segments attend by lists, the own ones as packed sequences, and both states are merged. */
typedef struct permuted {
    fa_gather *gather;
    fa_gather_args moves[2];
    prepared others, own;
    fa_merge *merge;
    fa_merge_args merged;
} permuted;

static void run_permuted(const void *what)
{
    const permuted *p = what;
    for (int i = 0; i < 2; i++)
        need(fa_gather_run(p->gather, queue, &p->moves[i]));
    run_prepared(&p->others);
    run_prepared(&p->own);
    need(fa_merge_run(p->merge, queue, &p->merged));
}

static void prepare_moves(permuted *p)
{
    const fa_gather_desc d = {.struct_size = sizeof(d),
                              .from = desc.k,
                              .to = desc.k,
                              .order = fa_tensor_make(FA_I32, 1, HEADS, tokens, 1)};
    fa_buffer *order = buffer_of(device, queue, (size_t)(HEADS * tokens) * sizeof(int32_t), NULL);
    need(fa_gather_create(device, &d, &p->gather));
    for (int i = 0; i < 2; i++)
        p->moves[i] = (fa_gather_args){.struct_size = sizeof(p->moves[i]),
                                       .from = i ? args.v : args.k,
                                       .order = order,
                                       .to = buffer_of(device, queue, count_of(HEADS) * element(), NULL)};
}

/* Attention to other segments, in the moved order, in which no mask has a meaning. */
static void prepare_others(permuted *p, const fa_block_lists *lists)
{
    fa_attention_desc d = desc;
    d.mask = FA_MASK_NONE;
    d.want_lse = 1;
    d.lists = lists;
    d.dynamic_lengths = 1;
    p->others = prepare(&d);
    p->others.args.k = p->moves[0].to;
    p->others.args.v = p->moves[1].to;
}

static void prepare_own(permuted *p, int64_t segment)
{
    fa_attention_desc d = desc;
    int64_t *offsets = allocate((size_t)(tokens / segment + 2) * sizeof(*offsets));
    d.want_lse = 1;
    for (offsets[0] = 0; offsets[d.sequences] < tokens; d.sequences++)
        offsets[d.sequences + 1] =
            offsets[d.sequences] + segment < tokens ? offsets[d.sequences] + segment : tokens;
    d.cu_rows_q = d.cu_rows_kv = offsets;
    p->own = prepare(&d);
    free(offsets);
}

/* Both states lie behind each other. */
static void prepare_merge(permuted *p)
{
    const fa_merge_desc d = {.struct_size = sizeof(d), .parts = 2, .partial = desc.o, .o = desc.o};
    const size_t state = count_of(HEADS_Q) * element(), lse = (size_t)(HEADS_Q * tokens) * sizeof(float);
    need(fa_merge_create(device, &d, &p->merge));
    p->merged = (fa_merge_args){.struct_size = sizeof(p->merged),
                                .partial = buffer_of(device, queue, 2 * state, NULL),
                                .partial_lse = buffer_of(device, queue, 2 * lse, NULL),
                                .o = args.o};
    p->others.args.o = p->own.args.o = p->merged.partial;
    p->others.args.lse = p->own.args.lse = p->merged.partial_lse;
    p->own.args.o_offset = state;
    p->own.args.lse_offset = lse;
}

static void discard_permuted(permuted *p)
{
    fa_buffer *const all[] = {p->moves[0].order, p->moves[0].to, p->moves[1].to, p->merged.partial,
                              p->merged.partial_lse};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        fa_buffer_destroy(all[i]);
    discard(&p->others);
    discard(&p->own);
    fa_gather_destroy(p->gather);
    fa_merge_destroy(p->merge);
}

static void time_permuted(const char *name)
{
    int32_t *order = allocate((size_t)(HEADS * tokens) * sizeof(*order));
    const fa_sparse_permuted_desc d = {.struct_size = sizeof(d),
                                       .shape = {.rows = tokens, .keys = tokens, .mask = desc.mask},
                                       .heads_q = HEADS_Q,
                                       .heads_kv = HEADS,
                                       .dim = DIM,
                                       .q = q,
                                       .k = k,
                                       .without_own = 1,
                                       .order = order};
    fa_block_lists lists = {.struct_size = sizeof(lists)};
    const fa_lengths lengths = {.struct_size = sizeof(lengths), .lists = &lists};
    fa_block_mask *mask;
    permuted p;
    prepare_moves(&p);
    double begin = fa_clock();
    need(fa_sparse_permuted(context, &d, &mask));
    double planning = fa_clock() - begin;
    need(fa_block_mask_lists(mask, &lists));
    prepare_others(&p, &lists); /* once for lists of these sizes */
    prepare_own(&p, 256);
    prepare_merge(&p);
    begin = fa_clock();
    need(fa_buffer_write(queue, p.moves[0].order, 0, order, (size_t)(HEADS * tokens) * sizeof(*order)));
    need(fa_plan_schedule(p.others.plan, queue, &lengths, p.others.args.work, 0));
    need(fa_queue_wait(queue));
    planning += fa_clock() - begin;
    report(name, "host/1", planning, measure_median(queue, TURNS, run_permuted, &p));
    discard_permuted(&p);
    fa_block_mask_destroy(mask);
    free(order);
}

static const struct method {
    const char *name;
    void (*time)(const char *name);
} methods[] = {
    {"moba", time_moba}, {"moba-128", time_moba_blocks}, {"hyper", time_hyper}, {"pbs", time_permuted},
    {"nsa", time_nsa},
};

static bool is_method(const char *name)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(name, methods[i].name) == 0)
            return true;
    }
    return false;
}

static bool is_named(const char *name, int count, char **names)
{
    bool named = count == 0;
    for (int i = 0; i < count; i++)
        named = named || strcmp(name, names[i]) == 0;
    return named;
}

/* Those that are named, or all. */
static void time_methods(int count, char **names)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (is_named(methods[i].name, count, names)) {
            spoil_output();
            methods[i].time(methods[i].name);
        }
    }
}

static void describe(bool wide)
{
    desc = (fa_attention_desc){
        .struct_size = sizeof(desc),
        .q = fa_tensor_make(wide ? FA_F32 : FA_F16, 1, HEADS_Q, tokens, DIM),
        .k = fa_tensor_make(wide ? FA_F32 : FA_F16, 1, HEADS, tokens, DIM),
        .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT,
    };
    desc.o = desc.q;
    desc.v = desc.k;
}

int main(int count, char **arguments)
{
    const char *backend = count > 1 ? arguments[1] : NULL;
    tokens = count > 2 ? strtoll(arguments[2], NULL, 10) : 65536;
    bool fine = tokens >= 32 && tokens <= FA_MAX_LENGTH; /* NSA's compressed keys have 32 */
    for (int i = 3; i < count; i++)
        fine = fine && is_method(arguments[i]);
    if (!fine) {
        (void)fprintf(stderr,
                      "usage: time_sparse BACKEND [TOKENS, at least 32] [moba|moba-128|hyper|pbs|nsa...]\n");
        return EXIT_FAILURE;
    }
    need(fa_context_create(NULL, &context));
    need(fa_device_open(context, backend, NULL, &device));
    need(fa_queue_create(device, &queue));
    describe(backend && strcmp(backend, "openmp") == 0);
    draw_problem();
    time_dense();
    (void)printf("%lld tokens, dense %.3f ms\n%-9s %-7s %11s %11s %9s %9s %9s %10s %10s\n", (long long)tokens,
                 dense_seconds * 1e3, "method", "plans", "plan, ms", "attend, ms", "plan/d", "attend/d",
                 "both/d", "error", "largest");
    time_methods(count > 3 ? count - 3 : 0, arguments + 3);
    fa_buffer *const all[] = {args.q, args.k, args.v, args.o};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        fa_buffer_destroy(all[i]);
    void *const host[] = {q, k, v, exact};
    for (size_t i = 0; i < sizeof(host) / sizeof(host[0]); i++)
        free(host[i]);
    fa_queue_destroy(queue);
    fa_device_close(device);
    fa_context_destroy(context);
    return EXIT_SUCCESS;
}
