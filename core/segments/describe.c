/* SPDX-License-Identifier: Apache-2.0 */
/* What segments are, after validation. */
#include "core/attention/sequences.h"
#include "core/backend.h"
#include "core/context.h"
#include "core/segments/segments.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

fa_status fa_segments_name(fa_status status, int64_t n)
{
    if (status == FA_OK)
        return FA_OK;
    const fa_message said = fa_message_keep();
    return fa_fail(status, "segment[%lld]: %s", (long long)n, said.text);
}

/* What only segments have. */
static fa_status check_common(const fa_attention_desc *d)
{
    const struct {
        const char *name;
        const fa_tensor *tensor;
    } tensor[] = {{"k", &d->k},
                  {"v", &d->v},
                  {"page_table", &d->page_table},
                  {"k_scale", &d->k_scale},
                  {"v_scale", &d->v_scale},
                  {"k_zero", &d->k_zero},
                  {"v_zero", &d->v_zero}};
    const struct {
        const char *name;
        const void *list;
    } list[] = {{"lens_kv", d->lens_kv},       {"lens_kv32", d->lens_kv32},
                {"first_kv", d->first_kv},     {"first_kv32", d->first_kv32},
                {"cu_rows_kv", d->cu_rows_kv}, {"cu_rows_kv32", d->cu_rows_kv32}};
    for (size_t i = 0; i < sizeof(tensor) / sizeof(tensor[0]); i++) {
        if (!fa_tensor_is_absent(tensor[i].tensor))
            return fa_fail(FA_INVALID,
                           "attention->%s.shape is not all 0, expected none: segments have theirs",
                           tensor[i].name);
    }
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        if (list[i].list)
            return fa_fail(FA_INVALID, "attention->%s is given, expected NULL: segments have theirs",
                           list[i].name);
    }
    if (d->want_status != 0 || d->v_in_k != 0)
        return fa_fail(FA_UNSUPPORTED, "attention->%s is %d, segments serve 0",
                       d->want_status != 0 ? "want_status" : "v_in_k",
                       d->want_status != 0 ? d->want_status : d->v_in_k);
    if (d->k_factor != 0 || d->v_factor != 0)
        return fa_fail(FA_INVALID, "attention->%s_factor is %g, expected 0: segments have theirs",
                       d->k_factor != 0 ? "k" : "v", (double)(d->k_factor != 0 ? d->k_factor : d->v_factor));
    return FA_OK;
}

/* A segment before the last: every row sees all keys, and a sink counts once, in the last. */
static void show_all(fa_attention_desc *d)
{
    d->mask = FA_MASK_NONE;
    d->alignment = FA_ALIGN_DEFAULT;
    d->window_left = d->window_right = d->prefix = d->diagonal_offset = 0;
    d->sinks = NULL;
}

fa_status fa_segments_describe(const fa_segments_desc *desc, int64_t n, fa_attention_desc *d)
{
    fa_segment s;
    if (!desc->segment[n])
        return fa_fail(FA_INVALID, "it is NULL");
    FA_TRY(fa_copy_struct(&s, sizeof(s), FA_SEGMENT_0_1, desc->segment[n], "fa_segment"));
    FA_TRY(fa_problem_read_desc(desc->attention, d));
    d->k = s.k;
    d->v = s.v;
    d->page_table = s.page_table;
    d->k_scale = s.k_scale;
    d->v_scale = s.v_scale;
    d->k_zero = s.k_zero;
    d->v_zero = s.v_zero;
    d->k_factor = s.k_factor;
    d->v_factor = s.v_factor;
    d->lens_kv = s.lens_kv;
    d->lens_kv32 = s.lens_kv32;
    d->first_kv = s.first_kv;
    d->first_kv32 = s.first_kv32;
    if (n < desc->segments - 1)
        show_all(d);
    return FA_OK;
}

/* What depends on where among all keys a key stands; of the last segment, which has the mask. */
static fa_status check_features(const fa_problem *p, const fa_attention_desc *of)
{
    static const struct {
        unsigned feature;
        const char *name;
    } none[] = {{FA_FEATURE_BIAS, "bias"}, {FA_FEATURE_KEEP, "keep"}, {FA_FEATURE_ALIBI, "alibi_slopes"}};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        if (p->features & none[i].feature)
            return fa_fail(FA_UNSUPPORTED, "attention->%s is given, segments do not serve it", none[i].name);
    }
    if (p->rule.left < FA_UNLIMITED)
        return fa_fail(FA_UNSUPPORTED, "attention->window_left is %d, segments serve 0 only", p->rule.left);
    if (p->rule.prefix > 0)
        return fa_fail(FA_UNSUPPORTED, "attention->prefix is %d, segments serve 0 only", p->rule.prefix);
    if (p->rule.right < FA_UNLIMITED && p->rule.top_left)
        return fa_fail(
            FA_UNSUPPORTED,
            "attention->%s counts from the top left, segments serve positions from the bottom right",
            of->mask == FA_MASK_CAUSAL_TOP_LEFT ? "mask" : "alignment");
    return FA_OK;
}

/* Each row has a state in each segment. */
static fa_status check_rows(const fa_problem *p)
{
    const int64_t n = p->sequences, rows = p->tensor[FA_Q].shape[2];
    if (p->has_lens_q)
        return fa_fail(FA_UNSUPPORTED, "attention->lens_q is given, segments serve all rows of q");
    if (!p->packed_q)
        return FA_OK;
    const int64_t first = n > 0 ? p->sequence[0].q_row : rows;
    const int64_t end = n > 0 ? p->sequence[n - 1].q_row + p->sequence[n - 1].len_q : rows;
    if (first == 0 && end == rows)
        return FA_OK;
    return fa_fail(FA_UNSUPPORTED,
                   "attention->cu_rows_q goes from %lld to %lld, segments serve 0 to q.shape[2], %lld",
                   (long long)first, (long long)end, (long long)rows);
}

/* Whether the rows of a sequence see all keys before the last segment, which has keys [first, keys). */
static fa_status check_seen(const fa_problem *p, const char *lens, int64_t n, int64_t first, int64_t keys)
{
    const fa_sequence *s = &p->sequence[n];
    if (s->len_q == 0 || p->rule.right >= FA_UNLIMITED)
        return FA_OK;
    const fa_mask m = fa_mask_of(p->rule, s->len_q, (int)(keys - first), (int)first);
    const int64_t seen = m.diagonal + first + m.right; /* of row 0, counted from the segment's key 0 */
    if (seen >= 0)
        return FA_OK;
    return fa_fail(FA_INVALID,
                   "%s[%lld] is %lld, expected at least %lld: a row does not see all keys before the last "
                   "segment",
                   lens, (long long)n, (long long)keys, (long long)(keys - seen));
}

static int64_t number_in(const fa_index_list *list, int64_t n, int64_t otherwise)
{
    return fa_index_is_given(list) ? fa_index_at(list, n) : otherwise;
}

fa_status fa_segments_check_lengths(const fa_segments *segments, int64_t n, const fa_lengths *l)
{
    const fa_problem *p = &segments->problem[n];
    fa_side_lists q, kv;
    if (!l)
        return FA_OK;
    FA_TRY(fa_sequences_keep_rows(l));
    FA_TRY(fa_sequences_lists(l, &q, &kv));
    FA_TRY(fa_sequences_no_list(&kv.cu, "segments are not packed"));
    for (int64_t i = 0; i < p->sequences; i++) {
        const int64_t keys = number_in(&kv.lens, i, p->keys), first = number_in(&kv.first, i, 0);
        if (keys < 0 || keys > p->keys)
            return fa_fail(FA_INVALID, "%s[%lld] is %lld, expected 0 to %lld", kv.lens.name, (long long)i,
                           (long long)keys, (long long)p->keys);
        if (first < 0 || first > keys)
            return fa_fail(FA_INVALID, "%s[%lld] is %lld, expected 0 to the segment's %lld keys",
                           kv.first.name, (long long)i, (long long)first, (long long)keys);
        if (n == segments->count - 1)
            FA_TRY(check_seen(p, kv.lens.name, i, first, keys));
    }
    return FA_OK;
}

static fa_status check_channels(const fa_problem *p, const fa_segments_desc *d, fa_segments *s)
{
    fa_tensor *t = &s->channels;
    *t = d->v_channels;
    if (fa_tensor_is_absent(t)) {
        if (d->v_channels_stride != 0)
            return fa_fail(FA_INVALID, "v_channels_stride is %lld, expected 0 without v_channels",
                           (long long)d->v_channels_stride);
        return FA_OK;
    }
    const int64_t *o = p->tensor[FA_O].shape, whole[4] = {o[0], p->heads_kv, o[2], o[3]};
    FA_TRY(fa_dtype_check_one(t->dtype, FA_F32, "v_channels.dtype"));
    FA_TRY(fa_tensor_normalise(t, "v_channels", false));
    FA_TRY(fa_tensor_extent(t, "v_channels", &s->channels_span));
    for (int axis = 0; axis < 4; axis++) {
        if (t->shape[axis] != whole[axis] && (axis == 3 || t->shape[axis] != 1))
            return fa_fail(FA_INVALID, "v_channels.shape[%d] is %lld, expected %s%lld", axis,
                           (long long)t->shape[axis], axis < 3 ? "1 or " : "", (long long)whole[axis]);
    }
    if (d->v_channels_stride < 0)
        return fa_fail(FA_INVALID, "v_channels_stride is %lld, expected at least 0",
                       (long long)d->v_channels_stride);
    if (s->channels_span > 0 &&
        !fa_grow(&s->channels_span, (size_t)d->v_channels_stride, sizeof(float) * (size_t)(d->segments - 1)))
        return fa_fail(FA_OUT_OF_MEMORY, "v_channels_stride %lld overflows memory",
                       (long long)d->v_channels_stride);
    return FA_OK;
}

static fa_status copy_rows(const fa_problem *p, const fa_context *context, fa_segments *s)
{
    if (!p->packed_q)
        return FA_OK;
    s->cu_rows = fa_alloc_zeroed(context, (size_t)(p->sequences + 1) * sizeof(*s->cu_rows));
    if (!s->cu_rows)
        return FA_OUT_OF_MEMORY;
    for (int64_t n = 0; n < p->sequences; n++)
        s->cu_rows[n + 1] = p->sequence[n].q_row + p->sequence[n].len_q;
    return FA_OK;
}

/* The lengths that the description itself has. */
static fa_status check_own_lengths(const fa_problem *p, const char *lens)
{
    for (int64_t n = 0; n < p->sequences; n++)
        FA_TRY(check_seen(p, lens, n, p->sequence[n].first,
                          (int64_t)p->sequence[n].first + p->sequence[n].len_kv));
    return FA_OK;
}

static fa_status read_segment(const fa_segments_desc *d, fa_segments *s, int64_t n)
{
    fa_attention_desc described;
    FA_TRY(fa_segments_describe(d, n, &described));
    FA_TRY(fa_problem_init(s->device->context, &described, &s->problem[n]));
    s->count++;
    return n < d->segments - 1
               ? FA_OK
               : check_own_lengths(&s->problem[n], described.lens_kv32 ? "lens_kv32" : "lens_kv");
}

fa_status fa_segments_read(const fa_segments_desc *d, fa_segments *s)
{
    fa_attention_desc common;
    if (!d->attention || !d->segment)
        return fa_fail(FA_INVALID, "%s is NULL", d->attention ? "segment" : "attention");
    if (d->segments < 1 || d->segments > FA_SEGMENTS_MAX)
        return fa_fail(FA_INVALID, "segments is %lld, expected 1 to %d", (long long)d->segments,
                       FA_SEGMENTS_MAX);
    FA_TRY(fa_problem_read_desc(d->attention, &common));
    FA_TRY(check_common(&common));
    FA_TRY(fa_problem_refuse_lists(&common, "an attention over segments"));
    for (int64_t n = 0; n < d->segments; n++)
        FA_TRY(fa_segments_name(read_segment(d, s, n), n));
    const fa_problem *last = &s->problem[s->count - 1];
    FA_TRY(check_features(last, &common));
    FA_TRY(check_rows(last));
    FA_TRY(check_channels(last, d, s));
    return copy_rows(last, s->device->context, s);
}

void fa_segments_release(fa_segments *s)
{
    const fa_context *context = s->device->context;
    if (s->cu_rows)
        fa_release(context, s->cu_rows, (size_t)(s->problem[0].sequences + 1) * sizeof(*s->cu_rows));
    for (int64_t n = 0; n < s->count; n++)
        fa_problem_release(context, &s->problem[n]);
}
