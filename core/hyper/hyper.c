/* SPDX-License-Identifier: Apache-2.0 */
#include "core/hyper/hyper.h"

#include "core/attention/checks.h"
#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/plan.h"
#include "core/portable/lang.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

static fa_status check_sizes(fa_hyper_desc *d)
{
    d->directions = d->directions ? d->directions : 7;
    d->block = d->block ? d->block : 256;
    d->sample = d->sample ? d->sample : 256;
    d->min_seq = d->min_seq ? d->min_seq : 4096;
    FA_TRY(fa_check_limit("directions", d->directions, 1, 16));
    FA_TRY(fa_check_limit("block", d->block, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("sample", d->sample, 1, FA_MAX_LENGTH));
    return fa_check_limit("min_seq", d->min_seq, 1, FA_MAX_LENGTH);
}

static fa_status check_attention(const fa_problem *p, const fa_attention_desc *d)
{
    const unsigned served =
        FA_FEATURE_MASK | FA_FEATURE_SOFTCAP | FA_FEATURE_LSE | FA_FEATURE_GROUPS | FA_FEATURE_SPLIT;
    const unsigned other = p->features & ~served;
    const struct {
        const char *name;
        int64_t value;
    } zero[] = {{"window_left", d->window_left},
                {"window_right", d->window_right},
                {"prefix", d->prefix},
                {"diagonal_offset", d->diagonal_offset},
                {"dynamic_lengths", d->dynamic_lengths}};
    for (size_t i = 0; i < sizeof(zero) / sizeof(zero[0]); i++) {
        if (zero[i].value != 0)
            return fa_fail(FA_UNSUPPORTED, "attention->%s is %lld, HyperAttention serves 0", zero[i].name,
                           (long long)zero[i].value);
    }
    if (other)
        return fa_fail(FA_UNSUPPORTED, "attention has %s, which HyperAttention does not serve",
                       fa_feature_name(other & ~(other - 1)));
    FA_TRY(fa_dtype_check_float(d->k.dtype, "attention->k.dtype"));
    FA_TRY(fa_dtype_check_float(d->v.dtype, "attention->v.dtype"));
    if (d->mask != FA_MASK_NONE && d->q.shape[2] != d->k.shape[2])
        return fa_fail(
            FA_UNSUPPORTED,
            "attention->mask is causal with %lld rows, HyperAttention serves %lld, as many as keys",
            (long long)d->q.shape[2], (long long)d->k.shape[2]);
    return FA_OK;
}

/* The description of one batch entry, with strides that are told. */
static void take_entry(fa_hyper *h, const fa_attention_desc *d)
{
    const fa_problem *p = &h->problem;
    fa_tensor *tensor[] = {&h->entry.q, &h->entry.k, &h->entry.v, &h->entry.o};
    static const int of[] = {FA_Q, FA_K, FA_V, FA_O};
    h->entry = *d;
    for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
        *tensor[i] = p->tensor[of[i]];
        tensor[i]->shape[0] = 1;
    }
}

static fa_tensor state_of(const fa_hyper *h)
{
    return fa_tensor_make(FA_F32, 1, h->problem.heads_q, h->entry.q.shape[2], h->problem.dim_v);
}

/* Of the ends of the recursion; without levels, of all. */
static fa_status make_exact(fa_hyper *h, const fa_attention_desc *whole)
{
    fa_attention_desc d = h->entry;
    fa_hyper_cut cut;
    if (h->levels == 0)
        return fa_plan_create(h->device, whole, &h->exact);
    if (d.mask == FA_MASK_NONE)
        return FA_OK;
    fa_status status = fa_hyper_cut_make(h, h->levels, &cut);
    d.o = state_of(h);
    d.want_lse = 1;
    d.sequences = cut.sequences;
    d.cu_rows_q = d.cu_rows_kv = cut.cu_q;
    if (status == FA_OK)
        status = fa_plan_create(h->device, &d, &h->exact);
    fa_hyper_cut_release(h, &cut);
    return status;
}

static fa_status make_hash(const fa_hyper *h, const fa_tensor *from, fa_hash **hash)
{
    const fa_hash_desc d = {
        .struct_size = sizeof(d), .from = *from, .directions = h->desc.directions, .seed = h->desc.seed};
    return fa_hash_create(h->device, &d, hash);
}

/* Rows of a tensor of an entry into their order, or back from there. */
static fa_status make_gather(const fa_hyper *h, const fa_tensor *from, bool scatter, fa_gather **gather)
{
    const int64_t *s = from->shape;
    const fa_gather_desc d = {.struct_size = sizeof(d),
                              .from = *from,
                              .to = fa_tensor_make(from->dtype, 1, s[1], s[2], s[3]),
                              .order = fa_tensor_make(FA_I32, 1, s[1], s[2], 1),
                              .scatter = scatter};
    return fa_gather_create(h->device, &d, gather);
}

static fa_status make_merge(const fa_hyper *h, int64_t parts, const fa_tensor *o, int32_t want_lse,
                            fa_merge **merge)
{
    const fa_merge_desc d = {
        .struct_size = sizeof(d), .parts = parts, .partial = state_of(h), .o = *o, .want_lse = want_lse};
    return fa_merge_create(h->device, &d, merge);
}

static fa_status make_moves(fa_hyper *h)
{
    const fa_tensor state = state_of(h), lse = fa_tensor_make(FA_F32, 1, state.shape[1], state.shape[2], 1);
    const int64_t ends = h->exact != NULL;
    FA_TRY(make_hash(h, &h->entry.q, &h->hash_q));
    FA_TRY(make_hash(h, &h->entry.k, &h->hash_k));
    FA_TRY(make_gather(h, &h->entry.q, false, &h->gather_q));
    FA_TRY(make_gather(h, &h->entry.k, false, &h->gather_k));
    FA_TRY(make_gather(h, &h->entry.v, false, &h->gather_v));
    FA_TRY(make_gather(h, &state, true, &h->scatter_o));
    FA_TRY(make_gather(h, &lse, true, &h->scatter_lse));
    FA_TRY(make_merge(h, 2, &state, 1, &h->join));
    if (h->levels > 1)
        FA_TRY(make_merge(h, 2, &state, 1, &h->add));
    return make_merge(h, 1 + ends, &h->entry.o, h->entry.want_lse, &h->finish);
}

/* What a run's scratch memory must hold, of one part after another. */
static size_t scratch_of(const fa_hyper *h)
{
    size_t most = fa_plan_workspace(h->exact);
    for (int i = 0; i < h->levels; i++) {
        const fa_hyper_level *l = &h->level[i];
        const size_t bytes[] = {fa_plan_workspace(l->diagonal), fa_plan_workspace(l->sampled),
                                fa_sort_workspace(l->sort_q), fa_sort_workspace(l->sort_k)};
        for (size_t n = 0; n < sizeof(bytes) / sizeof(bytes[0]); n++)
            most = FA_MAX(most, bytes[n]);
    }
    return most;
}

static fa_status lay_out(fa_hyper *h)
{
    const fa_problem *p = &h->problem;
    const fa_attention_desc *e = &h->entry;
    const size_t rows = (size_t)p->heads_q * (size_t)e->q.shape[2],
                 keys = (size_t)p->heads_kv * (size_t)e->k.shape[2],
                 sampled = (size_t)p->heads_kv * (size_t)h->level[h->levels - 1].sampled_keys,
                 states = h->exact ? 3 : 2;
    const size_t row_q = (size_t)p->dim_qk * fa_dtype_size(e->q.dtype),
                 row_k = (size_t)p->dim_qk * fa_dtype_size(e->k.dtype),
                 row_v = (size_t)p->dim_v * fa_dtype_size(e->v.dtype),
                 row_o = (size_t)p->dim_v * sizeof(float);
    const struct {
        size_t count, bytes;
    } place[FA_HYPER_PLACES] = {
        [FA_HYPER_BUCKETS_Q] = {rows, sizeof(int32_t)},
        [FA_HYPER_BUCKETS_K] = {keys, sizeof(int32_t)},
        [FA_HYPER_ORDER_Q] = {rows, sizeof(int32_t)},
        [FA_HYPER_ORDER_K] = {keys, sizeof(int32_t)},
        [FA_HYPER_SORTED_Q] = {rows, row_q},
        [FA_HYPER_SORTED_K] = {keys, row_k},
        [FA_HYPER_SORTED_V] = {keys, row_v},
        [FA_HYPER_SAMPLED_K] = {sampled, row_k},
        [FA_HYPER_SAMPLED_V] = {sampled, row_v},
        [FA_HYPER_STATES] = {rows * states, row_o},
        [FA_HYPER_LSES] = {rows * states, sizeof(float)},
        [FA_HYPER_SCRATCH] = {scratch_of(h), 1},
    };
    size_t end = 0;
    for (int n = 0; n < FA_HYPER_PLACES; n++) {
        h->at[n] = end;
        if (!fa_grow(&end, place[n].count, place[n].bytes) || !fa_grow(&end, (64 - end % 64) % 64, 1))
            return fa_fail(FA_OUT_OF_MEMORY,
                           "the workspace for %zu rows and %zu keys of all heads overflows memory", rows,
                           keys);
    }
    h->state_bytes = rows * row_o;
    h->lse_bytes = rows * sizeof(float);
    h->workspace = end;
    return FA_OK;
}

static fa_status write_drawn(const fa_hyper *h, const char *drawn, size_t bytes)
{
    fa_queue *queue;
    FA_TRY(fa_queue_create(h->device, &queue));
    fa_status status = fa_buffer_write(queue, h->drawn, 0, drawn, bytes);
    if (status == FA_OK)
        status = fa_queue_wait(queue);
    fa_queue_destroy(queue);
    return status;
}

static fa_status make_drawn(fa_hyper *h, size_t bytes)
{
    FA_TRY(fa_buffer_create(h->device, bytes, &h->drawn));
    char *drawn = fa_alloc_zeroed(h->device->context, bytes);
    if (!drawn)
        return FA_OUT_OF_MEMORY;
    fa_status status = FA_OK;
    for (int i = 0; i < h->levels && status == FA_OK; i++)
        status = fa_hyper_level_draw(h, i, drawn);
    if (status == FA_OK)
        status = write_drawn(h, drawn, bytes);
    fa_release(h->device->context, drawn, bytes);
    return status;
}

static fa_status create(fa_hyper *h, const fa_hyper_desc *given)
{
    fa_attention_desc whole;
    size_t drawn = 0;
    FA_TRY(fa_copy_struct(&h->desc, sizeof(h->desc), FA_HYPER_DESC_0_1, given, "fa_hyper_desc"));
    if (!h->desc.attention)
        return fa_fail(FA_INVALID, "attention is NULL");
    FA_TRY(check_sizes(&h->desc));
    FA_TRY(fa_problem_read_desc(h->desc.attention, &whole));
    FA_TRY(fa_problem_init(h->device->context, &whole, &h->problem));
    h->has_problem = true;
    h->desc.attention = NULL;
    FA_TRY(check_attention(&h->problem, &whole));
    take_entry(h, &whole);
    h->levels = fa_hyper_levels(h);
    FA_TRY(make_exact(h, &whole));
    h->workspace = fa_plan_workspace(h->exact);
    if (h->levels == 0)
        return FA_OK;
    for (int i = 0; i < h->levels; i++)
        FA_TRY(fa_hyper_level_make(h, i, &drawn));
    FA_TRY(make_moves(h));
    FA_TRY(lay_out(h));
    return make_drawn(h, drawn);
}

void fa_hyper_destroy(fa_hyper *h)
{
    if (!h)
        return;
    fa_plan_destroy(h->exact);
    fa_hash_destroy(h->hash_q);
    fa_hash_destroy(h->hash_k);
    fa_gather *const gather[] = {h->gather_q, h->gather_k, h->gather_v, h->scatter_o, h->scatter_lse};
    for (size_t i = 0; i < sizeof(gather) / sizeof(gather[0]); i++)
        fa_gather_destroy(gather[i]);
    fa_merge_destroy(h->join);
    fa_merge_destroy(h->add);
    fa_merge_destroy(h->finish);
    for (int i = 0; i < h->levels; i++)
        fa_hyper_level_release(&h->level[i]);
    fa_buffer_destroy(h->drawn);
    if (h->has_problem)
        fa_problem_release(h->device->context, &h->problem);
    fa_release(h->device->context, h, sizeof(*h));
}

fa_status fa_hyper_create(fa_device *device, const fa_hyper_desc *desc, fa_hyper **hyper)
{
    fa_clear_error();
    if (!hyper)
        return fa_fail(FA_INVALID, "hyper is NULL, expected where to store the new HyperAttention");
    *hyper = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    fa_hyper *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->device = device;
    const fa_status status = create(made, desc);
    if (status == FA_OK)
        *hyper = made;
    else
        fa_hyper_destroy(made);
    return fa_finish(status);
}

size_t fa_hyper_workspace(const fa_hyper *hyper)
{
    return hyper ? hyper->workspace : 0;
}
