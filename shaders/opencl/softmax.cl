/* SPDX-License-Identifier: Apache-2.0 */
/* What a description can do to scores, and how a row ends: the same for every kernel. */
#include "memory.cl"
#include "lanes.cl"

/* The table of a run, as a kernel is given it. */
#define FA_TABLE __global const uchar *restrict table0, long table_offset
#define FA_FIND_TABLE __global const uchar *table = table0 + table_offset

/* What is the same for a whole work item. */
typedef struct work {
    __global const fa_table_params *p; /* they begin the table */
    __global const fa_table_sequence *sequence;
    memory bias, keep;
    long bias_at, keep_at; /* elements, of the first element */
#ifdef FA_PAGES
    memory page_table;
    long page_table_at; /* likewise */
    /* What a look-up of a key asks, as the table has it. */
    long page_stride;
    int first, number, row, page_size, page_shift;
#endif
    long part_row; /* the first of its rows among the partial results; -1: it writes o itself */
    int head_kv, row_begin, row_end, key_begin, key_end;
    fa_walk walk;
} work;

static inline work work_of(__global const uchar *table, int sequence, int head_kv, int row_begin, int row_end,
                           int key_begin, int key_end)
{
    work w;
    w.p = (__global const fa_table_params *)table;
    w.sequence = (__global const fa_table_sequence *)table + w.p->sequences_at + sequence;
    w.head_kv = head_kv;
    w.row_begin = row_begin;
    w.row_end = row_end;
    w.key_begin = key_begin;
    w.key_end = key_end;
    w.walk = fa_walk_of(w.sequence->mask, w.p->group, row_begin, row_end, key_end);
    return w;
}

/* Item n of the plan. */
static inline work work_at(__global const uchar *table, int n, memory bias, long bias_at, memory keep, long keep_at,
                           memory page_table, long page_table_at)
{
    const int first = ((__global const fa_table_params *)table)->items_at;
    const fa_table_item item = ((__global const fa_table_item *)table)[first + n];
    work w = work_of(table, item.sequence, item.head_kv, item.row_begin, item.row_end, item.key_begin, item.key_end);
    w.part_row = item.part_row;
    w.bias = bias;
    w.bias_at = bias_at;
    w.keep = keep;
    w.keep_at = keep_at;
#ifdef FA_PAGES
    w.page_table = page_table;
    w.page_table_at = page_table_at;
    w.page_stride = w.p->page_stride;
    w.first = w.sequence->first;
    w.number = w.sequence->number;
    w.page_size = w.p->page_size;
    w.page_shift = w.p->page_shift;
    w.row = w.sequence->row;
#else
    (void)page_table;
    (void)page_table_at;
#endif
    return w;
}

/* The words of core/portable/work.h and keys.h. */
#define FA_WORK work
#define FA_PARAM(w, member) (w).p->member
#define FA_SEQUENCE(w, member) (w).sequence->member
#define FA_FLOAT_AT(w, n) ((__global const float *)(w).p)[n]
#define FA_INDEX(x) ((long)(x))
#define FA_WIDE(x) (x)
#define FA_LATE(x) (x)
#define FA_LOAD_BIAS(w, n) load_any((w).p->bias_type, (w).bias, (w).bias_at + (n))
#define FA_LOAD_KEEP(w, n) *memory_at((w).keep, (w).keep_at + (n))
#define FA_LOAD_BITS(w, n) *(__global const uint *)memory_at((w).keep, ((w).keep_at + (n)) * 4)
#define FA_LOAD_PAGE(w, n) *(__global const int *)memory_at((w).page_table, ((w).page_table_at + (n)) * 4)
#include "core/portable/work.h"

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

#include "core/portable/scales.h"

/* Whether keys lie in pages: kernels without pages have nothing of them. */
#ifdef FA_PAGES
/* Look-ups read the work item's own copy of the table. */
#undef FA_PARAM
#undef FA_SEQUENCE
#define FA_PARAM(w, member) (w).member
#define FA_SEQUENCE(w, member) (w).member
#include "core/portable/keys.h"
#undef FA_PARAM
#undef FA_SEQUENCE
#define FA_PARAM(w, member) (w).p->member
#define FA_SEQUENCE(w, member) (w).sequence->member
#define PAGES true
#else
#define PAGES false
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

/* The page of a key; -1 where the pool has not what the table names. */
static inline int page_of(work w, int key)
{
    const fa_key_place at = fa_work_place(w, key);
    return fa_work_has_page(w, at) ? at.page : -1;
}
#endif

/* How many of `count` elements can be fetched of a row that lies there. */
static inline int count_at(long row, int count)
{
    return PAGES && row < 0 ? 0 : count;
}

#ifdef FA_SCALES
/* Where the scale of a key lies: its page, or else its batch entry, and its row there. */
static inline fa_key_place scale_place(cursor c, int key)
{
#ifdef FA_PAGES
    return fa_work_clamped(c.w, fa_work_place(c.w, key));
#else
    const fa_key_place place = {c.w.sequence->number, c.w.sequence->row + key};
    return place;
#endif
}

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
