/* SPDX-License-Identifier: Apache-2.0 */
/* What a description can do to scores, and how a row ends: the same for every kernel. */
#include "memory.cl"
#include "lanes.cl"

/* The table of a run, as a kernel is given it. */
#define FA_TABLE __global const uchar *restrict table0, long table_offset
#define FA_FIND_TABLE __global const uchar *table = table0 + table_offset

/* The words of core/portable/item.h, work.h and keys.h. Look-ups read the work item's own copy of the table. */
#define FA_ITEM_OWN                                                                                    \
    __global const fa_table_params *p; /* they begin the table */                                      \
    __global const fa_table_sequence *sequence;                                                        \
    memory bias, keep, page_table;                                                                     \
    long bias_at, keep_at, page_table_at; /* elements, of the first element */
#define FA_TABLE_GIVEN __global const uchar *table,
#define FA_TABLE_PASSED table,
#define FA_FIND_SEQUENCE(w, n)                                                                         \
    w.p = (__global const fa_table_params *)table;                                                     \
    w.sequence = (__global const fa_table_sequence *)table + w.p->sequences_at + n
#define FA_ITEM(n) ((__global const fa_table_item *)table)[((__global const fa_table_params *)table)->items_at + n]
#define FA_IS_NEGATIVE(x) (x) < 0
#ifdef FA_PAGES
#define PAGES true
#else
#define PAGES false
#endif
#define FA_HAS_PAGES(w) PAGES
#ifdef FA_HAS_LISTS
#define FA_LISTS(w) true
#else
#define FA_LISTS(w) false
#endif
#define FA_WORK work
#define FA_PARAM(w, member) (w).p->member
#define FA_SEQUENCE(w, member) (w).sequence->member
#define FA_FLOAT_AT(w, n) ((__global const float *)(w).p)[n]
#define FA_LIST_WORD(w, n) ((__global const uint *)(w).p)[n]
#define FA_WIDE(x) (x)
#define FA_LATE(x) (x)
#define FA_LOAD_BIAS(w, n) load_any((w).p->bias_type, (w).bias, (w).bias_at + (n))
#define FA_LOAD_KEEP(w, n) *memory_at((w).keep, (w).keep_at + (n))
#define FA_LOAD_BITS(w, n) *(__global const uint *)memory_at((w).keep, ((w).keep_at + (n)) * 4)
#define FA_PAGE_PARAM(w, member) (w).member
#define FA_PAGE_SEQUENCE(w, member) (w).member
#define FA_LOAD_PAGE(w, n) *(__global const int *)memory_at((w).page_table, ((w).page_table_at + (n)) * 4)
#include "core/portable/item.h"
#include "core/portable/keys.h"
#include "core/portable/work.h"

/* Item n of the plan, with operands that it reads beside q, k and v. */
static inline work work_with(__global const uchar *table, int n, memory bias, long bias_at, memory keep, long keep_at,
                             memory page_table, long page_table_at)
{
    work w = fa_work_at(table, n);
    w.bias = bias;
    w.bias_at = bias_at;
    w.keep = keep;
    w.keep_at = keep_at;
    w.page_table = page_table;
    w.page_table_at = page_table_at;
    return w;
}

#ifdef FA_SCALES_K
#define FA_SCALES
#endif
#ifdef FA_SCALES_V
#undef FA_SCALES
#define FA_SCALES
#endif
#if FA_TYPE_PRUNES(FA_TYPE_K) || FA_TYPE_PRUNES(FA_TYPE_V)
#define FA_PRUNED
#endif

/*
 * The rows of k or v that an item meets: bytes before the one of key 0, and to the next. In pages: before the first of the
 * pool, to the next of a page, and to the next page.
 */
typedef struct cursor {
    memory m;
    long first;
    FA_STRIDE step;
#ifdef FA_PAGES
    FA_STRIDE page;
    work w;
#elif defined(FA_SCALES)
    work w;
#endif
#ifdef FA_SCALES
    __global const fa_scales *scales;
    __global const uchar *scale, *zero;
#endif
#ifdef FA_PRUNED
    int dims, bytes; /* of a row that keeps some of its elements */
#endif
} cursor;

/* What they have of pages, and of scales until with_scales() tells; of rows with_rows() tells. */
#ifdef FA_PRUNED
#define FA_UNTOLD , 0, 0
#else
#define FA_UNTOLD
#endif
#ifdef FA_SCALES
#define FA_UNSCALED , 0, 0, 0 FA_UNTOLD
#else
#define FA_UNSCALED FA_UNTOLD
#endif
#ifdef FA_PAGES
#define FA_IN_PAGES(page, w) , page, w FA_UNSCALED
#elif defined(FA_SCALES)
#define FA_IN_PAGES(page, w) , w FA_UNSCALED
#else
#define FA_IN_PAGES(page, w) FA_UNSCALED
#endif

/* Bytes before element n. Where an operand begins is counted in elements, but in bytes where those come in blocks. */
#define FA_BYTES(type, offset, n)                                                  \
    (FA_TYPE_IS_CODED(type) ? (offset) + FA_TYPE_SPAN(type, n) : FA_TYPE_SPAN(type, (offset) + (n)))

static inline cursor keys_of(work w, memory k, long k_offset)
{
    const cursor c = {k, FA_BYTES(FA_TYPE_K, k_offset, FA_HEAD_AT(w, k)),
                      FA_TYPE_SPAN(FA_TYPE_K, (FA_STRIDE)w.p->k_stride[2])
                      FA_IN_PAGES(FA_TYPE_SPAN(FA_TYPE_K, (FA_STRIDE)w.p->k_stride[0]), w)};
    return c;
}

static inline cursor values_of(work w, memory v, long v_offset)
{
    const cursor c = {v, FA_BYTES(FA_TYPE_V, v_offset, FA_HEAD_AT(w, v)),
                      FA_TYPE_SPAN(FA_TYPE_V, (FA_STRIDE)w.p->v_stride[2])
                      FA_IN_PAGES(FA_TYPE_SPAN(FA_TYPE_V, (FA_STRIDE)w.p->v_stride[0]), w)};
    return c;
}

/*
 * Bytes before a key's row; -1 where the table names a page that the pool has not. `tile` fetches nothing of such a row: the
 * key is NaN, so that the rows that see it become NaN, and the value is 0. The table is read here, so in pages
 * kernels keep what this says.
 */
static inline long row_at(cursor c, int key)
{
#ifdef FA_PAGES
    const fa_key_place at = fa_work_place(c.w, key);
    return fa_work_has_page(c.w, at) ? c.first + (long)at.page * c.page + (long)at.within * c.step : -1;
#else
    return c.first + (long)key * c.step;
#endif
}

#ifdef FA_PAGES
/* The same of a key whose page is known; the pool has it. */
static inline long row_on(cursor c, int page, int key)
{
    return c.first + (long)page * c.page + (long)fa_work_within(c.w, key) * c.step;
}
#endif

/*
 * What a fetch wants to know of a key in pages, and is told before: where its row begins or, where scales lie in pages too, its
 * page. -1 where the pool has no such page.
 */
#if defined(FA_PAGES) && defined(FA_SCALES)
static inline long find_key(cursor c, int key)
{
    const fa_key_place at = fa_work_place(c.w, key);
    return fa_work_has_page(c.w, at) ? at.page : -1;
}

static inline long row_found(cursor c, long found, int key)
{
    return found < 0 ? -1 : row_on(c, (int)found, key);
}

static inline fa_key_place place_found(cursor c, long found, int key)
{
    const fa_key_place at = {(int)found, fa_work_within(c.w, key)};
    return at;
}
#else
#define find_key(c, key) row_at(c, key)
#define row_found(c, found, key) (PAGES ? (found) : row_at(c, key))
static inline fa_key_place place_found(cursor c, long found, int key)
{
    const fa_key_place at = {0, key};
    return at;
}
#endif

/* How many of `count` elements can be fetched of a row that lies there. */
static inline int count_at(long row, int count)
{
    return PAGES && row < 0 ? 0 : count;
}

#ifdef FA_SCALES
static inline cursor with_scales(cursor c, __global const fa_scales *scales, __global const uchar *scale,
                                 __global const uchar *zero)
{
    c.scales = scales;
    c.scale = scale;
    c.zero = zero;
    return c;
}
#endif
#include "scaled.cl"

/* What a part of a split row leaves, two floats each. */
static inline void store_state(memory states, long first, long part, fa_state state)
{
    store_0(states, first + 2 * part, state.max);
    store_0(states, first + 2 * part + 1, state.sum);
}

static inline fa_state load_state(memory states, long first, long part)
{
    fa_state state;
    state.max = load_0(states, first + 2 * part);
    state.sum = load_0(states, first + 2 * part + 1);
    return state;
}
