/* SPDX-License-Identifier: Apache-2.0 */
/* Masks alone: their shape, and the bits of rows. */
#include "mask.h"
#include "scene.h"

#include <fastattn/reference.h>

static void test_shape(const char *name, mask_kind kind, bool exact, bool zero, bool causal, int64_t window)
{
    enum { ROWS = 9, KEYS = 101, BATCH = 2 };
    const test_case c = {.rows = ROWS, .keys = KEYS, .batch = BATCH, .mask = kind, .seen = 60};
    fg_span span[BATCH * ROWS];
    int64_t first[BATCH], length[BATCH];
    for (int i = 0; i < BATCH * ROWS; i++) {
        uint16_t row[KEYS];
        for (int j = 0; j < KEYS; j++)
            row[j] = fa_f32_to_f16(mask_at(&c, i / ROWS, 0, i % ROWS, j));
        span[i] = fg_mask_row(row, KEYS);
    }
    const fg_shape shape = fg_mask_shape(span, BATCH, ROWS, first, length);
    EXPECT(shape.exact == exact && shape.zero == zero && shape.causal == causal && shape.window == window,
           "%s: %d %d %d %d", name, shape.exact, shape.zero, shape.causal, (int)shape.window);
    for (int n = 0; n < BATCH; n++) {
        const int64_t begin = kind == WINDOW ? 60 - ROWS - 19 : 0, end = kind == RAGGED ? 60 - 3 * n : 60;
        EXPECT(first[n] == begin || kind == HIDDEN_ROW || kind == HOLES, "%s: first %d", name, (int)first[n]);
        EXPECT(length[n] == end || kind == HOLES, "%s: length %d", name, (int)length[n]);
    }
}

/* The words behind a row's stay as they were. */
static void test_bits(void)
{
    enum { KEYS = 101, WORDS = (KEYS + 31) / 32 };
    const test_case c = {.rows = 9, .keys = KEYS, .batch = 1, .mask = HOLES, .seen = 60};
    for (int keys = 1; keys <= KEYS; keys++) {
        uint16_t row[KEYS];
        uint32_t word[WORDS + 1] = {0};
        const int words = (int)fg_mask_words(keys);
        word[words] = 0x12345678u;
        for (int j = 0; j < keys; j++)
            row[j] = fa_f32_to_f16(mask_at(&c, 0, 0, keys % 9, j));
        fg_mask_bits(row, keys, word);
        EXPECT(word[words] == 0x12345678u, "%d keys: beyond the end", keys);
        for (int j = 0; j < 32 * words; j++)
            EXPECT((word[j / 32] >> j % 32 & 1u) == (j < keys && sees(&c, 0, 0, keys % 9, j)),
                   "%d keys: bit %d", keys, j);
    }
}

void test_masks(void)
{
    test_shape("causal", CAUSAL, true, true, true, 0);
    test_shape("window", WINDOW, true, true, true, 20);
    test_shape("ragged", RAGGED, true, true, true, 0);
    test_shape("ALiBi", ALIBI, true, false, true, 0);
    test_shape("holes", HOLES, false, true, false, 0);
    test_shape("hidden row", HIDDEN_ROW, false, true, false, 0);
    test_bits();
}
