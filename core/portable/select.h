/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The best columns of each row of scores, in the words of task.h. A row's scores are ordered as integers. Few best are kept by one
 * work-item for each row, as it goes through the columns: a list of few rows has one work-item, one of many a work-group. Else a
 * work-group does a row at a time: it finds the least score that is chosen digit by digit, 8 bits at a time, from how much lies on
 * each digit, and then takes what is above. Sums are of integers, and so the same in any order.
 */
#ifndef FA_PORTABLE_SELECT_H
#define FA_PORTABLE_SELECT_H

#include "softmax.h"
#include "task.h"
#include "visible.h"

/* Up to so many best, of so many columns, are few; lists of a work-group where each has one work-item. */
#define FA_SELECT_FEW 16
#define FA_SELECT_FEW_COLUMNS 4096
#define FA_SELECT_LISTS 64

/* How a list is made, which constant 0 says: by a work-group row by row or, where the best are few, all its rows at once or alone. */
#define FA_SELECT_BY_ROW 0
#define FA_SELECT_AT_ONCE 1
#define FA_SELECT_ALONE 2

/* Operands. */
#define FA_SELECT_SCORES 0
#define FA_SELECT_BITS 1
#define FA_SELECT_MASK 2
#define FA_SELECT_INDICES 3
#define FA_SELECT_COUNTS 4
#define FA_SELECT_VISIBLE 5

/*
 * Shared: two ints of each digit, the same of each FA_SELECT_SPAN digits, one of each work-item, of which there are at most 256.
 * In the place of digits, the words of a list that is made at once.
 */
#define FA_SELECT_DIGITS 256
#define FA_SELECT_SPAN 16
#define FA_SELECT_SPANS_AT 512
#define FA_SELECT_ITEMS_AT 544

#if FA_SELECT_FEW_COLUMNS / 32 > FA_SELECT_ITEMS_AT
#error "the words of a list lie where work-items have theirs"
#endif

FA_STRUCT(fa_select_params)
    fa_visible_rule rule;
    int lines;            /* heads of lists of all batch entries            */
    int list_heads;       /* heads of lists of a batch entry                */
    int each, rows;       /* heads of scores of one of lists; rows of a head */
    int list_rows, lists; /* rows of a list; lists of a head                */
    int words, width;     /* of a list                                      */
    int topk;             /* 0: threshold                                   */
    float threshold;
    int first, own;
    int has_visible, want_mask, want_counts, unused;
FA_STRUCT_END(fa_select_params)
FA_TASK_VIEW(fa_select_params)

#define FA_SELECT_IS(t, name) FA_TASK_PARAM(t, fa_select_params, name)

/* A row: its first element of scores, how many columns it sees, and its own column. */
FA_STRUCT(fa_select_row)
    FA_AT at;
    int visible, own;
FA_STRUCT_END(fa_select_row)

/* How many columns there are, or how much they weigh in steps: high * 2^14 + low. */
FA_STRUCT(fa_select_sum)
    fa_uint high, low;
FA_STRUCT_END(fa_select_sum)

/* What a row has chosen: all columns above the key, and the first `ties` of those that have it. */
FA_STRUCT(fa_select_choice)
    fa_uint key;
    int ties;
FA_STRUCT_END(fa_select_choice)

#define FA_SELECT_FORCED 0xffffffffu
#define FA_SELECT_NAN 1u /* 0 is no key */
#define FA_SELECT_ALL 0x7fffffff

/* Row number `row` of head number `head` of all. */
FA_KERNEL_FN fa_select_row fa_select_row_of(FA_TASK t, int line, int head, int row)
{
    const int rows = FA_SELECT_IS(t, rows), columns = FA_SELECT_IS(t, rule.columns);
    fa_select_row r;
    r.at = (FA_INDEX(head) * FA_INDEX(rows) + FA_INDEX(row)) * FA_INDEX(columns);
    r.visible = fa_visible_count(FA_SELECT_IS(t, rule), row);
    r.own = fa_visible_own(FA_SELECT_IS(t, rule), row);
    if (FA_SELECT_IS(t, has_visible) != 0) {
        const FA_AT at = FA_INDEX(line / FA_SELECT_IS(t, list_heads)) * FA_INDEX(rows) + FA_INDEX(row);
        r.visible = FA_MAX(FA_MIN(FA_INT(FA_GET32(t, 5, at * FA_INDEX(4))), columns), 0);
        r.own = r.visible - 1;
    }
    return r;
}

FA_KERNEL_FN float fa_select_score(FA_TASK t, fa_select_row r, int column)
{
    return FA_AS_FLOAT(FA_GET32(t, 0, (r.at + FA_INDEX(column)) * FA_INDEX(4)));
}

FA_KERNEL_FN bool fa_select_forces(FA_TASK t, fa_select_row r, int column)
{
    return column < FA_SELECT_IS(t, first) || (column <= r.own && column > r.own - FA_SELECT_IS(t, own));
}

/* An integer that is greater the better the column is. */
FA_KERNEL_FN fa_uint fa_select_key(FA_TASK t, fa_select_row r, int column)
{
    const float x = fa_select_score(t, r, column);
    const fa_uint bits = FA_AS_UINT(x), zero = 0x80000000u;
    if (fa_select_forces(t, r, column))
        return FA_SELECT_FORCED;
    if (fa_is_nan(x))
        return FA_SELECT_NAN;
    return bits == zero ? zero : (bits & zero) != 0u ? ~bits : bits | zero;
}

/* Carries what is too much for the lower part. */
FA_KERNEL_FN fa_select_sum fa_select_sum_of(fa_uint high, fa_uint low)
{
    fa_select_sum s;
    s.high = high + (low >> 14);
    s.low = low & 0x3fffu;
    return s;
}

FA_KERNEL_FN bool fa_select_less(fa_select_sum a, fa_select_sum b)
{
    return a.high != b.high ? a.high < b.high : a.low < b.low;
}

FA_KERNEL_FN fa_select_sum fa_select_add(fa_select_sum a, fa_select_sum b)
{
    return fa_select_sum_of(a.high + b.high, a.low + b.low);
}

/* Of b no greater than a. */
FA_KERNEL_FN fa_select_sum fa_select_subtract(fa_select_sum a, fa_select_sum b)
{
    fa_select_sum s;
    s.high = a.high - b.high - (a.low < b.low ? 1u : 0u);
    s.low = (a.low - b.low) & 0x3fffu;
    return s;
}

/* The sum that two shared ints are. */
FA_KERNEL_FN fa_select_sum fa_select_shared(FA_TASK t, int at)
{
    return fa_select_sum_of(FA_UINT(FA_TASK_SHARED(t, at)), FA_UINT(FA_TASK_SHARED(t, at + 1)));
}

/* What a column counts: 1, or its weight beside the greatest score, -inf if there is none. */
FA_KERNEL_FN fa_select_sum fa_select_measure(FA_TASK t, float score, float most)
{
    float x = 0.0f;
    if (FA_SELECT_IS(t, topk) > 0)
        return fa_select_sum_of(0u, 1u);
    if (most > FA_NEG_INF && score == most)
        x = 1.0f;
    else if (score < most)
        x = FA_EXP2((score - most) * FA_LOG2E);
    return fa_select_sum_of(0u, FA_UINT(x * 268435456.0f + 0.5f));
}

/* The greatest score that the row sees; -inf: none. */
FA_KERNEL_FN float fa_select_most(FA_TASK t, fa_select_row r, int item, int items)
{
    float most = FA_NEG_INF;
    for (int c = item; c < r.visible; c += items) {
        const float x = fa_select_score(t, r, c);
        most = x > most ? x : most;
    }
    FA_TASK_SHARED(t, FA_SELECT_ITEMS_AT + item) = FA_INT(FA_AS_UINT(most));
    FA_TASK_SYNC(t);
    for (int i = 0; i < items; i++) {
        const float x = FA_AS_FLOAT(FA_UINT(FA_TASK_SHARED(t, FA_SELECT_ITEMS_AT + i)));
        most = x > most ? x : most;
    }
    FA_TASK_SYNC(t);
    return most;
}

/* Sums, for each digit at `shift`, of the columns whose higher digits are those of `key`; then of each span of digits. */
FA_KERNEL_FN void fa_select_count(FA_TASK t, fa_select_row r, float most, fa_uint key, int shift, int item,
                                  int items)
{
    for (int n = item; n < 2 * FA_SELECT_DIGITS; n += items)
        FA_TASK_SHARED(t, n) = 0;
    FA_TASK_SYNC(t);
    for (int c = item; c < r.visible; c += items) {
        const fa_uint its = fa_select_key(t, r, c);
        const int digit = FA_INT(its >> FA_UINT(shift) & 255u);
        if (((its ^ key) >> FA_UINT(shift) >> 8u) != 0u)
            continue;
        const fa_select_sum m = fa_select_measure(t, fa_select_score(t, r, c), most);
        if (m.high != 0u)
            FA_TASK_SHARED_ADD(t, 2 * digit, FA_INT(m.high));
        FA_TASK_SHARED_ADD(t, 2 * digit + 1, FA_INT(m.low));
    }
    FA_TASK_SYNC(t);
    for (int span = item; span < FA_SELECT_DIGITS / FA_SELECT_SPAN; span += items) {
        fa_select_sum sum = fa_select_sum_of(0u, 0u);
        for (int n = span * FA_SELECT_SPAN; n < (span + 1) * FA_SELECT_SPAN; n++)
            sum = fa_select_add(sum, fa_select_shared(t, 2 * n));
        FA_TASK_SHARED(t, FA_SELECT_SPANS_AT + 2 * span) = FA_INT(sum.high);
        FA_TASK_SHARED(t, FA_SELECT_SPANS_AT + 2 * span + 1) = FA_INT(sum.low);
    }
    FA_TASK_SYNC(t);
}

FA_STRUCT(fa_select_place)
    fa_select_sum rest; /* to be chosen at this place or below */
    int n;
FA_STRUCT_END(fa_select_place)

/* Goes down the sums of a span, from the last, to the one that reaches the rest. */
FA_KERNEL_FN fa_select_place fa_select_descend(FA_TASK t, fa_select_sum rest, int at)
{
    fa_select_place p;
    p.rest = rest;
    for (p.n = FA_SELECT_SPAN - 1; p.n > 0; p.n--) {
        const fa_select_sum s = fa_select_shared(t, at + 2 * p.n);
        if (!fa_select_less(s, p.rest))
            break;
        p.rest = fa_select_subtract(p.rest, s);
    }
    return p;
}

/* The threshold's part of all weights, rounded up. */
FA_KERNEL_FN fa_select_sum fa_select_part(FA_TASK t)
{
    fa_select_sum all = fa_select_sum_of(0u, 0u), part;
    for (int span = 0; span < FA_SELECT_DIGITS / FA_SELECT_SPAN; span++)
        all = fa_select_add(all, fa_select_shared(t, FA_SELECT_SPANS_AT + 2 * span));
    FA_PRECISE float high = FA_FLOAT(all.high) * 16384.0f, sum = high + FA_FLOAT(all.low);
    FA_PRECISE float want = sum * FA_SELECT_IS(t, threshold);
    const fa_uint whole = FA_UINT(want * (1.0f / 16384.0f));
    FA_PRECISE float below = FA_FLOAT(whole) * 16384.0f, rest = want - below;
    part = fa_select_sum_of(whole, FA_UINT(rest) + (FA_FLOAT(FA_UINT(rest)) < rest ? 1u : 0u));
    if (fa_select_less(all, part))
        part = all;
    return part;
}

/* How many columns of that key reach the rest. */
FA_KERNEL_FN int fa_select_ties(FA_TASK t, fa_select_row r, fa_uint key, float most, fa_select_sum rest)
{
    const fa_uint sign = 0x80000000u;
    const fa_select_sum each =
        fa_select_measure(t, FA_AS_FLOAT((key & sign) != 0u ? key ^ sign : ~key), most);
    int low = 1, high = r.visible;
    if (key == FA_SELECT_FORCED)
        return FA_SELECT_ALL;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (fa_select_less(fa_select_sum_of(each.high * FA_UINT(middle), each.low * FA_UINT(middle)), rest))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* What the row chooses. All work-items come here. */
FA_KERNEL_FN fa_select_choice fa_select_choose(FA_TASK t, fa_select_row r, int item, int items)
{
    const int topk = FA_SELECT_IS(t, topk);
    fa_select_choice choice;
    choice.key = 0u;
    choice.ties = FA_SELECT_ALL;
    if (topk >= r.visible)
        return choice;
    const float most = topk > 0 ? 0.0f : fa_select_most(t, r, item, items);
    fa_select_sum rest = fa_select_sum_of(0u, FA_UINT(topk));
    for (int shift = 24; shift >= 0; shift -= 8) {
        fa_select_count(t, r, most, choice.key, shift, item, items);
        if (topk == 0 && shift == 24)
            rest = fa_select_part(t);
        const fa_select_place span = fa_select_descend(t, rest, FA_SELECT_SPANS_AT);
        const int from = span.n * FA_SELECT_SPAN;
        const fa_select_place digit = fa_select_descend(t, span.rest, 2 * from);
        choice.key |= FA_UINT(from + digit.n) << FA_UINT(shift);
        rest = digit.rest;
        FA_TASK_SYNC(t);
    }
    if ((rest.high | rest.low) == 0u) /* nothing has a weight */
        choice.key = FA_SELECT_FORCED;
    choice.ties = fa_select_ties(t, r, choice.key, most, rest);
    return choice;
}

/* A word of 32 columns, and how many columns that have the key of a choice lie before its end. */
FA_STRUCT(fa_select_word)
    fa_uint bits;
    int ties;
FA_STRUCT_END(fa_select_word)

FA_KERNEL_FN fa_select_word fa_select_word_of(FA_TASK t, fa_select_row r, fa_select_choice choice, int word,
                                              int ties)
{
    const int end = FA_MIN(r.visible - 32 * word, 32);
    fa_select_word w;
    w.bits = 0u;
    w.ties = ties;
    for (int n = 0; n < end; n++) {
        const fa_uint key = fa_select_key(t, r, 32 * word + n);
        const bool tie = key == choice.key;
        if (key > choice.key || (tie && w.ties < choice.ties))
            w.bits |= 1u << FA_UINT(n);
        w.ties += tie ? 1 : 0;
    }
    return w;
}

/* A number of each work-item: what those before it have, and all. */
FA_STRUCT(fa_select_tally)
    int before, all;
FA_STRUCT_END(fa_select_tally)

FA_KERNEL_FN fa_select_tally fa_select_add_up(FA_TASK t, int own, int item, int items)
{
    fa_select_tally tally;
    tally.before = 0;
    tally.all = 0;
    FA_TASK_SHARED(t, FA_SELECT_ITEMS_AT + item) = own;
    FA_TASK_SYNC(t);
    for (int i = 0; i < items; i++) {
        const int n = FA_TASK_SHARED(t, FA_SELECT_ITEMS_AT + i);
        tally.before += i < item ? n : 0;
        tally.all += n;
    }
    FA_TASK_SYNC(t);
    return tally;
}

#define FA_SELECT_WORD_AT(t, list, word) \
    ((FA_INDEX(list) * FA_INDEX(FA_SELECT_IS(t, words)) + FA_INDEX(word)) * FA_INDEX(4))

/* Adds columns to a word of a list. */
FA_KERNEL_FN void fa_select_mark(FA_TASK t, int list, int word, fa_uint bits)
{
    const FA_AT at = FA_SELECT_WORD_AT(t, list, word);
    FA_PUT32(t, 1, at, FA_GET32(t, 1, at) | bits);
}

/* Adds what the row chooses in words [begin, end), which are the work-item's own. */
FA_KERNEL_FN void fa_select_take(FA_TASK t, fa_select_row r, fa_select_choice choice, int list, int begin,
                                 int end, int item, int items)
{
    int ties = 0;
    if (choice.ties != FA_SELECT_ALL) {
        for (int word = begin; word < end; word++)
            ties = fa_select_word_of(t, r, choice, word, ties).ties;
        ties = fa_select_add_up(t, ties, item, items).before;
    }
    for (int word = begin; word < end; word++) {
        const fa_select_word w = fa_select_word_of(t, r, choice, word, ties);
        fa_select_mark(t, list, word, w.bits);
        ties = w.ties;
    }
}

/* The same where the best are few: the work-item keeps them in order as it comes to them. */
FA_KERNEL_FN void fa_select_take_few(FA_TASK t, fa_select_row r, int list)
{
    const int topk = FA_SELECT_IS(t, topk);
    fa_uint best[FA_SELECT_FEW];
    int column[FA_SELECT_FEW], i;
    FA_UNROLLED
    for (i = 0; i < FA_SELECT_FEW; i++) {
        best[i] = i < FA_SELECT_FEW - topk ? FA_SELECT_FORCED : 0u; /* as many places as are not free */
        column[i] = -1;
    }
    for (int c = 0; c < r.visible; c++) {
        fa_uint key = fa_select_key(t, r, c);
        int of = c;
        bool better = false; /* then all behind it move by one */
        if (key <= best[FA_SELECT_FEW - 1])
            continue;
        FA_UNROLLED
        for (i = 0; i < FA_SELECT_FEW; i++) {
            const fa_uint next = best[i];
            const int of_next = column[i];
            better = better || key > next;
            best[i] = better ? key : next;
            column[i] = better ? of : of_next;
            key = better ? next : key;
            of = better ? of_next : of;
        }
    }
    FA_UNROLLED
    for (i = 0; i < FA_SELECT_FEW; i++) {
        const fa_uint bit = 1u << FA_UINT(column[i] & 31);
        if (column[i] >= 0 && FA_TASK_CONSTANT(t, 0) == FA_SELECT_AT_ONCE)
            FA_TASK_SHARED_OR(t, column[i] >> 5, FA_INT(bit));
        else if (column[i] >= 0)
            fa_select_mark(t, list, column[i] >> 5, bit);
    }
}

/* The bytes of a word of a list. */
FA_KERNEL_FN void fa_select_put_mask(FA_TASK t, int list, int word, fa_uint bits)
{
    const int columns = FA_SELECT_IS(t, rule.columns), end = FA_MIN(columns - 32 * word, 32);
    const FA_AT at = FA_INDEX(list) * FA_INDEX(columns) + FA_INDEX(32 * word);
    if ((columns & 3) == 0) {
        for (int n = 0; n < end; n += 4) {
            const fa_uint four = bits >> FA_UINT(n);
            FA_PUT32(t, 2, at + FA_INDEX(n),
                     (four & 1u) | (four & 2u) << 7u | (four & 4u) << 14u | (four & 8u) << 21u);
        }
    } else {
        for (int n = 0; n < end; n++)
            FA_PUT8(t, 2, at + FA_INDEX(n), bits >> FA_UINT(n) & 1u);
    }
}

/* The columns of a word of a list, of which so many are before it. */
FA_KERNEL_FN void fa_select_put_indices(FA_TASK t, int list, int word, fa_uint bits, int before)
{
    const int width = FA_SELECT_IS(t, width);
    const FA_AT at = FA_INDEX(list) * FA_INDEX(width);
    int to = before;
    for (int n = 0; n < 32 && to < width; n++) {
        if ((bits >> FA_UINT(n) & 1u) != 0u) {
            FA_PUT32(t, 3, (at + FA_INDEX(to)) * FA_INDEX(4), FA_UINT(32 * word + n));
            to++;
        }
    }
}

FA_KERNEL_FN int fa_select_length(FA_TASK t, int list, int begin, int end)
{
    int count = 0;
    for (int word = begin; word < end; word++)
        count += FA_COUNT_BITS(FA_GET32(t, 1, FA_SELECT_WORD_AT(t, list, word)));
    return count;
}

/* Writes the other forms of words [begin, end) of a list. Of columns that there are not, one of `items` writes each. */
FA_KERNEL_FN void fa_select_put(FA_TASK t, int list, int begin, int end, fa_select_tally tally, int item,
                                int items)
{
    const int width = FA_SELECT_IS(t, width);
    int before = tally.before;
    for (int word = begin; word < end; word++) {
        const fa_uint bits = FA_GET32(t, 1, FA_SELECT_WORD_AT(t, list, word));
        if (FA_SELECT_IS(t, want_mask) != 0)
            fa_select_put_mask(t, list, word, bits);
        if (width > 0)
            fa_select_put_indices(t, list, word, bits, before);
        before += FA_COUNT_BITS(bits);
    }
    for (int n = FA_MIN(tally.all, width) + item; n < width; n += items)
        FA_PUT32(t, 3, (FA_INDEX(list) * FA_INDEX(width) + FA_INDEX(n)) * FA_INDEX(4), 0xffffffffu);
    if (FA_SELECT_IS(t, want_counts) != 0 && item == 0)
        FA_PUT32(t, 4, FA_INDEX(list) * FA_INDEX(4), FA_UINT(tally.all));
}

/* Row n of those of a list, head by head. */
FA_KERNEL_FN fa_select_row fa_select_row_of_list(FA_TASK t, int line, int first, int rows, int n)
{
    return fa_select_row_of(t, line, line * FA_SELECT_IS(t, each) + n / rows, first + n % rows);
}

/* What `count` rows of a list choose, in words [begin, end), which are the work-item's own: each row by one work-item. */
FA_KERNEL_FN void fa_select_at_once(FA_TASK t, int list, int line, int first, int rows, int count, int begin,
                                    int end, int item, int items)
{
    for (int word = begin; word < end; word++)
        FA_TASK_SHARED(t, word) = 0;
    FA_TASK_SYNC(t);
    for (int n = item; n < count; n += items)
        fa_select_take_few(t, fa_select_row_of_list(t, line, first, rows, n), list);
    FA_TASK_SYNC(t);
    for (int word = begin; word < end; word++)
        fa_select_mark(t, list, word, FA_UINT(FA_TASK_SHARED(t, word)));
}

/* A list, by so many work-items. */
FA_KERNEL_FN void fa_select_list(FA_TASK t, int list, int item, int items)
{
    const int lists = FA_SELECT_IS(t, lists), words = FA_SELECT_IS(t, words), way = FA_TASK_CONSTANT(t, 0);
    const int line = list / lists, first = (list - line * lists) * FA_SELECT_IS(t, list_rows);
    const int rows = FA_MIN(FA_SELECT_IS(t, list_rows), FA_SELECT_IS(t, rows) - first),
              count = FA_SELECT_IS(t, each) * rows;
    const int share = (words + items - 1) / items, begin = FA_MIN(item * share, words),
              end = FA_MIN(begin + share, words);
    fa_select_tally tally;
    for (int word = begin; word < end; word++)
        FA_PUT32(t, 1, FA_SELECT_WORD_AT(t, list, word), 0u);
    if (way == FA_SELECT_AT_ONCE)
        fa_select_at_once(t, list, line, first, rows, count, begin, end, item, items);
    for (int n = 0; n < count && way != FA_SELECT_AT_ONCE; n++) {
        const fa_select_row r = fa_select_row_of_list(t, line, first, rows, n);
        if (way == FA_SELECT_ALONE)
            fa_select_take_few(t, r, list);
        else
            fa_select_take(t, r, fa_select_choose(t, r, item, items), list, begin, end, item, items);
    }
    tally.before = 0;
    tally.all = fa_select_length(t, list, begin, end);
    if (way != FA_SELECT_ALONE)
        tally = fa_select_add_up(t, tally.all, item, items);
    fa_select_put(t, list, begin, end, tally, item, items);
}

/* The lists of a work-group, for one of its work-items. */
FA_KERNEL_FN void fa_select_group(FA_TASK t, int group, int item, int items)
{
    const int count = FA_SELECT_IS(t, lines) * FA_SELECT_IS(t, lists);
    if (FA_TASK_CONSTANT(t, 0) != FA_SELECT_ALONE) {
        if (group < count)
            fa_select_list(t, group, item, items);
    } else {
        for (int n = item; n < FA_SELECT_LISTS; n += items) {
            if (n < count - group * FA_SELECT_LISTS)
                fa_select_list(t, group * FA_SELECT_LISTS + n, 0, 1);
        }
    }
}

#endif
