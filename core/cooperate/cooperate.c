/* SPDX-License-Identifier: Apache-2.0 */
/* Plans on two devices, and their runs. */
#include "core/cooperate/cooperate.h"

#include <float.h>
#include <string.h>

#include "core/backend.h"
#include "core/binding.h"
#include "core/clock.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"

static fa_status read_link(fa_cooperate *c, const fa_cooperate_desc *d)
{
    if (!(d->link_bandwidth >= 0 && d->link_bandwidth <= DBL_MAX))
        return fa_fail(FA_INVALID, "link_bandwidth is %g, expected a finite number from 0 on",
                       d->link_bandwidth);
    if (!(d->link_seconds >= 0 && d->link_seconds <= DBL_MAX))
        return fa_fail(FA_INVALID, "link_seconds is %g, expected a finite number from 0 on", d->link_seconds);
    if (!(d->host_bandwidth >= 0 && d->host_bandwidth <= DBL_MAX))
        return fa_fail(FA_INVALID, "host_bandwidth is %g, expected a finite number from 0 on",
                       d->host_bandwidth);
    if (!(d->stream_share >= 0 && d->stream_share <= 1))
        return fa_fail(FA_INVALID, "stream_share is %g, expected 0 to 1", d->stream_share);
    c->host_bandwidth = d->host_bandwidth;
    c->stream.forced = d->stream_share;
    c->link_bandwidth = d->link_bandwidth > 0 ? d->link_bandwidth : 10e9;
    c->link_latency = d->link_seconds > 0 ? d->link_seconds : 20e-6;
    return FA_OK;
}

/* Lengths are those of a run. */
static fa_status check_lengths(const fa_problem *p)
{
    if (p->on_device)
        return fa_fail(FA_UNSUPPORTED, "attention->dynamic_lengths is 2, two devices serve 0 and 1: the host "
                                       "divides the keys");
    if (p->has_lens_kv || p->has_first_kv)
        return fa_fail(FA_INVALID, "%s is given, expected NULL: each run has its own",
                       p->has_lens_kv ? "lens_kv" : "first_kv");
    return FA_OK;
}

/*
 * A run of processors ends with the slowest of them, and other threads hold some up: drivers' beside this very run. Many parts
 * even that out; each has to be merged, so only few rows gain by it. `tuning` is the caller's, or is filled.
 */
static void even_out(const fa_cooperate *c, fa_attention_desc *d, fa_tuning *tuning)
{
    enum { ITEMS = 16, FEW_ROWS = 64 };
    const fa_problem *p = &c->home.problem[FA_AWAY];
    const int64_t units = (int64_t)c->away->limits.units, lines = FA_MAX(p->sequences, 1) * p->heads_kv;
    if (d->tuning || !c->away->backend->host_pointers || units < 2 ||
        (int64_t)p->max_len_q * p->group > FEW_ROWS)
        return;
    *tuning = (fa_tuning){.struct_size = sizeof(*tuning),
                          .splits = (int32_t)FA_MIN(fa_ceil_div(ITEMS * units, lines), 1024)};
    d->tuning = tuning;
}

static fa_status make_plan(fa_cooperate *c, const fa_segments_desc *segments, int side)
{
    fa_attention_desc d;
    fa_tuning tuning;
    fa_plan_info info = {.struct_size = sizeof(info)};
    fa_plan **plan = side == FA_AWAY ? &c->away_plan : &c->home.parts.plan[FA_HOME];
    FA_TRY(check_lengths(&c->home.problem[side]));
    FA_TRY(fa_segments_describe(segments, side, &d));
    d = fa_parts_desc(&d);
    d.dynamic_lengths = 1;
    if (side == FA_AWAY)
        even_out(c, &d, &tuning);
    FA_TRY(fa_plan_create(side == FA_AWAY ? c->away : c->home.device, &d, plan));
    FA_TRY(fa_plan_get_info(*plan, &info));
    memcpy(c->kernel[side], info.kernel, sizeof(info.kernel));
    c->pace[side].modelled = info.seconds / (double)FA_MAX(c->home.problem[side].keys, 1);
    return FA_OK;
}

/* Lists of a run, and the memory between the devices. */
static fa_status make_room(fa_cooperate *c)
{
    const fa_context *context = c->home.device->context;
    const fa_parts *parts = &c->home.parts;
    const size_t lists = FA_LISTS, sequences = (size_t)c->home.problem[FA_HOME].sequences;
    c->list_bytes = 2 * lists * sequences * sizeof(int64_t);
    c->list[0] = fa_alloc_zeroed(context, c->list_bytes);
    if (!c->list[0])
        return FA_OUT_OF_MEMORY;
    for (size_t i = 0; i < lists; i++) {
        c->list[i] = c->list[0] + i * sequences;
        c->last[i] = c->list[0] + (lists + i) * sequences;
    }
    c->q_bytes = c->home.problem[FA_HOME].span[FA_Q];
    c->state_lse = fa_align64(parts->part_bytes);
    c->state_bytes = c->state_lse + parts->part_lse_bytes;
    c->state_at = fa_align64(c->q_bytes);
    size_t bytes = c->state_at;
    if (!fa_grow(&bytes, c->state_bytes, 1))
        return fa_fail(FA_OUT_OF_MEMORY, "q and the states overflow memory");
    void *between;
    FA_TRY(fa_host_memory_create(c->home.device, bytes, &between));
    c->between = between;
    c->between_bytes = bytes;
    return FA_OK;
}

/* A buffer of the away device for what lies between: that memory itself where it takes host pointers. */
static fa_status make_away_buffer(const fa_cooperate *c, size_t at, size_t bytes, fa_buffer **buffer)
{
    if (!c->away->backend->host_pointers)
        return fa_buffer_create(c->away, bytes, buffer);
    return fa_buffer_wrap_host(c->away, bytes > 0 ? c->between + at : NULL, bytes, buffer);
}

static fa_status make_buffers(fa_cooperate *c)
{
    const fa_plan *home = c->home.parts.plan[FA_HOME];
    FA_TRY(fa_queue_create(c->away, &c->away_queue));
    FA_TRY(make_away_buffer(c, 0, c->q_bytes, &c->away_q));
    FA_TRY(make_away_buffer(c, c->state_at, c->state_bytes, &c->away_state));
    FA_TRY(fa_buffer_create(c->away, fa_plan_work(c->away_plan), &c->away_work));
    FA_TRY(fa_buffer_create(c->away, fa_plan_workspace(c->away_plan), &c->away_workspace));
    FA_TRY(fa_buffer_create(c->home.device, fa_plan_work(home), &c->home_work));
    return fa_buffer_create(c->home.device, c->home.parts.workspace, &c->home_workspace);
}

static fa_status make(fa_cooperate *c, const fa_cooperate_desc *given)
{
    fa_cooperate_desc desc;
    fa_segments_desc segments;
    fa_attention_desc whole;
    FA_TRY(fa_copy_struct(&desc, sizeof(desc), FA_COOPERATE_DESC_0_1, given, "fa_cooperate_desc"));
    FA_TRY(read_link(c, &desc));
    if (!desc.segments)
        return fa_fail(FA_INVALID, "segments is NULL");
    FA_TRY(
        fa_copy_struct(&segments, sizeof(segments), FA_SEGMENTS_DESC_0_1, desc.segments, "fa_segments_desc"));
    if (segments.segments != FA_HOME + 1)
        return fa_fail(FA_INVALID, "segments->segments is %lld, expected 2: one on each device",
                       (long long)segments.segments);
    FA_TRY(fa_segments_read(&segments, &c->home));
    c->home.parts.count = FA_HOME + 1; /* whose plans, but for this one, lie elsewhere */
    for (int side = FA_AWAY; side <= FA_HOME; side++)
        FA_TRY(fa_segments_name(make_plan(c, &segments, side), side));
    if (desc.stream_bytes > 0) {
        FA_TRY(fa_segments_name(fa_stream_create(c, &segments, desc.stream_bytes), FA_AWAY));
        c->home.parts.count += FA_PIECES;
    }
    FA_TRY(fa_problem_read_desc(segments.attention, &whole));
    FA_TRY(fa_parts_merged(&c->home.parts, c->home.device, &whole, &segments.v_channels,
                           segments.v_channels_stride));
    FA_TRY(make_room(c));
    FA_TRY(make_buffers(c));
    return desc.stream_bytes > 0 ? fa_stream_prepare(c) : FA_OK;
}

fa_status fa_cooperate_create(fa_device *home, fa_device *away, const fa_cooperate_desc *desc,
                              fa_cooperate **cooperate)
{
    fa_clear_error();
    if (!cooperate)
        return fa_fail(FA_INVALID, "cooperate is NULL, expected where to store the new object");
    *cooperate = NULL;
    if (!home || !away || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", !home ? "home" : !away ? "away" : "desc");
    fa_cooperate *c = fa_alloc_zeroed(home->context, sizeof(*c));
    if (!c)
        return FA_OUT_OF_MEMORY;
    c->home.device = home;
    c->away = away;
    const fa_status status = make(c, desc);
    if (status == FA_OK)
        *cooperate = c;
    else
        fa_cooperate_destroy(c);
    return fa_finish(status);
}

void fa_cooperate_destroy(fa_cooperate *c)
{
    if (!c)
        return;
    const fa_context *context = c->home.device->context;
    fa_stream_release(c);
    fa_queue_destroy(c->away_queue);
    fa_buffer_destroy(c->away_q);
    fa_buffer_destroy(c->away_state);
    fa_buffer_destroy(c->away_work);
    fa_buffer_destroy(c->away_workspace);
    fa_buffer_destroy(c->home_work);
    fa_buffer_destroy(c->home_workspace);
    fa_plan_destroy(c->away_plan);
    fa_parts_release(&c->home.parts);
    fa_host_memory_destroy(c->home.device, c->between, c->between_bytes);
    if (c->list[0])
        fa_release(context, c->list[0], c->list_bytes);
    fa_segments_release(&c->home);
    fa_release(context, c, sizeof(*c));
}

/* A run of both plans, whose memory is checked. */
typedef struct pair {
    fa_queue *queue[FA_HOME + 1];
    const fa_plan *plan[FA_HOME + 1];
    fa_attention_args args[FA_HOME + 1];
    fa_attention_args whole; /* with the outputs, for the merge */
    fa_buffer *channels;
    size_t channels_offset;
    fa_spent spent[FA_SHARES];
} pair;

static fa_status take_segment(const fa_segments_args *all, int side, fa_attention_args *args)
{
    fa_segment_args own;
    if (!all->segment || !all->segment[side])
        return all->segment ? fa_fail(FA_INVALID, "args.segment[%d] is NULL", side)
                            : fa_fail(FA_INVALID, "args.segment is NULL");
    FA_TRY(fa_copy_struct(&own, sizeof(own), FA_SEGMENT_ARGS_0_1, all->segment[side], "fa_segment_args"));
    *args = fa_segments_args_of(all, &own);
    return FA_OK;
}

static fa_status check_away(const fa_cooperate *c, const fa_attention_args *args)
{
    const fa_binding binding = fa_binding_of(args);
    return fa_binding_check(&binding, c->away, &c->away_plan->problem, fa_plan_workspace(c->away_plan),
                            fa_plan_work(c->away_plan));
}

static fa_status check_home(const fa_cooperate *c, const fa_attention_args *args)
{
    const fa_binding binding = fa_binding_of(args);
    return fa_binding_check(&binding, c->home.device, &c->home.problem[FA_HOME], c->home.parts.workspace, 0);
}

/* Outputs share no byte with what the away device reads, which may be the same memory. */
static fa_status check_apart(const fa_cooperate *c, const fa_attention_args *whole,
                             const fa_attention_args *away)
{
    const fa_problem *home = &c->home.problem[FA_HOME], *read = &c->away_plan->problem;
    const fa_binding to = fa_binding_of(whole), from = fa_binding_of(away);
    fa_memory memory[FA_OPERANDS];
    int count = 0;
    for (int t = 0; t < FA_OPERANDS; t++) {
        const bool written = fa_operands[t].written;
        const fa_problem *p = written ? home : read;
        const fa_binding *b = written ? &to : &from;
        if (t != FA_Q && p->span[t] > 0 && b->buffer[t])
            memory[count++] =
                (fa_memory){fa_operands[t].name,
                            fa_buffer_extent(&p->tensor[t], p->span[t], b->buffer[t], b->offset[t]), written};
    }
    return fa_memory_check_overlap(memory, count);
}

/* The arguments of both plans' runs. */
static fa_status take_args(const fa_cooperate *c, const fa_segments_args *given, pair *p)
{
    fa_segments_args all = *given;
    if (all.workspace || all.work)
        return fa_fail(FA_INVALID, "args.%s is given, expected NULL: two devices have their own",
                       all.workspace ? "workspace" : "work");
    all.workspace = c->home_workspace;
    all.workspace_offset = 0;
    fa_attention_args *away = &p->args[FA_AWAY];
    FA_TRY(take_segment(&all, FA_AWAY, away));
    FA_TRY(take_segment(&all, FA_HOME, &p->whole));
    FA_TRY(fa_segments_name(check_home(c, &p->whole), FA_HOME));
    FA_TRY(fa_segments_check_channels(&c->home, &all));
    away->q = c->away_q;
    away->o = away->lse = c->away_state;
    away->workspace = c->away_workspace;
    away->work = c->away_work;
    away->q_offset = away->o_offset = 0;
    away->lse_offset = c->state_lse;
    FA_TRY(fa_segments_name(check_away(c, away), FA_AWAY));
    FA_TRY(fa_segments_name(check_apart(c, &p->whole, away), FA_AWAY));
    p->args[FA_HOME] = fa_parts_args(&c->home.parts, &p->whole, FA_HOME);
    p->args[FA_HOME].work = c->home_work;
    p->channels = all.v_channels;
    p->channels_offset = all.v_channels_offset;
    return FA_OK;
}

/* The work of both plans for the keys that each has. It stays where these are those of the run before. */
static fa_status schedule(fa_cooperate *c, const pair *p)
{
    const fa_lengths lengths[FA_HOME + 1] = {
        {.struct_size = sizeof(fa_lengths), .cu_rows_q = c->home.cu_rows, .lens_kv = c->list[FA_AWAY]},
        {.struct_size = sizeof(fa_lengths),
         .cu_rows_q = c->home.cu_rows,
         .lens_kv = c->list[FA_HOME],
         .first_kv = c->list[FA_LIST_FIRST]},
    };
    for (int side = FA_AWAY; side <= FA_HOME; side++) {
        if (!fa_cooperate_scheduled(c, side))
            FA_TRY(fa_segments_name(
                fa_plan_schedule(p->plan[side], p->queue[side], &lengths[side], p->args[side].work, 0),
                side));
    }
    return FA_OK;
}

/* A device in whose queues a call returns when the work is done. */
static bool waits(const pair *p, int side)
{
    return p->queue[side]->device->backend->host_pointers;
}

static fa_status launch(pair *p, int side)
{
    const double begin = fa_clock();
    FA_TRY(fa_segments_name(fa_plan_run(p->plan[side], p->queue[side], &p->args[side]), side));
    if (waits(p, side))
        p->spent[side].seconds = fa_clock() - begin;
    return FA_OK;
}

/* Until a device has computed its states. The wait tells a failure of its work, whatever status that has. */
static fa_status settle(pair *p, int side)
{
    double seconds;
    if (waits(p, side))
        return FA_OK;
    FA_TRY(fa_segments_name(fa_queue_wait(p->queue[side]), side));
    const fa_status status = fa_queue_seconds(p->queue[side], &seconds);
    if (status == FA_UNSUPPORTED || status == FA_INVALID) /* it is not timed, or had nothing to run */
        return FA_OK;
    FA_TRY(fa_segments_name(status, side));
    p->spent[side].seconds = seconds;
    return FA_OK;
}

static fa_status send_query(const fa_cooperate *c, const pair *p)
{
    FA_TRY(fa_buffer_read(p->queue[FA_HOME], p->whole.q, p->whole.q_offset, c->between, c->q_bytes));
    return waits(p, FA_AWAY) ? FA_OK
                             : fa_buffer_write(p->queue[FA_AWAY], c->away_q, 0, c->between, c->q_bytes);
}

static fa_status send_states(const fa_cooperate *c, const pair *p)
{
    const fa_attention_args to = fa_parts_args(&c->home.parts, &p->whole, FA_AWAY);
    const char *states = c->between + c->state_at;
    if (!waits(p, FA_AWAY))
        FA_TRY(fa_buffer_read(p->queue[FA_AWAY], c->away_state, 0, c->between + c->state_at, c->state_bytes));
    /* The next run waits for this queue before it touches that memory. */
    FA_TRY(fa_buffer_write_async(p->queue[FA_HOME], to.o, to.o_offset, states, c->home.parts.part_bytes));
    return fa_buffer_write_async(p->queue[FA_HOME], to.lse, to.lse_offset, states + c->state_lse,
                                 c->home.parts.part_lse_bytes);
}

static fa_status compute(fa_cooperate *c, pair *p)
{
    /* First the one whose call returns while it works. */
    const int first = waits(p, FA_HOME) ? FA_AWAY : FA_HOME;
    FA_TRY(schedule(c, p));
    FA_TRY(send_query(c, p));
    FA_TRY(fa_stream_begin(c, &p->whole, &p->args[FA_AWAY]));
    FA_TRY(launch(p, first));
    FA_TRY(launch(p, first == FA_HOME ? FA_AWAY : FA_HOME));
    FA_TRY(settle(p, FA_AWAY));
    FA_TRY(fa_stream_settle(c, &p->spent[FA_STREAM]));
    FA_TRY(settle(p, FA_HOME));
    FA_TRY(send_states(c, p));
    FA_TRY(fa_stream_clear(c, p->queue[FA_HOME]));
    return fa_parts_merge(&c->home.parts, p->queue[FA_HOME], &p->whole, p->channels, p->channels_offset);
}

/* No queue is left at work on memory that the caller may now release. What failed first is told. */
static void wait_for_all(const fa_cooperate *c, const pair *p)
{
    const fa_message kept = fa_message_keep();
    for (int side = FA_AWAY; side <= FA_HOME; side++)
        (void)fa_queue_wait(p->queue[side]);
    for (int i = 0; c->stream.plan && i < FA_PIECE_BUFFERS; i++)
        (void)fa_queue_wait(c->stream.queue[i]);
    fa_message_restore(&kept);
}

fa_status fa_cooperate_run(fa_cooperate *cooperate, fa_queue *queue, const fa_cooperate_keys *keys,
                           const fa_segments_args *args)
{
    fa_clear_error();
    fa_cooperate *c = cooperate;
    fa_cooperate_keys lists;
    fa_segments_args copy;
    FA_TRY(fa_call_check("cooperate", c, c ? c->home.device : NULL, queue, "args", args));
    if (!keys)
        return fa_fail(FA_INVALID, "keys is NULL");
    FA_TRY(fa_copy_struct(&lists, sizeof(lists), FA_COOPERATE_KEYS_0_1, keys, "fa_cooperate_keys"));
    FA_TRY(fa_copy_struct(&copy, sizeof(copy), FA_SEGMENTS_ARGS_0_1, args, "fa_segments_args"));
    pair p = {.queue = {c->away_queue, queue}, .plan = {c->away_plan, c->home.parts.plan[FA_HOME]}};
    FA_TRY(take_args(c, &copy, &p));
    FA_TRY(fa_cooperate_share(c, &lists, p.spent));
    const bool empty = c->home.problem[FA_HOME].span[FA_O] == 0; /* no rows, and no memory for them */
    const fa_status status = empty ? FA_OK : compute(c, &p);
    if (status != FA_OK) {
        wait_for_all(c, &p);
        memset(c->scheduled, 0, sizeof(c->scheduled));
        return fa_finish(status);
    }
    for (int share = 0; share < FA_SHARES; share++)
        fa_cooperate_learn(c, share, &p.spent[share]);
    c->runs++;
    return fa_finish(FA_OK);
}
