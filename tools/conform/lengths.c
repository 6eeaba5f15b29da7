/* SPDX-License-Identifier: Apache-2.0 */
/* Runs of one plan with lengths of their own. */
#include <stdlib.h>

#include "tools/conform/conform.h"

static fa_lengths lengths_of(const fa_attention_desc *d)
{
    return (fa_lengths){
        .struct_size = sizeof(fa_lengths),
        .sequences = conform_sequences(d),
        .cu_rows_q = d->cu_rows_q,
        .cu_rows_kv = d->cu_rows_kv,
        .lens_q = d->lens_q,
        .lens_kv = d->lens_kv,
        .cu_rows_q32 = d->cu_rows_q32,
        .cu_rows_kv32 = d->cu_rows_kv32,
        .lens_q32 = d->lens_q32,
        .lens_kv32 = d->lens_kv32,
        .first_kv = d->first_kv,
        .first_kv32 = d->first_kv32,
    };
}

/* Each sequence of a side gets the next one's length, and where all are whole, two thirds of it. */
static void turn_lengths(const fa_attention_desc *d, int64_t sequences, bool is_kv, bool whole, int64_t *lens,
                         int64_t *cu)
{
    for (int64_t n = 0; n < sequences; n++) {
        conform_part next = (is_kv ? conform_part_kv : conform_part_q)(d, (n + 1) % sequences);
        if (n == 0)
            cu[0] = (is_kv ? conform_part_kv : conform_part_q)(d, 0).begin;
        lens[n] = next.count - (whole ? next.count / 3 : 0);
        cu[n + 1] = cu[n] + next.count;
    }
}

bool conform_lengths_make(const conform_data *data, conform_lengths *made)
{
    const fa_attention_desc *d = &data->desc;
    const int64_t sequences = conform_sequences(d);
    const size_t count = (size_t)sequences + 1;
    const bool packed_q = d->cu_rows_q || d->cu_rows_q32, packed_kv = d->cu_rows_kv || d->cu_rows_kv32;
    *made = (conform_lengths){.now = lengths_of(d), .other = *d};
    int64_t *cu_q = made->memory = calloc(5 * count, sizeof(int64_t));
    int64_t *cu_kv = cu_q + count, *lens_q = cu_kv + count, *lens_kv = lens_q + count,
            *first = lens_kv + count;
    if (!made->memory)
        return false;
    turn_lengths(d, sequences, false, !d->lens_q && !d->lens_q32, lens_q, cu_q);
    turn_lengths(d, sequences, true, !d->lens_kv && !d->lens_kv32, lens_kv, cu_kv);
    fa_attention_desc *other = &made->other;
    other->first_kv = (d->first_kv || d->first_kv32) && d->dynamic_lengths == 2 ? first : NULL;
    other->first_kv32 = NULL;
    other->cu_rows_q32 = other->cu_rows_kv32 = other->lens_q32 = other->lens_kv32 = NULL;
    other->cu_rows_q = packed_q ? cu_q : NULL;
    other->cu_rows_kv = packed_kv ? cu_kv : NULL;
    other->lens_q = packed_q ? NULL : lens_q;
    other->lens_kv = packed_kv ? NULL : lens_kv;
    made->before = lengths_of(other);
    made->planned = d;
    return true;
}

/* Entry n of a list in either width; `without` where there is none. */
static int32_t entry_of(const int64_t *wide, const int32_t *narrow, int64_t n, int64_t without)
{
    return (int32_t)(wide ? wide[n] : narrow ? narrow[n] : without);
}

conform_lists conform_lists_make(const conform_lengths *lengths, const fa_lengths *of)
{
    const fa_attention_desc *d = lengths->planned;
    const int64_t sequences = conform_sequences(d);
    const bool pages = d->page_table.shape[3] > 0;
    const int64_t keys = d->k.shape[2] * (pages ? d->page_table.shape[3] : 1);
    conform_lists made = {
        .given = {d->cu_rows_q || d->cu_rows_q32, d->cu_rows_kv || d->cu_rows_kv32, d->lens_q || d->lens_q32,
                  d->lens_kv || d->lens_kv32, d->first_kv || d->first_kv32},
        .count = sequences + 1,
    };
    int32_t *memory = calloc((size_t)(CONFORM_LISTS * made.count), sizeof(*memory));
    for (int i = 0; i < CONFORM_LISTS && memory; i++)
        made.list[i] = memory + i * made.count;
    for (int64_t n = 0; n <= sequences && memory; n++) {
        made.list[0][n] = entry_of(of->cu_rows_q, of->cu_rows_q32, n, 0);
        made.list[1][n] = entry_of(of->cu_rows_kv, of->cu_rows_kv32, n, 0);
        if (n == sequences)
            continue;
        made.list[2][n] = entry_of(of->lens_q, of->lens_q32, n, d->q.shape[2]);
        made.list[3][n] = entry_of(of->lens_kv, of->lens_kv32, n, keys);
        made.list[4][n] = entry_of(of->first_kv, of->first_kv32, n, 0);
    }
    return made;
}

void conform_lengths_free(conform_lengths *lengths)
{
    free(lengths->memory);
    *lengths = (conform_lengths){.memory = NULL};
}
