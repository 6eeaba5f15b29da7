/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where rows of k and v lie: the one place that knows. A key has a place, which is its number where there are no pages.
 * With pages its page is looked up, which takes as long as memory does: a kernel asks for places one block or step before
 * it fetches what lies there. Functions here return at their ends alone: only such are inlined as kernels are compiled.
 */
layout(constant_id = FA_VK_FAR) const int FAR = 0;

shared int lost; /* some work-item met a page that the pool does not have */
bool lost_here;  /* this one did */

int load_page(address n)
{
    return int(WORD1(10, at(FA_VK_SLOT_PAGES) + n * 4));
}

/* Look-ups read the work item's own copy of the table. */
#define FA_PAGE_PARAM(w, member) (w).member
#define FA_PAGE_SEQUENCE(w, member) (w).member
#define FA_LOAD_PAGE(w, n) load_page(n)
#include "core/portable/keys.h"

/* Of the types of k and v: a block's bytes, the logarithm of its elements, and the bytes of so many elements. */
const int SIZE_K = FA_TYPE_SIZE(TYPE_K), SHIFT_K = FA_TYPE_BLOCK_SHIFT(TYPE_K);
const int SIZE_V = FA_TYPE_SIZE(TYPE_V), SHIFT_V = FA_TYPE_BLOCK_SHIFT(TYPE_V);
#define SPAN_OF(type, shift, elements) (FA_TYPE_IS_MLA(type) ? (elements) / FA_MLA_DIMS : (elements) >> shift)
#define SPAN_K(elements) (SPAN_OF(TYPE_K, SHIFT_K, elements) * SIZE_K)
#define SPAN_V(elements) (SPAN_OF(TYPE_V, SHIFT_V, elements) * SIZE_V)

/* The rows of k or v that an item meets: where the first one begins, and how far it is to the next, and to the next page. */
struct cursor {
    address first, step, page_step;
    int unit; /* of distances, see distance_of() */
};

cursor cursor_of(address first, address step, address page_step)
{
    const uint steps = FA_PLACE_STEPS(uint(step | page_step));
    return cursor(first, step, page_step, int(FA_PLACE_UNIT(steps)));
}

cursor keys_of(work w)
{
    return cursor_of(at(FA_VK_SLOT_K) + SPAN_K(FA_HEAD_AT(w, k)), SPAN_K(wide(PARAMS.k_stride[2])),
                     SPAN_K(wide(PARAMS.k_stride[0])));
}

cursor values_of(work w)
{
    return cursor_of(at(FA_VK_SLOT_V) + SPAN_V(FA_HEAD_AT(w, v)), SPAN_V(wide(PARAMS.v_stride[2])),
                     SPAN_V(wide(PARAMS.v_stride[0])));
}

/* The place of a key, which was asked for before where there are pages. */
fa_key_place placed(fa_key_place before, int key)
{
    fa_key_place at = fa_key_place(0, key);
    if (PAGES != 0)
        at = before;
    return at;
}

/* Where a key's row begins. Most steps need few bits, and then the product is one instruction. */
address row_at(work w, cursor c, fa_key_place at)
{
    address first = c.first;
    if (PAGES != 0) {
        lost_here = lost_here || !fa_work_has_page(w, at);
        const int page = fa_work_clamped(w, at).page;
        first += FAR != 0 ? address(page) * c.page_step : address(page) * address(int(c.page_step));
    }
    return first + (FAR != 0 ? address(at.within) * c.step : address(at.within) * address(int(c.step)));
}

/* Where a row lies as such a number, from the cursor's first row on. FAR also says of a pool that it is too large for that. */
int distance_of(cursor c, fa_key_place at)
{
    return int(address(at.page) * c.page_step + address(at.within) * c.step >> findLSB(c.unit));
}

address row_behind(cursor c, int distance)
{
    return c.first + address(distance) * address(c.unit);
}

/* A kernel calls begin_lost() before its first barrier and end_lost() before its last; then sum_or_lost() knows of the item. */
void begin_lost(int id)
{
    lost_here = false;
    if (PAGES != 0 && id == 0)
        lost = 0;
}

void end_lost()
{
    if (PAGES != 0 && lost_here)
        lost = 1;
}

/* A row's sum, which is NaN where the item met no page. */
float sum_or_lost(float sum)
{
    return PAGES != 0 && lost != 0 ? uintBitsToFloat(0x7fc00000u) : sum;
}
