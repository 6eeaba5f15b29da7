/* SPDX-License-Identifier: Apache-2.0 */
/* Neighbourhoods against NATTEN's definition of each token, axis by axis, on grids of odd sizes. */
#include <string.h>

#include "tests/gpu/sparse_scene.h"

enum { MOST_WORDS = (MOST_KEYS + 31) / 32 };

static sparse_scene s;
static fa_neighbourhood d;
static fa_sparse_neighbourhood_desc lists;
static int32_t size[3], kernel[3], stride[3], dilation[3], tile[3]; /* all three axes, with defaults */
static int64_t tokens, keys;
static int32_t order[MOST_ROWS], expected_order[MOST_ROWS], patch[MOST_ROWS];
static uint8_t seen[MOST_ROWS * MOST_KEYS], patches_meet[MOST_ROWS * MOST_ROWS];
static uint32_t bits[MOST_ROWS * MOST_WORDS];

/* NATTEN's window of token i of an axis of length L, by its own numbers. */
static bool axis_shows(int n, bool causal, int i, int j)
{
    const int r = i % dilation[n], L = (size[n] - r + dilation[n] - 1) / dilation[n], w = kernel[n],
              st = stride[n];
    const int left = w / 2, right = w / 2 + (w % 2 - 1);
    int leader, begin, end;
    if (j % dilation[n] != r)
        return false;
    i /= dilation[n];
    j /= dilation[n];
    if (causal) {
        leader = i / st * st + st - 1 < L - 1 ? i / st * st + st - 1 : L - 1;
        begin = leader - left - right > 0 ? leader - left - right : 0;
        end = i + 1 < L ? i + 1 : L;
    } else {
        leader = i / st * st + st / 2 < L - 1 ? i / st * st + st / 2 : L - 1;
        begin = (leader - left > 0 ? leader - left : 0) + (leader + right >= L ? L - right - leader - 1 : 0);
        end = begin + w;
    }
    return j >= begin && j < end;
}

static bool token_shows(int row, int key)
{
    bool shows = true;
    for (int n = 2; n >= 0; n--) {
        const int axis = n - (3 - d.axes);
        shows = shows && axis_shows(n, axis >= 0 && d.causal[axis], row % size[n], key % size[n]);
        row /= size[n];
        key /= size[n];
    }
    return shows;
}

/* A token and what the header sorts by: group, patch and place in it, on three axes each. */
typedef struct sorted_token {
    int by[9], token;
} sorted_token;

static int compare(const void *a, const void *b)
{
    const sorted_token *x = a, *y = b;
    int n = 0;
    while (n < 8 && x->by[n] == y->by[n])
        n++;
    return x->by[n] - y->by[n];
}

static void sort_tokens(void)
{
    static sorted_token sorted[MOST_ROWS];
    for (int token = 0; token < tokens; token++) {
        for (int n = 2, rest = token; n >= 0; rest /= size[n], n--) {
            const int at = rest % size[n], group = at % dilation[n], i = at / dilation[n];
            sorted[token].by[n] = group;
            sorted[token].by[3 + n] = i / tile[n];
            sorted[token].by[6 + n] = i % tile[n];
        }
        sorted[token].token = token;
    }
    qsort(sorted, (size_t)tokens, sizeof(*sorted), compare);
    for (int p = 0; p < tokens; p++) {
        expected_order[p] = sorted[p].token;
        patch[p] = p == 0 ? 0 : patch[p - 1] + (memcmp(sorted[p].by, sorted[p - 1].by, 6 * sizeof(int)) != 0);
    }
}

static void draw(random_state *random)
{
    static const int most[] = {MOST_ROWS, 14, 6};
    memset(&d, 0, sizeof(d));
    d.struct_size = sizeof(d);
    d.axes = (int32_t)random_between(random, 1, 3);
    tokens = 1;
    for (int n = 0; n < 3; n++) {
        const int axis = n - (3 - d.axes);
        size[n] = kernel[n] = stride[n] = dilation[n] = tile[n] = 1;
        if (axis < 0)
            continue;
        size[n] = (int32_t)random_between(random, 1, d.axes == 3 && n == 1 ? 5 : most[d.axes - 1]);
        dilation[n] =
            random_between(random, 0, 1) ? 1 : (int32_t)random_between(random, 1, size[n] < 4 ? size[n] : 4);
        kernel[n] = (int32_t)random_between(random, 1, size[n] / dilation[n]);
        stride[n] = random_between(random, 0, 1) ? 1 : (int32_t)random_between(random, 1, kernel[n]);
        tile[n] = (int32_t)random_between(random, 1, 6);
        d.size[axis] = size[n];
        d.kernel[axis] = kernel[n];
        d.stride[axis] = stride[n] > 1 ? stride[n] : 0;
        d.dilation[axis] = dilation[n] > 1 ? dilation[n] : 0;
        d.causal[axis] = (int32_t)random_between(random, 0, 1);
        d.tile[axis] = tile[n];
        tokens *= size[n];
    }
    lists = (fa_sparse_neighbourhood_desc){
        .struct_size = sizeof(lists),
        .neighbourhood = &d,
        .block_rows = random_between(random, 0, 1) ? 0 : (int32_t)random_between(random, 1, 40),
        .block_keys = random_between(random, 0, 1) ? 0 : (int32_t)random_between(random, 1, 40),
        .extra_keys = random_between(random, 0, 1) ? 0 : random_between(random, 1, 40),
    };
    keys = tokens + lists.extra_keys;
}

/* What single tokens see, in the order of the lists, and which patches have such. */
static void compute_seen(void)
{
    memset(patches_meet, 0, sizeof(patches_meet));
    for (int64_t p = 0; p < tokens; p++) {
        for (int64_t q = 0; q < keys; q++) {
            const bool shows = q >= tokens || token_shows(expected_order[p], expected_order[q]);
            seen[p * keys + q] = shows;
            if (q < tokens && shows)
                patches_meet[patch[p] * MOST_ROWS + patch[q]] = 1;
        }
    }
}

static bool list_should(const fa_block_lists *l, int64_t r, int64_t c)
{
    for (int64_t p = r * l->block_rows; p < (r + 1) * l->block_rows && p < tokens; p++) {
        for (int64_t q = c * l->block_keys; q < (c + 1) * l->block_keys && q < keys; q++) {
            if (q >= tokens || patches_meet[patch[p] * MOST_ROWS + patch[q]])
                return true;
        }
    }
    return false;
}

static void expect_seen(void)
{
    for (int64_t p = 0; p < tokens; p++) {
        for (int64_t q = p % 7; q < keys; q += 7) {
            int32_t sees = 2;
            ck_assert_int_eq(fa_sparse_neighbourhood_sees(&d, p, q, &sees), FA_OK);
            ck_assert_int_eq(sees, seen[p * keys + q]);
        }
    }
}

/* What rows see, as `keep` takes it. */
static void make_bits(void)
{
    const int64_t words = (keys + 31) / 32;
    memset(bits, 0, sizeof(bits));
    for (int64_t p = 0; p < tokens; p++) {
        for (int64_t q = 0; q < keys; q++)
            bits[p * words + q / 32] |= (uint32_t)seen[p * keys + q] << q % 32;
    }
}

/* Tokens of whole patches, where the caller says nothing. */
static int64_t default_block(void)
{
    int64_t each = 1, all = 0;
    for (int n = 0; n < 3; n++) {
        const int longest = (size[n] + dilation[n] - 1) / dilation[n];
        each *= tile[n] < longest ? tile[n] : longest;
    }
    while (all < 64)
        all += each;
    return each < 64 ? all : each;
}

START_TEST(neighbourhoods)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < 25; n++) {
        fa_block_mask *mask;
        draw(&random);
        sort_tokens();
        compute_seen();
        ck_assert_int_eq(fa_sparse_neighbourhood_order(&d, order), FA_OK);
        ck_assert_int_eq(memcmp(order, expected_order, (size_t)tokens * sizeof(*order)), 0);
        ck_assert_int_eq(fa_sparse_neighbourhood(context, &lists, &mask), FA_OK);
        const fa_block_lists l = lists_of(mask);
        ck_assert_int_eq(l.block_rows, lists.block_rows ? lists.block_rows : default_block());
        for (int64_t i = 0; i < l.row_blocks * l.key_blocks; i++) {
            const int64_t r = i / l.key_blocks, c = i % l.key_blocks;
            ck_assert_msg(list_has(&l, 0, 0, r, c) == list_should(&l, r, c), "row block %lld, block %lld",
                          (long long)r, (long long)c);
        }
        expect_seen();
        make_bits();
        scene_draw(&s, &random);
        s.batch = 1;
        s.heads_q = 2;
        s.heads_kv = 1;
        s.rows = tokens;
        s.keys = keys;
        s.mask = FA_MASK_NONE;
        memcpy(s.keep, seen, (size_t)(tokens * keys));
        memcpy(s.keep + tokens * keys, seen, (size_t)(tokens * keys));
        scene_expect(&s, mask, bits);
        s.neighbourhood = &d; /* beside the lists, and beside those that it has itself */
        scene_expect(&s, mask, NULL);
        scene_expect(&s, NULL, NULL);
        s.neighbourhood = NULL;
        fa_block_mask_destroy(mask);
    }
}
END_TEST

/* Row-major order, and NATTEN's own example: a window of 3 on an axis of 5. */
START_TEST(plain_axis)
{
    const fa_neighbourhood plain = {.struct_size = sizeof(plain), .axes = 1, .size = {5}, .kernel = {3}};
    static const uint32_t windows[5] = {7, 7, 14, 28, 28};
    int32_t at[5];
    ck_assert_int_eq(fa_sparse_neighbourhood_order(&plain, at), FA_OK);
    for (int i = 0; i < 25; i++) {
        int32_t sees = 2;
        ck_assert_int_eq(at[i / 5], i / 5);
        ck_assert_int_eq(fa_sparse_neighbourhood_sees(&plain, i / 5, i % 5, &sees), FA_OK);
        ck_assert_int_eq(sees, windows[i / 5] >> i % 5 & 1);
    }
}
END_TEST

#define REFUSED(part)                                                                    \
    do {                                                                                 \
        ck_assert_int_eq(fa_sparse_neighbourhood(context, &planned, &mask), FA_INVALID); \
        assert_message(part);                                                            \
        ck_assert_ptr_null(mask);                                                        \
        n = good;                                                                        \
        planned = good_plan;                                                             \
    } while (0)

START_TEST(refused)
{
    const fa_neighbourhood good = {
        .struct_size = sizeof(good), .axes = 2, .size = {8, 9}, .kernel = {3, 3}, .dilation = {2, 1}};
    fa_neighbourhood n = good;
    const fa_sparse_neighbourhood_desc good_plan = {.struct_size = sizeof(good_plan), .neighbourhood = &n};
    fa_sparse_neighbourhood_desc planned = good_plan;
    fa_block_mask *mask;
    int32_t sees = 0;
    planned.neighbourhood = NULL;
    REFUSED("neighbourhood is NULL");
    n.struct_size = 4;
    REFUSED("fa_neighbourhood");
    n.axes = 0;
    REFUSED("neighbourhood->axes is 0, expected 1 to 3");
    n.axes = 4;
    REFUSED("neighbourhood->axes is 4, expected 1 to 3");
    n.size[1] = 0;
    REFUSED("neighbourhood->size[1] is 0");
    n.size[0] = n.size[1] = 1 << 15;
    REFUSED("neighbourhood->size[1] is 32768: the grid has more than 268435456 tokens");
    n.kernel[0] = 5;
    REFUSED("neighbourhood->kernel[0] is 5, expected 1 to 4");
    n.kernel[1] = 0;
    REFUSED("neighbourhood->kernel[1] is 0, expected 1 to 9");
    n.stride[1] = 4;
    REFUSED("neighbourhood->stride[1] is 4, expected 1 to 3");
    n.dilation[0] = 9;
    REFUSED("neighbourhood->dilation[0] is 9, expected 1 to 8");
    n.causal[1] = 2;
    REFUSED("neighbourhood->causal[1] is 2");
    n.tile[0] = -1;
    REFUSED("neighbourhood->tile[0] is -1");
    planned.block_rows = -1;
    REFUSED("shape.block_rows is -1");
    planned.block_keys = -1;
    REFUSED("shape.block_keys is -1");
    planned.extra_keys = FA_MAX_LENGTH;
    REFUSED("extra_keys is 268435456, expected 0 to 268435384");
    ck_assert_int_eq(fa_sparse_neighbourhood_sees(&good, 72, 0, &sees), FA_INVALID);
    assert_message("row is 72, expected 0 to 71");
    ck_assert_int_eq(fa_sparse_neighbourhood_sees(&good, 0, -1, &sees), FA_INVALID);
    assert_message("key is -1, expected 0 to 268435455");
    ck_assert_int_eq(fa_sparse_neighbourhood_sees(&good, 0, 0, NULL), FA_INVALID);
    ck_assert_int_eq(fa_sparse_neighbourhood_order(&good, NULL), FA_INVALID);
    ck_assert_int_eq(fa_sparse_neighbourhood_order(NULL, order), FA_INVALID);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("sparse_neighbourhood");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, neighbourhoods, 0, 4);
    tcase_add_test(tc, plain_axis);
    tcase_add_test(tc, refused);
    return run_on_backend(suite);
}
