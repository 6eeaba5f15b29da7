/* SPDX-License-Identifier: Apache-2.0 */
/* One case on one kernel. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/conform/conform.h"
#include "tools/scales.h"

/* A plan for `length` rows and keys of dim 64, of some type that the kernel serves, with v in k where it serves nothing else:
 * what it works in is the kernel's own. */
static bool probe(fa_device *device, const char *kernel, int64_t length, int32_t block_q, int32_t block_kv,
                  fa_plan_info *info)
{
    fa_tuning tuning = {
        .struct_size = sizeof(tuning), .kernel = kernel, .block_q = block_q, .block_kv = block_kv};
    for (int i = 0; i < 6; i++) {
        const fa_dtype dtype = (fa_dtype)(FA_F32 + i % 3);
        fa_tensor t = fa_tensor_make(dtype, 1, 1, length, 64);
        fa_attention_desc desc = {
            .struct_size = sizeof(desc), .q = t, .k = t, .v = t, .o = t, .tuning = &tuning, .v_in_k = i / 3};
        fa_plan *plan;
        if (fa_plan_create(device, &desc, &plan) != FA_OK)
            continue;
        *info = (fa_plan_info){.struct_size = sizeof(*info)};
        fa_status status = fa_plan_get_info(plan, info);
        fa_plan_destroy(plan);
        return status == FA_OK;
    }
    return false;
}

void conform_suite_kernels(conform_suite *suite)
{
    const char *at = suite->info.kernels;
    while (*at && suite->kernels < CONFORM_MAX_KERNELS) {
        conform_kernel *kernel = &suite->kernel[suite->kernels++];
        int length = (int)strcspn(at, ",");
        (void)snprintf(kernel->name, sizeof(kernel->name), "%.*s", length, at);
        at += length + (at[length] == ',');
    }
}

static bool needs_tile(const conform_case *c)
{
    return c->blocks == CONFORM_BLOCKS_TWO_TILES || c->len_q.base == CONFORM_TILE ||
           c->len_kv.base == CONFORM_TILE;
}

/* Blocks of two tiles, or of one where the kernel has none that large. */
static void choose_blocks(fa_device *device, conform_kernel *kernel)
{
    fa_plan_info info;
    kernel->two_q =
        probe(device, kernel->name, 256, 2 * kernel->tile_q, 0, &info) ? 2 * kernel->tile_q : kernel->tile_q;
    kernel->two_kv = probe(device, kernel->name, 256, 0, 2 * kernel->tile_kv, &info) ? 2 * kernel->tile_kv
                                                                                     : kernel->tile_kv;
}

/* What the case needs to know of the kernel, and no more: a backend may have to compile programs for it. */
static bool measure_kernel(fa_device *device, const conform_case *c, conform_kernel *kernel, char *message,
                           size_t size)
{
    bool tile = needs_tile(c) && kernel->tile_q == 0,
         blocks = c->blocks == CONFORM_BLOCKS_LONG && kernel->long_block_q == 0;
    fa_plan_info info;
    if ((tile && !probe(device, kernel->name, 256, 0, 0, &info)) ||
        (blocks && !probe(device, kernel->name, 4096, 0, 0, &info))) {
        (void)snprintf(message, size, "kernel %s is listed but serves no attention without extras: %s",
                       kernel->name, fa_last_error());
        return false;
    }
    if (tile || blocks) {
        kernel->tile_q = info.tile_q;
        kernel->tile_kv = info.tile_kv;
    }
    if (c->blocks == CONFORM_BLOCKS_TWO_TILES && kernel->two_q == 0)
        choose_blocks(device, kernel);
    if (blocks) {
        kernel->long_block_q = info.block_q;
        kernel->long_block_kv = info.block_kv;
    }
    return true;
}

static int32_t resolve_length(conform_length length, int32_t tile, int32_t block)
{
    int32_t base = length.base == CONFORM_TILE ? tile : length.base == CONFORM_BLOCK ? block : 0;
    return base + length.add > 0 ? base + length.add : 0;
}

static conform_sizes resolve(const conform_case *c, const conform_kernel *kernel)
{
    conform_sizes s = {0};
    if (c->blocks == CONFORM_BLOCKS_NUMBERS) {
        s.block_q = c->block_q;
        s.block_kv = c->block_kv;
    } else if (c->blocks == CONFORM_BLOCKS_TWO_TILES) {
        s.block_q = kernel->two_q;
        s.block_kv = kernel->two_kv;
    } else if (c->blocks == CONFORM_BLOCKS_LONG) {
        s.block_q = kernel->long_block_q;
        s.block_kv = kernel->long_block_kv;
    }
    s.len_q = resolve_length(c->len_q, kernel->tile_q, s.block_q);
    s.len_kv = resolve_length(c->len_kv, kernel->tile_kv, s.block_kv);
    if (c->layout == CONFORM_PACKED)
        s.len_kv = s.len_q;
    return s;
}

/* About what a case takes: each input with a copy to compare with, in a buffer, and to read back; each output twice, in
 * a buffer, and as the oracle and naive results; the work of the oracle. */
static double bytes_of(const conform_case *c, const conform_sizes *sizes)
{
    double rows = (double)c->batch * c->heads_q * sizes->len_q,
           keys = (double)c->batch * c->heads_kv * sizes->len_kv;
    double scores =
        (c->bias_axes == CONFORM_NO_AXES ? 0.0 : 4.0) + (c->keep_axes == CONFORM_NO_AXES ? 0.0 : 1.0);
    double inputs = sizeof(float) * (rows * c->dim_qk + keys * (c->dim_qk + c->dim_v)) +
                    scores * (double)c->batch * c->heads_q * sizes->len_q * sizes->len_kv;
    return 4 * inputs + rows * c->dim_v * (3 * sizeof(float) + 2 * sizeof(double)) + keys * 3 * sizeof(float);
}

/* Whether memory holds the case. The system is asked only where that can matter. */
static bool fits(const conform_suite *suite, const conform_case *c, const conform_sizes *sizes, char *message,
                 size_t size)
{
    const double careful = 128 << 20;
    double bytes = bytes_of(c, sizes);
    return suite->ignore_memory || bytes < careful || cli_memory_fits(bytes, message, size);
}

void conform_suite_forget(conform_suite *suite)
{
    check_reference_destroy(suite->reference);
    conform_data_free(&suite->data);
    suite->reference = NULL;
    suite->current = NULL;
}

/* The case's data, made anew only when the last kernel's cannot be used. */
static bool take_data(conform_suite *suite, const conform_case *c, const conform_sizes *sizes)
{
    if (suite->current == c && memcmp(&suite->sizes, sizes, sizeof(*sizes)) == 0)
        return true;
    conform_suite_forget(suite);
    if (!conform_data_make(c, sizes, suite->seed, &suite->data)) {
        conform_data_free(&suite->data);
        return false;
    }
    suite->current = c;
    suite->sizes = *sizes;
    return true;
}

/* What the result should be, made once for all kernels. False, with the reason. */
static bool take_reference(conform_suite *suite, check_means means, char *message, size_t size)
{
    bool same = suite->means.weights == means.weights;
    if (suite->computes && (!suite->reference || !same)) {
        const conform_data *data = &suite->data;
        check_reference_destroy(suite->reference);
        suite->reference = NULL;
        suite->means = means;
        fa_status status =
            check_reference_create(suite->context, &data->desc, &data->inputs, &means, &suite->reference);
        if (status != FA_OK)
            (void)snprintf(message, size, "%s from the oracle: %s", fa_status_name(status), fa_last_error());
        if (status != FA_OK || !conform_oracles_agree(data, suite->reference, message, size))
            return false;
    }
    if (suite->current->hazard >= CONFORM_HIDDEN)
        conform_poison(&suite->data, suite->current->hazard);
    return true;
}

/* What runs of one case share. */
typedef struct run {
    conform_suite *suite;
    const conform_case *c;
    const fa_plan *plan;
    check_result *result;
    char *message;
    size_t size;
} run;

static bool compare(const run *r, const conform_output *output)
{
    if (!r->suite->computes)
        return true;
    check_compare(r->suite->reference, conform_output_o(output), conform_output_lse(output), r->result);
    if (!r->result->ok)
        (void)snprintf(r->message, r->size, "%s", r->result->message);
    return r->result->ok;
}

/* Both outputs were made with the same pattern, so that all of their memory must agree. */
static bool same_bits(const conform_output *a, const conform_output *b)
{
    return memcmp(a->o, b->o, a->o_bytes) == 0 && (!a->lse || memcmp(a->lse, b->lse, a->lse_bytes) == 0);
}

static bool out_of_memory(const run *r)
{
    (void)snprintf(r->message, r->size, "out of memory");
    return false;
}

/* Whether every row that meets no hazard is the same, bit for bit. */
static bool same_rows(const run *r, const conform_output *a, const conform_output *b)
{
    const conform_data *data = &r->suite->data;
    fa_tensor o = conform_strides(data->desc.o);
    size_t bytes = (size_t)o.shape[3] * fa_dtype_size(o.dtype);
    for (int64_t n = 0; n < conform_sequences(&data->desc); n++) {
        conform_part p = conform_part_q(&data->desc, n);
        for (int64_t at = 0; at < o.shape[1] * p.count; at++) {
            int64_t head = at / p.count, i = at % p.count, row = p.begin + i;
            int64_t lse = (p.batch * o.shape[1] + head) * o.shape[2] + row;
            size_t from = (size_t)conform_index(&o, p.batch, head, row) * fa_dtype_size(o.dtype);
            const char *o_a = conform_output_o(a), *o_b = conform_output_o(b);
            const float *lse_a = conform_output_lse(a), *lse_b = conform_output_lse(b);
            bool same = memcmp(o_a + from, o_b + from, bytes) == 0 &&
                        (!lse_a || memcmp(lse_a + lse, lse_b + lse, sizeof(*lse_a)) == 0);
            if (same || conform_meets_hazard(data, n, head, i))
                continue;
            (void)snprintf(r->message, r->size,
                           "row [%lld,%lld,%lld] has other bits when what it does not see is finite",
                           (long long)p.batch, (long long)head, (long long)row);
            return false;
        }
    }
    return true;
}

/* What a row does not see leaves no trace in it: once more with inputs that are finite. */
static bool test_tame(const run *r, const conform_output *output)
{
    conform_data *data = &r->suite->data;
    if (!data->tame[CONFORM_Q] || !r->suite->computes)
        return true;
    conform_output tame;
    bool made = conform_output_make(data, &tame);
    conform_data_exchange(data);
    bool ok = made ? conform_execute(r->suite->device, r->plan, data, NULL, &tame, r->message, r->size)
                   : out_of_memory(r);
    conform_data_exchange(data);
    ok = ok && same_rows(r, output, &tame);
    conform_output_free(&tame);
    return ok;
}

/* Devices whose memory is the host's. Others refuse; OpenCL's take it wrapped. */
static bool runs_on_pointers(const conform_suite *suite)
{
    return suite->info.host_memory && strcmp(suite->info.backend, "opencl") != 0;
}

/* The plan on host pointers as they are. */
static bool test_pointers(const run *r, const conform_output *expected)
{
    const conform_data *data = &r->suite->data;
    conform_output output;
    bool ok = conform_output_make(data, &output) || out_of_memory(r);
    ok = ok && conform_execute_pointers(r->suite->device, r->plan, data, NULL, &output, r->message, r->size);
    ok = ok && conform_output_intact(&output, data, r->message, r->size);
    if (ok && !same_bits(expected, &output)) {
        (void)snprintf(r->message, r->size,
                       "fa_plan_run_host gave other bits than the run on buffers before it");
        ok = false;
    }
    conform_output_free(&output);
    return ok;
}

/* On buffers, judged; then once more through the host call, which must give the same bits. */
static bool test_run(const run *r)
{
    const conform_data *data = &r->suite->data;
    fa_device *device = r->suite->device;
    conform_output first, second;
    bool made_first = conform_output_make(data, &first),
         made = conform_output_make(data, &second) && made_first;
    bool ok =
        made ? conform_execute(device, r->plan, data, NULL, &first, r->message, r->size) : out_of_memory(r);
    ok = ok && conform_output_intact(&first, data, r->message, r->size) && compare(r, &first);
    const bool host = data->desc.page_table.shape[0] == 0 && !scales_given(&data->desc, true) &&
                      !scales_given(&data->desc, false); /* which fa_attention_host() does not take */
    ok = ok && (!host || conform_execute_host(device, data, &second, r->message, r->size));
    ok = ok && (!host || conform_output_intact(&second, data, r->message, r->size));
    if (ok && host && !same_bits(&first, &second)) {
        (void)snprintf(r->message, r->size,
                       "fa_attention_host gave other bits than the run on buffers before it");
        ok = false;
    }
    ok = ok && (!runs_on_pointers(r->suite) || test_pointers(r, &first));
    ok = ok && test_tame(r, &first);
    conform_output_free(&first);
    conform_output_free(&second);
    return ok;
}

typedef struct worker {
    const run *r;
    conform_output output;
    char message[256];
    bool ok;
} worker;

static void *work(void *argument)
{
    enum { REPEATS = 8 };
    worker *w = argument;
    const conform_suite *suite = w->r->suite;
    w->ok = true;
    for (int i = 0; i < REPEATS && w->ok; i++)
        w->ok = conform_execute(suite->device, w->r->plan, &suite->data, NULL, &w->output, w->message,
                                sizeof(w->message));
    return NULL;
}

static bool join_workers(const run *r, worker *w, const conform_output *expected)
{
    enum { WORKERS = 2 };
    pthread_t thread[WORKERS];
    int started = 0;
    while (started < WORKERS && pthread_create(&thread[started], NULL, work, &w[started]) == 0)
        started++;
    for (int i = 0; i < started; i++)
        (void)pthread_join(thread[i], NULL);
    if (started < WORKERS) {
        (void)snprintf(r->message, r->size, "a thread could not be started");
        return false;
    }
    for (int i = 0; i < WORKERS; i++) {
        if (!w[i].ok)
            (void)snprintf(r->message, r->size, "one of two threads: %s", w[i].message);
        else if (!same_bits(&w[i].output, expected))
            (void)snprintf(r->message, r->size, "two threads on one plan: other bits than from one thread");
        else
            continue;
        return false;
    }
    return true;
}

/* Two threads run one plan on queues of their own, over and over. */
static bool test_threads(const run *r)
{
    const conform_data *data = &r->suite->data;
    conform_output expected;
    worker w[2] = {{.r = r}, {.r = r}};
    bool made = conform_output_make(data, &expected);
    made = conform_output_make(data, &w[0].output) && made;
    made = conform_output_make(data, &w[1].output) && made;
    bool ok = made ? conform_execute(r->suite->device, r->plan, data, NULL, &expected, r->message, r->size)
                   : out_of_memory(r);
    ok = ok && compare(r, &expected) && join_workers(r, w, &expected);
    conform_output_free(&expected);
    conform_output_free(&w[0].output);
    conform_output_free(&w[1].output);
    return ok;
}

static const void *shifted(const void *base, fa_dtype dtype, int64_t elements)
{
    return base ? (const char *)base + (size_t)elements * fa_dtype_size(dtype) : NULL;
}

/* An extra tensor's columns [begin, end), or all of it where it has one column for all keys. */
static const void *take_columns(fa_tensor *t, const void *base, int64_t begin, int64_t end)
{
    *t = conform_strides(*t);
    if (t->shape[0] == 0 || t->shape[3] == 1)
        return base;
    t->shape[3] = end - begin;
    return shifted(base, t->dtype, begin * t->stride[3]);
}

/* The same attention over keys [begin, end) alone, rows keeping their positions; o becomes contiguous f32. */
static void narrow(const conform_data *data, int64_t begin, int64_t end, fa_attention_desc *d, fa_inputs *in)
{
    *d = data->desc;
    *in = data->inputs;
    int64_t keys = d->k.shape[2];
    d->k = conform_strides(d->k);
    d->v = conform_strides(d->v);
    in->k = shifted(in->k, d->k.dtype, begin * d->k.stride[2]);
    in->v = shifted(in->v, d->v.dtype, begin * d->v.stride[2]);
    d->k.shape[2] = d->v.shape[2] = end - begin;
    in->bias = take_columns(&d->bias, in->bias, begin, end);
    in->keep = take_columns(&d->keep, in->keep, begin, end);
    d->o = fa_tensor_make(FA_F32, d->o.shape[0], d->o.shape[1], d->o.shape[2], d->o.shape[3]);
    bool top_left = d->mask == FA_MASK_CAUSAL_TOP_LEFT || d->alignment == FA_ALIGN_TOP_LEFT;
    d->diagonal_offset += top_left ? -begin : keys - end;
    d->prefix = d->prefix > begin ? d->prefix - begin : 0;
    if (begin > 0)
        d->sinks = NULL; /* they count once */
}

enum { PARTS = 4 };

/* Attention over parts of the keys, one of them empty, merged on the device. */
static bool test_merge(const run *r)
{
    const conform_data *data = &r->suite->data;
    const fa_tensor *o = &data->desc.o;
    int64_t keys = data->desc.k.shape[2], rows = o->shape[0] * o->shape[1] * o->shape[2],
            size = rows * o->shape[3];
    const int64_t bounds[PARTS + 1] = {0, keys / 3, keys / 3 + 1, keys / 3 + 1, keys};
    float *partial = malloc((size_t)(PARTS * size) * sizeof(float));
    float *partial_lse = malloc((size_t)(PARTS * rows) * sizeof(float));
    conform_output output;
    bool made = conform_output_make(data, &output);
    bool ok = made && partial && partial_lse ? true : out_of_memory(r);
    fa_status status = FA_OK;
    for (int p = 0; p < PARTS && ok && status == FA_OK; p++) {
        fa_attention_desc d;
        fa_inputs in;
        narrow(data, bounds[p], bounds[p + 1], &d, &in);
        status = fa_attention_host(r->suite->device, &d, in.q, in.k, in.v, in.bias, in.keep,
                                   partial + p * size, partial_lse + p * rows);
    }
    fa_merge_desc merge = {
        .struct_size = sizeof(merge),
        .parts = PARTS,
        .partial = fa_tensor_make(FA_F32, o->shape[0], o->shape[1], o->shape[2], o->shape[3]),
        .o = *o,
        .want_lse = 1,
    };
    if (ok && status == FA_OK && r->suite->computes)
        status = conform_execute_merge(r->suite->device, &merge, partial, partial_lse, &output);
    if (status != FA_OK)
        (void)snprintf(r->message, r->size, "%s from a part or the merge: %s", fa_status_name(status),
                       fa_last_error());
    ok = ok && status == FA_OK && conform_output_intact(&output, data, r->message, r->size) &&
         compare(r, &output);
    conform_output_free(&output);
    free(partial);
    free(partial_lse);
    return ok;
}

/* One run with lengths of its own, and where that can be, one on host pointers, which has the same bits. */
static bool run_lengths(const run *r, const fa_plan *plan, const conform_lengths *lengths)
{
    const conform_data *data = &r->suite->data;
    fa_device *device = r->suite->device;
    conform_output first, second;
    bool made = conform_output_make(data, &first);
    made = conform_output_make(data, &second) && made;
    bool ok =
        made ? conform_execute(device, plan, data, lengths, &first, r->message, r->size) : out_of_memory(r);
    ok = ok && conform_output_intact(&first, data, r->message, r->size) && compare(r, &first);
    if (ok && runs_on_pointers(r->suite)) {
        ok = conform_execute_pointers(device, plan, data, lengths, &second, r->message, r->size);
        if (ok && !same_bits(&first, &second)) {
            (void)snprintf(r->message, r->size, "fa_plan_run_host gave other bits with lengths of its own");
            ok = false;
        }
    }
    conform_output_free(&first);
    conform_output_free(&second);
    return ok;
}

/* Runs of plans that were made for these lengths, and for others. */
static bool test_lengths(const run *r)
{
    conform_lengths lengths;
    fa_plan *other = NULL;
    bool ok = conform_lengths_make(&r->suite->data, &lengths) || out_of_memory(r);
    ok = ok && run_lengths(r, r->plan, &lengths);
    if (ok && fa_plan_create(r->suite->device, &lengths.other, &other) != FA_OK) {
        (void)snprintf(r->message, r->size, "no plan for other lengths: %s", fa_last_error());
        ok = false;
    }
    lengths.planned = &lengths.other;
    ok = ok && run_lengths(r, other, &lengths);
    fa_plan_destroy(other);
    conform_lengths_free(&lengths);
    return ok && test_run(r);
}

static bool is_baseline(const char *kernel)
{
    const char *const suffix = "standard";
    size_t length = strlen(kernel), tail = strlen(suffix);
    return length >= tail && strcmp(kernel + length - tail, suffix) == 0;
}

/* A kernel may decline a case, but what it declines, another kernel of the OpenMP backend must serve. */
static conform_status declined(conform_suite *suite, const char *reason, char *message, size_t size)
{
    fa_attention_desc desc = suite->data.desc;
    fa_tuning tuning = suite->data.tuning;
    tuning.kernel = NULL;
    desc.tuning = &tuning;
    /* Others are not asked: to answer, a GPU's backend compiles. */
    if (strcmp(suite->info.backend, "openmp") != 0 ||
        fa_device_supports(suite->device, &desc, NULL, 0) == FA_OK) {
        (void)snprintf(message, size, "%s", reason);
        return CONFORM_SKIPPED;
    }
    (void)snprintf(message, size, "no kernel of the backend serves this: %s", fa_last_error());
    return CONFORM_FAILED;
}

/* The planner's answers must hold together. */
static bool check_plan(const fa_plan_info *info, const conform_kernel *kernel, const conform_sizes *sizes,
                       char *message, size_t size)
{
    int32_t excess_q = info->block_q - sizes->block_q, excess_kv = info->block_kv - sizes->block_kv;
    bool rounded = info->block_q % info->tile_q == 0 && info->block_kv % info->tile_kv == 0;
    bool forced_q = sizes->block_q == 0 || (excess_q >= 0 && excess_q < info->tile_q);
    bool forced_kv = sizes->block_kv == 0 || (excess_kv >= 0 && excess_kv < info->tile_kv);
    if (strcmp(info->kernel, kernel->name) != 0)
        (void)snprintf(message, size, "the plan's kernel is %s although %s was forced", info->kernel,
                       kernel->name);
    else if (!is_baseline(kernel->name) && !(rounded && forced_q && forced_kv))
        (void)snprintf(message, size, "the plan has blocks of %d x %d in tiles of %d x %d, asked for %d x %d",
                       info->block_q, info->block_kv, info->tile_q, info->tile_kv, sizes->block_q,
                       sizes->block_kv);
    else
        return true;
    return false;
}

static bool dispatch(const run *r)
{
    switch (r->c->test) {
    case CONFORM_THREADS: return test_threads(r);
    case CONFORM_MERGE: return test_merge(r);
    case CONFORM_LENGTHS:
    case CONFORM_DEVICE_LENGTHS: return test_lengths(r);
    case CONFORM_LOST_PAGES:
        return test_run(r) &&
               conform_lose_pages(r->suite, r->plan, runs_on_pointers(r->suite), r->message, r->size);
    default: return test_run(r);
    }
}

static conform_status run_plan(conform_suite *suite, const conform_case *c, const conform_kernel *kernel,
                               const fa_plan *plan, check_result *result, char *message, size_t size)
{
    fa_plan_info info = {.struct_size = sizeof(info)};
    fa_status status = fa_plan_get_info(plan, &info);
    if (status != FA_OK) {
        (void)snprintf(message, size, "%s from fa_plan_get_info: %s", fa_status_name(status),
                       fa_last_error());
        return CONFORM_FAILED;
    }
    const check_means means = {info.weights, c->test == CONFORM_MERGE ? PARTS : 0};
    if (!check_plan(&info, kernel, &suite->sizes, message, size) ||
        !take_reference(suite, means, message, size))
        return CONFORM_FAILED;
    const run r = {suite, c, plan, result, message, size};
    return dispatch(&r) ? CONFORM_PASSED : CONFORM_FAILED;
}

/* The name of a random case says nothing. */
static void add_description(const conform_case *c, char *message, size_t size)
{
    size_t used = strlen(message);
    char text[384];
    if (strncmp(c->name, "random/", strlen("random/")) != 0)
        return;
    conform_describe(c, text, sizeof(text));
    (void)snprintf(message + used, size - used, " (%s)", text);
}

conform_status conform_run(conform_suite *suite, const conform_case *c, conform_kernel *kernel,
                           check_result *result, char *message, size_t size)
{
    char reason[512];
    fa_plan *plan;
    *result = (check_result){0};
    if (!measure_kernel(suite->device, c, kernel, message, size))
        return CONFORM_FAILED;
    conform_sizes sizes = resolve(c, kernel);
    if (!fits(suite, c, &sizes, message, size))
        return CONFORM_SKIPPED;
    if (!take_data(suite, c, &sizes)) {
        (void)snprintf(message, size, "out of memory");
        return CONFORM_FAILED;
    }
    suite->data.tuning.kernel = kernel->name;
    fa_status supported = fa_device_supports(suite->device, &suite->data.desc, reason, sizeof(reason));
    fa_status planned = fa_plan_create(suite->device, &suite->data.desc, &plan);
    conform_status outcome = CONFORM_FAILED;
    if (supported != planned)
        (void)snprintf(message, size, "fa_device_supports says %s (%s), fa_plan_create %s (%s)",
                       fa_status_name(supported), reason, fa_status_name(planned),
                       planned ? fa_last_error() : "");
    else if (supported == FA_UNSUPPORTED)
        outcome = declined(suite, reason, message, size);
    else if (supported != FA_OK)
        (void)snprintf(message, size, "%s: %s", fa_status_name(supported), reason);
    else
        outcome = run_plan(suite, c, kernel, plan, result, message, size);
    fa_plan_destroy(plan);
    if (outcome == CONFORM_FAILED)
        add_description(c, message, size);
    return outcome;
}
