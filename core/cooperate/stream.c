/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of the away cache that pass through two buffers of the home device, and are computed there. */
#include <math.h>
#include <string.h>

#include "core/backend.h"
#include "core/clock.h"
#include "core/context.h"
#include "core/cooperate/cooperate.h"
#include "core/plan.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

enum { VALUES_ALIGNMENT = 256 }; /* of where they begin in a piece, behind its keys */

static fa_status check_device(const fa_device *away)
{
    if (away->backend->host_pointers)
        return FA_OK;
    return fa_fail(FA_UNSUPPORTED,
                   "stream_bytes is given, and %s has memory of its own: only host memory is streamed",
                   away->info.name);
}

static fa_status check_cache(const fa_segments_desc *segments, const fa_attention_desc *d)
{
    const struct {
        const char *name;
        const fa_tensor *tensor;
    } row[] = {{"page_table", &d->page_table},
               {"k_scale", &d->k_scale},
               {"v_scale", &d->v_scale},
               {"k_zero", &d->k_zero},
               {"v_zero", &d->v_zero}};
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        if (!fa_tensor_is_absent(row[i].tensor))
            return fa_fail(FA_UNSUPPORTED, "%s is given, streaming serves none", row[i].name);
    }
    if (!fa_tensor_is_absent(&segments->v_channels) && segments->v_channels_stride != 0)
        return fa_fail(FA_UNSUPPORTED,
                       "v_channels_stride is %lld, streaming serves 0: all parts have the same",
                       (long long)segments->v_channels_stride);
    return FA_OK;
}

/* The stride of keys has no meaning in a cache of one key or none. A piece needs one. */
static fa_tensor with_stride(const fa_tensor *cache)
{
    fa_tensor t = *cache;
    if (t.shape[2] <= 1 || fa_tensor_is_empty(&t))
        t.stride[2] = t.shape[3];
    return t;
}

/* Of a side: its ranges, whose bytes in a piece are not yet known. */
static fa_status read_side(const fa_tensor *t, const char *name, fa_piece_side *side)
{
    const bool together = t->stride[1] < t->stride[2]; /* the heads of a key, in one range */
    if (FA_TYPE_PRUNES((int)t->dtype))
        return fa_fail(FA_UNSUPPORTED, "%s is %s, streaming serves rows of one size", name,
                       fa_dtype_name(t->dtype));
    side->token = (size_t)fa_dtype_bytes(t->dtype, t->stride[2]);
    side->last = (size_t)fa_tensor_row_bytes(t);
    side->ranges = together ? 1 : t->shape[1];
    if (together)
        side->last += (size_t)fa_dtype_bytes(t->dtype, (t->shape[1] - 1) * t->stride[1]);
    side->cache[0] = t->shape[0] > 1 ? (size_t)fa_dtype_bytes(t->dtype, t->stride[0]) : 0;
    side->cache[1] = together ? 0 : (size_t)fa_dtype_bytes(t->dtype, t->stride[1]);
    if (side->last <= side->token)
        return FA_OK;
    return fa_fail(FA_UNSUPPORTED, "%s.stride[2] is %lld: keys lie among each other, and are not streamed",
                   name, (long long)t->stride[2]);
}

/* A side of pieces of so many keys, from byte `at` of a buffer on. False: it overflows memory. */
static bool lay_out_side(const fa_tensor *t, int64_t keys, size_t at, fa_piece_side *side, fa_tensor *piece)
{
    const int64_t heads = t->shape[1];
    side->at = at;
    side->bytes = side->piece[0] = side->piece[1] = 0;
    *piece = *t;
    piece->shape[2] = keys;
    piece->stride[1] = side->ranges > 1 || heads == 1 ? keys * t->stride[2] : t->stride[1];
    piece->stride[0] = side->ranges * keys * t->stride[2];
    return fa_grow(&side->piece[1], side->token, (size_t)keys) &&
           fa_grow(&side->piece[0], side->piece[1], (size_t)side->ranges) &&
           fa_grow(&side->bytes, side->piece[0], (size_t)t->shape[0]);
}

/* As many keys as two pieces have room for, and no more than all in two. */
static fa_status choose_keys(fa_cooperate *c, uint64_t bytes, const fa_tensor tensor[2])
{
    enum { STEP = 64 };
    fa_stream *s = &c->stream;
    size_t key = 0;
    for (int i = 0; i < 2; i++) {
        if (!fa_grow(&key, s->side[i].token * (size_t)s->side[i].ranges, (size_t)tensor[i].shape[0]))
            return fa_fail(FA_OUT_OF_MEMORY, "a key of each sequence overflows memory");
    }
    const uint64_t each = bytes / FA_PIECE_BUFFERS,
                   room = each > VALUES_ALIGNMENT ? (each - VALUES_ALIGNMENT) / FA_MAX(key, 1) : 0;
    const int64_t all = fa_ceil_div(FA_MAX(c->home.problem[FA_AWAY].keys, 1), FA_PIECE_BUFFERS);
    if (room == 0)
        return fa_fail(
            FA_INVALID, "stream_bytes is %llu, expected %llu or more: two pieces of a key of each sequence",
            (unsigned long long)bytes, (unsigned long long)FA_PIECE_BUFFERS * (key + VALUES_ALIGNMENT));
    s->keys = room < (uint64_t)all ? (int64_t)room : all;
    if (s->keys > STEP && s->keys < all)
        s->keys -= s->keys % STEP;
    c->pace[FA_STREAM].modelled = (double)key / c->link_bandwidth;
    return FA_OK;
}

static fa_status make_plan(fa_cooperate *c, fa_attention_desc *d)
{
    fa_plan_info info = {.struct_size = sizeof(info)};
    fa_stream *s = &c->stream;
    *d = fa_parts_desc(d);
    d->dynamic_lengths = 1;
    FA_TRY(fa_plan_create(c->home.device, d, &s->plan));
    FA_TRY(fa_plan_get_info(s->plan, &info));
    memcpy(s->kernel, info.kernel, sizeof(info.kernel));
    return FA_OK;
}

fa_status fa_stream_create(fa_cooperate *c, const fa_segments_desc *segments, uint64_t bytes)
{
    fa_stream *s = &c->stream;
    fa_attention_desc d;
    const fa_tensor *all = c->home.problem[FA_AWAY].tensor,
                    tensor[2] = {with_stride(&all[FA_K]), with_stride(&all[FA_V])};
    FA_TRY(check_device(c->away));
    FA_TRY(fa_segments_describe(segments, FA_AWAY, &d));
    FA_TRY(check_cache(segments, &d));
    FA_TRY(read_side(&tensor[0], "k", &s->side[0]));
    FA_TRY(read_side(&tensor[1], "v", &s->side[1]));
    FA_TRY(choose_keys(c, bytes, tensor));
    if (!lay_out_side(&tensor[0], s->keys, 0, &s->side[0], &d.k) ||
        !lay_out_side(&tensor[1], s->keys, (size_t)fa_round_up((int64_t)s->side[0].bytes, VALUES_ALIGNMENT),
                      &s->side[1], &d.v))
        return fa_fail(FA_OUT_OF_MEMORY, "a piece of %lld keys overflows memory", (long long)s->keys);
    s->blocks = !c->home.device->backend->buffer_send;
    s->filled = FA_PIECES;
    return make_plan(c, &d);
}

fa_status fa_stream_prepare(fa_cooperate *c)
{
    fa_device *home = c->home.device;
    fa_stream *s = &c->stream;
    const size_t work = fa_plan_work(s->plan), bytes = s->side[1].at + s->side[1].bytes;
    size_t all = 0;
    s->work_stride = (size_t)fa_round_up((int64_t)work, FA_WORK_ALIGNMENT);
    if (!fa_grow(&all, s->work_stride, FA_PIECES))
        return fa_fail(FA_OUT_OF_MEMORY, "the work of %d pieces overflows memory", FA_PIECES);
    FA_TRY(fa_buffer_create(home, all, &s->work));
    for (int i = 0; i < FA_PIECE_BUFFERS; i++) {
        FA_TRY(fa_queue_create(home, &s->queue[i]));
        FA_TRY(fa_buffer_create(home, bytes, &s->buffer[i]));
        FA_TRY(fa_buffer_create(home, fa_plan_workspace(s->plan), &s->workspace[i]));
    }
    const size_t states = c->home.parts.part_lse_bytes / sizeof(float);
    float *nothing = fa_alloc(home->context, c->home.parts.part_lse_bytes);
    if (!nothing)
        return FA_OUT_OF_MEMORY;
    for (size_t i = 0; i < states; i++)
        nothing[i] = -INFINITY;
    s->nothing = nothing;
    return FA_OK;
}

void fa_stream_release(fa_cooperate *c)
{
    fa_stream *s = &c->stream;
    for (int i = 0; i < FA_PIECE_BUFFERS; i++) {
        fa_queue_destroy(s->queue[i]);
        fa_buffer_destroy(s->buffer[i]);
        fa_buffer_destroy(s->workspace[i]);
    }
    fa_buffer_destroy(s->work);
    fa_plan_destroy(s->plan);
    if (s->nothing)
        fa_release(c->home.device->context, s->nothing, c->home.parts.part_lse_bytes);
}

/* Keys [from, from + keys) of a sequence's cache, at the start of its place in a piece. */
static fa_status send(const fa_stream *s, int b, const fa_piece_side *side, const char *cache, int64_t n,
                      int64_t from, int64_t keys)
{
    const size_t bytes = (size_t)(keys - 1) * side->token + side->last;
    for (int64_t r = 0; r < side->ranges && keys > 0; r++) {
        const size_t at =
            (size_t)n * side->cache[0] + (size_t)r * side->cache[1] + (size_t)from * side->token;
        FA_TRY(fa_buffer_write_async(s->queue[b], s->buffer[b],
                                     side->at + (size_t)n * side->piece[0] + (size_t)r * side->piece[1],
                                     cache + at, bytes));
    }
    return FA_OK;
}

/* Piece i of each sequence's streamed keys, which are as even as can be. */
static fa_status send_piece(fa_cooperate *c, int i, const fa_attention_args *away)
{
    const fa_stream *s = &c->stream;
    const char *cache[2] = {(const char *)away->k->address + away->k_offset,
                            (const char *)away->v->address + away->v_offset};
    for (int64_t n = 0; n < c->home.problem[FA_HOME].sequences; n++) {
        const int64_t all = c->list[FA_STREAM][n], from = all * i / s->pieces,
                      keys = all * (i + 1) / s->pieces - from;
        c->list[FA_LIST_PIECE][n] = keys;
        for (int side = 0; side < 2; side++)
            FA_TRY(send(s, i % FA_PIECE_BUFFERS, &s->side[side], cache[side], n, c->list[FA_AWAY][n] + from,
                        keys));
    }
    return FA_OK;
}

static fa_status run_piece(const fa_cooperate *c, int i, const fa_attention_args *whole, bool scheduled)
{
    const fa_stream *s = &c->stream;
    const int b = i % FA_PIECE_BUFFERS;
    const fa_lengths lengths = {
        .struct_size = sizeof(lengths), .cu_rows_q = c->home.cu_rows, .lens_kv = c->list[FA_LIST_PIECE]};
    fa_attention_args args = fa_parts_args(&c->home.parts, whole, FA_HOME + 1 + i);
    args.k = args.v = s->buffer[b];
    args.k_offset = s->side[0].at;
    args.v_offset = s->side[1].at;
    args.page_table = args.k_scale = args.v_scale = args.k_zero = args.v_zero = NULL;
    args.workspace = s->workspace[b];
    args.workspace_offset = 0;
    args.work = s->work;
    args.work_offset = (size_t)i * s->work_stride;
    if (!scheduled)
        FA_TRY(fa_plan_schedule(s->plan, s->queue[b], &lengths, args.work, args.work_offset));
    return fa_plan_run(s->plan, s->queue[b], &args);
}

static fa_status begin(fa_cooperate *c, const fa_attention_args *whole, const fa_attention_args *away)
{
    const fa_stream *s = &c->stream;
    const bool scheduled = fa_cooperate_scheduled(c, FA_STREAM); /* of so many keys, so many pieces */
    for (int i = 0; i < FA_PIECE_BUFFERS && c->home.device->backend->queue_span; i++)
        FA_TRY(c->home.device->backend->queue_span(s->queue[i]));
    for (int i = 0; i < s->pieces; i++) {
        FA_TRY(send_piece(c, i, away));
        FA_TRY(run_piece(c, i, whole, scheduled));
    }
    return FA_OK;
}

fa_status fa_stream_begin(fa_cooperate *c, const fa_attention_args *whole, const fa_attention_args *away)
{
    fa_stream *s = &c->stream;
    int64_t most = 0;
    s->pieces = 0;
    if (!s->plan)
        return FA_OK;
    for (int64_t n = 0; n < c->home.problem[FA_HOME].sequences; n++)
        most = FA_MAX(most, c->list[FA_STREAM][n]);
    if (most == 0)
        return FA_OK;
    s->pieces = (int)FA_MAX(fa_ceil_div(most, s->keys), FA_PIECE_BUFFERS);
    s->filled = FA_MAX(s->filled, s->pieces);
    const double start = fa_clock();
    FA_TRY(fa_segments_name(begin(c, whole, away), FA_AWAY));
    s->enqueuing = fa_clock() - start;
    return FA_OK;
}

fa_status fa_stream_settle(fa_cooperate *c, fa_spent *spent)
{
    fa_stream *s = &c->stream;
    const bool spans = c->home.device->backend->queue_span;
    if (s->pieces == 0)
        return FA_OK;
    spent->seconds = spans ? 0 : s->enqueuing;
    for (int i = 0; i < FA_PIECE_BUFFERS; i++) {
        double seconds = 0;
        FA_TRY(fa_segments_name(fa_queue_wait(s->queue[i]), FA_AWAY));
        if (spans)
            FA_TRY(fa_segments_name(fa_queue_seconds(s->queue[i], &seconds), FA_AWAY));
        spent->seconds = FA_MAX(spent->seconds, seconds);
    }
    s->blocks = s->enqueuing > spent->seconds / 2; /* host memory that the driver copies itself, say */
    return FA_OK;
}

fa_status fa_stream_clear(fa_cooperate *c, fa_queue *queue)
{
    fa_stream *s = &c->stream;
    const fa_parts *parts = &c->home.parts;
    for (; s->plan && s->filled > s->pieces; s->filled--)
        FA_TRY(fa_buffer_write(queue, c->home_workspace,
                               parts->lse_offset + (size_t)(FA_HOME + s->filled) * parts->part_lse_bytes,
                               s->nothing, parts->part_lse_bytes));
    return FA_OK;
}
