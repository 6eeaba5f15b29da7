/* SPDX-License-Identifier: Apache-2.0 */
/* A run: all levels of each batch entry. */
#include "core/binding.h"
#include "core/hyper/hyper.h"
#include "core/plan.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

/* Numbers of states: of the diagonal, then with the samples'; of the samples, then back in the order of rows; of what is done. */
enum { SORTED, OWN, DONE };

/* One batch entry of a run. */
typedef struct entry {
    const fa_hyper *h;
    fa_queue *queue;
    fa_attention_args args; /* of the entry */
} entry;

static size_t at(const entry *e, int place)
{
    return e->args.workspace_offset + e->h->at[place];
}

static size_t state_at(const entry *e, int state)
{
    return at(e, FA_HYPER_STATES) + (size_t)state * e->h->state_bytes;
}

static size_t lse_at(const entry *e, int state)
{
    return at(e, FA_HYPER_LSES) + (size_t)state * e->h->lse_bytes;
}

static fa_status run_hash(const entry *e, const fa_hash *hash, fa_buffer *from, size_t offset, int to)
{
    const fa_hash_args args = {.struct_size = sizeof(args),
                               .from = from,
                               .buckets = e->args.workspace,
                               .from_offset = offset,
                               .buckets_offset = at(e, to)};
    return fa_hash_run(hash, e->queue, &args);
}

static fa_status run_sort(const entry *e, const fa_sort *sort, int keys, int order)
{
    const fa_sort_args args = {.struct_size = sizeof(args),
                               .keys = e->args.workspace,
                               .order = e->args.workspace,
                               .workspace = e->args.workspace,
                               .keys_offset = at(e, keys),
                               .order_offset = at(e, order),
                               .workspace_offset = at(e, FA_HYPER_SCRATCH)};
    return fa_sort_run(sort, e->queue, &args);
}

/* Rows of `from` by an order in the workspace, into the workspace. */
static fa_status run_gather(const entry *e, const fa_gather *gather, fa_buffer *from, size_t offset,
                            int order, size_t to)
{
    const fa_gather_args args = {.struct_size = sizeof(args),
                                 .from = from,
                                 .order = e->args.workspace,
                                 .to = e->args.workspace,
                                 .from_offset = offset,
                                 .order_offset = at(e, order),
                                 .to_offset = to};
    return fa_gather_run(gather, e->queue, &args);
}

static fa_status run_sample(const entry *e, const fa_hyper_level *l, const fa_gather *gather, int from,
                            int to)
{
    const fa_gather_args args = {.struct_size = sizeof(args),
                                 .from = e->args.workspace,
                                 .order = e->h->drawn,
                                 .to = e->args.workspace,
                                 .from_offset = at(e, from),
                                 .order_offset = l->numbers_at,
                                 .to_offset = at(e, to)};
    return fa_gather_run(gather, e->queue, &args);
}

/* A plan whose state is one of the workspace's. */
static fa_status run_plan(const entry *e, const fa_plan *plan, fa_attention_args args, int state)
{
    args.o = args.lse = args.workspace = e->args.workspace;
    args.o_offset = state_at(e, state);
    args.lse_offset = lse_at(e, state);
    args.workspace_offset = at(e, FA_HYPER_SCRATCH);
    return fa_plan_run(plan, e->queue, &args);
}

static fa_status run_sorted(const entry *e, const fa_plan *plan, int k, int v, const fa_hyper_level *weights,
                            int state)
{
    const fa_attention_args args = {.struct_size = sizeof(args),
                                    .q = e->args.workspace,
                                    .k = e->args.workspace,
                                    .v = e->args.workspace,
                                    .bias = weights ? e->h->drawn : NULL,
                                    .q_offset = at(e, FA_HYPER_SORTED_Q),
                                    .k_offset = at(e, k),
                                    .v_offset = at(e, v),
                                    .bias_offset = weights ? weights->weights_at : 0};
    return run_plan(e, plan, args, state);
}

/* States from `first` on into one of them, or into the outputs. */
static fa_status run_merge(const entry *e, const fa_merge *merge, int first, int to)
{
    const bool last = merge == e->h->finish;
    const fa_merge_args args = {.struct_size = sizeof(args),
                                .partial = e->args.workspace,
                                .partial_lse = e->args.workspace,
                                .o = last ? e->args.o : e->args.workspace,
                                .lse = last ? e->args.lse : e->args.workspace,
                                .partial_offset = state_at(e, first),
                                .partial_lse_offset = lse_at(e, first),
                                .o_offset = last ? e->args.o_offset : state_at(e, to),
                                .lse_offset = last ? e->args.lse_offset : lse_at(e, to)};
    return fa_merge_run(merge, e->queue, &args);
}

static fa_status sort_rows(const entry *e, const fa_hyper_level *l)
{
    const fa_hyper *h = e->h;
    const fa_attention_args *a = &e->args;
    FA_TRY(run_sort(e, l->sort_q, FA_HYPER_BUCKETS_Q, FA_HYPER_ORDER_Q));
    FA_TRY(run_sort(e, l->sort_k, FA_HYPER_BUCKETS_K, FA_HYPER_ORDER_K));
    FA_TRY(run_gather(e, h->gather_q, a->q, a->q_offset, FA_HYPER_ORDER_Q, at(e, FA_HYPER_SORTED_Q)));
    FA_TRY(run_gather(e, h->gather_k, a->k, a->k_offset, FA_HYPER_ORDER_K, at(e, FA_HYPER_SORTED_K)));
    FA_TRY(run_gather(e, h->gather_v, a->v, a->v_offset, FA_HYPER_ORDER_K, at(e, FA_HYPER_SORTED_V)));
    FA_TRY(run_sample(e, l, l->sample_k, FA_HYPER_SORTED_K, FA_HYPER_SAMPLED_K));
    return run_sample(e, l, l->sample_v, FA_HYPER_SORTED_V, FA_HYPER_SAMPLED_V);
}

static fa_status run_level(const entry *e, const fa_hyper_level *l)
{
    const fa_hyper *h = e->h;
    fa_buffer *memory = e->args.workspace;
    FA_TRY(sort_rows(e, l));
    FA_TRY(run_sorted(e, l->diagonal, FA_HYPER_SORTED_K, FA_HYPER_SORTED_V, NULL, SORTED));
    FA_TRY(run_sorted(e, l->sampled, FA_HYPER_SAMPLED_K, FA_HYPER_SAMPLED_V, l, OWN));
    FA_TRY(run_merge(e, h->join, SORTED, SORTED));
    FA_TRY(run_gather(e, h->scatter_o, memory, state_at(e, SORTED), FA_HYPER_ORDER_Q, state_at(e, OWN)));
    return run_gather(e, h->scatter_lse, memory, lse_at(e, SORTED), FA_HYPER_ORDER_Q, lse_at(e, OWN));
}

static fa_status run_entry(const entry *e)
{
    const fa_hyper *h = e->h;
    FA_TRY(run_hash(e, h->hash_q, e->args.q, e->args.q_offset, FA_HYPER_BUCKETS_Q));
    FA_TRY(run_hash(e, h->hash_k, e->args.k, e->args.k_offset, FA_HYPER_BUCKETS_K));
    if (h->exact)
        FA_TRY(run_plan(e, h->exact, e->args, DONE));
    for (int i = 0; i < h->levels; i++) {
        FA_TRY(run_level(e, &h->level[i]));
        if (i + 1 < h->levels)
            FA_TRY(run_merge(e, h->add, OWN, DONE));
    }
    return run_merge(e, h->finish, OWN, OWN);
}

/* The bytes from one batch entry to the next. */
static size_t step_of(const fa_hyper *h, int operand)
{
    const fa_tensor *t = &h->problem.tensor[operand];
    return (size_t)t->stride[0] * fa_dtype_size(t->dtype);
}

fa_status fa_hyper_run(const fa_hyper *hyper, fa_queue *queue, const fa_attention_args *args)
{
    fa_clear_error();
    entry e = {.h = hyper, .queue = queue};
    FA_TRY(fa_call_check("hyper", hyper, hyper ? hyper->device : NULL, queue, "args", args));
    if (hyper->levels == 0)
        return fa_plan_run(hyper->exact, queue, args);
    FA_TRY(fa_copy_struct(&e.args, sizeof(e.args), FA_ATTENTION_ARGS_0_1, args, "fa_attention_args"));
    e.args.struct_size = sizeof(e.args);
    const fa_binding binding = fa_binding_of(&e.args);
    FA_TRY(fa_binding_check(&binding, hyper->device, &hyper->problem, hyper->workspace, 0));
    for (int64_t b = 0; b < hyper->problem.tensor[FA_Q].shape[0]; b++) {
        FA_TRY(run_entry(&e));
        e.args.q_offset += step_of(hyper, FA_Q);
        e.args.k_offset += step_of(hyper, FA_K);
        e.args.v_offset += step_of(hyper, FA_V);
        e.args.o_offset += step_of(hyper, FA_O);
        e.args.lse_offset += hyper->lse_bytes;
    }
    return fa_finish(FA_OK);
}
