/* SPDX-License-Identifier: Apache-2.0 */
/* Which layers' caches lie where, and what that costs. */
#include <fastattn/cooperate.h>
#include <float.h>

#include "core/cooperate/cooperate.h"
#include "core/portable/lang.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

/* Buffers of a layer's size: one is computed in while the other is copied. */
enum { BUFFERS = 2 };

/* What does not fit into 64 bits fits into no memory either, not even one that is said to have UINT64_MAX bytes: sums and
 * products stop at that number, which is then no size. */
static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t plus(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return a == UINT64_MAX ? a : a / b + (a % b != 0);
}

/* A machine and a model whose fields are filled and right. */
typedef struct problem {
    fa_cooperate_machine machine;
    fa_cooperate_model model;
} problem;

static fa_status check_count(const char *name, int64_t value, int64_t most)
{
    if (value >= 1 && value <= most)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s is %lld, expected 1 to %lld", name, (long long)value, (long long)most);
}

static fa_status check_rate(const char *name, double value)
{
    if (value > 0 && value <= DBL_MAX)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s is %g, expected a finite number above 0", name, value);
}

static fa_status check_machine(fa_cooperate_machine *m)
{
    if (m->devices == 0)
        m->devices = 1;
    FA_TRY(check_count("machine.devices", m->devices, 1 << 20));
    FA_TRY(check_rate("machine.device_bandwidth", m->device_bandwidth));
    FA_TRY(check_rate("machine.host_bandwidth", m->host_bandwidth));
    FA_TRY(check_rate("machine.link_bandwidth", m->link_bandwidth));
    FA_TRY(check_rate("machine.device_flops", m->device_flops));
    FA_TRY(check_rate("machine.host_flops", m->host_flops));
    if (!(m->link_seconds >= 0 && m->link_seconds <= DBL_MAX))
        return fa_fail(FA_INVALID, "machine.link_seconds is %g, expected a finite number from 0 on",
                       m->link_seconds);
    if (!(m->memory_bandwidth >= 0 && m->memory_bandwidth <= DBL_MAX))
        return fa_fail(FA_INVALID, "machine.memory_bandwidth is %g, expected a finite number from 0 on",
                       m->memory_bandwidth);
    return FA_OK;
}

/* The bytes of a row of so many dims, where its type tells them. */
static fa_status row_bytes(const char *type, fa_dtype dtype, const char *name, int64_t dims, uint64_t *bytes)
{
    if (fa_dtype_size(dtype) == 0)
        return fa_fail(FA_INVALID, "%s is %d, which is no fa_dtype", type, (int)dtype);
    FA_TRY(fa_dtype_check_cache(dtype, type));
    if (dtype == FA_BITMAP_F16 || dtype == FA_FP8_DS_MLA)
        return fa_fail(FA_INVALID, "%s is %s and model.kv_bytes 0, expected the bytes of a token", type,
                       fa_dtype_name(dtype));
    if (dims % fa_dtype_block(dtype) != 0)
        return fa_fail(FA_INVALID, "%s is %lld, expected a multiple of %lld, as %s is %s", name,
                       (long long)dims, (long long)fa_dtype_block(dtype), type, fa_dtype_name(dtype));
    *bytes = (uint64_t)(dims / fa_dtype_block(dtype)) * fa_dtype_size(dtype);
    return FA_OK;
}

static fa_status fill_kv_bytes(fa_cooperate_model *m)
{
    uint64_t k, v;
    if (m->kv_bytes > 0)
        return FA_OK;
    FA_TRY(row_bytes("model.k_type", m->k_type, "model.dim_qk", m->dim_qk, &k));
    FA_TRY(row_bytes("model.v_type", m->v_type, "model.dim_v", m->dim_v, &v));
    m->kv_bytes = (uint64_t)m->heads_kv * (k + v);
    return FA_OK;
}

static fa_status check_model(const fa_cooperate_machine *machine, fa_cooperate_model *m)
{
    enum { MOST = 1 << 20 };
    if (m->sequences == 0)
        m->sequences = 1;
    if (m->dim_v == 0)
        m->dim_v = m->dim_qk;
    FA_TRY(check_count("model.layers", m->layers, MOST));
    FA_TRY(check_count("model.heads_kv", m->heads_kv, MOST));
    FA_TRY(check_count("model.heads_q", m->heads_q, MOST));
    FA_TRY(check_count("model.dim_qk", m->dim_qk, FA_MAX_HEAD_DIM));
    FA_TRY(check_count("model.dim_v", m->dim_v, FA_MAX_HEAD_DIM));
    FA_TRY(check_count("model.sequences", m->sequences, MOST));
    if (m->heads_q % m->heads_kv != 0)
        return fa_fail(FA_INVALID, "model.heads_q is %lld, expected a multiple of model.heads_kv, %lld",
                       (long long)m->heads_q, (long long)m->heads_kv);
    if (m->heads_kv % machine->devices != 0)
        return fa_fail(FA_INVALID, "model.heads_kv is %lld, expected a multiple of machine.devices, %lld",
                       (long long)m->heads_kv, (long long)machine->devices);
    if (!(m->weight_flops >= 0 && m->weight_flops <= DBL_MAX))
        return fa_fail(FA_INVALID, "model.weight_flops is %g, expected a finite number from 0 on",
                       m->weight_flops);
    if (m->weight_flops == 0)
        m->weight_flops = (double)m->weight_bytes;
    return fill_kv_bytes(m);
}

/* A context in memory. */
typedef struct layout {
    bool fits;
    int64_t on_device; /* layers */
    uint64_t layer;    /* bytes of one layer's cache on one device */
    uint64_t device, host;
} layout;

static layout lay_out(const problem *p, int64_t context)
{
    const fa_cooperate_machine *m = &p->machine;
    const fa_cooperate_model *of = &p->model;
    const uint64_t devices = (uint64_t)m->devices, layers = (uint64_t)of->layers;
    const uint64_t tokens = (uint64_t)context * (uint64_t)of->sequences; /* below 2^48 */
    layout l = {.layer = divide_up(times(tokens, of->kv_bytes), devices)};
    const uint64_t rest = plus(plus(divide_up(of->weight_bytes, devices), of->activation_bytes),
                               times(tokens, of->activation_token_bytes));
    if (rest > m->device_bytes || rest == UINT64_MAX || l.layer == UINT64_MAX)
        return l;
    const uint64_t rooms = (m->device_bytes - rest) / l.layer;
    if (rooms < layers && rooms < BUFFERS)
        return l;
    const uint64_t kept = rooms >= layers ? layers : rooms - BUFFERS;
    l.on_device = (int64_t)kept;
    l.device = rest + (kept == layers ? layers : rooms) * l.layer;
    l.host = times(times(layers - kept, l.layer), devices);
    l.fits = l.host <= m->host_bytes && l.host < UINT64_MAX;
    return l;
}

/* The longest context that fits, or that needs nothing of the host. What fits, fits if it is shorter. */
static int64_t longest(const problem *p, bool device_alone)
{
    int64_t fits = 0, not = (int64_t)FA_MAX_LENGTH + 1;
    while (not -fits > 1) {
        const int64_t middle = fits + (not -fits) / 2;
        const layout l = lay_out(p, middle);
        if (l.fits && (l.host == 0 || !device_alone))
            fits = middle;
        else
            not = middle;
    }
    return fits;
}

/* Seconds of one layer's attention, of one token's step. Those of the host are of its part of all devices. */
typedef struct step {
    double device, host, copy, messages;
} step;

static step step_of(const problem *p, int64_t context, const layout *l)
{
    const fa_cooperate_machine *m = &p->machine;
    const fa_cooperate_model *of = &p->model;
    const double devices = (double)m->devices, layer = (double)l->layer, sequences = (double)of->sequences,
                 heads = (double)of->heads_q / devices,
                 flops = 2 * sequences * (double)context * heads * (double)(of->dim_qk + of->dim_v);
    /* A query in f16 and the token's new K and V, to the host; a state in f32, back. */
    const double there = sequences * (heads * (double)of->dim_qk * 2 + (double)of->kv_bytes / devices),
                 back = sequences * heads * (double)(of->dim_v + 1) * sizeof(float);
    return (step){
        .device = FA_MAX(layer / m->device_bandwidth, flops / m->device_flops),
        .host = FA_MAX(layer * devices / m->host_bandwidth, flops * devices / m->host_flops),
        .copy = layer / m->link_bandwidth + m->link_seconds,
        .messages = (there + back) / m->link_bandwidth + 2 * m->link_seconds,
    };
}

/* The share of each layer's keys on the host where both end at the same time, as far as memories allow it. */
static double split_of(const problem *p, const layout *l, const step *s)
{
    const double layers = (double)p->model.layers, least = (double)(p->model.layers - l->on_device) / layers,
                 most =
                     (double)p->machine.host_bytes / (layers * (double)l->layer * (double)p->machine.devices);
    const double even = (s->device - s->messages) / (s->device + s->host);
    return FA_MAX(FA_MIN(even, FA_MIN(most, 1)), least);
}

/* Of each layer's keys the share `away` is on the host. What the processors read more slowly while copies read too. */
static void fill_stream(const problem *p, const layout *l, const step *s, double weights, double away,
                        fa_cooperate_placement *out)
{
    const fa_cooperate_machine *m = &p->machine;
    const double devices = (double)m->devices, layers = (double)p->model.layers,
                 bytes = (double)l->layer * devices;
    const double rate = fa_cooperate_left(m->memory_bandwidth, bytes / s->host, m->link_bandwidth * devices);
    const fa_paces paces = {.away = bytes / rate, .home = s->device, .stream = s->copy, .link = s->messages};
    const double streamed = away > 0 ? fa_cooperate_streamed(&paces, away) : 0;
    const double on_host = (away - streamed) * paces.away + paces.link, copied = streamed * paces.stream,
                 on_device = (1 - away + streamed) * paces.home;
    const double seconds = weights + layers * FA_MAX(FA_MAX(on_host, copied), on_device);
    const bool pays = streamed > 0 && seconds < out->decode[FA_COOPERATE_SPLIT];
    out->stream_host = pays ? streamed : 0;
    out->decode_stream = pays ? seconds : out->decode[FA_COOPERATE_SPLIT];
}

static void fill_decode(const problem *p, int64_t context, const layout *l, fa_cooperate_placement *out)
{
    const fa_cooperate_machine *m = &p->machine;
    const double layers = (double)p->model.layers, host = layers - (double)l->on_device;
    const double devices = (double)m->devices;
    const step s = step_of(p, context, l);
    const double weights =
        FA_MAX((double)p->model.weight_bytes / devices / m->device_bandwidth,
               (double)p->model.sequences * p->model.weight_flops / devices / m->device_flops);
    const double share = split_of(p, l, &s);
    const double both = FA_MAX((1 - share) * s.device, share * s.host + (share > 0 ? s.messages : 0));
    const double computed = weights + layers * s.device;
    out->split_host = share;
    out->decode[FA_COOPERATE_COPY] = host > 0 ? FA_MAX(host * s.copy + s.device, computed) : computed;
    out->decode[FA_COOPERATE_HOST] = weights + (double)l->on_device * s.device + host * (s.host + s.messages);
    out->decode[FA_COOPERATE_SPLIT] = weights + layers * both;
    fill_stream(p, l, &s, weights, share, out);
    for (int way = FA_COOPERATE_COPY; way < FA_COOPERATE_WAYS; way++) {
        if (out->decode[way] < out->decode[out->decode_way])
            out->decode_way = way;
    }
}

/* So many layers are computed, then others; of the first, each is copied out while the next is computed. */
static double pipeline(double copied, double others, double compute, double copy)
{
    if (copied == 0)
        return others * compute;
    return compute + (copied - 1) * FA_MAX(compute, copy) + FA_MAX(copy, others * compute);
}

static void fill_prefill(const problem *p, int64_t context, const layout *l, fa_cooperate_placement *out)
{
    const fa_cooperate_machine *m = &p->machine;
    const fa_cooperate_model *of = &p->model;
    const double layers = (double)of->layers, on_device = (double)l->on_device;
    const double tokens = (double)context, sequences = (double)of->sequences, devices = (double)m->devices;
    const double pairs = sequences * tokens * (tokens + 1) / 2 * (double)of->heads_q / devices;
    const double attention = 2 * pairs * (double)(of->dim_qk + of->dim_v) / m->device_flops;
    const double weights = sequences * tokens * of->weight_flops / devices / m->device_flops / layers;
    const double compute = attention + weights, copy = (double)l->layer / m->link_bandwidth + m->link_seconds;
    out->prefill[FA_COOPERATE_COPY] = out->prefill[FA_COOPERATE_HOST] =
        pipeline(layers - on_device, on_device, compute, copy);
    out->prefill[FA_COOPERATE_SPLIT] =
        out->split_host > 0 ? pipeline(layers, 0, compute, out->split_host * copy) : layers * compute;
}

static fa_status read_problem(const fa_cooperate_machine *machine, const fa_cooperate_model *model,
                              problem *p)
{
    FA_TRY(fa_copy_struct(&p->machine, sizeof(p->machine), FA_COOPERATE_MACHINE_0_1, machine,
                          "fa_cooperate_machine"));
    FA_TRY(fa_copy_struct(&p->model, sizeof(p->model), FA_COOPERATE_MODEL_0_1, model, "fa_cooperate_model"));
    FA_TRY(check_machine(&p->machine));
    return check_model(&p->machine, &p->model);
}

fa_status fa_cooperate_place(const fa_cooperate_machine *machine, const fa_cooperate_model *model,
                             int64_t context, fa_cooperate_placement *placement)
{
    fa_clear_error();
    problem p;
    if (!machine || !model || !placement)
        return fa_fail(FA_INVALID, "%s is NULL", !machine ? "machine" : !model ? "model" : "placement");
    FA_TRY(read_problem(machine, model, &p));
    FA_TRY(check_count("context", context, FA_MAX_LENGTH));
    const layout l = lay_out(&p, context);
    fa_cooperate_placement made = {
        .context = context,
        .fits = l.fits,
        .context_device = longest(&p, true),
        .context_longest = longest(&p, false),
        .layer_bytes = l.layer,
    };
    if (l.fits) {
        made.layers_device = l.on_device;
        made.layers_host = p.model.layers - l.on_device;
        made.device_used = l.device;
        made.host_used = l.host;
        fill_decode(&p, context, &l, &made);
        fill_prefill(&p, context, &l, &made);
    }
    return fa_fill_struct(&made, sizeof(made), FA_COOPERATE_PLACEMENT_0_1, placement,
                          "fa_cooperate_placement");
}

const char *fa_cooperate_way_name(fa_cooperate_way way)
{
    static const char *const name[FA_COOPERATE_WAYS] = {"copy", "host", "split"};
    return (unsigned)way < FA_COOPERATE_WAYS ? name[way] : "unknown";
}
