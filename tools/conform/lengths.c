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
    int64_t *cu_q = made->memory = calloc(4 * count, sizeof(int64_t));
    int64_t *cu_kv = cu_q + count, *lens_q = cu_kv + count, *lens_kv = lens_q + count;
    if (!made->memory)
        return false;
    turn_lengths(d, sequences, false, !d->lens_q && !d->lens_q32, lens_q, cu_q);
    turn_lengths(d, sequences, true, !d->lens_kv && !d->lens_kv32, lens_kv, cu_kv);
    fa_attention_desc *other = &made->other;
    other->first_kv = NULL;
    other->first_kv32 = NULL;
    other->cu_rows_q32 = other->cu_rows_kv32 = other->lens_q32 = other->lens_kv32 = NULL;
    other->cu_rows_q = packed_q ? cu_q : NULL;
    other->cu_rows_kv = packed_kv ? cu_kv : NULL;
    other->lens_q = packed_q ? NULL : lens_q;
    other->lens_kv = packed_kv ? NULL : lens_kv;
    made->before = lengths_of(other);
    return true;
}

void conform_lengths_free(conform_lengths *lengths)
{
    free(lengths->memory);
    *lengths = (conform_lengths){.memory = NULL};
}
