/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts with sharded keys: the state of each rank's keys, gathered and merged on each. */
#include <math.h>

#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/parts/parts.h"
#include "core/plan.h"
#include "core/ranks/layer.h"
#include "core/ranks/transport.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"

struct fa_sharded_context {
    fa_device *device;
    fa_transport transport;
    fa_problem problem; /* of this rank's keys, with the outputs of all */
    fa_plan *plan;      /* which writes a state */
    fa_merge *merge;
    size_t state_bytes,
        lse_bytes; /* of a rank's outputs, and of their LSEs: a state is one behind the other */
    /* A workspace has the outputs of all ranks, then their LSEs, this rank's own state, and the plan's workspace. */
    size_t lse_offset, own_offset, scratch_offset, workspace;
    bool there;     /* states are gathered where they lie, on all ranks */
    char *gathered; /* this rank's state, then those of all */
    bool failed;    /* a run has: ranks may stand at different gathers */
};

static size_t state_size(const fa_sharded_context *c)
{
    return c->state_bytes + c->lse_bytes;
}

static fa_status lay_out(fa_sharded_context *c)
{
    const int64_t *o = c->problem.tensor[FA_O].shape;
    const size_t states = (size_t)(o[0] * o[1] * o[2]), ranks = (size_t)c->transport.ranks;
    size_t end = 0, host = 0;
    bool fits = fa_grow(&c->state_bytes, states * sizeof(float), (size_t)o[3]);
    c->lse_bytes = states * sizeof(float);
    fits = fits && fa_grow(&end, c->state_bytes, ranks);
    c->lse_offset = end = fa_align64(end);
    fits = fits && fa_grow(&end, c->lse_bytes, ranks);
    c->own_offset = end = fa_align64(end);
    fits = fits && fa_grow(&end, state_size(c), 1);
    c->scratch_offset = end = fa_align64(end);
    fits = fits && fa_grow(&end, fa_plan_workspace(c->plan), 1) && fa_grow(&host, state_size(c), ranks + 1);
    c->workspace = end;
    if (!fits)
        return fa_fail(FA_OUT_OF_MEMORY, "the workspace for %zu states of %zu ranks overflows memory", states,
                       ranks);
    c->gathered = fa_alloc(c->device->context, host);
    return c->gathered ? FA_OK : FA_OUT_OF_MEMORY;
}

static fa_status make_merge(fa_sharded_context *c, const fa_attention_desc *desc)
{
    const fa_merge_desc merge = {
        .struct_size = sizeof(merge),
        .parts = c->transport.ranks,
        .partial = fa_parts_desc(desc).o,
        .o = desc->o,
        .want_lse = desc->want_lse,
    };
    return fa_merge_create(c->device, &merge, &c->merge);
}

/* Each row has a state on each rank. */
static fa_status check_rows(const fa_problem *p)
{
    int64_t rows = 0;
    for (int64_t n = 0; n < p->sequences; n++)
        rows += p->sequence[n].len_q;
    if (p->has_lens_q)
        return fa_fail(FA_UNSUPPORTED, "lens_q is given: a sharded context serves none");
    if (p->packed_q && p->dynamic)
        return fa_fail(FA_UNSUPPORTED,
                       "cu_rows_q is given with dynamic_lengths: a sharded context serves none");
    if (p->packed_q && rows != p->tensor[FA_Q].shape[2])
        return fa_fail(FA_UNSUPPORTED, "cu_rows_q has %lld rows, expected all %lld of q in a sharded context",
                       (long long)rows, (long long)p->tensor[FA_Q].shape[2]);
    return FA_OK;
}

static fa_status make_alone(fa_sharded_context *c, const fa_attention_desc *given, fa_attention_desc *desc)
{
    FA_TRY(fa_problem_read_desc(given, desc));
    FA_TRY(fa_problem_refuse_lists(desc, "a sharded context"));
    FA_TRY(fa_problem_init(c->device->context, desc, &c->problem));
    if (c->problem.want_status)
        return fa_fail(FA_UNSUPPORTED, "want_status is 1, expected 0: a sharded context does not serve it");
    FA_TRY(check_rows(&c->problem));
    const fa_attention_desc own = fa_parts_desc(desc);
    FA_TRY(fa_plan_create(c->device, &own, &c->plan));
    c->plan->keeps_rows = true;
    FA_TRY(make_merge(c, desc));
    return lay_out(c);
}

/* Where ranks can gather what lies on the device, or a backend's memory is the host's. */
static bool gathers_there(const fa_sharded_context *c)
{
    const fa_backend *b = c->device->backend;
    return c->transport.allgather_data &&
           (c->transport.device_memory ? b->device_pointers : b->host_pointers);
}

static fa_status make(fa_sharded_context *c, const fa_attention_desc *given)
{
    fa_attention_desc desc;
    const fa_status status = make_alone(c, given, &desc);
    const fa_problem *p = &c->problem;
    const int64_t *o = p->tensor[FA_O].shape;
    const fa_rank_word words[] = {
        {"q.shape[0]", o[0]},
        {"q.shape[1]", o[1]},
        {"q.shape[2]", o[2]},
        {"v.shape[3]", o[3]},
        {"the number of sequences", p->sequences},
        {"the checksum of offsets or lengths of rows", status == FA_OK ? fa_rank_rows(p) : 0},
        {"scale, as the bits of an f32,", fa_rank_bits(p->scale)},
        {"softcap, as the bits of an f32,", fa_rank_bits(p->softcap)},
    };
    /* The greatest and the least number of a rank that has sinks. */
    const double none = -1 - FA_MAX_RANKS, rank = c->transport.rank;
    fa_rank_share share[3] = {
        {.own = p->sinks ? rank : none}, {.own = p->sinks ? -rank : none}, {.own = gathers_there(c)}};
    FA_TRY(fa_ranks_agree(c->device->context, &c->transport, "a sharded context", status, words,
                          sizeof(words) / sizeof(words[0]), share, 3));
    c->there = share[2].least > 0;
    if (share[0].most > none && share[0].most != -share[1].most)
        return fa_fail(FA_INVALID, "sinks are given on ranks %d and %d, expected on one", (int)-share[1].most,
                       (int)share[0].most);
    return FA_OK;
}

fa_status fa_sharded_context_create(fa_device *device, const fa_transport *transport,
                                    const fa_attention_desc *desc, fa_sharded_context **made)
{
    fa_transport t;
    fa_clear_error();
    if (!made)
        return fa_fail(FA_INVALID, "made is NULL, expected where to store the new object");
    *made = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    FA_TRY(fa_transport_read(transport, &t));
    fa_sharded_context *c = fa_alloc_zeroed(device->context, sizeof(*c));
    if (!c)
        return fa_ranks_agree(device->context, &t, "a sharded context", FA_OUT_OF_MEMORY, NULL, 0, NULL, 0);
    c->device = device;
    c->transport = t;
    const fa_status status = make(c, desc);
    if (status == FA_OK)
        *made = c;
    else
        fa_sharded_context_destroy(c);
    return fa_finish(status);
}

void fa_sharded_context_destroy(fa_sharded_context *c)
{
    if (!c)
        return;
    fa_plan_destroy(c->plan);
    fa_merge_destroy(c->merge);
    fa_problem_release(c->device->context, &c->problem);
    fa_release(c->device->context, c->gathered, state_size(c) * ((size_t)c->transport.ranks + 1));
    fa_release(c->device->context, c, sizeof(*c));
}

size_t fa_sharded_context_workspace(const fa_sharded_context *context)
{
    return context ? context->workspace : 0;
}

const fa_plan *fa_sharded_context_plan(const fa_sharded_context *context)
{
    return context ? context->plan : NULL;
}

/* The state of this rank's keys, in its place in the workspace. */
static fa_status run_own(const fa_sharded_context *c, fa_queue *queue, const fa_attention_args *args)
{
    fa_attention_args own = *args;
    own.o = own.lse = args->workspace;
    own.o_offset = args->workspace_offset + c->own_offset;
    own.lse_offset = own.o_offset + c->state_bytes;
    own.workspace_offset += c->scratch_offset;
    return fa_plan_run(c->plan, queue, &own);
}

static fa_status gather_there(const fa_sharded_context *c, fa_queue *queue, const fa_attention_args *args)
{
    const size_t own_offset = args->workspace_offset + c->own_offset;
    char *const at = (char *)args->workspace->address + args->workspace_offset, *const own =
                                                                                    at + c->own_offset;
    char byte;
    /* It waits, and a queue that records refuses it. */
    FA_TRY(fa_buffer_read(queue, args->workspace, own_offset, &byte, state_size(c) > 0));
    FA_TRY(fa_allgather_data(&c->transport, own, at, c->state_bytes));
    return fa_allgather_data(&c->transport, own + c->state_bytes, at + c->lse_offset, c->lse_bytes);
}

/* Through host memory: states are small beside the keys that they stand for. */
static fa_status gather_on_host(const fa_sharded_context *c, fa_queue *queue, const fa_attention_args *args)
{
    const size_t size = state_size(c);
    char *const all = c->gathered + size;
    FA_TRY(fa_buffer_read(queue, args->workspace, args->workspace_offset + c->own_offset, c->gathered, size));
    FA_TRY(fa_allgather(&c->transport, c->gathered, all, size));
    for (size_t rank = 0; rank < (size_t)c->transport.ranks; rank++) {
        FA_TRY(fa_buffer_write(queue, args->workspace, args->workspace_offset + rank * c->state_bytes,
                               all + rank * size, c->state_bytes));
        FA_TRY(fa_buffer_write(queue, args->workspace,
                               args->workspace_offset + c->lse_offset + rank * c->lse_bytes,
                               all + rank * size + c->state_bytes, c->lse_bytes));
    }
    return FA_OK;
}

static fa_status merge(const fa_sharded_context *c, fa_queue *queue, const fa_attention_args *args)
{
    const fa_merge_args m = {
        .struct_size = sizeof(m),
        .partial = args->workspace,
        .partial_lse = args->workspace,
        .o = args->o,
        .lse = args->lse,
        .partial_offset = args->workspace_offset,
        .partial_lse_offset = args->workspace_offset + c->lse_offset,
        .o_offset = args->o_offset,
        .lse_offset = args->lse_offset,
    };
    return fa_merge_run(c->merge, queue, &m);
}

static fa_status compute(const fa_sharded_context *c, fa_queue *queue, const fa_attention_args *args)
{
    FA_TRY(run_own(c, queue, args));
    FA_TRY(c->there ? gather_there(c, queue, args) : gather_on_host(c, queue, args));
    return merge(c, queue, args);
}

fa_status fa_sharded_context_run(fa_sharded_context *context, fa_queue *queue, const fa_attention_args *args)
{
    fa_attention_args copy;
    fa_clear_error();
    FA_TRY(fa_call_check("context", context, context ? context->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&copy, sizeof(copy), FA_ATTENTION_ARGS_0_1, args, "fa_attention_args"));
    copy.struct_size = sizeof(copy);
    if (context->failed)
        return fa_fail(FA_RANK_LOST,
                       "an earlier run of the context failed: ranks may stand at different gathers");
    fa_binding binding = fa_binding_of(&copy);
    FA_TRY(fa_binding_share(&context->problem, &binding));
    FA_TRY(fa_binding_check(&binding, context->device, &context->problem, context->workspace,
                            copy.work ? fa_plan_work(context->plan) : 0));
    if (state_size(context) == 0) /* no rows, on all ranks */
        return fa_finish(FA_OK);
    const fa_status status = compute(context, queue, &copy);
    context->failed = status != FA_OK;
    return status;
}
