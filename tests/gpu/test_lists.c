/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of key blocks on a backend, whose name is the argument: as a mask of every row and key says, which is made of the lists
 * here and handed to the oracle.
 */
#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/on_backend.h"

enum { MOST_ROWS = 150, MOST_KEYS = 300, DIM = 16, MOST_HEADS = 4, BATCH = 2 };

typedef struct scene {
    fa_attention_desc desc;
    fa_tuning tuning;
    fa_block_lists lists;
    uint8_t mask[BATCH * MOST_HEADS * MOST_ROWS * MOST_KEYS]; /* of blocks */
    int32_t indptr[BATCH * MOST_HEADS * MOST_ROWS + 1], indices[BATCH * MOST_HEADS * MOST_ROWS * MOST_KEYS];
    int32_t littered[2 * BATCH * MOST_HEADS * MOST_ROWS * MOST_KEYS];
    uint8_t keep[BATCH * MOST_HEADS * MOST_ROWS * MOST_KEYS];
    float q[BATCH * MOST_HEADS * MOST_ROWS * DIM], k[BATCH * MOST_HEADS * MOST_KEYS * DIM],
        v[BATCH * MOST_HEADS * MOST_KEYS * DIM], o[BATCH * MOST_HEADS * MOST_ROWS * DIM],
        lse[BATCH * MOST_HEADS * MOST_ROWS];
    double exact[BATCH * MOST_HEADS * MOST_ROWS * DIM], exact_lse[BATCH * MOST_HEADS * MOST_ROWS];
    int64_t first[BATCH];
} scene;

static void draw_floats(float *x, size_t count, random_state *random)
{
    for (size_t i = 0; i < count; i++)
        x[i] = random_float(random, -2, 2);
}

/* Compressed rows of the mask, each list in a descending order. */
static void compress(scene *s)
{
    const fa_block_lists *l = &s->lists;
    const int64_t lists = l->sequences * l->heads * l->row_blocks;
    int32_t count = 0;
    s->indptr[0] = 0;
    for (int64_t n = 0; n < lists; n++) {
        for (int64_t block = l->key_blocks - 1; block >= 0; block--) {
            if (s->mask[n * l->key_blocks + block])
                s->indices[count++] = (int32_t)block;
        }
        s->indptr[n + 1] = count;
    }
}

static void expand(scene *s)
{
    const fa_block_lists *l = &s->lists;
    const fa_attention_desc *d = &s->desc;
    const int64_t heads = d->q.shape[1], rows = d->q.shape[2], keys = d->k.shape[2];
    for (int64_t i = 0; i < d->q.shape[0] * heads * rows * keys; i++) {
        const int64_t key = i % keys, row = i / keys % rows, head = i / keys / rows % heads,
                      n = i / keys / rows / heads;
        const int64_t list =
            ((l->sequences > 1 ? n : 0) * l->heads + head / (heads / l->heads)) * l->row_blocks +
            row / l->block_rows;
        s->keep[i] = s->mask[list * l->key_blocks + key / l->block_keys];
    }
}

/* In squares of `grain` blocks that are alike. */
static void draw_mask(scene *s, int density, int grain, random_state *random)
{
    const fa_block_lists *l = &s->lists;
    for (int64_t list = 0; list < l->sequences * l->heads * l->row_blocks; list++) {
        uint8_t *at = s->mask + list * l->key_blocks;
        for (int64_t block = 0; block < l->key_blocks; block++) {
            if (list % l->row_blocks % grain != 0)
                at[block] = (at - l->key_blocks)[block];
            else if (block % grain != 0)
                at[block] = at[block - 1];
            else
                at[block] = random_between(random, 0, 99) < density;
        }
    }
}

static void draw_lists(scene *s, int density, random_state *random)
{
    static const int32_t sizes[] = {1, 3, 8, 16, 24, 32, 64, 100, 128};
    fa_block_lists *l = &s->lists;
    const fa_attention_desc *d = &s->desc;
    const int64_t heads[] = {1, d->k.shape[1], d->q.shape[1]};
    *l = (fa_block_lists){
        .struct_size = sizeof(*l),
        .block_rows = sizes[random_between(random, 0, COUNT(sizes) - 1)],
        .block_keys = sizes[random_between(random, 0, COUNT(sizes) - 1)],
        .sequences = random_between(random, 0, 1) ? d->q.shape[0] : 1,
        .heads = heads[random_between(random, 0, 2)],
    };
    l->row_blocks = (d->q.shape[2] + l->block_rows - 1) / l->block_rows;
    l->key_blocks = (d->k.shape[2] + l->block_keys - 1) / l->block_keys;
    draw_mask(s, density, 1 + (int)random_between(random, 0, 1), random);
    compress(s);
    if (random_between(random, 0, 1)) {
        l->mask = s->mask;
    } else {
        l->indptr = s->indptr;
        l->indices = s->indices;
    }
}

static void draw_scene(scene *s, int density, random_state *random)
{
    const int64_t heads_kv = random_between(random, 1, 2), heads_q = heads_kv * random_between(random, 1, 2);
    const int64_t rows = random_between(random, 0, 3) ? random_between(random, 1, MOST_ROWS) : 1;
    const int64_t keys = random_between(random, 1, MOST_KEYS);
    s->desc = make_desc(BATCH, heads_q, heads_kv, rows, keys, DIM);
    s->desc.mask = (fa_mask_kind)random_between(random, 0, 2);
    s->desc.window_left = random_between(random, 0, 3) ? 0 : random_between(random, 1, 100);
    s->desc.prefix = random_between(random, 0, 3) ? 0 : random_between(random, 1, 40);
    s->desc.want_lse = 1;
    s->tuning =
        (fa_tuning){.struct_size = sizeof(s->tuning),
                    .splits = random_between(random, 0, 2) ? 0 : (int32_t)random_between(random, 2, 4)};
    s->desc.tuning = &s->tuning;
    if (random_between(random, 0, 3) == 0) {
        for (int b = 0; b < BATCH; b++)
            s->first[b] = random_between(random, 0, keys);
        s->desc.first_kv = s->first;
    }
    draw_floats(s->q, sizeof(s->q) / sizeof(float), random);
    draw_floats(s->k, sizeof(s->k) / sizeof(float), random);
    draw_floats(s->v, sizeof(s->v) / sizeof(float), random);
    draw_lists(s, density, random);
    expand(s);
}

static void compute_exact(scene *s)
{
    const int64_t *q = s->desc.q.shape;
    fa_attention_desc d = s->desc;
    d.keep = fa_tensor_make(FA_BOOL, q[0], q[1], q[2], s->desc.k.shape[2]);
    ck_assert_int_eq(fa_reference_attention(context, &d,
                                            &(fa_inputs){.q = s->q, .k = s->k, .v = s->v, .keep = s->keep},
                                            s->exact, s->exact_lse),
                     FA_OK);
}

static void check_scene(const scene *s)
{
    const int64_t *q = s->desc.q.shape, rows = q[0] * q[1] * q[2];
    for (int64_t i = 0; i < rows * DIM; i++)
        ck_assert_msg(fabs((double)s->o[i] - s->exact[i]) <= 4e-6, "o[%lld] is %g, expected %g", (long long)i,
                      (double)s->o[i], s->exact[i]);
    for (int64_t i = 0; i < rows; i++)
        ck_assert_msg((double)s->lse[i] == s->exact_lse[i] ||
                          fabs((double)s->lse[i] - s->exact_lse[i]) <= 1e-5,
                      "lse[%lld] is %g, expected %g", (long long)i, (double)s->lse[i], s->exact_lse[i]);
}

static void run_scene(scene *s)
{
    s->desc.lists = &s->lists;
    const fa_status status = fa_attention_host(device, &s->desc, s->q, s->k, s->v, NULL, NULL, s->o, s->lse);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    s->desc.lists = NULL;
}

START_TEST(as_masks_say)
{
    static scene s;
    static const int densities[] = {0, 5, 30, 60, 100};
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < (slow ? 1 : 40); n++) {
        memset(&s, 0, sizeof(s));
        draw_scene(&s, densities[(n + _i + 2) % COUNT(densities)], &random);
        compute_exact(&s);
        run_scene(&s);
        check_scene(&s);
    }
}
END_TEST

/* Indices out of range and twice, before and between those that count: more than there are blocks. */
static void litter(scene *s, const fa_block_lists *l)
{
    const int64_t lists = l->sequences * l->heads * l->row_blocks;
    static int32_t copy[2 * COUNT(s->indices)];
    int32_t count = 0, begin = 0;
    for (int64_t n = 0; n < lists; n++) {
        for (int32_t i = begin; i < s->indptr[n + 1]; i++) {
            if (i % 3 == 0)
                copy[count++] = i % 2 ? s->indices[i] : i % 4 ? INT32_MIN + i : (int32_t)l->key_blocks + i;
            copy[count++] = s->indices[i];
        }
        begin = s->indptr[n + 1];
        s->indptr[n + 1] = count;
    }
    memcpy(s->littered, copy, sizeof(copy));
}

/* Runs a plan once, its work as it was scheduled. */
static void run_scheduled(scene *s, const fa_plan *plan, fa_buffer *work)
{
    const int64_t *q = s->desc.q.shape;
    const size_t count = (size_t)(q[0] * q[1] * q[2]) * sizeof(float);
    const fa_attention_args args = {.struct_size = sizeof(args),
                                    .q = upload(s->q, sizeof(s->q)),
                                    .k = upload(s->k, sizeof(s->k)),
                                    .v = upload(s->v, sizeof(s->v)),
                                    .o = make_buffer(sizeof(s->o)),
                                    .lse = make_buffer(sizeof(s->lse)),
                                    .workspace = make_buffer(fa_plan_workspace(plan) + 1),
                                    .work = work};
    ck_assert_msg(fa_plan_run(plan, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.o, 0, s->o, count * DIM), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, args.lse, 0, s->lse, count), FA_OK);
    fa_buffer *const all[] = {args.q, args.k, args.v, args.o, args.lse, args.workspace};
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(all[i]);
}

/* The plan is made without lists' contents, and the device is handed these: with these offsets, and s->littered. */
static void run_lists(scene *s, const int32_t *indptr)
{
    fa_block_lists given = s->lists;
    const size_t lists = (size_t)(given.sequences * given.heads * given.row_blocks);
    const bool rows = given.indptr != NULL;
    fa_plan *plan;
    given.indptr = given.indices = NULL;
    given.mask = NULL;
    given.index_count = !rows ? 0 : s->indptr[lists] > 0 ? s->indptr[lists] : 1;
    s->desc.lists = &given;
    s->desc.dynamic_lengths = 2;
    const fa_status status = fa_plan_create(device, &s->desc, &plan);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    fa_buffer *work = make_buffer(fa_plan_work(plan));
    const fa_device_lengths lengths = {.struct_size = sizeof(lengths)};
    const fa_device_lists made = {
        .struct_size = sizeof(made),
        .mask = rows ? NULL : upload(s->mask, lists * (size_t)given.key_blocks),
        .indptr = rows ? upload(indptr, (lists + 1) * sizeof(int32_t)) : NULL,
        .indices = rows ? upload(s->littered, (size_t)given.index_count * sizeof(int32_t)) : NULL,
    };
    ck_assert_msg(fa_plan_schedule_device(plan, queue, &lengths, work, 0) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_plan_schedule_lists(plan, queue, &made, work, 0) == FA_OK, "%s", fa_last_error());
    run_scheduled(s, plan, work);
    fa_buffer_destroy(made.mask);
    fa_buffer_destroy(made.indptr);
    fa_buffer_destroy(made.indices);
    fa_buffer_destroy(work);
    fa_plan_destroy(plan);
}

static void run_on_device(scene *s)
{
    if (s->lists.indptr)
        litter(s, &s->lists);
    run_lists(s, s->indptr);
}

/* The plan is made with lists of no blocks, and a run has these. */
static void run_replaced(scene *s)
{
    static const uint8_t none[sizeof(s->mask)];
    fa_block_lists empty = s->lists;
    fa_plan *plan;
    empty.indptr = empty.indices = NULL;
    empty.mask = none;
    s->desc.lists = &empty;
    s->desc.dynamic_lengths = 1;
    const fa_status status = fa_plan_create(device, &s->desc, &plan);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    fa_buffer *work = make_buffer(fa_plan_work(plan));
    const fa_lengths lengths = {.struct_size = sizeof(lengths), .lists = &s->lists};
    ck_assert_msg(fa_plan_schedule(plan, queue, &lengths, work, 0) == FA_OK, "%s", fa_last_error());
    run_scheduled(s, plan, work);
    fa_buffer_destroy(work);
    fa_plan_destroy(plan);
}

/* Once for each way. */
START_TEST(of_a_run)
{
    static scene s;
    static const int densities[] = {5, 40, 100};
    random_state random = {(uint64_t)_i + 100};
    for (int n = 0; device && n < (slow ? 1 : 12); n++) {
        memset(&s, 0, sizeof(s));
        draw_scene(&s, densities[(n + _i / 2 + 1) % COUNT(densities)], &random);
        s.desc.first_kv = NULL;
        compute_exact(&s);
        (_i % 2 ? run_on_device : run_replaced)(&s);
        check_scene(&s);
    }
}
END_TEST

/* An offset far below the one before it makes an empty list, and is followed nowhere. */
START_TEST(offsets_fall)
{
    static scene s;
    random_state random = {7};
    if (!device)
        return;
    s.desc = make_desc(1, 1, 1, 1, 4, DIM);
    s.desc.want_lse = 1;
    draw_floats(s.q, DIM, &random);
    draw_floats(s.k, (size_t)4 * DIM, &random);
    s.lists = (fa_block_lists){.struct_size = sizeof(s.lists),
                               .block_rows = 1,
                               .block_keys = 1,
                               .sequences = 1,
                               .heads = 1,
                               .row_blocks = 1,
                               .key_blocks = 4,
                               .indptr = s.indptr};
    s.indptr[1] = 5;
    run_lists(&s, (int32_t[]){5, INT32_MIN});
    ck_assert_double_eq((double)s.lse[0], -INFINITY);
    run_lists(&s, (int32_t[]){INT32_MIN, INT32_MAX});
    ck_assert(isfinite(s.lse[0])); /* index 0, five times */
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("lists");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, as_masks_say, 0, slow ? 3 : 6);
    tcase_add_loop_test(tc, of_a_run, 0, slow ? 2 : 4);
    tcase_add_test(tc, offsets_fall);
    return run_on_backend(suite);
}
