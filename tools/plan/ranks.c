/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/plan/ranks.h"

#include <float.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "core/plan.h"
#include "core/ranks/chunks.h"
#include "core/ranks/scaling.h"
#include "tools/cli.h"

/* Of more numbers than these, powers of two and the last are shown. */
enum { MOST_LINES = 16, REMEMBERED = 64 };

bool plan_link_parse(const char *text, plan_link *link, char *error, size_t error_size)
{
    char *end = NULL;
    const double latency = strtod(text, &end);
    const bool first = end != text && *end == ',';
    const char *second = first ? end + 1 : text;
    const double bandwidth = first ? strtod(second, &end) : 0;
    if (!first || end == second || *end != '\0' || !(latency >= 0 && latency <= 1e9) ||
        !(bandwidth > 0 && bandwidth <= 1e9)) {
        (void)snprintf(error, error_size,
                       "expected microseconds from 0 on and GB/s above 0, at most 1e9 each, such as 10,50");
        return false;
    }
    *link = (plan_link){latency * 1e-6, bandwidth * 1e9};
    return true;
}

/* What parts took: plans are made once. */
typedef struct modelled {
    fa_device *device;
    const fa_attention_desc *desc;
    bool failed;
    int parts;
    fa_scaling_part part[REMEMBERED];
    double seconds[REMEMBERED];
} modelled;

static fa_attention_desc describe(const fa_attention_desc *whole, const fa_scaling_part *part)
{
    const int64_t batch = whole->q.shape[0], dim_qk = whole->q.shape[3], dim_v = whole->o.shape[3];
    fa_attention_desc d = *whole;
    d.q = fa_tensor_make(whole->q.dtype, batch, part->heads_q, part->rows, dim_qk);
    d.k = fa_tensor_make(whole->k.dtype, batch, part->heads_kv, part->keys, dim_qk);
    d.v = fa_tensor_make(whole->v.dtype, batch, part->heads_kv, part->keys, dim_v);
    d.o = fa_tensor_make(whole->o.dtype, batch, part->heads_q, part->rows, dim_v);
    d.mask = part->causal ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE;
    return d;
}

static bool is_same(const fa_scaling_part *a, const fa_scaling_part *b)
{
    return a->heads_q == b->heads_q && a->heads_kv == b->heads_kv && a->rows == b->rows &&
           a->keys == b->keys && a->causal == b->causal;
}

static double attention(void *user, const fa_scaling_part *given)
{
    modelled *m = user;
    fa_scaling_part part = *given;
    fa_plan_info info = {.struct_size = sizeof(info)};
    fa_plan *plan = NULL;
    /* Heads that do not divide evenly: as many as do, in groups of one size. */
    part.heads_q = (part.heads_q + part.heads_kv - 1) / part.heads_kv * part.heads_kv;
    for (int i = 0; i < m->parts; i++) {
        if (is_same(&m->part[i], &part))
            return m->seconds[i];
    }
    const fa_attention_desc d = describe(m->desc, &part);
    if (m->failed || fa_plan_create(m->device, &d, &plan) != FA_OK ||
        fa_plan_get_info(plan, &info) != FA_OK) {
        m->failed = true;
        return 1;
    }
    fa_plan_destroy(plan);
    if (m->parts < REMEMBERED) {
        m->part[m->parts] = part;
        m->seconds[m->parts++] = info.seconds;
    }
    return info.seconds;
}

/* The problem, with the device's speed as the plan of the whole has it. */
static bool make_problem(modelled *m, const plan_link *link, int64_t width, fa_scaling_problem *p)
{
    const fa_attention_desc *d = m->desc;
    fa_plan *plan = NULL;
    if (fa_plan_create(m->device, d, &plan) != FA_OK)
        return false;
    const fa_backend *backend = m->device->backend;
    *p = (fa_scaling_problem){
        .batch = d->q.shape[0],
        .heads_q = d->q.shape[1],
        .heads_kv = d->k.shape[1],
        .rows = d->q.shape[2],
        .keys = d->k.shape[2],
        .dim_qk = (int32_t)d->q.shape[3],
        .dim_v = (int32_t)d->o.shape[3],
        .causal = d->mask != FA_MASK_NONE,
        .width = width > 0 ? width : d->q.shape[1] * d->o.shape[3],
        .kv_size = (double)fa_dtype_size(d->k.dtype) / (double)fa_dtype_block(d->k.dtype),
        .y_size = (double)fa_dtype_size(d->o.dtype),
        .flops = plan->limits.clock_hz * (double)m->device->limits.units *
                 (double)plan->kernel->traits.flops_per_cycle,
        .bandwidth = plan->limits.bytes_per_second,
        .link_latency = link->latency,
        .link_bandwidth = link->bandwidth,
        .chunk_seconds = fa_chunks_cost(backend->host_pointers, backend->mark_create != NULL),
        .attention = attention,
        .user = m,
    };
    fa_plan_destroy(plan);
    return true;
}

static bool shows(const plan_threads *list, int i)
{
    const int n = list->count[i];
    return list->counts <= MOST_LINES || (n & (n - 1)) == 0 || i == list->counts - 1;
}

static const char *const scheme_names[] = {"heads", "context", "ring"};
static const char *const headings[] = {
    "heads over ranks: y is summed in chunks of tokens",
    "keys over ranks: states are gathered, each rank projects all",
    "tokens over ranks: K and V travel round a ring, each rank projects its own",
};

static const char *reason_of(fa_scaling_scheme scheme, fa_scaling_limit limit)
{
    static const char *const parts[] = {"there are fewer heads than ranks", "there are fewer keys than ranks",
                                        "there are fewer tokens than twice the ranks"};
    static const char *const latency[] = {"latency of sums", "latency of gathers",
                                          "latency of the ring's steps"};
    static const char *const bandwidth[] = {"bytes of y on the link", "bytes of states on the link",
                                            "blocks travel for longer than they are computed with"};
    switch (limit) {
    case FA_SCALING_LATENCY: return latency[scheme];
    case FA_SCALING_BANDWIDTH: return bandwidth[scheme];
    case FA_SCALING_FIXED: return "what a rank computes no longer shrinks with its share";
    case FA_SCALING_WHOLE: return "each rank projects, or merges, the whole";
    case FA_SCALING_PARTS: return parts[scheme];
    default: return "nothing: twice as many were not asked for";
    }
}

static void print_point(const fa_scaling_point *p, double one, bool json, bool first)
{
    if (json && p->possible)
        printf("%s\n  {\"ranks\": %" PRId32 ", \"chunks\": %" PRId64
               ", \"compute\": %.15g, \"link\": %.15g, \"seconds\": %.15g, \"speedup\": %.15g}",
               first ? "" : ",", p->ranks, p->chunks, p->compute, p->link, p->seconds, one / p->seconds);
    else if (!json && p->possible)
        printf("%7" PRId32 " %8" PRId64 " %12.4f %12.4f %12.4f %9.2fx\n", p->ranks, p->chunks,
               1e3 * p->compute, 1e3 * p->link, 1e3 * p->seconds, one / p->seconds);
    else if (!json)
        printf("%7" PRId32 "        -            -            -            -         -\n", p->ranks);
}

static void show_scheme(const fa_scaling_problem *p, fa_scaling_scheme scheme, const plan_threads *list,
                        bool json)
{
    const double one = fa_scaling_at(p, scheme, 1).seconds;
    fa_scaling_point beyond;
    const fa_scaling_point end = fa_scaling_end(p, scheme, FA_MAX_RANKS, &beyond);
    const char *reason =
        end.ranks == beyond.ranks ? "the most ranks that there may be" : reason_of(scheme, beyond.limit);
    bool first = true;
    if (json)
        printf(" {\"scheme\": \"%s\", \"ranks\": [", scheme_names[scheme]);
    else
        printf("%s\n%7s %8s %12s %12s %12s %10s\n", headings[scheme], "ranks",
               scheme == FA_SCALING_RING ? "steps" : "chunks", "compute ms", "link ms", "layer ms",
               "speed-up");
    for (int i = 0; i < list->counts; i++) {
        if (!shows(list, i))
            continue;
        const fa_scaling_point point = fa_scaling_at(p, scheme, list->count[i]);
        print_point(&point, one, json, first);
        first = first && !point.possible;
    }
    if (json)
        printf("],\n  \"scales_to\": %" PRId32 ", \"why\": \"%s\"}", end.ranks, reason);
    else
        printf("scales to %" PRId32 " ranks: %s\n", end.ranks, reason);
}

bool plan_ranks_show(fa_device *device, const char *command, const char *problem,
                     const fa_attention_desc *desc, const plan_threads *list, const plan_link *link,
                     int64_t width, bool json)
{
    modelled m = {.device = device, .desc = desc};
    fa_scaling_problem p;
    fa_device_info info = {.struct_size = sizeof(info)};
    if (fa_device_get_info(device, &info) != FA_OK || !make_problem(&m, link, width, &p)) {
        cli_error(command, "%s", fa_last_error());
        return false;
    }
    /* A prompt's tokens are sharded; of a step of decoding only keys can be. */
    const fa_scaling_scheme other = p.rows == p.keys ? FA_SCALING_RING : FA_SCALING_CONTEXT;
    if (json) {
        printf("{\"problem\": \"%s\", \"backend\": ", problem);
        cli_json_string(stdout, info.backend);
        printf(", \"width\": %" PRId64 ", \"schemes\": [\n", p.width);
    } else
        printf("%s on %s:%" PRId32 " (%s), a layer of width %" PRId64
               ", modelled\nover links of %g us and %g GB/s\n\n",
               problem, info.backend, info.index, cli_plain(info.name).text, p.width, 1e6 * link->latency,
               1e-9 * link->bandwidth);
    show_scheme(&p, FA_SCALING_HEADS, list, json);
    printf(json ? ",\n" : "\n");
    show_scheme(&p, other, list, json);
    if (json)
        printf("]}\n");
    if (m.failed)
        cli_error(command, "%s", fa_last_error());
    return !m.failed;
}
