/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gate from end to end on a backend whose name is the argument: its lists are those of fa_sparse_topk(), and attention that the
 * device runs with them is the oracle's. And what the objects of <fastattn/select.h> refuse.
 */
#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/sparse_scene.h"

static sparse_scene s;

/* Small integers and chunks of powers of two: sums are exact in f32, and many are equal. */
static void draw_gate(fa_gate_desc *d, random_state *random)
{
    static const int32_t rows[] = {1, 4, 16}, keys[] = {8, 16, 32};
    scene_draw(&s, random);
    for (int i = 0; i < COUNT(s.q); i++)
        s.q[i] = (float)random_between(random, -2, 2);
    for (int i = 0; i < COUNT(s.k); i++)
        s.k[i] = (float)random_between(random, -2, 2);
    s.batch = 1;
    s.heads_kv = random_between(random, 1, 2);
    s.heads_q = s.heads_kv * random_between(random, 1, 2);
    s.rows = random_between(random, 1, 60);
    s.keys = 8 * random_between(random, 1, MOST_KEYS / 8);
    s.mask = (fa_mask_kind)random_between(random, 0, 2);
    *d = (fa_gate_desc){.struct_size = sizeof(*d),
                        .q = fa_tensor_make(FA_F32, 1, s.heads_q, s.rows, DIM),
                        .k = fa_tensor_make(FA_F32, 1, s.heads_kv, s.keys, DIM),
                        .block_rows = rows[random_between(random, 0, 2)],
                        .block_keys = keys[random_between(random, 0, 1 + (s.keys % 32 != 24))],
                        .mask = s.mask,
                        .topk = random_between(random, 1, 5),
                        .per_kv_head = (int32_t)random_between(random, 0, 1)};
}

/* The same choice on the host. */
static fa_block_mask *choose_on_host(const fa_gate_desc *d)
{
    const fa_sparse_topk_desc host = {.struct_size = sizeof(host),
                                      .shape = {.rows = s.rows,
                                                .keys = s.keys,
                                                .block_rows = d->block_rows,
                                                .block_keys = d->block_keys,
                                                .mask = d->mask},
                                      .heads_q = s.heads_q,
                                      .heads_kv = s.heads_kv,
                                      .dim = DIM,
                                      .q = s.q,
                                      .k = s.k,
                                      .topk = d->topk,
                                      .per_kv_head = d->per_kv_head};
    fa_block_mask *mask;
    succeed(fa_sparse_topk(context, &host, &mask));
    return mask;
}

/* Pools, scores, chooses, and runs attention, without a look at what was chosen. */
static void run_gated(const fa_gate_desc *d, uint8_t *mask, float *o)
{
    fa_gate *gate;
    fa_plan *plan;
    fa_block_lists lists = {.struct_size = sizeof(lists)};
    fa_attention_desc desc = make_desc(1, s.heads_q, s.heads_kv, s.rows, s.keys, DIM);
    succeed(fa_gate_create(device, d, &gate));
    succeed(fa_gate_lists(gate, &lists));
    desc.mask = s.mask;
    desc.lists = &lists;
    desc.dynamic_lengths = 2;
    succeed(fa_plan_create(device, &desc, &plan));
    const size_t bytes = (size_t)(lists.sequences * lists.heads * lists.row_blocks * lists.key_blocks),
                 count = (size_t)(s.heads_q * s.rows) * DIM * sizeof(float);
    const fa_gate_args gated = {.struct_size = sizeof(gated),
                                .q = upload(s.q, sizeof(s.q)),
                                .k = upload(s.k, sizeof(s.k)),
                                .mask = make_buffer(bytes + 4),
                                .mask_offset = 4,
                                .workspace = make_buffer(fa_gate_workspace(gate) + 64),
                                .workspace_offset = 64};
    const fa_attention_args args = {.struct_size = sizeof(args),
                                    .q = gated.q,
                                    .k = gated.k,
                                    .v = upload(s.v, sizeof(s.v)),
                                    .o = make_buffer(count),
                                    .workspace = make_buffer(fa_plan_workspace(plan) + 1),
                                    .work = make_buffer(fa_plan_work(plan))};
    const fa_device_lengths lengths = {.struct_size = sizeof(lengths)};
    const fa_device_lists made = {.struct_size = sizeof(made), .mask = gated.mask, .mask_offset = 4};
    succeed(fa_plan_schedule_device(plan, queue, &lengths, args.work, 0));
    succeed(fa_gate_run(gate, queue, &gated));
    succeed(fa_plan_schedule_lists(plan, queue, &made, args.work, 0));
    succeed(fa_plan_run(plan, queue, &args));
    succeed(fa_buffer_read(queue, gated.mask, 4, mask, bytes));
    succeed(fa_buffer_read(queue, args.o, 0, o, count));
    fa_buffer *const all[] = {gated.q, gated.k, gated.mask,     gated.workspace,
                              args.v,  args.o,  args.workspace, args.work};
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(all[i]);
    fa_plan_destroy(plan);
    fa_gate_destroy(gate);
}

START_TEST(as_on_the_host)
{
    static uint8_t made[MOST_HEADS * MOST_ROWS * MOST_KEYS];
    static float o[MOST_HEADS * MOST_ROWS * DIM];
    static double exact[MOST_HEADS * MOST_ROWS * DIM];
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < (slow ? 2 : 20); n++) {
        fa_gate_desc d;
        draw_gate(&d, &random);
        fa_block_mask *mask = choose_on_host(&d);
        const fa_block_lists l = lists_of(mask);
        run_gated(&d, made, o);
        for (int64_t i = 0; i < l.heads * l.row_blocks * l.key_blocks; i++) {
            const int64_t c = i % l.key_blocks, r = i / l.key_blocks % l.row_blocks,
                          h = i / l.key_blocks / l.row_blocks;
            ck_assert_msg(made[i] == list_has(&l, 0, h, r, c), "head %lld, row block %lld, chunk %lld",
                          (long long)h, (long long)r, (long long)c);
        }
        scene_keep(&s, mask);
        fa_attention_desc desc = make_desc(1, s.heads_q, s.heads_kv, s.rows, s.keys, DIM);
        desc.mask = s.mask;
        desc.keep = fa_tensor_make(FA_BOOL, 1, s.heads_q, s.rows, s.keys);
        succeed(fa_reference_attention(
            context, &desc, &(fa_inputs){.q = s.q, .k = s.k, .v = s.v, .keep = s.keep}, exact, NULL));
        for (int64_t i = 0; i < s.heads_q * s.rows * DIM; i++)
            ck_assert_msg(fabs((double)o[i] - exact[i]) <= 4e-6, "o[%lld] is %g, expected %g", (long long)i,
                          (double)o[i], exact[i]);
        fa_block_mask_destroy(mask);
    }
}
END_TEST

/* A block of rows that choose by their mean: as that row would. */
START_TEST(pooled_rows)
{
    static uint8_t made[MOST_HEADS * MOST_ROWS * MOST_KEYS];
    static float o[MOST_HEADS * MOST_ROWS * DIM];
    random_state random = {5};
    fa_gate_desc d;
    if (!device)
        return;
    draw_gate(&d, &random);
    d.block_rows = 4;
    d.pool_q = 1;
    d.per_kv_head = 0;
    s.mask = d.mask = FA_MASK_NONE;
    s.rows = d.q.shape[2] = 16;
    run_gated(&d, made, o);
    for (int64_t block = 0; block < s.heads_q * 4; block++) {
        float mean[DIM];
        for (int i = 0; i < DIM; i++) {
            const float *x = s.q + block * 4 * DIM + i;
            mean[i] = (x[0] + x[DIM] + x[2 * DIM] + x[3 * DIM]) / 4;
        }
        memcpy(s.q + block * DIM, mean, sizeof(mean));
    }
    s.rows = 4;
    d.block_rows = 1;
    fa_block_mask *mask = choose_on_host(&d);
    const fa_block_lists l = lists_of(mask);
    for (int64_t i = 0; i < l.heads * 4 * l.key_blocks; i++)
        ck_assert_int_eq(made[i],
                         list_has(&l, 0, i / l.key_blocks / 4, i / l.key_blocks % 4, i % l.key_blocks));
    fa_block_mask_destroy(mask);
}
END_TEST

/* `call` with the changed description is refused with that message, and leaves nothing. */
#define REFUSED(type, object, change, expected, part)                   \
    do {                                                                \
        type##_desc d = good;                                           \
        type *object;                                                   \
        change;                                                         \
        ck_assert_int_eq(type##_create(device, &d, &object), expected); \
        assert_message(part);                                           \
        ck_assert_ptr_null(object);                                     \
    } while (0)

START_TEST(refused_pooling)
{
    const fa_pooling_desc good = {
        .struct_size = sizeof(good), .x = fa_tensor_make(FA_F32, 1, 2, 8, 4), .chunk = 4};
    if (!device)
        return;
    REFUSED(fa_pooling, x, d.x.shape[3] = INT32_MAX, FA_UNSUPPORTED, "x.shape[3] is 2147483647");
    REFUSED(fa_pooling, x, d.chunk = 0, FA_INVALID, "chunk is 0");
    REFUSED(fa_pooling, x, d.x.dtype = FA_Q8_0, FA_INVALID, "x.dtype is q8_0");
    REFUSED(fa_pooling, x, d.x.shape[2] = -1, FA_INVALID, "x.shape[2] is -1");
    REFUSED(fa_pooling, x, d.struct_size = 3, FA_INVALID, "fa_pooling_desc");
    ck_assert_int_eq(fa_pooling_create(device, &good, NULL), FA_INVALID);
    ck_assert_int_eq(fa_pooling_create(device, NULL, (fa_pooling *[1]){NULL}), FA_INVALID);
    fa_pooling *pooling;
    succeed(fa_pooling_create(device, &good, &pooling));
    fa_pooling_args args = {.struct_size = sizeof(args), .x = make_buffer(256), .means = make_buffer(64)};
    fa_buffer *const x = args.x, *const means = args.means;
    args.means = NULL;
    ck_assert_int_eq(fa_pooling_run(pooling, queue, &args), FA_INVALID);
    assert_message("args.means is NULL");
    args.means = x;
    ck_assert_int_eq(fa_pooling_run(pooling, queue, &args), FA_INVALID);
    assert_message("overlaps");
    args.means = means;
    args.means_offset = 2;
    ck_assert_int_eq(fa_pooling_run(pooling, queue, &args), FA_INVALID);
    assert_message("args.means_offset is 2");
    args.means_offset = 4;
    ck_assert_int_eq(fa_pooling_run(pooling, queue, &args), FA_INVALID);
    assert_message("args.means has 60 bytes behind offset 4, expected at least 64");
    ck_assert_int_eq(fa_pooling_run(pooling, NULL, &args), FA_INVALID);
    fa_buffer_destroy(x);
    fa_buffer_destroy(means);
    fa_pooling_destroy(pooling);
    fa_pooling_destroy(NULL);
}
END_TEST

START_TEST(refused_scores)
{
    const fa_row_scores_desc good = {.struct_size = sizeof(good),
                                     .shape = {.rows = 9, .keys = 9, .block_rows = 2, .block_keys = 3},
                                     .q = fa_tensor_make(FA_F32, 1, 4, 5, 8),
                                     .k = fa_tensor_make(FA_F32, 1, 2, 3, 8)};
    if (!device)
        return;
    REFUSED(fa_row_scores, x, d.q.shape[2] = 4, FA_INVALID, "q.shape[2] is 4, expected 5");
    REFUSED(fa_row_scores, x, d.k.shape[2] = 4, FA_INVALID, "k.shape[2] is 4, expected 3");
    REFUSED(fa_row_scores, x, d.k.shape[0] = 2, FA_INVALID, "k.shape[0] is 2, expected 1");
    REFUSED(fa_row_scores, x, d.k.shape[3] = 7, FA_INVALID, "k.shape[3] is 7, expected 8");
    REFUSED(fa_row_scores, x, d.k.shape[1] = 3, FA_INVALID,
            "q.shape[1] is 4, expected a multiple of k.shape[1], 3");
    REFUSED(fa_row_scores, x, d.scale = INFINITY, FA_INVALID, "scale is inf");
    REFUSED(fa_row_scores, x, d.weighted = 2, FA_INVALID, "weighted is 2");
    REFUSED(fa_row_scores, x, d.shape.rows = 0, FA_INVALID, "shape.rows is 0");
    REFUSED(fa_row_scores, x, d.shape.mask = (fa_mask_kind)3, FA_INVALID, "shape.mask is 3");
    fa_row_scores *scores;
    succeed(fa_row_scores_create(device, &good, &scores));
    fa_row_scores_args args = {.struct_size = sizeof(args),
                               .q = make_buffer(640),
                               .k = make_buffer(192),
                               .weights = make_buffer(80),
                               .scores = make_buffer(240)};
    ck_assert_int_eq(fa_row_scores_run(scores, queue, &args), FA_INVALID);
    assert_message("args.weights is given, expected NULL");
    fa_buffer *const all[] = {args.q, args.k, args.weights, args.scores};
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(all[i]);
    fa_row_scores_destroy(scores);
    fa_row_scores_destroy(NULL);
}
END_TEST

START_TEST(refused_select)
{
    const fa_select_desc good = {
        .struct_size = sizeof(good), .shape = {.rows = 9, .keys = 9}, .batch = 1, .heads = 4, .topk = 3};
    if (!device)
        return;
    REFUSED(fa_select, x, d.topk = 0, FA_INVALID, "threshold is 0");
    REFUSED(fa_select, x, d.topk = -1, FA_INVALID, "topk is -1");
    REFUSED(fa_select, x, d.threshold = 0.5, FA_INVALID, "threshold is 0.5, expected 0 where topk is 3");
    REFUSED(fa_select, x, (d.topk = 0, d.threshold = 1.5), FA_INVALID, "threshold is 1.5");
    REFUSED(fa_select, x, (d.topk = 0, d.threshold = NAN), FA_INVALID, "threshold is");
    REFUSED(fa_select, x, (d.first = 2, d.own = 2), FA_INVALID,
            "first is 2 and own 2, expected together at most topk, 3");
    REFUSED(fa_select, x, d.own = -1, FA_INVALID, "own is -1");
    REFUSED(fa_select, x, d.heads = 0, FA_INVALID, "heads is 0");
    REFUSED(fa_select, x, d.list_heads = 3, FA_INVALID, "list_heads is 3, expected a divisor of heads, 4");
    REFUSED(fa_select, x, d.list_rows = -1, FA_INVALID, "list_rows is -1");
    REFUSED(fa_select, x, d.width = -1, FA_INVALID, "width is -1");
    REFUSED(fa_select, x, d.want_mask = 2, FA_INVALID, "want_mask is 2");
    REFUSED(fa_select, x, d.visible = 2, FA_INVALID, "visible is 2");
    REFUSED(fa_select, x, (d.topk = 0, d.threshold = 1, d.shape.keys = 131073), FA_UNSUPPORTED,
            "threshold is given for 131073 columns");
    REFUSED(fa_select, x, d.batch = d.heads = FA_MAX_LENGTH, FA_UNSUPPORTED, "at most 2147483647 heads");
    REFUSED(fa_select, x, (d.shape.rows = d.list_rows = 1 << 20, d.heads = d.list_heads = 1 << 12),
            FA_UNSUPPORTED, "list_rows is 1048576 and list_heads 4096");
    fa_select *select;
    succeed(fa_select_create(device, &good, &select));
    fa_select_args args = {.struct_size = sizeof(args),
                           .scores = make_buffer(1296),
                           .bits = make_buffer(144),
                           .counts = make_buffer(4)};
    ck_assert_int_eq(fa_select_run(select, queue, &args), FA_INVALID);
    assert_message("args.counts is given, expected NULL");
    fa_buffer *const all[] = {args.scores, args.bits, args.counts};
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(all[i]);
    fa_select_destroy(select);
    fa_select_destroy(NULL);
}
END_TEST

START_TEST(refused_gate)
{
    const fa_gate_desc good = {.struct_size = sizeof(good),
                               .q = fa_tensor_make(FA_F32, 1, 4, 9, 8),
                               .k = fa_tensor_make(FA_F32, 1, 2, 9, 8)};
    if (!device)
        return;
    REFUSED(fa_gate, x, d.q.shape[2] = 0, FA_INVALID, "q.shape[2] is 0");
    REFUSED(fa_gate, x, d.k.shape[1] = 3, FA_INVALID,
            "q.shape[1] is 4, expected a multiple of k.shape[1], 3");
    REFUSED(fa_gate, x, d.k.dtype = FA_I8, FA_INVALID, "k.dtype is i8");
    REFUSED(fa_gate, x, d.block_rows = -1, FA_INVALID, "block_rows is -1");
    REFUSED(fa_gate, x, d.block_keys = -1, FA_INVALID, "block_keys is -1");
    REFUSED(fa_gate, x, d.mask = (fa_mask_kind)3, FA_INVALID, "mask is 3");
    REFUSED(fa_gate, x, d.topk = -1, FA_INVALID, "topk is -1");
    REFUSED(fa_gate, x, d.per_kv_head = 2, FA_INVALID, "per_kv_head is 2");
    REFUSED(fa_gate, x, d.pool_q = 2, FA_INVALID, "pool_q is 2");
    for (int n = 0; n < 4; n++) {
        fa_gate *gate;
        memory.fail_at = memory.calls + n;
        ck_assert_int_eq(fa_gate_create(device, &good, &gate), FA_OUT_OF_MEMORY);
        memory.fail_at = -1;
    }
    fa_gate *gate;
    fa_block_lists lists = {.struct_size = sizeof(lists)};
    succeed(fa_gate_create(device, &good, &gate));
    succeed(fa_gate_lists(gate, &lists));
    ck_assert_int_eq(lists.block_rows, 1);
    ck_assert_int_eq(lists.block_keys, 128);
    ck_assert_int_eq(lists.heads, 4);
    ck_assert_int_eq(fa_gate_lists(gate, NULL), FA_INVALID);
    fa_gate_args args = {.struct_size = sizeof(args),
                         .q = make_buffer(1152),
                         .k = make_buffer(576),
                         .mask = make_buffer(36),
                         .workspace = make_buffer(fa_gate_workspace(gate))};
    fa_buffer *const all[] = {args.q, args.k, args.mask, args.workspace};
    args.workspace_offset = 32;
    ck_assert_int_eq(fa_gate_run(gate, queue, &args), FA_INVALID);
    assert_message("args.workspace_offset is 32, expected a multiple of 64");
    args.workspace_offset = 0;
    args.mask = args.k;
    ck_assert_int_eq(fa_gate_run(gate, queue, &args), FA_INVALID);
    assert_message("overlaps");
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(all[i]);
    fa_gate_destroy(gate);
    fa_gate_destroy(NULL);
    ck_assert_uint_eq(fa_gate_workspace(NULL), 0);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("gate");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, as_on_the_host, 0, slow ? 2 : 6);
    tcase_add_test(tc, pooled_rows);
    tcase_add_test(tc, refused_pooling);
    tcase_add_test(tc, refused_scores);
    tcase_add_test(tc, refused_select);
    tcase_add_test(tc, refused_gate);
    return run_on_backend(suite);
}
