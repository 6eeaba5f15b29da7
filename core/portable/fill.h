/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The work of a run whose lengths lie on the device, in the words of task.h. One work-group writes it all. It goes through
 * the sequences twice: to see how much there is to do, then to write each and its items and merges.
 *
 * The schedule is simpler than the host's. All row blocks of a sequence are met in as many parts, and parts have equal
 * numbers of key blocks, at most as many as one chunk. Parts that find no block left are empty, which the merge allows.
 *
 * It has room in what core/attention/capacity.c calls the capacity. Lengths are held within what the tensors have, and
 * offsets of rows that fall make no rows at all. So there are no more row blocks than any lengths make.
 *  - Where the chunk is `most`, or parts were asked for, no row block has more parts than the capacity counts for each.
 *  - A smaller chunk c makes at most blocks / c + row_blocks items, which fa_fill_chunk() keeps within `items`. The core
 *    sets that so low that half of it are merges, and so many row blocks of partial rows have room.
 */
#ifndef FA_PORTABLE_FILL_H
#define FA_PORTABLE_FILL_H

#include "table.h"
#include "task.h"

/* Operands by number, each but the first a list of ints: the work, then of q and of k offsets or lengths, first keys. */
#define FA_FILL_WORK 0
#define FA_FILL_ROWS 1
#define FA_FILL_KEYS 2
#define FA_FILL_FIRST 3

/* What is given, and what it is. */
#define FA_FILL_HAS_ROWS 1
#define FA_FILL_HAS_KEYS 2
#define FA_FILL_HAS_FIRST 4
#define FA_FILL_PACKED_Q 8
#define FA_FILL_PACKED_KV 16

FA_STRUCT(fa_fill_params)
    fa_table_params
        head; /* that of the plan's own work; the words between it and the sequences lie behind this struct */
    fa_mask_rule rule;
    int lists; /* FA_FILL_HAS_ROWS and the others */
    int sequences, heads_kv;
    int rows_q, rows_kv;   /* of a packed tensor                                 */
    int most_q, most_kv;   /* of a sequence                                      */
    int block_q, block_kv; /* of the plan's tiling                               */
    int most;              /* blocks of keys that an item may have at most       */
    int splits;            /* parts asked for; 0: as is best                     */
    int items;             /* of a schedule that splits rows which need not be   */
    int units;
    /* Costs, in those of a whole block of keys: of an item, of a part of a row block, of merging at all, of starting more
     * units than one. */
    float item_cost, part_cost, merge_cost, launch_cost;
    int row_lists;  /* each row of q is so many sequences; 0: q has sequences of rows */
    int batch_rows; /* then of q, in a batch entry */
    int head_words; /* of `head` */
    int words;      /* of this struct */
    int partial_rows_word, items_word, merges_word,
        workers_word; /* of the members of `head` that are of these lengths */
FA_STRUCT_END(fa_fill_params)
FA_TASK_VIEW(fa_fill_params)

FA_STRUCT(fa_fill_word)
    int bits;
FA_STRUCT_END(fa_fill_word)
FA_TASK_VIEW(fa_fill_word)

/* A sequence, and how its rows and keys are cut. */
FA_STRUCT(fa_fill_sequence)
    fa_mask mask;
    int len_q, first;
    int q_row, kv_row; /* where its rows and keys begin in their tensors                    */
    int pages;         /* fa_table_sequence.row, where keys lie in pages                    */
    int row_blocks;    /* of a KV head                                                      */
    int key_blocks;    /* at least as many as any row block meets                           */
    bool falls;        /* its offsets do                                                    */
FA_STRUCT_END(fa_fill_sequence)

/* Of all sequences and KV heads. */
FA_STRUCT(fa_fill_sums)
    float blocks; /* row blocks times key blocks */
    int row_blocks;
    int longest; /* most key blocks             */
    int falls;
FA_STRUCT_END(fa_fill_sums)

#define FA_FILL_MANY (1 << 29) /* row blocks: more than a plan may have. Offsets that fall could make more */

FA_STRUCT(fa_fill_chunk)
    int blocks; /* of keys in an item, at most            */
    bool alone; /* on a CPU, it is too little to share out */
FA_STRUCT_END(fa_fill_chunk)

/* Items, merges and partial rows: of a sequence, or before it. */
FA_STRUCT(fa_fill_count)
    int items, merges, rows;
FA_STRUCT_END(fa_fill_count)

#define FA_FILL_PARAM(t, member) FA_TASK_PARAM(t, fa_fill_params, member)
#define FA_FILL_HEAD(t, member) FA_TASK_PARAM(t, fa_fill_params, head.member)

FA_KERNEL_FN bool fa_fill_has(FA_TASK t, int what)
{
    return (FA_FILL_PARAM(t, lists) & what) != 0;
}

/* Whether keys lie in pages. A sequence whose keys go beyond what its pages hold is held within, and has no page. */
FA_KERNEL_FN bool fa_fill_paged(FA_TASK t)
{
    return (FA_FILL_HEAD(t, flags) & FA_TABLE_PAGES) != 0;
}

FA_FN int fa_fill_divide_up(int a, int b)
{
    return a / b + (a - a / b * b > 0 ? 1 : 0);
}

FA_FN int fa_fill_clamp(int x, int low, int high)
{
    return FA_MIN(FA_MAX(x, low), high);
}

/*
 * Blocks of keys that a row block of the sequence meets at most. All of its rows lie between the first row's first key and
 * the last row's last; those of a block also in what a window leaves them, which may begin and end within a block.
 */
FA_FN int fa_fill_key_blocks(fa_mask m, int len_q, int group, int block_q, int block_kv)
{
    const int begin = m.prefix > 0 ? 0 : fa_mask_begin(m, 0) / block_kv;
    const int end = FA_MAX(fa_mask_end(m, len_q - 1), m.prefix);
    const int all = FA_MAX(fa_fill_divide_up(end, block_kv) - begin, 0);
    const int limit = FA_UNLIMITED / 4, positions = FA_MIN((block_q - 1) / group + 2, len_q);
    if (m.prefix > 0 || m.left > limit || m.right > limit)
        return all;
    return FA_MIN(all, (m.left + m.right + positions) / block_kv + 2);
}

/* Sequence n. `none`: it has no rows, whatever the lists say. */
FA_KERNEL_FN fa_fill_sequence fa_fill_read(FA_TASK t, int n, bool none)
{
    const int at = 4 * n;
    const bool packed_q = fa_fill_has(t, FA_FILL_PACKED_Q), packed_kv = fa_fill_has(t, FA_FILL_PACKED_KV);
    fa_fill_sequence s;
    const int most_kv = FA_FILL_PARAM(t, most_kv);
    const bool paged = fa_fill_paged(t);
    int len_q = FA_FILL_PARAM(t, most_q), len_kv = most_kv;
    s.pages = FA_FILL_HEAD(t, pages);
    s.q_row = 0;
    s.kv_row = 0;
    s.first = 0;
    s.falls = false;
    if (packed_q) {
        const int rows = FA_FILL_PARAM(t, rows_q), end = FA_INT(FA_GET32(t, 1, FA_INDEX(at + 4)));
        s.q_row = fa_fill_clamp(FA_INT(FA_GET32(t, 1, FA_INDEX(at))), 0, rows);
        len_q = FA_MIN(len_q, fa_fill_clamp(end, 0, rows) - s.q_row);
        s.falls = len_q < 0;
    } else if (fa_fill_has(t, FA_FILL_HAS_ROWS)) {
        len_q = FA_MIN(len_q, FA_INT(FA_GET32(t, 1, FA_INDEX(at))));
    }
    if (packed_kv) {
        const int rows = FA_FILL_PARAM(t, rows_kv), end = FA_INT(FA_GET32(t, 2, FA_INDEX(at + 4)));
        s.kv_row = fa_fill_clamp(FA_INT(FA_GET32(t, 2, FA_INDEX(at))), 0, rows);
        len_kv = FA_MIN(len_kv, fa_fill_clamp(end, 0, rows) - s.kv_row);
    } else if (fa_fill_has(t, FA_FILL_HAS_KEYS)) {
        const int told = FA_INT(FA_GET32(t, 2, FA_INDEX(at)));
        len_kv = FA_MIN(len_kv, told);
        s.pages = told > most_kv ? -1 : s.pages;
    }
    len_kv = FA_MAX(len_kv, 0);
    if (fa_fill_has(t, FA_FILL_HAS_FIRST))
        s.first = fa_fill_clamp(FA_INT(FA_GET32(t, 3, FA_INDEX(at))), 0, len_kv);
    if (!paged)
        s.kv_row += s.first;
    s.len_q = none ? 0 : FA_MAX(len_q, 0);
    s.mask = fa_mask_of(FA_FILL_PARAM(t, rule), s.len_q, len_kv - s.first, s.first);
    s.row_blocks = fa_fill_divide_up(s.len_q * FA_FILL_HEAD(t, group), FA_FILL_PARAM(t, block_q));
    s.key_blocks = s.len_q > 0 ? fa_fill_key_blocks(s.mask, s.len_q, FA_FILL_HEAD(t, group),
                                                    FA_FILL_PARAM(t, block_q), FA_FILL_PARAM(t, block_kv))
                               : 0;
    return s;
}

/* Parts of each row block of the sequence. */
FA_KERNEL_FN int fa_fill_parts(FA_TASK t, fa_fill_sequence s, int chunk)
{
    const int splits = FA_FILL_PARAM(t, splits);
    int parts = fa_fill_divide_up(s.key_blocks, chunk);
    if (splits > 0)
        parts = FA_MAX(splits, fa_fill_divide_up(s.key_blocks, FA_FILL_PARAM(t, most)));
    return FA_MAX(FA_MIN(parts, s.key_blocks), 1);
}

/*
 * Modelled time of so many items of up to `longest` blocks. Units take an item after the other, so that none works longer
 * than the mean and one item; and none takes more than its share of items.
 */
FA_KERNEL_FN float fa_fill_time(FA_TASK t, float blocks, int items, int longest)
{
    const int units = FA_FILL_PARAM(t, units), turns = fa_fill_divide_up(items, units);
    const float by_turns = FA_FLOAT(turns) * FA_FLOAT(longest);
    const float by_mean = blocks / FA_FLOAT(units) + FA_FLOAT(longest);
    return FA_MIN(by_turns, by_mean) + FA_FLOAT(turns) * FA_FILL_PARAM(t, item_cost);
}

/*
 * The chunk that takes least time: rows are left whole, or split so that each unit has up to one item, two, or more.
 * `blocks` may be off by its rounding, which the hundredth makes good for.
 */
FA_KERNEL_FN fa_fill_chunk fa_fill_choose(FA_TASK t, fa_fill_sums all)
{
    const int most = FA_FILL_PARAM(t, most), units = FA_FILL_PARAM(t, units);
    const int whole = FA_MAX(FA_MIN(all.longest, most), 1);
    const float one_unit = all.blocks + FA_FLOAT(all.row_blocks) * FA_FILL_PARAM(t, item_cost);
    float best = fa_fill_time(t, all.blocks, all.row_blocks, whole);
    fa_fill_chunk chosen;
    chosen.blocks = most;
    for (int turns = 1; turns <= 8; turns++) {
        const int room = FA_MIN(turns * units, FA_FILL_PARAM(t, items)) - all.row_blocks;
        if (room <= 0)
            continue;
        const float least = all.blocks * 1.01f / FA_FLOAT(room);
        if (least >= FA_FLOAT(whole - 1))
            continue;
        const int chunk = FA_INT(least) + 1;
        const int items = FA_INT(all.blocks / FA_FLOAT(chunk)) + all.row_blocks;
        const float time = fa_fill_time(t, all.blocks, items, chunk) + FA_FILL_PARAM(t, merge_cost) +
                           FA_FLOAT(items) * FA_FILL_PARAM(t, part_cost);
        if (time < 0.97f * best) {
            best = time;
            chosen.blocks = chunk;
        }
    }
    chosen.alone = one_unit * 0.8f <= best + FA_FILL_PARAM(t, launch_cost);
    if (chosen.alone)
        chosen.blocks = most;
    return chosen;
}

/* Sums over the group's work-items. The tree of a group of any size: an item adds up what lies `step` behind it. */
FA_KERNEL_FN fa_fill_sums fa_fill_sum(FA_TASK t, int item, int items, fa_fill_sums own)
{
    FA_TASK_SHARED(t, item) = own.row_blocks;
    FA_TASK_SHARED(t, items + item) = own.longest;
    FA_TASK_SHARED(t, 2 * items + item) = own.falls;
    FA_TASK_SHARED(t, 3 * items + item) = FA_INT(FA_AS_UINT(own.blocks));
    for (int step = 1; step < items; step *= 2) {
        FA_TASK_SYNC(t);
        if (item % (2 * step) == 0 && item + step < items) {
            own.row_blocks = FA_MIN(own.row_blocks + FA_TASK_SHARED(t, item + step), FA_FILL_MANY);
            own.longest = FA_MAX(own.longest, FA_TASK_SHARED(t, items + item + step));
            own.falls += FA_TASK_SHARED(t, 2 * items + item + step);
            own.blocks += FA_AS_FLOAT(FA_UINT(FA_TASK_SHARED(t, 3 * items + item + step)));
            FA_TASK_SHARED(t, item) = own.row_blocks;
            FA_TASK_SHARED(t, items + item) = own.longest;
            FA_TASK_SHARED(t, 2 * items + item) = own.falls;
            FA_TASK_SHARED(t, 3 * items + item) = FA_INT(FA_AS_UINT(own.blocks));
        }
    }
    FA_TASK_SYNC(t);
    own.row_blocks = FA_TASK_SHARED(t, 0);
    own.longest = FA_TASK_SHARED(t, items);
    own.falls = FA_TASK_SHARED(t, 2 * items);
    own.blocks = FA_AS_FLOAT(FA_UINT(FA_TASK_SHARED(t, 3 * items)));
    FA_TASK_SYNC(t);
    return own;
}

FA_KERNEL_FN fa_fill_sums fa_fill_look(FA_TASK t, int item, int items)
{
    fa_fill_sums own;
    own.blocks = 0.0f;
    own.row_blocks = 0;
    own.longest = 0;
    own.falls = 0;
    for (int n = item; n < FA_FILL_PARAM(t, sequences); n += items) {
        const fa_fill_sequence s = fa_fill_read(t, n, false);
        const int row_blocks = s.row_blocks * FA_FILL_PARAM(t, heads_kv);
        own.blocks += FA_FLOAT(row_blocks) * FA_FLOAT(s.key_blocks);
        own.row_blocks = FA_MIN(own.row_blocks + row_blocks, FA_FILL_MANY);
        own.longest = FA_MAX(own.longest, s.key_blocks);
        own.falls += s.falls ? 1 : 0;
    }
    return fa_fill_sum(t, item, items, own);
}

/* Each count becomes that of all work-items up to and with its own. */
FA_KERNEL_FN void fa_fill_add_up(FA_TASK t, int item, int items, fa_fill_count own)
{
    FA_TASK_SHARED(t, item) = own.items;
    FA_TASK_SHARED(t, items + item) = own.merges;
    FA_TASK_SHARED(t, 2 * items + item) = own.rows;
    for (int step = 1; step < items; step *= 2) {
        FA_TASK_SYNC(t);
        if (item >= step) {
            own.items += FA_TASK_SHARED(t, item - step);
            own.merges += FA_TASK_SHARED(t, items + item - step);
            own.rows += FA_TASK_SHARED(t, 2 * items + item - step);
        }
        FA_TASK_SYNC(t);
        FA_TASK_SHARED(t, item) = own.items;
        FA_TASK_SHARED(t, items + item) = own.merges;
        FA_TASK_SHARED(t, 2 * items + item) = own.rows;
    }
    FA_TASK_SYNC(t);
}

/* The counts up to and with work-item k; -1: none. */
FA_KERNEL_FN fa_fill_count fa_fill_counted(FA_TASK t, int k, int items)
{
    fa_fill_count c;
    c.items = k < 0 ? 0 : FA_TASK_SHARED(t, k);
    c.merges = k < 0 ? 0 : FA_TASK_SHARED(t, items + k);
    c.rows = k < 0 ? 0 : FA_TASK_SHARED(t, 2 * items + k);
    return c;
}

/* The first work-item with which there are more than `i` items. */
FA_KERNEL_FN int fa_fill_find(FA_TASK t, int i, int items)
{
    int low = 0, high = items - 1;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (FA_TASK_SHARED(t, middle) > i)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

FA_KERNEL_FN void fa_fill_put(FA_TASK t, int word, int value)
{
    FA_PUT32(t, 0, FA_INDEX(word) * FA_INDEX(4), FA_UINT(value));
}

/* An fa_long that is not negative. */
FA_KERNEL_FN void fa_fill_put_long(FA_TASK t, int word, FA_AT value)
{
    FA_PUT32(t, 0, FA_INDEX(word) * FA_INDEX(4), FA_TASK_LOW(value));
    FA_PUT32(t, 0, FA_INDEX(word) * FA_INDEX(4) + FA_INDEX(4), FA_TASK_HIGH(value));
}

/* Elements that precede the first row of a sequence in batch entry `batch` of x. */
#define FA_FILL_ROW(t, x, batch, row)                            \
    (FA_INDEX(batch) * FA_WIDE(FA_FILL_HEAD(t, x##_stride[0])) + \
     FA_INDEX(row) * FA_WIDE(FA_FILL_HEAD(t, x##_stride[2])))
/* Of a head further. */
#define FA_FILL_HEAD_ROW(t, x, batch, head, row) \
    (FA_FILL_ROW(t, x, batch, row) + FA_INDEX(head) * FA_WIDE(FA_FILL_HEAD(t, x##_stride[1])))

/* Words of the table's entries. */
#define FA_FILL_ENTRY_WORDS 8

/* Entry n of fa_table_sequence, member by member. */
FA_KERNEL_FN void fa_fill_put_sequence(FA_TASK t, int n, fa_fill_sequence s)
{
    const int at = (FA_FILL_HEAD(t, sequences_at) + n) * FA_SEQUENCE_WORDS;
    const int lists = FA_FILL_PARAM(t, row_lists),
              heads = FA_FILL_PARAM(t, heads_kv) * FA_FILL_HEAD(t, group);
    const int heads_q = heads * FA_MAX(lists, 1);
    const bool paged = fa_fill_paged(t);
    int batch_q = fa_fill_has(t, FA_FILL_PACKED_Q) ? 0 : n, head = 0;
    const int batch_kv = fa_fill_has(t, FA_FILL_PACKED_KV) || paged ? 0 : n;
    if (lists > 0) {
        const int row = n / lists;
        head = (n - row * lists) * heads;
        batch_q = row / FA_FILL_PARAM(t, batch_rows);
        s.q_row = row - batch_q * FA_FILL_PARAM(t, batch_rows);
    }
    fa_fill_put_long(t, at, FA_FILL_HEAD_ROW(t, q, batch_q, head, s.q_row));
    fa_fill_put_long(t, at + 2, FA_FILL_ROW(t, k, batch_kv, s.kv_row));
    fa_fill_put_long(t, at + 4, FA_FILL_ROW(t, v, batch_kv, s.kv_row));
    fa_fill_put_long(t, at + 6, FA_FILL_HEAD_ROW(t, o, batch_q, head, s.q_row));
    fa_fill_put_long(t, at + 8,
                     (FA_INDEX(batch_q) * FA_INDEX(heads_q) + FA_INDEX(head)) *
                             FA_INDEX(FA_FILL_HEAD(t, lse_rows)) +
                         FA_INDEX(s.q_row));
    fa_fill_put(t, at + 10, n);
    fa_fill_put(t, at + 11, s.mask.len_kv);
    fa_fill_put(t, at + 12, s.mask.diagonal);
    fa_fill_put(t, at + 13, s.mask.left);
    fa_fill_put(t, at + 14, s.mask.right);
    fa_fill_put(t, at + 15, s.mask.prefix);
    fa_fill_put(t, at + 16, s.first);
    fa_fill_put(t, at + 17, paged ? s.pages : s.kv_row);
    fa_fill_put(t, at + 18, s.len_q);
    fa_fill_put(t, at + 19, 0);
}

/*
 * Item i of those of sequence n, the first of which are of its last rows: with a causal mask, these have most keys.
 * `before` is what other sequences have before it. The item that is a row block's first part writes its merge too.
 */
FA_KERNEL_FN void fa_fill_put_item(FA_TASK t, int n, fa_fill_sequence s, int i, int chunk,
                                   fa_fill_count before)
{
    const int group = FA_FILL_HEAD(t, group), heads = FA_FILL_PARAM(t, heads_kv);
    const int block_q = FA_FILL_PARAM(t, block_q), block_kv = FA_FILL_PARAM(t, block_kv);
    const int parts = fa_fill_parts(t, s, chunk);
    const int of_row = i / parts, part = i - of_row * parts, head = of_row % heads;
    const int row_block = s.row_blocks - 1 - of_row / heads, rows = s.len_q * group;
    const int row_begin = row_block * block_q, row_end = FA_MIN(row_begin + block_q, rows);
    /* The keys that the row block meets, in blocks, of which the first parts have one more than the others. */
    const int begin = fa_mask_begin(s.mask, row_begin / group);
    const int interval_end = fa_mask_end(s.mask, (row_end - 1) / group);
    const int end = FA_MAX(interval_end > begin ? interval_end : 0, s.mask.prefix);
    const int first = s.mask.prefix > 0 || interval_end <= begin ? 0 : begin / block_kv;
    const int blocks = fa_fill_divide_up(end, block_kv) - first, step = blocks / parts;
    const int rest = blocks - step * parts, from = first + step * part + FA_MIN(part, rest);
    const int to = from + step + (part < rest ? 1 : 0);
    const int first_part = parts > 1 ? before.rows + (head * rows + row_begin) * parts : -1;
    const int part_row = parts > 1 ? first_part + part * (row_end - row_begin) : -1;
    const int at = FA_FILL_ENTRY_WORDS * (FA_FILL_HEAD(t, items_at) + before.items + i);
    fa_fill_put(t, at, part_row);
    fa_fill_put(t, at + 1, part_row < 0 ? -1 : 0);
    fa_fill_put(t, at + 2, n);
    fa_fill_put(t, at + 3, head);
    fa_fill_put(t, at + 4, row_begin);
    fa_fill_put(t, at + 5, row_end);
    fa_fill_put(t, at + 6, to > from ? from * block_kv : first * block_kv);
    fa_fill_put(t, at + 7, to > from ? FA_MIN(to * block_kv, end) : first * block_kv);
    if (part == 0 && parts > 1) {
        const int merge = FA_FILL_HEAD(t, merges_at) + before.merges + head * s.row_blocks + row_block;
        const int into = FA_FILL_ENTRY_WORDS * merge;
        fa_fill_put(t, into, first_part);
        fa_fill_put(t, into + 1, 0);
        fa_fill_put(t, into + 2, n);
        fa_fill_put(t, into + 3, head);
        fa_fill_put(t, into + 4, row_begin);
        fa_fill_put(t, into + 5, row_end);
        fa_fill_put(t, into + 6, parts);
        fa_fill_put(t, into + 7, 0);
    }
}

/* Writes all sequences, items and merges, and returns how many there are. */
FA_KERNEL_FN fa_fill_count fa_fill_lists(FA_TASK t, int item, int items, int chunk, bool none)
{
    const int sequences = FA_FILL_PARAM(t, sequences), heads = FA_FILL_PARAM(t, heads_kv);
    fa_fill_count done;
    done.items = 0;
    done.merges = 0;
    done.rows = 0;
    for (int from = 0; from < sequences; from += items) {
        fa_fill_count own;
        own.items = 0;
        own.merges = 0;
        own.rows = 0;
        if (from + item < sequences) {
            const fa_fill_sequence s = fa_fill_read(t, from + item, none);
            const int parts = fa_fill_parts(t, s, chunk);
            own.items = heads * s.row_blocks * parts;
            own.merges = parts > 1 ? heads * s.row_blocks : 0;
            own.rows = parts > 1 ? heads * s.len_q * FA_FILL_HEAD(t, group) * parts : 0;
            fa_fill_put_sequence(t, from + item, s);
        }
        fa_fill_add_up(t, item, items, own);
        const fa_fill_count all = fa_fill_counted(t, items - 1, items);
        for (int i = item; i < all.items; i += items) {
            const int k = fa_fill_find(t, i, items);
            fa_fill_count before = fa_fill_counted(t, k - 1, items);
            const int within = i - before.items;
            before.items += done.items;
            before.merges += done.merges;
            before.rows += done.rows;
            fa_fill_put_item(t, from + k, fa_fill_read(t, from + k, none), within, chunk, before);
        }
        done.items += all.items;
        done.merges += all.merges;
        done.rows += all.rows;
        FA_TASK_SYNC(t);
    }
    return done;
}

/* The share of work-group 0, the only one, for one of its `items` work-items. */
FA_KERNEL_FN void fa_fill_group(FA_TASK t, int group, int item, int items)
{
    if (group > 0)
        return;
    const fa_fill_sums all = fa_fill_look(t, item, items);
    const bool none = all.falls > 0;
    const fa_fill_chunk chunk = fa_fill_choose(t, all);
    const fa_fill_count done = fa_fill_lists(t, item, items, chunk.blocks, none);
    const int workers = chunk.alone ? FA_MIN(done.items, 1) : FA_MIN(done.items, FA_FILL_PARAM(t, units));
    const int words = FA_FILL_HEAD(t, sequences_at) * FA_SEQUENCE_WORDS;
    for (int n = item; n < words; n += items) {
        const int head = FA_FILL_PARAM(t, head_words);
        int value = FA_TASK_LIST(t, fa_fill_word, n < head ? n : n - head + FA_FILL_PARAM(t, words)).bits;
        value = n == FA_FILL_PARAM(t, partial_rows_word) ? done.rows : value;
        value = n == FA_FILL_PARAM(t, partial_rows_word) + 1 ? 0 : value;
        value = n == FA_FILL_PARAM(t, items_word) ? done.items : value;
        value = n == FA_FILL_PARAM(t, merges_word) ? done.merges : value;
        value = n == FA_FILL_PARAM(t, workers_word) ? workers : value;
        fa_fill_put(t, n, value);
    }
}

#endif
