/* SPDX-License-Identifier: Apache-2.0 */
#include "mask.h"

#include <string.h>

#define HIDDEN 0xFC00u /* -inf */
#define HIDDEN_4 0xFC00FC00FC00FC00u

static bool four_hidden(const uint16_t *at)
{
    uint64_t four;
    memcpy(&four, at, sizeof(four));
    return four == HIDDEN_4;
}

fg_span fg_mask_row(const uint16_t *row, int64_t keys)
{
    int64_t begin = 0, end = keys;
    while (end - begin >= 4 && four_hidden(row + begin))
        begin += 4;
    while (begin < end && row[begin] == HIDDEN)
        begin++;
    while (end - begin >= 4 && four_hidden(row + end - 4))
        end -= 4;
    while (end > begin && row[end - 1] == HIDDEN)
        end--;
    if (begin == end)
        return (fg_span){0, 0, true, true};
    uint16_t hidden = 0, other = 0;
    for (int64_t i = begin; i < end; i++) {
        hidden |= row[i] == HIDDEN;
        other |= row[i] == HIDDEN ? 0 : row[i];
    }
    return (fg_span){(int32_t)begin, (int32_t)end, !hidden, (other & 0x7FFFu) == 0};
}

void fg_mask_bits(const uint16_t *row, int64_t keys, uint32_t *word)
{
    for (int64_t key = 0; key < keys; key += 32) {
        const int count = keys - key < 32 ? (int)(keys - key) : 32;
        uint32_t seen = 0;
        for (int i = 0; i < count; i++)
            seen |= (uint32_t)(row[key + i] != HIDDEN) << i;
        *word++ = seen;
    }
}

/* Each row sees one key more than the row before it, at the end. */
static bool is_causal(const fg_span *span, int64_t rows)
{
    for (int64_t i = 1; i < rows; i++) {
        if (span[i].end != span[i - 1].end + 1)
            return false;
    }
    return rows > 1;
}

/* Where a row begins under this shape. `end` is that of the row. */
static int64_t begin_of(int64_t first, int64_t window, int64_t end)
{
    return window > 0 && end - window > first ? end - window : first;
}

fg_shape fg_mask_shape(const fg_span *span, int64_t batches, int64_t rows, int64_t *first, int64_t *length)
{
    fg_shape shape = {.exact = true, .zero = true, .causal = true};
    for (int64_t n = 0; n < batches; n++) {
        const fg_span *s = span + n * rows;
        shape.causal = shape.causal && is_causal(s, rows);
        first[n] = length[n] = 0;
        for (int64_t i = 0; i < rows; i++) {
            if (s[i].end > length[n])
                length[n] = s[i].end;
            if (s[i].begin < first[n] || i == 0)
                first[n] = s[i].begin;
        }
    }
    /* The first row that begins later than the others tells the window, if there is one. */
    for (int64_t i = 0; shape.causal && shape.window == 0 && i < batches * rows; i++) {
        if (span[i].begin > first[i / rows])
            shape.window = span[i].end - span[i].begin;
    }
    bool windowed = true;
    for (int64_t i = 0; i < batches * rows; i++) {
        const int64_t n = i / rows;
        windowed = windowed && span[i].begin == begin_of(first[n], shape.window, span[i].end);
        shape.exact = shape.exact && span[i].full && (shape.causal || span[i].end == length[n]);
        shape.zero = shape.zero && span[i].zero;
    }
    if (!windowed) {
        shape.exact = false;
        shape.window = 0;
    }
    return shape;
}
