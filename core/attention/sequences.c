/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/sequences.h"

#include <string.h>

#include "core/attention/checks.h"
#include "core/status.h"

#define MAX_PACKED_ROWS (1 << 30) /* rows times group: int holds any row of a block, and a block more */

/* `name` is that of the wide field; the narrow one's ends in 32. */
static fa_status take_list(const int64_t *wide, const int32_t *narrow, const char *name, const char *name32,
                           fa_index_list *list)
{
    if (wide && narrow)
        return fa_fail(FA_INVALID, "%s is given with %s, expected one of the two", name32, name);
    *list = (fa_index_list){narrow ? name32 : name, wide, narrow};
    return FA_OK;
}

static fa_status take_side(fa_side_lists *side)
{
    if (fa_index_is_given(&side->lens) && fa_index_is_given(&side->cu))
        return fa_fail(FA_INVALID, "%s is given with %s, expected one of the two", side->lens.name,
                       side->cu.name);
    return FA_OK;
}

fa_status fa_sequences_lists(const fa_lengths *d, fa_side_lists *q, fa_side_lists *kv)
{
    q->first = (fa_index_list){.name = ""};
    FA_TRY(take_list(d->cu_rows_q, d->cu_rows_q32, "cu_rows_q", "cu_rows_q32", &q->cu));
    FA_TRY(take_list(d->cu_rows_kv, d->cu_rows_kv32, "cu_rows_kv", "cu_rows_kv32", &kv->cu));
    FA_TRY(take_list(d->lens_q, d->lens_q32, "lens_q", "lens_q32", &q->lens));
    FA_TRY(take_list(d->lens_kv, d->lens_kv32, "lens_kv", "lens_kv32", &kv->lens));
    return take_list(d->first_kv, d->first_kv32, "first_kv", "first_kv32", &kv->first);
}

fa_status fa_sequences_take(const fa_lengths *d, fa_side_lists *q, fa_side_lists *kv)
{
    FA_TRY(fa_sequences_lists(d, q, kv));
    FA_TRY(take_side(q));
    return take_side(kv);
}

fa_status fa_sequences_no_list(const fa_index_list *list, const char *why)
{
    return fa_index_is_given(list) ? fa_fail(FA_INVALID, "%s is given, expected NULL: %s", list->name, why)
                                   : FA_OK;
}

fa_status fa_sequences_keep_rows(const fa_lengths *d)
{
    fa_side_lists q = {.first = {.name = ""}}, kv;
    static const char *const why = "rows are the description's";
    if (d->sequences != 0)
        return fa_fail(FA_INVALID, "sequences is %lld, expected 0: %s", (long long)d->sequences, why);
    FA_TRY(fa_sequences_lists(d, &q, &kv));
    FA_TRY(fa_sequences_no_list(&q.cu, why));
    return fa_sequences_no_list(&q.lens, why);
}

/* Offsets rise from at least 0 to at most the rows there are, and no sequence is longer than the limit. */
static fa_status check_offsets(const fa_index_list *cu, int64_t sequences, int64_t rows)
{
    const char *name = cu->name;
    int64_t begin = fa_index_at(cu, 0);
    if (begin < 0)
        return fa_fail(FA_INVALID, "%s[0] is %lld, expected at least 0", name, (long long)begin);
    for (int64_t n = 0; n < sequences; n++) {
        int64_t end = fa_index_at(cu, n + 1);
        if (end < begin)
            return fa_fail(FA_INVALID, "%s[%lld] is %lld, expected at least %s[%lld], %lld", name,
                           (long long)n + 1, (long long)end, name, (long long)n, (long long)begin);
        if (end > rows)
            return fa_fail(FA_INVALID, "%s[%lld] is %lld, expected at most the tensor's %lld rows", name,
                           (long long)n + 1, (long long)end, (long long)rows);
        if (end - begin > FA_MAX_LENGTH)
            return fa_fail(FA_INVALID, "%s: sequence %lld has %lld rows, expected at most %d", name,
                           (long long)n, (long long)(end - begin), FA_MAX_LENGTH);
        begin = end;
    }
    return FA_OK;
}

static bool is_paged(const fa_problem *p, int operand)
{
    return operand == FA_K && (p->features & FA_FEATURE_PAGES);
}

/* The most rows, or keys, of a sequence. */
static int64_t most_of(const fa_problem *p, int operand)
{
    return operand == FA_K ? p->keys : fa_problem_rows(p);
}

static fa_status check_side(const fa_problem *p, int operand, const fa_side_lists *side)
{
    const int64_t *shape = p->tensor[operand].shape;
    char field[16] = {fa_operands[operand].name[0], 0};
    strcat(field, ".shape[2]");
    if (is_paged(p, operand) && fa_index_is_given(&side->cu))
        return fa_fail(FA_INVALID, "%s is given with page_table, expected one of the two", side->cu.name);
    if (!fa_index_is_given(&side->cu))
        return fa_check_limit(field, shape[2], 0, FA_MAX_LENGTH);
    FA_TRY(fa_check_axis(p, operand, 0, 1, "the batch of packed sequences"));
    return check_offsets(&side->cu, p->sequences, shape[2]);
}

static fa_status check_lengths(const fa_problem *p, int operand, const fa_index_list *lens)
{
    const int64_t most = most_of(p, operand);
    const char *of = is_paged(p, operand) ? "the keys of all its pages"
                     : operand == FA_Q    ? "q.shape[2]"
                                          : "k.shape[2]";
    for (int64_t n = 0; fa_index_is_given(lens) && n < p->sequences; n++) {
        int64_t length = fa_index_at(lens, n);
        if (length < 0 || length > most)
            return fa_fail(FA_INVALID, "%s[%lld] is %lld, expected 0 to %s, %lld", lens->name, (long long)n,
                           (long long)length, of, (long long)most);
    }
    return FA_OK;
}

/* How many rows or keys sequence n has, from its first on, used or not. */
static int64_t length_of(const fa_problem *p, int operand, const fa_side_lists *side, int64_t n)
{
    if (fa_index_is_given(&side->cu))
        return fa_index_at(&side->cu, n + 1) - fa_index_at(&side->cu, n);
    return fa_index_is_given(&side->lens) ? fa_index_at(&side->lens, n) : most_of(p, operand);
}

static fa_status check_first(const fa_problem *p, const fa_side_lists *kv)
{
    for (int64_t n = 0; fa_index_is_given(&kv->first) && n < p->sequences; n++) {
        int64_t first = fa_index_at(&kv->first, n), keys = length_of(p, FA_K, kv, n);
        if (first < 0 || first > keys)
            return fa_fail(FA_INVALID, "%s[%lld] is %lld, expected 0 to the sequence's %lld keys",
                           kv->first.name, (long long)n, (long long)first, (long long)keys);
    }
    return FA_OK;
}

/* The table has a line for each sequence, or one for all. */
static fa_status check_lines(fa_problem *p)
{
    fa_tensor *t = &p->tensor[FA_PAGES];
    if (!(p->features & FA_FEATURE_PAGES) || t->shape[0] == 1)
        return FA_OK;
    return fa_check_axis(p, FA_PAGES, 0, p->sequences, "sequences (or 1: the same pages for all)");
}

fa_status fa_sequences_check(fa_problem *p, const fa_attention_desc *d, const fa_side_lists *q,
                             const fa_side_lists *kv)
{
    p->packed_q = fa_index_is_given(&q->cu);
    p->packed_kv = fa_index_is_given(&kv->cu);
    const bool packed = p->packed_q || p->packed_kv;
    const int64_t batch_q = p->tensor[FA_Q].shape[0];
    if (packed)
        FA_TRY(fa_check_limit("sequences", d->sequences, 0, 1 << 24));
    else if (d->sequences != 0 && d->sequences != batch_q)
        return fa_fail(
            FA_INVALID,
            "sequences is %lld, expected 0 or q.shape[0], %lld, as neither cu_rows_q nor cu_rows_kv is given",
            (long long)d->sequences, (long long)batch_q);
    p->sequences = packed ? d->sequences : batch_q;
    FA_TRY(fa_check_limit("q.shape[0]", batch_q, 0, 1 << 24));
    FA_TRY(check_side(p, FA_Q, q));
    FA_TRY(check_side(p, FA_K, kv));
    if (!p->packed_q)
        FA_TRY(fa_check_axis(p, FA_Q, 0, p->sequences, "sequences"));
    FA_TRY(check_lines(p));
    if (!p->packed_kv && !is_paged(p, FA_K))
        FA_TRY(fa_check_axis(p, FA_K, 0, p->sequences, packed ? "sequences" : "q.shape[0]"));
    FA_TRY(check_lengths(p, FA_Q, &q->lens));
    FA_TRY(check_lengths(p, FA_K, &kv->lens));
    FA_TRY(check_first(p, kv));
    if (packed || fa_index_is_given(&q->lens) || fa_index_is_given(&kv->lens) ||
        fa_index_is_given(&kv->first) || p->dynamic)
        p->features |= FA_FEATURE_SEQUENCES;
    return FA_OK;
}

/* Where the rows that sequence n uses begin on its side, and how many there are. */
static int32_t place_sequence(const fa_problem *p, int operand, const fa_side_lists *side, int64_t n,
                              int64_t *batch, int64_t *row, int32_t *first)
{
    const bool packed = fa_index_is_given(&side->cu), paged = is_paged(p, operand);
    *first = fa_index_is_given(&side->first) ? (int32_t)fa_index_at(&side->first, n) : 0;
    *batch = packed || paged ? 0 : n;
    *row = paged ? 0 : (packed ? fa_index_at(&side->cu, n) : 0) + *first;
    return (int32_t)length_of(p, operand, side, n) - *first;
}

void fa_sequences_fill(fa_problem *p, const fa_side_lists *q, const fa_side_lists *kv)
{
    p->max_len_q = p->max_len_kv = p->max_key = 0;
    for (int64_t n = 0; n < p->sequences; n++) {
        fa_sequence *s = &p->sequence[n];
        int32_t none;
        s->number = (int32_t)n;
        s->q_head = 0;
        s->len_q = place_sequence(p, FA_Q, q, n, &s->q_batch, &s->q_row, &none);
        s->len_kv = place_sequence(p, FA_K, kv, n, &s->kv_batch, &s->kv_row, &s->first);
        s->mask = fa_mask_of(p->rule, s->len_q, s->len_kv, s->first);
        p->max_len_q = FA_MAX(p->max_len_q, s->len_q);
        p->max_len_kv = FA_MAX(p->max_len_kv, s->len_kv);
        p->max_key = FA_MAX(p->max_key, s->first + s->len_kv);
        if (s->len_q > 0 && s->len_kv > 0 &&
            fa_mask_classify(s->mask, 0, s->len_q, 0, s->len_kv) != FA_CLASS_FULL)
            p->features |= FA_FEATURE_MASK;
    }
}

fa_status fa_sequences_check_rows(const fa_problem *p)
{
    if ((int64_t)p->max_len_q * p->group <= MAX_PACKED_ROWS)
        return FA_OK;
    return fa_fail(FA_INVALID,
                   "q.shape[2] gives a sequence of %d rows of %d heads on one KV head, expected a product "
                   "of at most %d",
                   p->max_len_q, p->group, MAX_PACKED_ROWS);
}

/* A side stays packed, or dense, as the description has it. */
static fa_status check_kind(const char *side, bool packed, const fa_side_lists *lists)
{
    if (packed == fa_index_is_given(&lists->cu))
        return FA_OK;
    return packed ? fa_fail(FA_INVALID, "cu_rows_%s is NULL, expected offsets: the plan's %s is packed", side,
                            side)
                  : fa_fail(FA_INVALID, "%s is given, expected NULL: the plan's %s is not packed",
                            lists->cu.name, side);
}

/* The most rows (axis 2) or keys (3) for which bias or keep has elements. */
static int64_t reach_of(const fa_problem *p, int operand, int axis)
{
    const int64_t length = p->tensor[operand].shape[axis];
    if (!(p->features & fa_operands[operand].feature))
        return INT64_MAX;
    if (operand == FA_KEEP && axis == 3 && p->keep_bits)
        return p->keep_last > 0 ? INT64_MAX : FA_MIN(length, FA_MAX_LENGTH) * 32;
    return length == 1 ? INT64_MAX : length;
}

/* Bias or keep has what the longest sequences take of it. */
static fa_status check_reach(const fa_problem *p, int operand)
{
    const int32_t longest[] = {p->max_len_q, p->max_key};
    for (int axis = 2; axis < 4; axis++) {
        const int64_t reach = reach_of(p, operand, axis);
        if (reach < longest[axis - 2])
            return fa_fail(FA_INVALID, "a sequence has %d %s, expected at most %s%s.shape[%d], %lld",
                           longest[axis - 2], axis == 2 ? "rows" : "keys",
                           axis == 3 && operand == FA_KEEP && p->keep_bits ? "the bits of " : "",
                           fa_operands[operand].name, axis, (long long)reach);
    }
    return FA_OK;
}

fa_status fa_problem_with_lengths(const fa_problem *problem, const fa_lengths *lengths, fa_sequence *room,
                                  fa_problem *made)
{
    fa_side_lists q, kv;
    *made = *problem;
    made->sequence = room;
    made->features &= ~(unsigned)FA_FEATURE_MASK;
    FA_TRY(fa_sequences_take(lengths, &q, &kv));
    FA_TRY(check_kind("q", problem->packed_q, &q));
    FA_TRY(check_kind("kv", problem->packed_kv, &kv));
    FA_TRY(fa_check_limit("sequences", lengths->sequences, 0, problem->sequences));
    if (lengths->sequences > 0)
        made->sequences = lengths->sequences;
    FA_TRY(check_side(made, FA_Q, &q));
    FA_TRY(check_side(made, FA_K, &kv));
    FA_TRY(check_lengths(made, FA_Q, &q.lens));
    FA_TRY(check_lengths(made, FA_K, &kv.lens));
    FA_TRY(check_first(made, &kv));
    fa_sequences_fill(made, &q, &kv);
    FA_TRY(fa_sequences_check_rows(made));
    FA_TRY(check_reach(made, FA_BIAS));
    return check_reach(made, FA_KEEP);
}

static int32_t most_within(const fa_problem *p, int axis, int64_t most)
{
    const int64_t reach = FA_MIN(reach_of(p, FA_BIAS, axis), reach_of(p, FA_KEEP, axis));
    return (int32_t)FA_MIN(FA_MIN(most, reach), FA_MAX_LENGTH);
}

int32_t fa_problem_most_rows(const fa_problem *p)
{
    return most_within(p, 2, FA_MIN(most_of(p, FA_Q), MAX_PACKED_ROWS / p->group));
}

int32_t fa_problem_most_keys(const fa_problem *p)
{
    return most_within(p, 3, most_of(p, FA_K));
}
