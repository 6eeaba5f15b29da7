/* SPDX-License-Identifier: Apache-2.0 */
/* The tests of a case: the runs of its plan, and what must hold of their results. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tools/conform/conform.h"
#include "tools/scales.h"

static bool compare(const conform_trial *r, const conform_output *output)
{
    if (!r->suite->computes)
        return true;
    check_compare(r->suite->reference, conform_output_o(output), conform_output_lse(output), r->result);
    if (!r->result->ok)
        (void)snprintf(r->message, r->size, "%s", r->result->message);
    return r->result->ok;
}

/* Both were made with the same pattern from their first elements on, so that all behind these must agree. */
static bool same_bits(const conform_output *a, const conform_output *b)
{
    return memcmp(conform_output_o(a), conform_output_o(b), a->o_bytes - a->o_offset) == 0 &&
           (!a->lse ||
            memcmp(conform_output_lse(a), conform_output_lse(b), a->lse_bytes - a->lse_offset) == 0);
}

static bool out_of_memory(const conform_trial *r)
{
    (void)snprintf(r->message, r->size, "out of memory");
    return false;
}

/* Whether every row that meets no hazard is the same, bit for bit. */
static bool same_rows(const conform_trial *r, const conform_output *a, const conform_output *b)
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
static bool test_tame(const conform_trial *r, const conform_output *output)
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
static bool test_pointers(const conform_trial *r, const conform_output *expected)
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

/* On buffers, judged; then once more through the host call, which must give the same bits. There o is aligned, and so are
 * inputs but for layouts that are not: OpenCL and Vulkan have programs of their own for that. */
static bool test_run(const conform_trial *r)
{
    const conform_data *data = &r->suite->data;
    fa_device *device = r->suite->device;
    conform_output first, second;
    bool made_first = conform_output_make(data, &first),
         made = conform_output_make_aligned(data, &second) && made_first;
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
    const conform_trial *r;
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

static bool join_workers(const conform_trial *r, worker *w, const conform_output *expected)
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
static bool test_threads(const conform_trial *r)
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

/* Attention over parts of the keys, one of them empty, merged on the device. */
static bool test_merge(const conform_trial *r)
{
    const conform_data *data = &r->suite->data;
    const fa_tensor *o = &data->desc.o;
    int64_t keys = data->desc.k.shape[2], rows = o->shape[0] * o->shape[1] * o->shape[2],
            size = rows * o->shape[3];
    const int64_t bounds[CONFORM_PARTS + 1] = {0, keys / 3, keys / 3 + 1, keys / 3 + 1, keys};
    float *partial = malloc((size_t)(CONFORM_PARTS * size) * sizeof(float));
    float *partial_lse = malloc((size_t)(CONFORM_PARTS * rows) * sizeof(float));
    conform_output output;
    bool made = conform_output_make(data, &output);
    bool ok = made && partial && partial_lse ? true : out_of_memory(r);
    fa_status status = FA_OK;
    for (int p = 0; p < CONFORM_PARTS && ok && status == FA_OK; p++) {
        fa_attention_desc d;
        fa_inputs in;
        narrow(data, bounds[p], bounds[p + 1], &d, &in);
        status = fa_attention_host(r->suite->device, &d, in.q, in.k, in.v, in.bias, in.keep,
                                   partial + p * size, partial_lse + p * rows);
    }
    fa_merge_desc merge = {
        .struct_size = sizeof(merge),
        .parts = CONFORM_PARTS,
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
static bool run_lengths(const conform_trial *r, const fa_plan *plan, const conform_lengths *lengths)
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
static bool test_lengths(const conform_trial *r)
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

bool conform_judge(const conform_trial *r)
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
