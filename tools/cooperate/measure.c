/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cooperate/measure.h"
#include "core/clock.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "tools/check.h"
#include "tools/cli.h"

enum { MOST_RUNS = 1000, WARM_UP = 3 };

/* k or v of the away device: all keys, in host memory. */
typedef struct side {
    fa_tensor t; /* (sequences, heads_kv, context, dim) */
    size_t row, bytes;
    unsigned char *memory;
    fa_buffer *home, *away; /* each of all keys */
} side;

typedef struct bench {
    const char *command;
    const measure_problem *p;
    fa_context *context;
    fa_device *home, *away;
    fa_queue *queue, *away_queue;
    side k, v;
    fa_tensor q_tensor, o_tensor;
    size_t q_bytes, o_bytes;
    unsigned char *q, *o;
    fa_buffer *q_home, *o_home, *q_away, *o_away, *home_workspace, *away_workspace;
    fa_plan *home_plan, *away_plan; /* of all keys */
    fa_cooperate *pair, *stream;    /* without and with a third part */
    int64_t *all, *from;
    check_reference *reference;
} bench;

/* In host memory that the home device's copies reach at the link's speed. */
static bool make_side(fa_device *home, side *s, fa_dtype dtype, const measure_problem *p, int64_t dim)
{
    void *memory = NULL;
    s->t = fa_tensor_make(dtype, p->sequences, p->heads_kv, p->context, dim);
    if (fa_tensor_span(&s->t, &s->bytes) != FA_OK)
        return false;
    const size_t rows = (size_t)(p->sequences * p->heads_kv * p->context);
    s->row = s->bytes / rows;
    if (fa_host_memory_create(home, s->bytes, &memory) == FA_OK)
        s->memory = memory;
    return s->memory && measure_fill(dtype, dim, s->row, s->memory, rows);
}

/* False after an error. */
static bool went(const bench *b, fa_status status)
{
    if (status != FA_OK)
        cli_error(b->command, "%s", fa_last_error());
    return status == FA_OK;
}

static bool out_of_memory(const bench *b)
{
    cli_error(b->command, "no memory for %" PRId64 " keys", b->p->context);
    return false;
}

static bool make_data(bench *b)
{
    const measure_problem *p = b->p;
    b->q_tensor = fa_tensor_make(FA_F16, p->sequences, p->heads_q, 1, p->dim_qk);
    b->o_tensor = fa_tensor_make(FA_F16, p->sequences, p->heads_q, 1, p->dim_v);
    if (!went(b, fa_tensor_span(&b->q_tensor, &b->q_bytes)) ||
        !went(b, fa_tensor_span(&b->o_tensor, &b->o_bytes)))
        return false;
    b->q = malloc(b->q_bytes);
    b->o = malloc(b->o_bytes);
    b->all = malloc(2 * (size_t)p->sequences * sizeof(*b->all));
    if (!b->q || !b->o || !b->all ||
        !measure_fill(FA_F16, p->dim_qk, (size_t)p->dim_qk * 2, b->q, (size_t)(p->sequences * p->heads_q)) ||
        !make_side(b->home, &b->k, p->k_type, p, p->dim_qk) ||
        !make_side(b->home, &b->v, p->v_type, p, p->dim_v))
        return out_of_memory(b);
    b->from = b->all + p->sequences;
    for (int64_t n = 0; n < p->sequences; n++) {
        b->all[n] = p->context;
        b->from[n] = p->context - p->home_keys;
    }
    return true;
}

/* Whether both memories hold what is to lie there. A device's own is known when it is full. */
static bool memory_fits(const bench *b)
{
    char why[160];
    const measure_problem *p = b->p;
    const double rows = (double)p->sequences * (double)p->heads_kv * (double)p->context;
    const double row =
        (double)p->dim_qk / (double)fa_dtype_block(p->k_type) * (double)fa_dtype_size(p->k_type) +
        (double)p->dim_v / (double)fa_dtype_block(p->v_type) * (double)fa_dtype_size(p->v_type);
    const bool home_too = b->home->backend->host_pointers || b->home->info.host_memory;
    if (cli_memory_fits(rows * row * (home_too ? 2 : 1), why, sizeof(why)))
        return true;
    cli_error(b->command, "--run %s", why);
    return false;
}

static bool open_devices(bench *b)
{
    return went(b, fa_device_open(b->context, b->p->home ? b->p->home : "auto", NULL, &b->home)) &&
           went(b, fa_device_open(b->context, b->p->away ? b->p->away : "openmp", NULL, &b->away)) &&
           went(b, fa_queue_create(b->home, &b->queue)) && went(b, fa_queue_create(b->away, &b->away_queue));
}

static bool put(bench *b, fa_device *device, fa_queue *queue, void *from, size_t bytes, fa_buffer **buffer)
{
    if (device->backend->host_pointers)
        return went(b, fa_buffer_wrap_host(device, from, bytes, buffer));
    return went(b, fa_buffer_create(device, bytes, buffer)) &&
           went(b, fa_buffer_write(queue, *buffer, 0, from, bytes));
}

static bool make_buffers(bench *b)
{
    side *const sides[] = {&b->k, &b->v};
    for (int i = 0; i < 2; i++) {
        side *s = sides[i];
        if (!put(b, b->away, b->away_queue, s->memory, s->bytes, &s->away) ||
            !went(b, fa_buffer_create(b->home, s->bytes, &s->home)) ||
            !went(b, fa_buffer_write(b->queue, s->home, 0, s->memory, s->bytes)))
            return false;
    }
    return put(b, b->home, b->queue, b->q, b->q_bytes, &b->q_home) &&
           put(b, b->away, b->away_queue, b->q, b->q_bytes, &b->q_away) &&
           went(b, fa_buffer_create(b->home, b->o_bytes, &b->o_home)) &&
           went(b, fa_buffer_create(b->away, b->o_bytes, &b->o_away)) &&
           went(b, fa_buffer_create(b->home, fa_plan_workspace(b->home_plan), &b->home_workspace)) &&
           went(b, fa_buffer_create(b->away, fa_plan_workspace(b->away_plan), &b->away_workspace));
}

static fa_attention_desc whole_desc(const bench *b)
{
    return (fa_attention_desc){.struct_size = sizeof(fa_attention_desc),
                               .q = b->q_tensor,
                               .k = b->k.t,
                               .v = b->v.t,
                               .o = b->o_tensor};
}

/* With buffers of an eighth of the keys that are not home, where there are to be such. */
static bool make_pair(bench *b, bool streams, fa_cooperate **pair)
{
    const measure_problem *p = b->p;
    const uint64_t own = (uint64_t)(p->sequences * p->heads_kv) * (uint64_t)(p->context - p->home_keys) *
                         (b->k.row + b->v.row) / 4,
                   least = (uint64_t)1 << 20;
    fa_attention_desc d = whole_desc(b);
    fa_segment away = {.struct_size = sizeof(away), .k = d.k, .v = d.v}, home = away;
    const fa_segment *const list[] = {&away, &home};
    const fa_segments_desc segments = {
        .struct_size = sizeof(segments), .attention = &d, .segments = 2, .segment = list};
    const fa_cooperate_desc desc = {.struct_size = sizeof(desc),
                                    .segments = &segments,
                                    .link_bandwidth = p->link_bandwidth,
                                    .link_seconds = p->link_seconds,
                                    .host_bandwidth = p->host_bandwidth,
                                    .stream_bytes = !streams          ? 0
                                                    : p->stream_bytes ? p->stream_bytes
                                                    : own > least     ? own
                                                                      : least,
                                    .stream_share = streams ? p->stream_share : 0};
    const int64_t keys = b->p->context;
    fa_tensor *const part[] = {&home.k, &home.v};
    for (int i = 0; i < 2; i++) { /* the newest keys of each head */
        fa_tensor *t = part[i];
        *t = (fa_tensor){.dtype = t->dtype,
                         .shape = {t->shape[0], t->shape[1], b->p->home_keys, t->shape[3]},
                         .stride = {t->shape[1] * keys * t->shape[3], keys * t->shape[3], t->shape[3], 1}};
    }
    d.k = d.v = (fa_tensor){.dtype = FA_F32};
    return went(b, fa_cooperate_create(b->home, b->away, &desc, pair));
}

static bool make_plans(bench *b)
{
    const fa_attention_desc d = whole_desc(b);
    return went(b, fa_plan_create(b->home, &d, &b->home_plan)) &&
           went(b, fa_plan_create(b->away, &d, &b->away_plan)) && make_pair(b, false, &b->pair) &&
           (!b->away->backend->host_pointers || make_pair(b, true, &b->stream));
}

/* The oracle of the heads of the first KV head, in the first sequence. */
static bool make_reference(bench *b)
{
    fa_plan_info info = {.struct_size = sizeof(info)};
    const measure_problem *p = b->p;
    const int64_t group = p->heads_q / p->heads_kv;
    fa_attention_desc d = whole_desc(b);
    d.q = fa_tensor_make(FA_F16, 1, group, 1, p->dim_qk);
    d.o = fa_tensor_make(FA_F16, 1, group, 1, p->dim_v);
    d.k = fa_tensor_make(p->k_type, 1, 1, p->context, p->dim_qk);
    d.v = fa_tensor_make(p->v_type, 1, 1, p->context, p->dim_v);
    const fa_inputs in = {.q = b->q, .k = b->k.memory, .v = b->v.memory};
    if (!went(b, fa_plan_get_info(b->home_plan, &info)))
        return false;
    const check_means means = {.weights = info.weights, .merges = 1};
    return went(b, check_reference_create(b->context, &d, &in, &means, &b->reference));
}

/* Copies those keys of a head that are not home. */
static fa_status copy_head(const bench *b, const side *s, int64_t head)
{
    const size_t at = (size_t)(head * b->p->context) * s->row,
                 bytes = (size_t)(b->p->context - b->p->home_keys) * s->row;
    return fa_buffer_write_async(b->queue, s->home, at, s->memory + at, bytes);
}

static fa_attention_args plan_args(const bench *b, bool home)
{
    return (fa_attention_args){
        .struct_size = sizeof(fa_attention_args),
        .q = home ? b->q_home : b->q_away,
        .k = home ? b->k.home : b->k.away,
        .v = home ? b->v.home : b->v.away,
        .o = home ? b->o_home : b->o_away,
        .workspace = home ? b->home_workspace : b->away_workspace,
    };
}

typedef fa_status step(const bench *b);

static fa_status all_home(const bench *b)
{
    const fa_attention_args args = plan_args(b, true);
    const fa_status status = fa_plan_run(b->home_plan, b->queue, &args);
    return status == FA_OK ? fa_queue_wait(b->queue) : status;
}

static fa_status copy(const bench *b)
{
    fa_status status = FA_OK;
    for (int64_t h = 0; h < b->p->sequences * b->p->heads_kv && status == FA_OK; h++) {
        status = copy_head(b, &b->k, h);
        if (status == FA_OK)
            status = copy_head(b, &b->v, h);
    }
    return status == FA_OK ? all_home(b) : status;
}

static fa_status host(const bench *b)
{
    const fa_attention_args args = plan_args(b, false);
    const fa_status status = fa_plan_run(b->away_plan, b->away_queue, &args);
    return status == FA_OK ? fa_queue_wait(b->away_queue) : status;
}

static fa_status run_pair(const bench *b, fa_cooperate *pair)
{
    const size_t from = (size_t)(b->p->context - b->p->home_keys);
    const fa_cooperate_keys keys = {
        .struct_size = sizeof(keys), .keys = b->all, .away_keys = b->all, .home_from = b->from};
    const fa_segment_args away = {.struct_size = sizeof(away), .k = b->k.away, .v = b->v.away},
                          home = {.struct_size = sizeof(home),
                                  .k = b->k.home,
                                  .v = b->v.home,
                                  .k_offset = from * b->k.row,
                                  .v_offset = from * b->v.row};
    const fa_segment_args *const list[] = {&away, &home};
    const fa_segments_args args = {
        .struct_size = sizeof(args), .q = b->q_home, .o = b->o_home, .segment = list};
    const fa_status status = fa_cooperate_run(pair, b->queue, &keys, &args);
    return status == FA_OK ? fa_queue_wait(b->queue) : status;
}

static fa_status split(const bench *b)
{
    return run_pair(b, b->pair);
}

static fa_status stream(const bench *b)
{
    return run_pair(b, b->stream);
}

static bool check(bench *b, bool home, const char *way, measure_result *result)
{
    check_result found;
    fa_buffer *const o = home ? b->o_home : b->o_away;
    if (!went(b, fa_buffer_read(home ? b->queue : b->away_queue, o, 0, b->o, b->o_bytes)))
        return false;
    check_compare(b->reference, b->o, NULL, &found);
    result->max_error = fmax(result->max_error, found.max_error);
    if (!found.ok)
        cli_error(b->command, "--run: %s gives a wrong result: %s", way, found.message);
    return found.ok;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of runs, after a few that are checked and not timed. */
static bool time_step(bench *b, step *run, bool home, const char *way, measure_result *result,
                      double *seconds)
{
    static double taken[MOST_RUNS];
    const size_t o_bytes = b->o_bytes;
    memset(b->o, 0xff, o_bytes); /* NaN */
    if (!went(b, fa_buffer_write(home ? b->queue : b->away_queue, home ? b->o_home : b->o_away, 0, b->o,
                                 o_bytes)))
        return false;
    for (int i = 0; i < WARM_UP; i++) {
        if (!went(b, run(b)))
            return false;
    }
    if (!check(b, home, way, result))
        return false;
    int runs = 0;
    const double begin = fa_clock();
    while (runs < WARM_UP || (runs < MOST_RUNS && fa_clock() - begin < b->p->min_time)) {
        const double start = fa_clock();
        if (!went(b, run(b)))
            return false;
        taken[runs++] = fa_clock() - start;
    }
    qsort(taken, (size_t)runs, sizeof(taken[0]), by_size);
    *seconds = taken[runs / 2];
    return true;
}

static bool time_ways(bench *b, measure_result *r)
{
    return time_step(b, all_home, true, "the home device alone", r, &r->all_home) &&
           time_step(b, copy, true, "copy", r, &r->seconds[FA_COOPERATE_COPY]) &&
           time_step(b, host, false, "host", r, &r->seconds[FA_COOPERATE_HOST]) &&
           time_step(b, split, true, "split", r, &r->seconds[FA_COOPERATE_SPLIT]) &&
           went(b, fa_cooperate_get_info(b->pair, &r->info)) &&
           (!b->stream || (time_step(b, stream, true, "stream", r, &r->stream) &&
                           went(b, fa_cooperate_get_info(b->stream, &r->stream_info)))) &&
           (b->p->prompt == 0 || measure_prefill(b->command, b->home, b->p, &r->prefill));
}

static void name_device(const fa_device *device, const char *kernel, char *text, size_t size)
{
    (void)snprintf(text, size, "%s:%" PRId32 " (%.100s), %.60s", device->info.backend, device->info.index,
                   cli_plain(device->info.name).text, kernel);
}

static void release(bench *b)
{
    fa_buffer *const buffers[] = {b->k.home, b->k.away, b->v.home, b->v.away,         b->q_home,
                                  b->o_home, b->q_away, b->o_away, b->home_workspace, b->away_workspace};
    check_reference_destroy(b->reference);
    fa_cooperate_destroy(b->pair);
    fa_cooperate_destroy(b->stream);
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
        fa_buffer_destroy(buffers[i]);
    fa_plan_destroy(b->home_plan);
    fa_plan_destroy(b->away_plan);
    fa_queue_destroy(b->queue);
    fa_queue_destroy(b->away_queue);
    fa_host_memory_destroy(b->home, b->k.memory, b->k.bytes);
    fa_host_memory_destroy(b->home, b->v.memory, b->v.bytes);
    fa_device_close(b->home);
    fa_device_close(b->away);
    free(b->q);
    free(b->o);
    free(b->all);
}

bool measure(const char *command, fa_context *context, const measure_problem *problem, measure_result *result)
{
    bench b = {.command = command, .p = problem, .context = context};
    *result = (measure_result){.info = {.struct_size = sizeof(result->info)},
                               .stream_info = {.struct_size = sizeof(result->stream_info)}};
    const bool ok = open_devices(&b) && memory_fits(&b) && make_data(&b) && make_plans(&b) &&
                    make_buffers(&b) && make_reference(&b) && time_ways(&b, result);
    if (ok) {
        name_device(b.home, result->info.kernel_home, result->home, sizeof(result->home));
        name_device(b.away, result->info.kernel_away, result->away, sizeof(result->away));
    }
    release(&b);
    return ok;
}
