/* SPDX-License-Identifier: Apache-2.0 */
/* Page tables that name pages which the pool does not have. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/conform/conform.h"

/* The entry of every other sequence that is spoilt: one that holds a key of it; -1: none is. */
static int64_t spoilt_entry(const conform_data *data, int64_t n)
{
    const int64_t size = data->desc.k.shape[2];
    const conform_part p = conform_part_kv(&data->desc, n);
    if (n % 2 != 0 || p.count <= p.first)
        return -1;
    const int64_t from = p.first / size, entries = (p.count - 1) / size + 1 - from;
    return from + n * 7 % entries;
}

static void spoil(conform_data *data)
{
    const fa_attention_desc *d = &data->desc;
    const int32_t none[] = {(int32_t)d->k.shape[0], -1, INT_MAX, INT_MIN};
    int32_t *table = data->memory[CONFORM_PAGES];
    for (int64_t n = 0; n < conform_sequences(d); n++) {
        const int64_t entry = spoilt_entry(data, n);
        if (entry >= 0)
            table[n * d->page_table.shape[3] + entry] = none[n / 2 % 4];
    }
    conform_data_keep(data);
}

static bool is_nan(const conform_data *data, const conform_output *output, int64_t index, int64_t lse)
{
    const fa_tensor *o = &data->desc.o;
    bool nan = !output->lse || isnan(conform_output_lse(output)[lse]);
    for (int64_t d = 0; d < o->shape[3]; d++)
        nan = nan && isnan(conform_load(o->dtype, conform_output_o(output), index + d));
    return nan;
}

/* A row that sees a key of the spoilt page is NaN; one that does not has the bits of the good run, or may be NaN too where the
 * sequence is spoilt. */
static bool check_row(const conform_data *data, const conform_output *good, const conform_output *lost,
                      int64_t n, int64_t head, int64_t i, char *message, size_t size)
{
    const fa_tensor o = conform_strides(data->desc.o);
    const conform_part p = conform_part_q(&data->desc, n);
    const int64_t entry = spoilt_entry(data, n), keys = data->desc.k.shape[2], row = p.begin + i;
    const int64_t index = conform_index(&o, p.batch, head, row),
                  lse = (p.batch * o.shape[1] + head) * o.shape[2] + row;
    const size_t element = fa_dtype_size(o.dtype);
    const bool same = memcmp((const char *)conform_output_o(good) + (size_t)index * element,
                             (const char *)conform_output_o(lost) + (size_t)index * element,
                             (size_t)o.shape[3] * element) == 0 &&
                      (!good->lse || memcmp(&conform_output_lse(good)[lse], &conform_output_lse(lost)[lse],
                                            sizeof(float)) == 0);
    const bool nan = is_nan(data, lost, index, lse),
               sees = entry >= 0 && conform_sees(data, n, head, i, entry * keys, (entry + 1) * keys);
    if (sees ? nan : same || (entry >= 0 && nan))
        return true;
    (void)snprintf(message, size, "row [%lld,%lld,%lld] is %s, its sequence %s, the row %s such a key",
                   (long long)p.batch, (long long)head, (long long)row, nan ? "NaN" : "a number",
                   entry >= 0 ? "has keys in no page" : "is whole", sees ? "sees" : "does not see");
    return false;
}

static bool check_rows(const conform_data *data, const conform_output *good, const conform_output *lost,
                       char *message, size_t size)
{
    for (int64_t n = 0; n < conform_sequences(&data->desc); n++) {
        const int64_t rows = conform_part_q(&data->desc, n).count;
        for (int64_t at = 0; at < data->desc.o.shape[1] * rows; at++) {
            if (!check_row(data, good, lost, n, at / rows, at % rows, message, size))
                return false;
        }
    }
    return true;
}

/* The status of each sequence, of a run of the good table or of the spoilt one. */
static bool check_status(const conform_data *data, const conform_output *output, bool spoilt, char *message,
                         size_t size)
{
    for (int64_t n = 0; n < conform_sequences(&data->desc); n++) {
        const int64_t expected = spoilt ? spoilt_entry(data, n) + 1 : 0;
        if (output->status[n] == expected)
            continue;
        (void)snprintf(message, size, "the status of sequence %lld is %d, expected %lld", (long long)n,
                       output->status[n], (long long)expected);
        return false;
    }
    return true;
}

/* Where the host reads the table: refused, and nothing is written. */
static bool check_refusal(bool ran, const conform_data *data, const conform_output *output, char *message,
                          size_t size)
{
    conform_output untouched;
    bool ok = conform_output_make(data, &untouched);
    ok = ok && !ran && strstr(message, "page_table[") && memcmp(untouched.o, output->o, output->o_bytes) == 0;
    conform_output_free(&untouched);
    if (ok)
        message[0] = '\0';
    else if (ran)
        (void)snprintf(message, size, "a page that the pool does not have was not refused");
    return ok;
}

bool conform_lose_pages(conform_suite *suite, const fa_plan *plan, bool host_table, char *message,
                        size_t size)
{
    conform_data *data = &suite->data;
    conform_output good, lost;
    bool made = conform_output_make(data, &good);
    made = conform_output_make(data, &lost) && made;
    int32_t *table = malloc(data->bytes[CONFORM_PAGES]);
    if (!made || !table)
        (void)snprintf(message, size, "out of memory");
    bool ok = made && table && conform_execute(suite->device, plan, data, NULL, &good, message, size) &&
              (!suite->computes || check_status(data, &good, false, message, size));
    if (ok) {
        memcpy(table, data->memory[CONFORM_PAGES], data->bytes[CONFORM_PAGES]);
        spoil(data);
        const bool ran = conform_execute(suite->device, plan, data, NULL, &lost, message, size);
        ok = host_table ? check_refusal(ran, data, &lost, message, size)
                        : ran && check_rows(data, &good, &lost, message, size) &&
                              check_status(data, &lost, true, message, size) &&
                              conform_output_intact(&lost, data, message, size);
        memcpy(data->memory[CONFORM_PAGES], table, data->bytes[CONFORM_PAGES]);
        conform_data_keep(data);
    }
    free(table);
    conform_output_free(&good);
    conform_output_free(&lost);
    return ok;
}
