/* SPDX-License-Identifier: Apache-2.0 */
/* What docs/recipes.md says, on the backend that the argument names: against the models' definitions in double precision. */
#include <fastattn/mix.h>
#include <math.h>

#include "tests/gpu/on_backend.h"

enum { HEADS = 3, DIM = 16, MOST_TOKENS = 200, MOST = HEADS * MOST_TOKENS * DIM };

static float q[MOST], k[MOST], v[MOST], o[MOST];

static void draw(random_state *random)
{
    for (int i = 0; i < MOST; i++) {
        q[i] = random_float(random, -2, 2);
        k[i] = random_float(random, -2, 2);
        v[i] = random_float(random, -2, 2);
    }
}

/* Adds a key to the sums of a row: its weight times the value, and behind these its weight. */
static void add_key(const float *row, const double *key, const double *value, double bias, double *sums)
{
    double x = 0;
    for (int d = 0; d < DIM; d++)
        x += (double)row[d] * key[d];
    const double weight = exp(x / sqrt(DIM) + bias);
    for (int d = 0; d < DIM; d++)
        sums[d] += weight * value[d];
    sums[DIM] += weight;
}

static void expect_row(const float *found, const double *sums, double tolerance)
{
    for (int d = 0; d < DIM; d++)
        ck_assert_msg(fabs((double)found[d] - sums[d] / sums[DIM]) <= tolerance, "dim %d is %g, expected %g",
                      d, (double)found[d], sums[d] / sums[DIM]);
}

/* MosaicBERT: tokens of all sequences behind each other, no padding, both directions, a slope for each head. */
START_TEST(packed_batches)
{
    random_state random = {(uint64_t)_i + 1};
    int32_t cu[] = {0, 0, 0, 0, 0};
    float slopes[HEADS];
    if (!device || (slow && _i > 0))
        return;
    draw(&random);
    for (int n = 1; n < COUNT(cu); n++)
        cu[n] = cu[n - 1] + (int32_t)random_between(&random, 0, 50); /* some may be empty */
    for (int h = 0; h < HEADS; h++)
        slopes[h] = exp2f(-8 * (float)(h + 1) / HEADS);
    const int32_t tokens = cu[COUNT(cu) - 1];
    fa_attention_desc d = make_desc(1, HEADS, HEADS, tokens, tokens, DIM);
    /* In the order (token, head, dim), as a projection leaves them. */
    const fa_tensor t = {FA_F32, {1, HEADS, tokens, DIM}, {0, DIM, HEADS * DIM, 1}};
    d.q = d.k = d.v = d.o = t;
    d.sequences = COUNT(cu) - 1;
    d.cu_rows_q32 = d.cu_rows_kv32 = cu;
    d.alibi_slopes = slopes;
    ck_assert_msg(fa_attention_host(device, &d, q, k, v, NULL, NULL, o, NULL) == FA_OK, "%s",
                  fa_last_error());
    for (int n = 0; n + 1 < COUNT(cu); n++) {
        for (int32_t i = cu[n] * HEADS; i < cu[n + 1] * HEADS; i++) {
            double sums[DIM + 1] = {0}, key[DIM], value[DIM];
            for (int32_t j = cu[n]; j < cu[n + 1]; j++) {
                for (int e = 0; e < DIM; e++) {
                    key[e] = (double)k[(j * HEADS + i % HEADS) * DIM + e];
                    value[e] = (double)v[(j * HEADS + i % HEADS) * DIM + e];
                }
                add_key(q + i * DIM, key, value, -(double)slopes[i % HEADS] * abs(i / HEADS - j), sums);
            }
            expect_row(o + i * DIM, sums, 4e-6);
        }
    }
}
END_TEST

/* FlashVGGT: frames of a camera token and height x width tokens. Each axis is made shorter by `R`, with bilinear weights. */
enum {
    FRAMES = 4,
    HEIGHT = 4,
    WIDTH = 8,
    R = 4,
    TOKENS = 1 + HEIGHT * WIDTH,
    SMALL = HEIGHT / R * WIDTH / R,
    LISTS = FRAMES * (1 + SMALL)
};

typedef struct descriptors {
    int32_t offsets[HEADS * LISTS + 1], rows[HEADS * LISTS * 4];
    float weights[HEADS * LISTS * 4];
    int32_t lists, entries;
} descriptors;

static void add_entry(descriptors *d, int32_t row, float weight)
{
    d->rows[d->entries] = row;
    d->weights[d->entries++] = weight;
}

static void end_list(descriptors *d)
{
    d->offsets[++d->lists] = d->entries;
}

/* Camera tokens as they are. A token of the small grid lies in the middle of R x R, between the four there. */
static void list_descriptors(descriptors *d)
{
    d->offsets[0] = d->lists = d->entries = 0;
    for (int32_t frame = 0; frame < HEADS * FRAMES; frame++) {
        const int32_t first = frame * TOKENS;
        add_entry(d, first, 1);
        end_list(d);
        for (int32_t n = 0; n < SMALL; n++) {
            const int32_t y = n / (WIDTH / R) * R + R / 2 - 1, x = n % (WIDTH / R) * R + R / 2 - 1;
            for (int32_t corner = 0; corner < 4; corner++)
                add_entry(d, first + 1 + (y + corner / 2) * WIDTH + x + corner % 2, 0.25f);
            end_list(d);
        }
    }
}

static fa_buffer *describe(const descriptors *d, const float *tokens)
{
    const fa_mix_desc desc = {.struct_size = sizeof(desc),
                              .from = fa_tensor_make(FA_F32, 1, HEADS, FRAMES * TOKENS, DIM),
                              .to = fa_tensor_make(FA_F32, 1, HEADS, LISTS, DIM),
                              .lists = d->lists,
                              .entries = d->entries,
                              .longest = 4,
                              .weighted = 1};
    fa_mix_args args = {.struct_size = sizeof(args),
                        .from = upload(tokens, MOST * sizeof(float)),
                        .to = upload(tokens, MOST * sizeof(float)),
                        .offsets = upload(d->offsets, sizeof(d->offsets)),
                        .rows = upload(d->rows, sizeof(d->rows)),
                        .weights = upload(d->weights, sizeof(d->weights))};
    fa_mix *mix;
    ck_assert_msg(fa_mix_create(device, &desc, &mix) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_mix_run(mix, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer_destroy(args.from);
    fa_buffer_destroy(args.offsets);
    fa_buffer_destroy(args.rows);
    fa_buffer_destroy(args.weights);
    fa_mix_destroy(mix);
    return args.to;
}

/* All tokens of all frames attend to the descriptors of all frames. */
static void attend_globally(const descriptors *d)
{
    const fa_attention_desc desc = make_desc(1, HEADS, HEADS, FRAMES * TOKENS, LISTS, DIM);
    fa_plan *plan;
    fa_attention_args args = {.struct_size = sizeof(args),
                              .q = upload(q, sizeof(q)),
                              .k = describe(d, k),
                              .v = describe(d, v),
                              .o = upload(q, sizeof(q))};
    ck_assert_msg(fa_plan_create(device, &desc, &plan) == FA_OK, "%s", fa_last_error());
    if (fa_plan_workspace(plan) > 0)
        ck_assert_int_eq(fa_buffer_create(device, fa_plan_workspace(plan), &args.workspace), FA_OK);
    ck_assert_msg(fa_plan_run(plan, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.o, 0, o, sizeof(o)), FA_OK);
    fa_buffer *const used[] = {args.q, args.k, args.v, args.o, args.workspace};
    for (int n = 0; n < COUNT(used); n++)
        fa_buffer_destroy(used[n]);
    fa_plan_destroy(plan);
}

/* Token (y, x) of a grid of other size, between the four around it: bilinear interpolation by its formula. */
static void interpolate(const float *frame, double y, double x, double *to)
{
    const int top = (int)floor(y), left = (int)floor(x);
    for (int e = 0; e < DIM; e++) {
        to[e] = 0;
        for (int corner = 0; corner < 4; corner++) {
            const int row = top + corner / 2, column = left + corner % 2;
            to[e] += (1 - fabs(y - row)) * (1 - fabs(x - column)) *
                     (double)frame[(1 + row * WIDTH + column) * DIM + e];
        }
    }
}

/*
 * A descriptor is three sums up to 2, each rounded by 2^-24 of that; a score is then wrong by sqrt(DIM) * 2 times as much, a weight
 * by twice that, and 4e-6 is attention's own.
 */
static const double descriptor_tolerance = 3 * 2 * 0x1p-24 * (1 + 2 * 2 * 4 * 2) + 4e-6;

START_TEST(descriptor_attention)
{
    static descriptors d;
    random_state random = {7};
    if (!device)
        return;
    ck_assert_int_le(FRAMES * TOKENS, MOST_TOKENS);
    draw(&random);
    list_descriptors(&d);
    attend_globally(&d);
    for (int64_t i = 0; i < HEADS * FRAMES * TOKENS; i++) {
        double sums[DIM + 1] = {0}, key[DIM], value[DIM];
        for (int64_t f = 0; f < FRAMES; f++) {
            const int64_t frame = (i / TOKENS / FRAMES * FRAMES + f) * TOKENS * DIM;
            for (int n = -1; n < SMALL; n++) {
                for (int e = 0; e < DIM; e++) {
                    key[e] = (double)k[frame + e];
                    value[e] = (double)v[frame + e];
                }
                if (n >= 0) {
                    const double y = (n / (WIDTH / R) + 0.5) * R - 0.5, x = (n % (WIDTH / R) + 0.5) * R - 0.5;
                    interpolate(k + frame, y, x, key);
                    interpolate(v + frame, y, x, value);
                }
                add_key(q + i * DIM, key, value, 0, sums);
            }
        }
        expect_row(o + i * DIM, sums, descriptor_tolerance);
    }
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("recipes");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, packed_batches, 0, 5);
    tcase_add_test(tc, descriptor_attention);
    return run_on_backend(suite);
}
