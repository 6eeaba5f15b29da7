/* SPDX-License-Identifier: Apache-2.0 */
/* Rings: what ranks agree on, the plans of each step, and the memory that blocks travel through. */
#include "core/ranks/ring.h"

#include "core/backend.h"
#include "core/context.h"
#include "core/parts/parts.h"
#include "core/plan.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

static const char what[] = "a ring";

static bool is_float(fa_dtype dtype)
{
    return dtype == FA_F32 || dtype == FA_F16 || dtype == FA_BF16;
}

/* What depends on where keys stand, or how many there are, in more than the way of windows and ALiBi. */
static fa_status check_served(const fa_attention_desc *d, const fa_problem *p)
{
    const struct {
        const char *name;
        bool given;
    } none[] = {
        {"bias", p->features & FA_FEATURE_BIAS},
        {"keep", p->features & FA_FEATURE_KEEP},
        {"page_table", p->features & FA_FEATURE_PAGES},
        {"lens_q", p->has_lens_q},
        {"lens_kv", p->has_lens_kv},
        {"first_kv", p->has_first_kv},
        {"cu_rows_q", p->packed_q},
        {"cu_rows_kv", p->packed_kv},
        {"dynamic_lengths", p->dynamic},
        {"v_in_k", d->v_in_k != 0},
        {"prefix", d->prefix != 0},
        {"diagonal_offset", d->diagonal_offset != 0},
    };
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        if (none[i].given)
            return fa_fail(FA_UNSUPPORTED, "attention.%s is given: a ring serves none", none[i].name);
    }
    if (!is_float(d->k.dtype) || !is_float(d->v.dtype))
        return fa_fail(FA_UNSUPPORTED, "attention.%s.dtype is %s, a ring serves f32, f16 and bf16",
                       is_float(d->k.dtype) ? "v" : "k",
                       fa_dtype_name(is_float(d->k.dtype) ? d->v.dtype : d->k.dtype));
    return FA_OK;
}

/* Rows and keys are those of the rank's share. */
static fa_status check_tokens(const fa_ring *r)
{
    static const int tensors[] = {FA_Q, FA_K};
    const fa_transport *t = &r->transport;
    const fa_share share = fa_share_of(r->tokens, t->ranks, t->rank);
    for (int i = 0; i < 2; i++) {
        const int64_t rows = r->problem.tensor[tensors[i]].shape[2];
        if (rows != fa_share_tokens(&share))
            return fa_fail(FA_INVALID,
                           "attention.%s.shape[2] is %lld, expected %lld: of %lld tokens, rank %d of %d has "
                           "%lld from token %lld on and %lld from token %lld on",
                           fa_operands[tensors[i]].name, (long long)rows, (long long)fa_share_tokens(&share),
                           (long long)r->tokens, t->rank, t->ranks, (long long)share.count[0],
                           (long long)share.first[0], (long long)share.count[1], (long long)share.first[1]);
    }
    return FA_OK;
}

static fa_status check_transport(const fa_ring *r)
{
    if (!r->transport.shift)
        return fa_fail(FA_UNSUPPORTED, "transport.shift is NULL: there are no rings over %s",
                       r->transport.name);
    if (r->transport.device_memory && !r->device->backend->device_pointers)
        return fa_fail(FA_UNSUPPORTED,
                       "transport.device_memory is 1, and buffers of %s are not addresses on a device",
                       r->device->backend->name);
    return FA_OK;
}

/* The rows of a piece, in the rank's own tensors. */
static fa_attention_desc rows_of(const fa_ring *r, const fa_attention_desc *desc, int piece)
{
    fa_attention_desc d = *desc;
    d.q = r->problem.tensor[FA_Q];
    d.o = r->problem.tensor[FA_O];
    d.q.shape[2] = d.o.shape[2] = r->piece[piece].rows;
    return d;
}

/* Keys of a part, and what their places decide. */
static void describe_part(const fa_ring *r, const fa_ring_part *part, bool own, fa_attention_desc *d)
{
    const bool causal = d->mask != FA_MASK_NONE;
    d->k = own ? r->problem.tensor[FA_K] : r->block_k;
    d->v = own ? r->problem.tensor[FA_V] : r->block_v;
    d->k.shape[2] = d->v.shape[2] = part->keys;
    d->mask = FA_MASK_NONE;
    d->alignment = FA_ALIGN_DEFAULT;
    if (!part->placed) {
        d->window_left = d->window_right = 0;
        return;
    }
    d->mask = causal ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE;
    d->alignment = FA_ALIGN_BOTTOM_RIGHT;
    d->diagonal_offset = part->diagonal - (part->keys - d->q.shape[2]);
}

static const fa_ring_plan *find(const fa_ring_piece *p, const fa_ring_part *part, bool own)
{
    for (int i = 0; i < p->plans; i++) {
        const fa_ring_part *of = &p->plan[i].part;
        if (p->plan[i].own == own && of->keys == part->keys && of->placed == part->placed &&
            of->diagonal == part->diagonal && (!own || of->row == part->row))
            return &p->plan[i];
    }
    return NULL;
}

fa_plan *fa_ring_plan_of(const fa_ring_piece *p, const fa_ring_part *part, bool own)
{
    const fa_ring_plan *found = find(p, part, own);
    return found ? found->plan : NULL;
}

/* A sink counts once, with the rows' own tokens, which they see. */
static fa_status make_plan(fa_ring *r, const fa_attention_desc *desc, int i, const fa_ring_part *part,
                           bool own)
{
    fa_ring_piece *p = &r->piece[i];
    if (find(p, part, own))
        return FA_OK;
    fa_attention_desc d = rows_of(r, desc, i);
    describe_part(r, part, own, &d);
    if (!own || part->row > p->row || part->row + part->keys <= p->row)
        d.sinks = NULL;
    if (p->states > 1)
        d = fa_parts_desc(&d);
    fa_ring_plan *made = &p->plan[p->plans];
    FA_TRY(fa_plan_create(r->device, &d, &made->plan));
    made->part = *part;
    made->own = own;
    p->plans++;
    return FA_OK;
}

static fa_status make_merges(fa_ring *r, const fa_attention_desc *desc, int i)
{
    fa_ring_piece *p = &r->piece[i];
    const fa_attention_desc d = rows_of(r, desc, i);
    fa_merge_desc m = {.struct_size = sizeof(m), .parts = 2, .partial = fa_parts_desc(&d).o, .want_lse = 1};
    m.o = m.partial;
    if (p->states > 2)
        FA_TRY(fa_merge_create(r->device, &m, &p->merge));
    m.o = d.o;
    m.want_lse = d.want_lse;
    return p->states > 1 ? fa_merge_create(r->device, &m, &p->last) : FA_OK;
}

static size_t plans_bytes(const fa_ring *r)
{
    return (size_t)r->transport.ranks * FA_RING_PIECES * sizeof(fa_ring_plan);
}

static fa_status make_piece(fa_ring *r, const fa_attention_desc *desc, int i)
{
    const int32_t rank = r->transport.rank, ranks = r->transport.ranks;
    const fa_share share = fa_share_of(r->tokens, ranks, rank);
    fa_ring_piece *p = &r->piece[i];
    fa_ring_part part[FA_RING_PIECES];
    p->row = i == 0 ? 0 : share.count[0];
    p->rows = share.count[i];
    for (int32_t from = 0; from < ranks; from++)
        p->states += fa_ring_parts(&r->rule, r->tokens, ranks, rank, i, from, part);
    if (p->rows == 0)
        return FA_OK;
    p->plan = fa_alloc_zeroed(r->device->context, plans_bytes(r));
    if (!p->plan)
        return FA_OUT_OF_MEMORY;
    for (int32_t from = 0; from < ranks; from++) {
        const int parts = fa_ring_parts(&r->rule, r->tokens, ranks, rank, i, from, part);
        for (int n = 0; n < parts; n++)
            FA_TRY(make_plan(r, desc, i, &part[n], from == rank));
    }
    return make_merges(r, desc, i);
}

/* The strides of a block are those of the rank that has the most, so that all blocks are alike. */
static fa_status lay_out_block(fa_ring *r)
{
    const int64_t *k = r->problem.tensor[FA_K].shape, *v = r->problem.tensor[FA_V].shape;
    const fa_dtype k_type = r->problem.tensor[FA_K].dtype, v_type = r->problem.tensor[FA_V].dtype;
    size_t keys = 0, values = 0;
    r->most = fa_share_most(r->tokens, r->transport.ranks);
    r->block_k = fa_tensor_make(k_type, k[0], k[1], r->most, k[3]);
    r->block_v = fa_tensor_make(v_type, v[0], v[1], r->most, v[3]);
    FA_TRY(fa_tensor_normalise(&r->block_k, "the keys of a block", false));
    FA_TRY(fa_tensor_normalise(&r->block_v, "the values of a block", false));
    FA_TRY(fa_tensor_extent(&r->block_k, "the keys of a block", &keys));
    FA_TRY(fa_tensor_extent(&r->block_v, "the values of a block", &values));
    r->v_at = fa_align64(keys);
    r->block_bytes = r->v_at;
    if (k[0] > INT32_MAX / FA_MAX(r->most, 1) || !fa_grow(&r->block_bytes, fa_align64(values), 1))
        return fa_fail(FA_OUT_OF_MEMORY, "a block of %lld tokens of %lld sequences overflows memory",
                       (long long)r->most, (long long)k[0]);
    return FA_OK;
}

static fa_status lay_out(fa_ring *r)
{
    const int64_t *o = r->problem.tensor[FA_O].shape;
    size_t end = 0, scratch = 0, lse = 0;
    bool fits = true;
    for (int i = 0; i < 2; i++) {
        r->block_at[i] = end;
        fits = fits && fa_grow(&end, r->block_bytes, 1);
    }
    for (int i = 0; i < FA_RING_PIECES; i++) {
        fa_ring_piece *p = &r->piece[i];
        const size_t states = (size_t)(o[0] * o[1] * p->rows);
        p->lse_offset = lse;
        p->lse_bytes = states * sizeof(float);
        lse += p->lse_bytes;
        fits = fits && fa_grow(&p->o_bytes, p->lse_bytes, (size_t)o[3]);
        p->o_at = end;
        fits = fits && fa_grow(&end, p->o_bytes, 2);
        p->lse_at = fa_align64(end);
        end = p->lse_at;
        fits = fits && fa_grow(&end, p->lse_bytes, 2);
        end = fa_align64(end);
        for (int n = 0; n < p->plans; n++)
            scratch = FA_MAX(scratch, fa_plan_workspace(p->plan[n].plan));
    }
    r->scratch_at = end;
    if (!fits || !fa_grow(&end, scratch, 1))
        return fa_fail(FA_OUT_OF_MEMORY, "the workspace of a ring overflows memory");
    r->workspace = end;
    return FA_OK;
}

/* Where the rows of this rank go in a block: each sequence has room for the most that a rank has. */
static fa_status fill_slots(const fa_ring *r, int32_t *slots)
{
    const int64_t batch = r->problem.tensor[FA_K].shape[0], rows = r->problem.tensor[FA_K].shape[2];
    fa_queue *queue = NULL;
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t i = 0; i < rows; i++)
            slots[b * rows + i] = (int32_t)(b * r->most + i);
    }
    fa_status status = fa_queue_create(r->device, &queue);
    if (status == FA_OK)
        status = fa_buffer_write(queue, r->slots, 0, slots, (size_t)(batch * rows) * sizeof(*slots));
    fa_queue_destroy(queue);
    return status;
}

static fa_status make_pack(fa_ring *r)
{
    const fa_append_desc desc = {.struct_size = sizeof(desc),
                                 .k = r->problem.tensor[FA_K],
                                 .v = r->problem.tensor[FA_V],
                                 .cache_k = r->block_k,
                                 .cache_v = r->block_v};
    const size_t bytes = (size_t)(desc.k.shape[0] * desc.k.shape[2]) * sizeof(int32_t);
    if (r->transport.ranks == 1 || bytes == 0)
        return FA_OK;
    FA_TRY(fa_append_create(r->device, &desc, &r->pack));
    FA_TRY(fa_buffer_create(r->device, bytes, &r->slots));
    int32_t *slots = fa_alloc(r->device->context, bytes);
    if (!slots)
        return FA_OUT_OF_MEMORY;
    const fa_status status = fill_slots(r, slots);
    fa_release(r->device->context, slots, bytes);
    return status;
}

static fa_status make_host(fa_ring *r)
{
    if (r->transport.ranks == 1 || r->transport.device_memory || r->device->backend->host_pointers)
        return FA_OK;
    r->host = fa_alloc(r->device->context, 2 * r->block_bytes);
    return r->host ? FA_OK : FA_OUT_OF_MEMORY;
}

/* What this rank can see for itself. */
static fa_status make_alone(fa_ring *r, const fa_ring_desc *given)
{
    fa_ring_desc desc;
    fa_attention_desc d;
    FA_TRY(fa_copy_struct(&desc, sizeof(desc), FA_RING_DESC_0_1, given, "fa_ring_desc"));
    if (!desc.attention)
        return fa_fail(FA_INVALID, "attention is NULL");
    if (desc.tokens < 1 || desc.tokens > FA_MAX_LENGTH)
        return fa_fail(FA_INVALID, "tokens is %lld, expected 1 to %d", (long long)desc.tokens, FA_MAX_LENGTH);
    r->tokens = desc.tokens;
    FA_TRY(fa_problem_read_desc(desc.attention, &d));
    FA_TRY(fa_problem_refuse_lists(&d, "a ring"));
    FA_TRY(fa_problem_init(r->device->context, &d, &r->problem));
    FA_TRY(check_served(&d, &r->problem));
    FA_TRY(check_tokens(r));
    FA_TRY(check_transport(r));
    r->rule = (fa_ring_rule){.mask = r->problem.rule, .sloped = r->problem.features & FA_FEATURE_ALIBI};
    FA_TRY(lay_out_block(r));
    for (int i = 0; i < FA_RING_PIECES; i++)
        FA_TRY(make_piece(r, &d, i));
    FA_TRY(lay_out(r));
    FA_TRY(make_pack(r));
    return make_host(r);
}

/* As a description has it, where 0 is no window. */
static int64_t window_of(int keys)
{
    return keys == FA_UNLIMITED ? 0 : keys;
}

static fa_status make(fa_ring *r, const fa_ring_desc *desc)
{
    const fa_status status = make_alone(r, desc);
    const fa_problem *p = &r->problem;
    const fa_tensor *q = &p->tensor[FA_Q], *k = &p->tensor[FA_K], *v = &p->tensor[FA_V];
    const fa_rank_word words[] = {
        {"tokens", r->tokens},
        {"attention.q.shape[0]", q->shape[0]},
        {"attention.q.shape[1]", q->shape[1]},
        {"attention.k.shape[1]", k->shape[1]},
        {"attention.k.shape[3]", k->shape[3]},
        {"attention.v.shape[3]", v->shape[3]},
        {"attention.k.dtype", (int64_t)k->dtype},
        {"attention.v.dtype", (int64_t)v->dtype},
        {"whether attention.mask is causal", p->rule.right == 1},
        {"attention.window_left", window_of(p->rule.left)},
        {"attention.window_right", window_of(p->rule.right)},
        {"whether there are attention.alibi_slopes", r->rule.sloped},
        {"whether there are attention.sinks", p->sinks != NULL},
        {"attention.scale, as the bits of an f32,", fa_rank_bits(p->scale)},
        {"attention.softcap, as the bits of an f32,", fa_rank_bits(p->softcap)},
    };
    return fa_ranks_agree(r->device->context, &r->transport, what, status, words,
                          sizeof(words) / sizeof(words[0]), NULL, 0);
}

fa_status fa_ring_create(fa_device *device, const fa_transport *transport, const fa_ring_desc *desc,
                         fa_ring **ring)
{
    fa_transport t;
    fa_clear_error();
    if (!ring)
        return fa_fail(FA_INVALID, "ring is NULL, expected where to store the new ring");
    *ring = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    FA_TRY(fa_transport_read(transport, &t));
    fa_ring *r = fa_alloc_zeroed(device->context, sizeof(*r));
    if (!r)
        return fa_ranks_agree(device->context, &t, what, FA_OUT_OF_MEMORY, NULL, 0, NULL, 0);
    r->device = device;
    r->transport = t;
    const fa_status status = make(r, desc);
    if (status == FA_OK)
        *ring = r;
    else
        fa_ring_destroy(r);
    return fa_finish(status);
}

void fa_ring_destroy(fa_ring *r)
{
    if (!r)
        return;
    for (int i = 0; i < FA_RING_PIECES; i++) {
        fa_ring_piece *p = &r->piece[i];
        for (int n = 0; n < p->plans; n++)
            fa_plan_destroy(p->plan[n].plan);
        if (p->plan)
            fa_release(r->device->context, p->plan, plans_bytes(r));
        fa_merge_destroy(p->merge);
        fa_merge_destroy(p->last);
    }
    fa_append_destroy(r->pack);
    fa_buffer_destroy(r->slots);
    if (r->host)
        fa_release(r->device->context, r->host, 2 * r->block_bytes);
    fa_problem_release(r->device->context, &r->problem);
    fa_release(r->device->context, r, sizeof(*r));
}

size_t fa_ring_workspace(const fa_ring *ring)
{
    return ring ? ring->workspace : 0;
}
