/* SPDX-License-Identifier: Apache-2.0 */
#include "attend.h"

#include "mask.h"
#include "problem.h"

#include <ggml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEAMS 4   /* llama.cpp has two numbers of threads: for prompts, and for one token at a time */
#define PLANS 128 /* more than a model has layers: sinks make a plan of each                        */
#define ANSWERS 32
#define ALIGNMENT 64
#define ROWS_AT_ONCE 16 /* of a mask, by one thread */

/* The library's objects for one number of threads. */
typedef struct team {
    int threads;
    fa_context *context;
    fa_device *device;
    fa_queue *queue;
} team;

typedef struct planned {
    const team *team; /* NULL: there is none */
    uint64_t hash, used;
    fg_problem problem;
    float *sinks; /* a copy */
    fa_plan *plan;
    /* Of a plan with lengths: what was scheduled last. */
    int64_t *lengths; /* first_kv, then lens_kv, of each batch entry */
    bool scheduled;
    void *work;
    fa_buffer *work_buffer;
} planned;

/* Memory that grows. */
typedef struct scratch {
    void *memory;
    size_t bytes;
} scratch;

struct fg_attend {
    const fg_device *device;
    int threads;
    team team[TEAMS];
    planned planned[PLANS];
    uint64_t clock;
    scratch workspace, spans, lengths, bits;
    const char *message; /* of the last failure, where it is not the library's */
};

/* ---- threads ---- */

#ifdef _OPENMP
/* ggml's own pool, where it was built with OpenMP: both ask the runtime for as many threads, which then are the same ones.
 * Threads of the library would find each core taken by one of ggml's, which wait for work without sleeping. */
static void parallel_for(void *user, int32_t count, void (*task)(void *argument, int32_t index),
                         void *argument)
{
    const team *t = user;
#pragma omp parallel for num_threads(t->threads) schedule(static, 1)
    for (int32_t i = 0; i < count; i++)
        task(argument, i);
}
#endif

static fa_status open_context(team *t)
{
    fa_context_options options = {.struct_size = sizeof(options), .threads = t->threads};
#ifdef _OPENMP
    if (t->threads > 0)
        options.executor = (fa_executor){parallel_for, t};
#endif
    return fa_context_create(&options, &t->context);
}

/* ---- the device ---- */

const fg_device *fg_device_open(const char **message)
{
    static fg_device opened;
    if (opened.device)
        return &opened;
    const bool named = getenv("FASTATTN_BACKEND") || getenv("FASTATTN_DEVICE");
    fg_device d = {.info.struct_size = sizeof(d.info)};
    fa_status status = fa_context_create(NULL, &d.context);
    if (!status)
        status = fa_device_open(d.context, named ? NULL : "openmp", NULL, &d.device);
    if (!status)
        status = fa_device_get_info(d.device, &d.info);
    const bool computes = strcmp(d.info.backend, "null") != 0;
    if (status || !computes) {
        *message = status ? fa_last_error() : "FASTATTN_BACKEND is null, which computes nothing";
        fa_device_close(d.device);
        fa_context_destroy(d.context);
        return NULL;
    }
    d.in_place = strcmp(d.info.backend, "openmp") == 0;
    opened = d;
    return &opened;
}

bool fg_device_supports(const fg_device *device, const struct ggml_tensor *node, const char **reason)
{
    /* ggml asks for each node of a graph, several times. A model has few that differ. */
    static _Thread_local struct {
        fg_problem problem;
        bool known, supported;
    } answer[ANSWERS];
    static _Thread_local char text[256];
    static const float no_sinks[FG_MAX_HEADS];
    float factors[FG_MAX_HEADS];
    fg_problem p;
    if (!fg_problem_read(node, &p, reason))
        return false;
    /* What the mask will say is not known yet: whatever it is, less is asked for than this. */
    p.has_lengths = p.bias.shape[0] > 0;
    if (p.has_lengths)
        p.keep = fg_problem_bits(&p);
    const size_t at = fg_problem_hash(&p) % ANSWERS;
    if (!answer[at].known || memcmp(&answer[at].problem, &p, sizeof(p)) != 0) {
        fa_attention_desc desc;
        fg_problem_describe(&p, factors, p.has_sinks ? no_sinks : NULL, &desc);
        answer[at].problem = p;
        answer[at].supported = !fa_device_supports(device->device, &desc, text, sizeof(text));
        answer[at].known = answer[at].supported; /* a reason is found again */
    }
    *reason = text;
    return answer[at].supported;
}

/* ---- plans ---- */

static void forget(planned *e)
{
    fa_buffer_destroy(e->work_buffer);
    fa_plan_destroy(e->plan);
    free(e->work);
    free(e->lengths);
    free(e->sinks);
    memset(e, 0, sizeof(*e));
}

static void close_team(fg_attend *a, team *t)
{
    for (int i = 0; i < PLANS; i++) {
        if (a->planned[i].team == t)
            forget(&a->planned[i]);
    }
    fa_queue_destroy(t->queue);
    fa_device_close(t->device);
    fa_context_destroy(t->context);
    memset(t, 0, sizeof(*t));
}

fg_attend *fg_attend_create(const fg_device *device)
{
    fg_attend *a = calloc(1, sizeof(*a));
    if (a)
        a->device = device;
    return a;
}

void fg_attend_destroy(fg_attend *a)
{
    if (!a)
        return;
    for (int i = 0; i < TEAMS; i++)
        close_team(a, &a->team[i]);
    free(a->workspace.memory);
    free(a->spans.memory);
    free(a->lengths.memory);
    free(a->bits.memory);
    free(a);
}

void fg_attend_threads(fg_attend *a, int threads)
{
    a->threads = threads < 0 ? 0 : threads > FA_MAX_THREADS ? FA_MAX_THREADS : threads;
}

/* The team of the threads that were asked for last. The first ones stay. */
static fa_status find_team(fg_attend *a, team **found)
{
    int at = 0;
    while (at < TEAMS - 1 && a->team[at].queue && a->team[at].threads != a->threads)
        at++;
    team *t = &a->team[at];
    *found = t;
    if (t->queue && t->threads == a->threads) /* which is made last */
        return FA_OK;
    close_team(a, t);
    t->threads = a->threads;
    fa_status status = open_context(t);
    if (!status)
        status = fa_device_open(t->context, "openmp", NULL, &t->device);
    if (!status)
        status = fa_queue_create(t->device, &t->queue);
    return status;
}

static fa_status no_memory(fg_attend *a)
{
    a->message = "no memory for what is kept between nodes";
    return FA_OUT_OF_MEMORY;
}

static void *take(scratch *s, size_t bytes)
{
    if (s->bytes >= bytes)
        return s->memory;
    const size_t size = (bytes + bytes / 4 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    free(s->memory);
    s->memory = aligned_alloc(ALIGNMENT, size);
    s->bytes = s->memory ? size : 0;
    return s->memory;
}

static bool is_plan_of(const planned *e, const team *t, uint64_t hash, const fg_problem *p,
                       const float *sinks)
{
    return e->team == t && e->hash == hash && memcmp(&e->problem, p, sizeof(*p)) == 0 &&
           (!sinks || memcmp(e->sinks, sinks, (size_t)p->q.shape[1] * sizeof(float)) == 0);
}

static fa_status make_plan(fg_attend *a, planned *e, const team *t, const fg_problem *p, const float *sinks)
{
    float factors[FG_MAX_HEADS];
    fa_attention_desc desc;
    fg_problem_describe(p, factors, sinks, &desc);
    fa_status status = fa_plan_create(t->device, &desc, &e->plan);
    if (status)
        return status;
    const size_t heads = (size_t)p->q.shape[1], batches = (size_t)p->q.shape[0];
    if (sinks) {
        e->sinks = malloc(heads * sizeof(float));
        if (!e->sinks)
            return no_memory(a);
        memcpy(e->sinks, sinks, heads * sizeof(float));
    }
    if (!p->has_lengths)
        return FA_OK;
    const size_t bytes = (fa_plan_work(e->plan) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    e->work = aligned_alloc(ALIGNMENT, bytes);
    e->lengths = malloc(2 * batches * sizeof(int64_t));
    return e->work && e->lengths ? fa_buffer_wrap_host(t->device, e->work, bytes, &e->work_buffer)
                                 : no_memory(a);
}

/* The plan of this problem: one that is kept, or a new one in place of that which was not used for longest. */
static fa_status find_plan(fg_attend *a, const team *t, const fg_problem *p, const float *sinks,
                           planned **found)
{
    const uint64_t hash = fg_problem_hash(p);
    planned *oldest = a->planned;
    for (planned *e = a->planned; e < a->planned + PLANS; e++) {
        if (is_plan_of(e, t, hash, p, sinks)) {
            e->used = ++a->clock;
            *found = e;
            return FA_OK;
        }
        if (e->used < oldest->used)
            oldest = e;
    }
    forget(oldest);
    fa_status status = make_plan(a, oldest, t, p, sinks);
    if (status) {
        forget(oldest);
        return status;
    }
    oldest->team = t;
    oldest->hash = hash;
    oldest->problem = *p;
    oldest->used = ++a->clock;
    *found = oldest;
    return FA_OK;
}

/* Writes the work of these lengths, unless it is there: the layers of a model have the same. */
static fa_status schedule(planned *e, const team *t, const int64_t *lengths)
{
    const size_t batches = (size_t)e->problem.q.shape[0], bytes = 2 * batches * sizeof(int64_t);
    if (e->scheduled && memcmp(e->lengths, lengths, bytes) == 0)
        return FA_OK;
    const fa_lengths l = {.struct_size = sizeof(l), .first_kv = lengths, .lens_kv = lengths + batches};
    e->scheduled = false;
    fa_status status = fa_plan_schedule(e->plan, t->queue, &l, e->work_buffer, 0);
    if (!status) {
        memcpy(e->lengths, lengths, bytes);
        e->scheduled = true;
    }
    return status;
}

/* ---- masks ---- */

/* What is known of a mask that the problem does not hold. NULL: not needed. */
typedef struct mask_data {
    int64_t *lengths; /* first_kv, then lens_kv, of each batch entry */
    uint32_t *bits;   /* problem.keep                                */
} mask_data;

typedef struct mask_reader {
    const struct ggml_tensor *mask;
    fa_tensor size; /* (batch, head, row, key) */
    int64_t count;  /* of rows, in all         */
    /* One of them is written. */
    fg_span *span;
    uint32_t *bits;
} mask_reader;

static void read_rows(void *argument, int32_t index)
{
    const mask_reader *m = argument;
    const int64_t begin = (int64_t)index * ROWS_AT_ONCE, rest = m->count - begin;
    const int64_t rows = m->size.shape[2], heads = m->size.shape[1], keys = m->size.shape[3];
    for (int64_t i = begin; i < begin + (rest < ROWS_AT_ONCE ? rest : ROWS_AT_ONCE); i++) {
        const void *row = (const char *)m->mask->data + (size_t)(i % rows) * m->mask->nb[1] +
                          (size_t)(i / rows % heads) * m->mask->nb[2] +
                          (size_t)(i / rows / heads) * m->mask->nb[3];
        if (m->span)
            m->span[i] = fg_mask_row(row, keys);
        else
            fg_mask_bits(row, keys, m->bits + i * fg_mask_words(keys));
    }
}

static void read_all_rows(const team *t, mask_reader *m)
{
    const int32_t tasks = (int32_t)((m->count + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE);
#ifdef _OPENMP
    if (t && t->threads > 1 && tasks > 1) {
        parallel_for((void *)(uintptr_t)t, tasks, read_rows, m);
        return;
    }
#endif
    (void)t;
    for (int32_t i = 0; i < tasks; i++)
        read_rows(m, i);
}

/* Describes the interval of keys that each row sees. The mask has one head. */
static fa_status read_shape(fg_attend *a, const team *t, mask_reader m, fg_problem *p, int64_t **lengths,
                            fg_shape *shape)
{
    const int64_t batches = p->q.shape[0], masks = m.size.shape[0];
    m.span = take(&a->spans, (size_t)m.count * sizeof(fg_span));
    *lengths = take(&a->lengths, 2 * (size_t)batches * sizeof(int64_t));
    if (!m.span || !*lengths)
        return no_memory(a);
    read_all_rows(t, &m);
    int64_t *first = *lengths, *length = first + batches;
    *shape = fg_mask_shape(m.span, masks, m.size.shape[2], first, length);
    for (int64_t n = masks; n < batches; n++) {
        first[n] = first[0];
        length[n] = length[0];
    }
    p->has_lengths = 1;
    p->causal = shape->causal;
    p->window = shape->window;
    return FA_OK;
}

/* Puts into other words what of the mask can be said without it, and what must be. Masks of each head are taken as they are. */
static fa_status read_mask(fg_attend *a, const team *t, const struct ggml_tensor *mask, fg_problem *p,
                           mask_data *data)
{
    *data = (mask_data){NULL, NULL};
    if (!mask)
        return FA_OK;
    mask_reader m = {.mask = mask, .size = p->bias};
    m.count = m.size.shape[0] * m.size.shape[1] * m.size.shape[2];
    fg_shape shape = {.exact = false, .zero = false};
    if (m.size.shape[1] == 1) {
        fa_status status = read_shape(a, t, m, p, &data->lengths, &shape);
        if (status)
            return status;
    }
    if (!shape.exact) {
        p->keep = fg_problem_bits(p);
        m.bits = take(&a->bits, (size_t)(m.count * p->keep.shape[3]) * sizeof(uint32_t));
        if (!m.bits)
            return no_memory(a);
        read_all_rows(t, &m);
        data->bits = m.bits;
    }
    if (shape.zero)
        memset(&p->bias, 0, sizeof(p->bias));
    return FA_OK;
}

/* ---- runs ---- */

static fa_status run_in_place(fg_attend *a, const struct ggml_tensor *node, fg_problem *p)
{
    team *t;
    planned *e;
    mask_data data;
    const struct ggml_tensor *const *src = (const struct ggml_tensor *const *)node->src;
    fa_status status = find_team(a, &t);
    if (!status)
        status = read_mask(a, t, src[3], p, &data);
    if (!status)
        status = find_plan(a, t, p, src[4] ? src[4]->data : NULL, &e);
    if (!status && data.lengths)
        status = schedule(e, t, data.lengths);
    if (status)
        return status;
    const size_t bytes = fa_plan_workspace(e->plan);
    const fa_host_args args = {
        .struct_size = sizeof(args),
        .q = src[0]->data,
        .k = src[1]->data,
        .v = src[2]->data,
        .bias = p->bias.shape[0] > 0 ? src[3]->data : NULL,
        .keep = data.bits,
        .o = node->data,
        .workspace = take(&a->workspace, bytes),
        .work = e->work,
    };
    if (bytes > 0 && !args.workspace)
        return no_memory(a);
    return fa_plan_run_host(e->plan, t->queue, &args);
}

static fa_status run_on_copies(fg_attend *a, const struct ggml_tensor *node, fg_problem *p)
{
    float factors[FG_MAX_HEADS];
    mask_data data;
    fa_attention_desc desc;
    const struct ggml_tensor *const *src = (const struct ggml_tensor *const *)node->src;
    fa_status status = read_mask(a, NULL, src[3], p, &data);
    if (status)
        return status;
    p->has_lengths = 0; /* a plan of its own */
    fg_problem_describe(p, factors, src[4] ? src[4]->data : NULL, &desc);
    desc.first_kv = data.lengths;
    desc.lens_kv = data.lengths ? data.lengths + p->q.shape[0] : NULL;
    return fa_attention_host(a->device->device, &desc, src[0]->data, src[1]->data, src[2]->data,
                             p->bias.shape[0] > 0 ? src[3]->data : NULL, data.bits, node->data, NULL);
}

fa_status fg_attend_run(fg_attend *a, const struct ggml_tensor *node)
{
    fg_problem p;
    a->message = NULL;
    if (!fg_problem_read(node, &p, &a->message))
        return FA_UNSUPPORTED;
    return a->device->in_place ? run_in_place(a, node, &p) : run_on_copies(a, node, &p);
}

const char *fg_attend_message(const fg_attend *a)
{
    return a->message ? a->message : fa_last_error();
}
