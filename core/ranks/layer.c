/* SPDX-License-Identifier: Apache-2.0 */
/* Layers with sharded heads: what ranks agree on, and a plan for each chunk of tokens. */
#include "core/ranks/layer.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

#include "core/backend.h"
#include "core/context.h"
#include "core/device.h"
#include "core/plan.h"
#include "core/ranks/chunks.h"
#include "core/ranks/projection.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"

static const char what[] = "a sharded layer";

/* Links of which nothing is known. */
static const double default_latency = 20e-6, default_bandwidth = 10e9;

static bool is_float(fa_dtype dtype)
{
    return dtype == FA_F32 || dtype == FA_F16 || dtype == FA_BF16;
}

static fa_status check_desc(const fa_sharded_layer_desc *d)
{
    if (!d->attention)
        return fa_fail(FA_INVALID, "attention is NULL");
    if (d->width < 1 || d->width > INT32_MAX)
        return fa_fail(FA_INVALID, "width is %lld, expected 1 to %d", (long long)d->width, INT32_MAX);
    if (!is_float(d->y) || !is_float(d->w))
        return fa_fail(FA_INVALID, "%s is %s, expected f32, f16 or bf16", is_float(d->y) ? "w" : "y",
                       fa_dtype_name(is_float(d->y) ? d->w : d->y));
    if (d->w_stride != 0 && (d->w_stride < d->width || d->w_stride > INT32_MAX))
        return fa_fail(FA_INVALID, "w_stride is %lld, expected 0, or width %lld to %d",
                       (long long)d->w_stride, (long long)d->width, INT32_MAX);
    if (d->chunks < 0 || d->chunks > FA_SHARDED_MAX_CHUNKS)
        return fa_fail(FA_INVALID, "chunks is %lld, expected 0 to %d", (long long)d->chunks,
                       FA_SHARDED_MAX_CHUNKS);
    if (!(d->project_seconds >= 0 && d->project_seconds <= DBL_MAX))
        return fa_fail(FA_INVALID, "project_seconds is %g, expected 0 or more", d->project_seconds);
    return FA_OK;
}

static fa_status check_attention(const fa_problem *p)
{
    static const int extras[] = {FA_BIAS, FA_KEEP};
    if (p->dynamic || p->want_status)
        return fa_fail(FA_UNSUPPORTED, "attention.%s is 1, expected 0: a sharded layer does not serve it",
                       p->dynamic ? "dynamic_lengths" : "want_status");
    for (int i = 0; i < 2; i++) {
        const fa_tensor *t = &p->tensor[extras[i]];
        if ((p->features & fa_operands[extras[i]].feature) && t->stride[2] != 0)
            return fa_fail(FA_UNSUPPORTED,
                           "attention.%s.shape[2] is %lld, expected 1: a sharded layer serves none with rows",
                           fa_operands[extras[i]].name, (long long)t->shape[2]);
    }
    return FA_OK;
}

/* A CBLAS, or the plain loop. */
static fa_status find_host_product(fa_sharded_layer *l)
{
    if (!l->device->backend->host_pointers)
        return fa_fail(FA_UNSUPPORTED,
                       "project is NULL, and %s does not compute in host memory: the caller projects there",
                       l->device->info.name);
    if (l->problem.tensor[FA_O].dtype != FA_F32)
        return fa_fail(FA_UNSUPPORTED, "attention.o.dtype is %s, expected f32 without project",
                       fa_dtype_name(l->problem.tensor[FA_O].dtype));
    l->library = l->desc.own_gemm || l->inner == 0 ? NULL : fa_cblas_name();
    if (!l->desc.own_gemm && fa_cblas_failure()[0] != '\0')
        return fa_fail(FA_UNSUPPORTED, "the CBLAS cannot be used: %s", fa_cblas_failure());
    return FA_OK;
}

/* The library of the device's maker. */
static fa_status find_device_product(fa_sharded_layer *l)
{
    const fa_backend *b = l->device->backend;
    const fa_dtype o = l->problem.tensor[FA_O].dtype;
    char reason[FA_MESSAGE_SIZE / 2];
    if (!b->product_run)
        return fa_fail(FA_UNSUPPORTED,
                       "project is NULL, and transport.device_memory is 1: the caller projects on %s",
                       l->device->info.name);
    if (l->desc.own_gemm)
        return fa_fail(FA_UNSUPPORTED, "own_gemm is 1, expected 0 with transport.device_memory 1");
    if (l->desc.w != o)
        return fa_fail(FA_UNSUPPORTED, "w is %s, expected attention.o.dtype %s on %s",
                       fa_dtype_name(l->desc.w), fa_dtype_name(o), l->device->info.name);
    if (l->desc.y != o && l->desc.y != FA_F32)
        return fa_fail(FA_UNSUPPORTED, "y is %s, expected attention.o.dtype %s or f32 on %s",
                       fa_dtype_name(l->desc.y), fa_dtype_name(o), l->device->info.name);
    l->library = b->product_library(reason, sizeof(reason));
    return l->library
               ? FA_OK
               : fa_fail(FA_UNSUPPORTED,
                         "project is NULL, and the device has no products: the caller projects (%s)", reason);
}

/* Whether rows of o are rows of a matrix, which a product takes where it lies. */
static fa_status check_o(fa_sharded_layer *l)
{
    const fa_tensor *o = &l->problem.tensor[FA_O];
    if (o->shape[1] > 1 && o->stride[1] != o->shape[3])
        return fa_fail(FA_UNSUPPORTED,
                       "attention.o.stride[1] is %lld, expected dim_v %lld: without project, the heads of a "
                       "row lie beside each other",
                       (long long)o->stride[1], (long long)o->shape[3]);
    l->o_stride = o->shape[2] > 1 ? o->stride[2] : o->shape[0] > 1 ? o->stride[0] : l->inner;
    if (o->shape[0] > 1 && o->shape[2] > 1 && o->stride[0] != o->shape[2] * o->stride[2])
        return fa_fail(
            FA_UNSUPPORTED,
            "attention.o.stride[0] is %lld, expected %lld: without project, all rows are one matrix",
            (long long)o->stride[0], (long long)(o->shape[2] * o->stride[2]));
    if (l->o_stride > INT32_MAX || l->inner > INT32_MAX || l->info.tokens > INT32_MAX)
        return fa_fail(FA_UNSUPPORTED, "o has %lld rows of %lld elements, %lld apart: at most %d are served",
                       (long long)l->info.tokens, (long long)l->inner, (long long)l->o_stride, INT32_MAX);
    return FA_OK;
}

/* Tokens from t0 on, to the one before t1. */
typedef struct token_span {
    int64_t t0, t1;
} token_span;

static int64_t first_token(const fa_problem *p, const fa_sequence *s)
{
    return s->q_batch * p->tensor[FA_Q].shape[2] + s->q_row;
}

/* What is left of each sequence's rows. They stand at the keys where they stood. */
static fa_status take_tokens(fa_problem *p, const void *of)
{
    const token_span *span = of;
    p->max_len_q = 0;
    for (int64_t n = 0; n < p->sequences; n++) {
        fa_sequence *s = &p->sequence[n];
        const int64_t first = first_token(p, s), last = first + s->len_q,
                      begin = FA_MIN(FA_MAX(span->t0, first), last),
                      end = FA_MAX(FA_MIN(span->t1, last), begin);
        s->q_row += begin - first;
        s->mask.diagonal += (int)(begin - first);
        s->len_q = (int32_t)(end - begin);
        p->max_len_q = FA_MAX(p->max_len_q, s->len_q);
    }
    return FA_OK;
}

/* What the plan of all tokens chose. Plans of chunks choose the same, so that each row has the same roundings. */
typedef struct choice {
    fa_tuning tuning;
    fa_plan_info info;
    double product_seconds;
} choice;

/* Of the projection, at the speed of the plan's kernel; a plain loop does some two products in a cycle. */
static double product_seconds(const fa_sharded_layer *l, const fa_plan *plan)
{
    const double flops = 2.0 * (double)l->info.tokens * (double)l->inner * (double)l->desc.width, plain = 4,
                 clock = plan->limits.clock_hz,
                 all = FA_MAX(1, (double)l->device->limits.units * plan->kernel->traits.flops_per_cycle);
    if (l->desc.project && l->desc.project_seconds > 0)
        return l->desc.project_seconds;
    return flops / (clock * (l->desc.project || l->library ? all : plain));
}

static fa_status choose(fa_sharded_layer *l, choice *c)
{
    fa_plan *plan = NULL;
    FA_TRY(fa_plan_create(l->device, l->desc.attention, &plan));
    c->info.struct_size = sizeof(c->info);
    (void)fa_plan_get_info(plan, &c->info);
    c->product_seconds = product_seconds(l, plan);
    c->tuning = (fa_tuning){
        .struct_size = sizeof(c->tuning),
        .kernel = c->info.kernel,
        .block_q = c->info.block_q,
        .block_kv = c->info.block_kv,
        .splits = c->info.splits,
    };
    fa_plan_destroy(plan);
    return FA_OK;
}

/* Whether the device and the transport know the same events, and nothing between them takes the host. */
static bool can_enqueue(const fa_sharded_layer *l)
{
    const fa_backend *b = l->device->backend;
    return l->transport.events && b->mark_create && strcmp(l->transport.events, b->name) == 0 &&
           (l->projection == FA_PROJECT_DEVICE ||
            (l->projection == FA_PROJECT_CALLER && l->desc.project_enqueues));
}

/* What this rank can see for itself. */
static fa_status read(fa_sharded_layer *l, const fa_sharded_layer_desc *desc, fa_attention_desc *attention,
                      choice *c)
{
    FA_TRY(
        fa_copy_struct(&l->desc, sizeof(l->desc), FA_SHARDED_LAYER_DESC_0_1, desc, "fa_sharded_layer_desc"));
    FA_TRY(check_desc(&l->desc));
    FA_TRY(fa_problem_read_desc(l->desc.attention, attention));
    FA_TRY(fa_problem_refuse_lists(attention, "a sharded layer"));
    l->desc.attention = attention;
    FA_TRY(fa_problem_init(l->device->context, attention, &l->problem));
    FA_TRY(check_attention(&l->problem));
    const int64_t *q = l->problem.tensor[FA_Q].shape;
    l->info.tokens = q[0] * q[2]; /* the span of o is counted in memory */
    l->inner = (int64_t)l->problem.heads_q * l->problem.dim_v;
    l->w_stride = l->desc.w_stride ? l->desc.w_stride : l->desc.width;
    l->projection = l->desc.project              ? FA_PROJECT_CALLER
                    : l->transport.device_memory ? FA_PROJECT_DEVICE
                                                 : FA_PROJECT_HOST;
    if (l->projection == FA_PROJECT_HOST)
        FA_TRY(find_host_product(l));
    if (l->projection == FA_PROJECT_DEVICE)
        FA_TRY(find_device_product(l));
    if (l->projection != FA_PROJECT_CALLER)
        FA_TRY(check_o(l));
    l->enqueues = can_enqueue(l);
    (void)snprintf(l->info.projection, sizeof(l->info.projection), "%s",
                   l->desc.project ? "caller"
                   : l->library    ? l->library
                                   : "own");
    return choose(l, c);
}

int64_t fa_rank_rows(const fa_problem *p)
{
    uint64_t sum = 1469598103934665603u;
    for (int64_t n = 0; n < p->sequences; n++) {
        sum = (sum ^ (uint64_t)first_token(p, &p->sequence[n])) * 1099511628211u;
        sum = (sum ^ (uint64_t)p->sequence[n].len_q) * 1099511628211u;
    }
    return (int64_t)(sum >> 1);
}

/* Blocks of rows end at positions of all heads. */
static int64_t block_positions(const fa_sharded_layer *l, const choice *c)
{
    int64_t a = c->info.block_q, b = l->problem.group;
    if (a < 1)
        return 1;
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return c->info.block_q / a;
}

static fa_status cut_tokens(fa_sharded_layer *l, const fa_link_model *model, int64_t unit, int64_t most)
{
    const fa_problem *p = &l->problem;
    most = FA_MAX(1, FA_MIN(most, l->info.tokens / unit));
    const int64_t chunks = l->desc.chunks ? l->desc.chunks : fa_chunks_choose(model, most);
    const size_t bytes = (size_t)p->sequences * sizeof(fa_token_range);
    fa_token_range *ranges = fa_alloc(l->device->context, bytes);
    if (!ranges)
        return FA_OUT_OF_MEMORY;
    for (int64_t n = 0; n < p->sequences; n++)
        ranges[n] = (fa_token_range){first_token(p, &p->sequence[n]), p->sequence[n].len_q};
    l->chunks = fa_chunks_cut(l->info.tokens, chunks, unit, ranges, p->sequences, l->cut);
    fa_release(l->device->context, ranges, bytes);
    return FA_OK;
}

/* The number of chunks, of what all ranks gave. */
static fa_status divide(fa_sharded_layer *l, const fa_rank_share share[FA_RANK_SHARES], const choice *c)
{
    const fa_link_model model = {
        .compute_seconds = share[0].most,
        .bytes = (double)l->info.tokens * (double)l->desc.width * (double)fa_dtype_size(l->desc.y),
        .latency = share[1].most > 0 ? share[1].most : default_latency,
        .bandwidth = share[2].least > 0 ? share[2].least : default_bandwidth,
        .chunk_seconds = share[4].most,
        .overlaps = share[3].least > 0,
        .enqueued = share[5].least > 0,
    };
    const double most =
        model.enqueued ? FA_MIN(share[5].least, FA_SHARDED_MAX_CHUNKS) : FA_SHARDED_MAX_CHUNKS;
    FA_TRY(cut_tokens(l, &model, (int64_t)share[3].most, (int64_t)most));
    l->info.chunks = l->chunks;
    l->info.first = l->cut;
    l->info.overlapped = model.overlaps && l->chunks > 1;
    l->info.attention_seconds = c->info.seconds;
    l->info.projection_seconds = c->product_seconds;
    l->info.reduce_seconds = model.latency + model.bytes / model.bandwidth;
    l->info.in_turn_seconds = fa_chunks_seconds(&model, 1);
    l->info.seconds = fa_chunks_seconds(&model, l->chunks);
    return FA_OK;
}

size_t fa_sharded_layer_w_bytes(const fa_sharded_layer *l)
{
    const int64_t elements = l->inner > 0 ? (l->inner - 1) * l->w_stride + l->desc.width : 0;
    return (size_t)elements * fa_dtype_size(l->desc.w);
}

size_t fa_sharded_layer_y_bytes(const fa_sharded_layer *l)
{
    return (size_t)l->info.tokens * (size_t)l->desc.width * fa_dtype_size(l->desc.y);
}

static fa_status check_sizes(const fa_sharded_layer *l)
{
    size_t y = 0, w = 0;
    if (!fa_grow(&y, (size_t)l->info.tokens * sizeof(float), (size_t)l->desc.width) ||
        !fa_grow(&w, (size_t)l->inner * sizeof(float), (size_t)l->w_stride))
        return fa_fail(FA_OUT_OF_MEMORY,
                       "y of %lld tokens, or w of %lld rows, of width %lld overflows memory",
                       (long long)l->info.tokens, (long long)l->inner, (long long)l->desc.width);
    return FA_OK;
}

static fa_status lay_out(fa_sharded_layer *l)
{
    size_t plans = 0;
    int64_t rows = 0;
    bool fits = true;
    for (int64_t c = 0; c < l->chunks; c++) {
        plans = FA_MAX(plans, fa_plan_workspace(l->plan[c]));
        rows = FA_MAX(rows, l->cut[c + 1] - l->cut[c]);
    }
    plans = fa_align64(plans);
    if (l->enqueues && l->chunks > 1) {
        l->lane_bytes = plans;
        fits = fa_grow(&plans, plans, FA_LAYER_LANES - 1);
    }
    l->w_offset = l->workspace = plans;
    if (l->projection == FA_PROJECT_HOST && l->desc.w != FA_F32)
        fits = fits && fa_grow(&l->workspace, (size_t)(l->inner * l->desc.width), sizeof(float));
    l->y_offset = l->workspace = fa_align64(l->workspace);
    if (l->projection == FA_PROJECT_HOST && l->desc.y != FA_F32)
        fits = fits && fa_grow(&l->workspace, (size_t)(rows * l->desc.width), sizeof(float));
    return fits ? FA_OK : fa_fail(FA_OUT_OF_MEMORY, "the workspace of a layer overflows memory");
}

static fa_status make_marks(fa_sharded_layer *l)
{
    const fa_backend *b = l->device->backend;
    for (int64_t c = 0; c < l->chunks; c++)
        FA_TRY(b->mark_create(l->device, &l->computed[c]));
    if (l->chunks == 1)
        return FA_OK;
    for (int64_t c = 0; c < l->chunks; c++)
        FA_TRY(b->mark_create(l->device, &l->attended[c]));
    FA_TRY(b->mark_create(l->device, &l->begun));
    for (int i = 0; i < FA_LAYER_LANES; i++)
        FA_TRY(fa_queue_make(l->device, false, &l->lane[i]));
    return l->projection == FA_PROJECT_DEVICE ? fa_queue_make(l->device, true, &l->products) : FA_OK;
}

static void drop_mark(const fa_sharded_layer *l, void *mark)
{
    if (mark && fa_device_works(l->device))
        l->device->backend->mark_destroy(l->device, mark);
}

static fa_status make_plans(fa_sharded_layer *l, const fa_attention_desc *attention, const choice *c)
{
    fa_attention_desc d = *attention;
    d.tuning = &c->tuning;
    for (int64_t n = 0; n < l->chunks; n++) {
        const token_span span = {l->cut[n], l->cut[n + 1]};
        FA_TRY(fa_plan_create_edited(l->device, &d, take_tokens, &span, &l->plan[n]));
    }
    if (l->enqueues)
        FA_TRY(make_marks(l));
    return lay_out(l);
}

static double chunk_seconds(const fa_sharded_layer *l)
{
    return fa_chunks_cost(l->device->backend->host_pointers, l->enqueues);
}

static fa_status make(fa_sharded_layer *l, const fa_sharded_layer_desc *desc)
{
    fa_attention_desc attention;
    choice c = {.info = {.struct_size = 0}};
    fa_status status = read(l, desc, &attention, &c);
    if (status == FA_OK)
        status = check_sizes(l);
    const int64_t *q = l->problem.tensor[FA_Q].shape;
    const fa_rank_word words[] = {
        {"attention.q.shape[0]", q[0]},
        {"attention.q.shape[2]", q[2]},
        {"the number of sequences", l->problem.sequences},
        {"the checksum of offsets or lengths of rows", status == FA_OK ? fa_rank_rows(&l->problem) : 0},
        {"width", l->desc.width},
        {"y", (int64_t)l->desc.y},
        {"chunks", l->desc.chunks},
    };
    const fa_transport *t = &l->transport;
    const double unit = (double)block_positions(l, &c);
    fa_rank_share share[FA_RANK_SHARES] = {
        {.own = c.info.seconds + c.product_seconds},
        {.own = t->latency},
        {.own = t->bandwidth},
        {.own = t->any_thread || l->enqueues ? unit : -unit}, /* below 0 on a rank where nothing overlaps */
        {.own = chunk_seconds(l)},
        {.own = l->enqueues ? (double)fa_chunks_filling(c.info.items, l->device->limits.units) : 0},
    };
    FA_TRY(fa_ranks_agree(l->device->context, t, what, status, words, sizeof(words) / sizeof(words[0]), share,
                          FA_RANK_SHARES));
    share[3].most = FA_MAX(share[3].most, -share[3].least);
    status = divide(l, share, &c);
    if (status == FA_OK)
        status = make_plans(l, &attention, &c);
    const fa_rank_word chosen[] = {{"the number of chunks chosen", l->chunks},
                                   {"the first chunk", status == FA_OK ? l->cut[1] : 0}};
    return fa_ranks_agree(l->device->context, t, "the chunks of a sharded layer", status, chosen, 2, NULL, 0);
}

fa_status fa_sharded_layer_create(fa_device *device, const fa_transport *transport,
                                  const fa_sharded_layer_desc *desc, fa_sharded_layer **layer)
{
    fa_transport t;
    fa_clear_error();
    if (!layer)
        return fa_fail(FA_INVALID, "layer is NULL, expected where to store the new layer");
    *layer = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    FA_TRY(fa_transport_read(transport, &t));
    fa_sharded_layer *l = fa_alloc_zeroed(device->context, sizeof(*l));
    if (!l)
        return fa_ranks_agree(device->context, &t, what, FA_OUT_OF_MEMORY, NULL, 0, NULL, 0);
    l->device = device;
    l->transport = t;
    const fa_status status = make(l, desc);
    l->desc.attention = NULL;
    if (status == FA_OK)
        *layer = l;
    else
        fa_sharded_layer_destroy(l);
    return fa_finish(status);
}

void fa_sharded_layer_destroy(fa_sharded_layer *l)
{
    if (!l)
        return;
    for (int64_t c = 0; c < FA_SHARDED_MAX_CHUNKS; c++) {
        fa_plan_destroy(l->plan[c]);
        drop_mark(l, l->computed[c]);
        drop_mark(l, l->attended[c]);
    }
    drop_mark(l, l->begun);
    for (int i = 0; i < FA_LAYER_LANES; i++)
        fa_queue_destroy(l->lane[i]);
    fa_queue_destroy(l->products);
    fa_problem_release(l->device->context, &l->problem);
    fa_release(l->device->context, l, sizeof(*l));
}

size_t fa_sharded_layer_workspace(const fa_sharded_layer *layer)
{
    return layer ? layer->workspace : 0;
}

fa_status fa_sharded_layer_get_info(const fa_sharded_layer *layer, fa_sharded_layer_info *info)
{
    fa_clear_error();
    if (!layer || !info)
        return fa_fail(FA_INVALID, "%s is NULL", layer ? "info" : "layer");
    return fa_fill_struct(&layer->info, sizeof(layer->info), FA_SHARDED_LAYER_INFO_0_1, info,
                          "fa_sharded_layer_info");
}
