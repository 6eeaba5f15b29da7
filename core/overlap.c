/* SPDX-License-Identifier: Apache-2.0 */
#include "core/overlap.h"

#include "core/portable/lang.h"
#include "core/tensor.h"

fa_extent fa_extent_of_bytes(size_t span, const void *storage, uintptr_t begin)
{
    return (fa_extent){.storage = storage, .begin = begin, .span = span, .run = span};
}

fa_extent fa_extent_of_tensor(const fa_tensor *tensor, size_t span, const void *storage, uintptr_t begin)
{
    fa_extent e = {.storage = storage, .begin = begin, .span = span};
    if (span == 0)
        return e;
    /* An axis that repeats its element is the element. */
    e.run = (size_t)(tensor->stride[3] > 0 ? fa_tensor_row_bytes(tensor) : fa_dtype_bytes(tensor->dtype, 1));
    for (int axis = 0; axis < 3; axis++) {
        if (tensor->shape[axis] > 1 && tensor->stride[axis] > 0) {
            e.count[e.axes] = (uint64_t)tensor->shape[axis];
            e.stride[e.axes++] = (uint64_t)fa_dtype_bytes(tensor->dtype, tensor->stride[axis]);
        }
    }
    return e;
}

void fa_extent_repeat(fa_extent *e, int64_t count, size_t stride)
{
    if (count < 2 || stride == 0 || e->span == 0)
        return;
    e->count[e->axes] = (uint64_t)count;
    e->stride[e->axes++] = stride;
    e->span += (size_t)(count - 1) * stride;
}

/*
 * A run of `a` at x and one of `b` at y share a byte exactly where -a.run < x - y < b.run. Counted from the least
 * that it can be, x - y is a sum of terms z * stride, 0 <= z < count, one for each axis of both. So the question is
 * whether such a sum falls into a window.
 */
typedef struct term {
    uint64_t stride, count;
    uint64_t reach; /* most that this term and those before it add up to */
    uint64_t step;  /* what every such sum is a multiple of: the greatest common divisor of their strides */
} term;

enum { MAX_TERMS = 2 * FA_EXTENT_AXES, PATIENCE = 1 << 12 };

/* Adds an axis; keeps the terms in order of their strides, and one term for each stride. */
static int add_term(term *terms, int count, uint64_t stride, uint64_t runs)
{
    int at = count;
    for (int i = 0; i < count; i++) {
        if (terms[i].stride == stride) {
            terms[i].count += runs - 1;
            return count;
        }
    }
    for (; at > 0 && terms[at - 1].stride > stride; at--)
        terms[at] = terms[at - 1];
    terms[at] = (term){.stride = stride, .count = runs};
    return count + 1;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b > 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Whether a sum of the first `count` terms lies in [low, high]. */
static fa_meeting look(const term *terms, int count, uint64_t low, uint64_t high, int *patience)
{
    if (low == 0)
        return FA_MEET; /* the empty sum */
    if (count == 0)
        return FA_APART;
    if (--*patience < 0)
        return FA_UNDECIDED;
    const term *last = &terms[count - 1];
    uint64_t highest = FA_MIN(high, last->reach) / last->step * last->step;
    if (highest < low)
        return FA_APART;
    if (count == 1)
        return FA_MEET;
    uint64_t others = terms[count - 2].reach, missing = low > others ? low - others : 0;
    uint64_t from = missing / last->stride + (missing % last->stride != 0);
    uint64_t to = FA_MIN(high / last->stride, last->count - 1);
    for (uint64_t z = from; z <= to; z++) {
        uint64_t taken = z * last->stride;
        fa_meeting found = look(terms, count - 1, low > taken ? low - taken : 0, high - taken, patience);
        if (found != FA_APART)
            return found;
    }
    return FA_APART;
}

fa_meeting fa_extents_meet(const fa_extent *a, const fa_extent *b)
{
    if (a->span == 0 || b->span == 0 || a->storage != b->storage || a->begin >= b->begin + b->span ||
        b->begin >= a->begin + a->span)
        return FA_APART;
    term terms[MAX_TERMS];
    int count = 0, absorbed = 0, patience = PATIENCE;
    for (int i = 0; i < a->axes; i++)
        count = add_term(terms, count, a->stride[i], a->count[i]);
    for (int i = 0; i < b->axes; i++)
        count = add_term(terms, count, b->stride[i], b->count[i]);
    /* The window that x - y must fall into, less the least that x - y can be. */
    uint64_t high = b->begin + b->span - a->begin - 1, width = (uint64_t)a->run + b->run - 1;
    /* Windows a stride apart that touch are one longer window: such a term needs no more looking at. */
    while (absorbed < count && terms[absorbed].stride <= width) {
        width += (terms[absorbed].count - 1) * terms[absorbed].stride;
        absorbed++;
    }
    term *left = terms + absorbed;
    count -= absorbed;
    for (int i = 0; i < count; i++) {
        left[i].reach = (i > 0 ? left[i - 1].reach : 0) + (left[i].count - 1) * left[i].stride;
        left[i].step = common_divisor(left[i].stride, i > 0 ? left[i - 1].step : 0);
    }
    return look(left, count, high >= width ? high - width + 1 : 0, high, &patience);
}
