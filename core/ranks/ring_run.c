/* SPDX-License-Identifier: Apache-2.0 */
/* Runs of rings: this thread computes with a block, another one sends it on and receives the next. */
#include <pthread.h>

#include "core/backend.h"
#include "core/binding.h"
#include "core/plan.h"
#include "core/platform.h"
#include "core/ranks/ring.h"
#include "core/status.h"
#include "core/structs.h"

/* One run. Step s computes with the keys of the rank s places before this one, and shifts them by one rank. */
typedef struct ring_run {
    const fa_ring *ring;
    fa_queue *queue;
    fa_attention_args args;
    int32_t step;
    int64_t states[FA_RING_PIECES]; /* that are merged, or written */
    fa_status shifted;              /* of the other thread, and its message */
    fa_message message;
} ring_run;

/* Blocks take turns. */
static size_t block_offset(const ring_run *r, int32_t step)
{
    return r->args.workspace_offset + r->ring->block_at[step % 2];
}

/* Where ranks read and write it. */
static char *travelling(const ring_run *r, int32_t step)
{
    const fa_ring *ring = r->ring;
    return ring->host ? ring->host + (size_t)(step % 2) * ring->block_bytes
                      : (char *)r->args.workspace->address + block_offset(r, step);
}

/* This rank's own keys, as they travel. */
static fa_status pack(const ring_run *r)
{
    const fa_ring *ring = r->ring;
    const size_t at = block_offset(r, 0);
    const fa_append_args args = {
        .struct_size = sizeof(args),
        .k = r->args.k,
        .v = r->args.v,
        .slots = ring->slots,
        .cache_k = r->args.workspace,
        .cache_v = r->args.workspace,
        .k_offset = r->args.k_offset,
        .v_offset = r->args.v_offset,
        .cache_k_offset = at,
        .cache_v_offset = at + ring->v_at,
    };
    if (ring->pack)
        FA_TRY(fa_append_run(ring->pack, r->queue, &args));
    if (ring->host)
        return fa_buffer_read(r->queue, r->args.workspace, at, ring->host, ring->block_bytes);
    return fa_queue_wait(r->queue);
}

static fa_status merge(const ring_run *r, const fa_ring_piece *p, bool last, size_t o_offset)
{
    const size_t at = r->args.workspace_offset;
    const fa_merge_args args = {
        .struct_size = sizeof(args),
        .partial = r->args.workspace,
        .partial_lse = r->args.workspace,
        .o = last ? r->args.o : r->args.workspace,
        .lse = last ? r->args.lse : r->args.workspace,
        .partial_offset = at + p->o_at,
        .partial_lse_offset = at + p->lse_at,
        .o_offset = last ? o_offset : at + p->o_at,
        .lse_offset = last ? r->args.lse_offset + p->lse_offset : at + p->lse_at,
    };
    return fa_merge_run(last ? p->last : p->merge, r->queue, &args);
}

/* Bytes from the first row of a tensor to another. */
static size_t rows_before(const fa_tensor *t, int64_t row)
{
    return row == 0 ? 0 : (size_t)(row * t->stride[2]) * fa_dtype_size(t->dtype);
}

/* A state of a piece's rows, into its place in the workspace: the first, or the one that is merged with it. */
static fa_status run_part(ring_run *r, int i, const fa_ring_part *part)
{
    const fa_ring *ring = r->ring;
    const fa_ring_piece *p = &ring->piece[i];
    const fa_tensor *own = ring->problem.tensor;
    const int64_t number = r->states[i], row = p->rows == 0 ? 0 : p->row;
    const size_t at = r->args.workspace_offset, n = number > 0,
                 o_offset = r->args.o_offset + rows_before(&own[FA_O], row);
    fa_attention_args args = r->args;
    args.q_offset += rows_before(&own[FA_Q], row);
    args.workspace_offset += ring->scratch_at;
    if (r->step > 0) {
        args.k = args.v = r->args.workspace;
        args.k_offset = block_offset(r, r->step);
        args.v_offset = args.k_offset + ring->v_at;
    }
    args.k_offset += rows_before(r->step > 0 ? &ring->block_k : &own[FA_K], part->row);
    args.v_offset += rows_before(r->step > 0 ? &ring->block_v : &own[FA_V], part->row);
    if (p->states > 1) {
        args.o = args.lse = r->args.workspace;
        args.o_offset = at + p->o_at + n * p->o_bytes;
        args.lse_offset = at + p->lse_at + n * p->lse_bytes;
    } else {
        args.o_offset = o_offset;
        args.lse_offset += p->lse_offset;
    }
    FA_TRY(fa_plan_run(fa_ring_plan_of(p, part, r->step == 0), r->queue, &args));
    r->states[i]++;
    return number == 0 ? FA_OK : merge(r, p, r->states[i] == p->states, o_offset);
}

static fa_status run_piece(ring_run *r, int i)
{
    const fa_ring *ring = r->ring;
    const fa_transport *t = &ring->transport;
    fa_ring_part part[FA_RING_PIECES];
    const int parts = fa_ring_parts(&ring->rule, ring->tokens, t->ranks, t->rank, i,
                                    fa_ring_source(t->ranks, t->rank, r->step), part);
    for (int n = 0; n < parts; n++)
        FA_TRY(run_part(r, i, &part[n]));
    return FA_OK;
}

static fa_status compute(ring_run *r)
{
    for (int i = 0; i < FA_RING_PIECES; i++)
        FA_TRY(run_piece(r, i));
    return FA_OK;
}

static fa_status shift(const ring_run *r)
{
    return fa_shift(&r->ring->transport, travelling(r, r->step), travelling(r, r->step + 1),
                    r->ring->block_bytes);
}

/* The other thread. */
static void *shift_beside(void *argument)
{
    ring_run *r = argument;
    r->shifted = shift(r);
    if (r->shifted != FA_OK)
        r->message = fa_message_keep();
    return NULL;
}

/* A block is overwritten in the step behind the one that computes with it: so each step ends with what it computes. */
static fa_status compute_and_wait(ring_run *r)
{
    FA_TRY(compute(r));
    return fa_queue_wait(r->queue);
}

static fa_status run_step(ring_run *r)
{
    pthread_t thread;
    fa_status status;
    if (r->ring->transport.any_thread && fa_thread_start(&thread, shift_beside, r) == 0) {
        status = compute_and_wait(r);
        (void)pthread_join(thread, NULL);
        if (status == FA_OK && r->shifted != FA_OK) {
            status = r->shifted;
            fa_message_restore(&r->message);
        }
        return status;
    }
    FA_TRY(compute(r));
    status = shift(r);
    const fa_message kept = fa_message_keep();
    const fa_status waited = fa_queue_wait(r->queue);
    if (status != FA_OK)
        fa_message_restore(&kept);
    return status != FA_OK ? status : waited;
}

static fa_status run_steps(ring_run *r)
{
    const fa_ring *ring = r->ring;
    const int32_t ranks = ring->transport.ranks;
    if (ranks > 1)
        FA_TRY(pack(r));
    for (; r->step < ranks - 1; r->step++) {
        FA_TRY(run_step(r));
        if (ring->host)
            FA_TRY(fa_buffer_write(r->queue, r->args.workspace, block_offset(r, r->step + 1),
                                   travelling(r, r->step + 1), ring->block_bytes));
    }
    return compute(r);
}

fa_status fa_ring_run(fa_ring *ring, fa_queue *queue, const fa_attention_args *args)
{
    ring_run r = {.ring = ring, .queue = queue};
    fa_clear_error();
    FA_TRY(fa_call_check("ring", ring, ring ? ring->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&r.args, sizeof(r.args), FA_ATTENTION_ARGS_0_1, args, "fa_attention_args"));
    r.args.struct_size = sizeof(r.args);
    if (r.args.work)
        return fa_fail(FA_INVALID, "args.work is given, expected NULL: a ring has no dynamic_lengths");
    if (ring->failed)
        return fa_fail(FA_RANK_LOST, "an earlier run of the ring failed: ranks may stand at different steps");
    fa_binding binding = fa_binding_of(&r.args);
    FA_TRY(fa_binding_share(&ring->problem, &binding));
    FA_TRY(fa_binding_check(&binding, ring->device, &ring->problem, ring->workspace, 0));
    if (ring->block_bytes == 0) /* no sequences or no heads, on all ranks */
        return fa_finish(FA_OK);
    FA_TRY(fa_queue_check(r.queue));
    const fa_status status = run_steps(&r);
    ring->failed = status != FA_OK;
    return fa_finish(status);
}
