/* SPDX-License-Identifier: Apache-2.0 */
/* Saliencies on a backend, whose name is the argument: against their definition in double precision. */
#include <fastattn/reference.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/backend.h"
#include "tests/gpu/saliency_scene.h"

START_TEST(saliencies)
{
    static scene s;
    random_state random = {17};
    for (int kind = slow ? 7 : 0; kind < (slow ? 8 : 60) && device; kind++) {
        make_scene(&s, kind, NULL, &random);
        run_scene(&s, -1);
    }
}
END_TEST

/* Each format of caches, in pages and without. */
START_TEST(saliencies_of_caches)
{
    static const cache caches[] = {
        {FA_F16, FA_BOOL, FA_BOOL, 0, 0, 0},    {FA_E4M3, FA_BOOL, FA_BOOL, 0, 0, 0},
        {FA_E5M2, FA_F32, FA_BOOL, 0, 0, 0},    {FA_Q8_0, FA_BOOL, FA_BOOL, 0, 0, 0},
        {FA_Q4_0, FA_BOOL, FA_BOOL, 0, 0, 0},   {FA_Q4_1, FA_BOOL, FA_BOOL, 0, 0, 0},
        {FA_Q5_0, FA_BOOL, FA_BOOL, 0, 0, 0},   {FA_Q5_1, FA_BOOL, FA_BOOL, 0, 0, 0},
        {FA_IQ4_NL, FA_BOOL, FA_BOOL, 0, 0, 0}, {FA_I8, FA_F16, FA_BOOL, 1, 0, 0.5f},
        {FA_I4, FA_BF16, FA_F16, 1, 8, 0},      {FA_I2, FA_F16, FA_BF16, 1, 16, 0},
        {FA_U8, FA_F32, FA_F32, 0, 0, 0},       {FA_U4, FA_F16, FA_F16, 0, 8, 2},
        {FA_U2, FA_F16, FA_F16, 8, 1, 0},       {FA_E2M1, FA_E4M3, FA_BOOL, 1, 16, 0.25f},
        {FA_E2M1, FA_E8M0, FA_BOOL, 1, 32, 0},  {FA_U1, FA_F16, FA_F16, 1, 16, 0},
        {FA_U2U1, FA_F16, FA_F16, 1, 16, 0},
    };
    static scene s;
    random_state random = {29};
    for (int i = 0; i < COUNT(caches) && device; i++) {
        if (slow && i % 7 != 1 && i != 10 && i != 14)
            continue;
        for (int turn = 0; turn < (slow ? 1 : 6); turn++) {
            cache in = caches[i];
            const int kind = i + 7 * turn;
            if (kind % 2 == 1 && in.keys > 1)
                in.keys = KEYS; /* rows without pages are no multiple of a group */
            make_scene(&s, kind, &in, &random);
            run_scene(&s, -1);
        }
    }
}
END_TEST

/* Lengths of one run, from the host and from the device. Kinds are chosen so that every term of scores occurs. */
START_TEST(saliencies_of_lengths)
{
    static const cache in = {FA_Q8_0, FA_BOOL, FA_BOOL, 0, 0, 0};
    static scene s;
    random_state random = {41};
    for (int kind = slow ? 13 : 0; kind < (slow ? 16 : 60) && device; kind++) {
        for (int dynamic = 1; dynamic <= 2; dynamic++) {
            make_scene(&s, kind, kind % 2 == 0 ? &in : NULL, &random);
            run_scene_with(&s, -1, dynamic);
        }
    }
}
END_TEST

/* A page that the pool does not have: refused where the host sees it, else its keys are NaN and no others. */
START_TEST(saliencies_of_lost_pages)
{
    static const cache in = {FA_Q8_0, FA_BOOL, FA_BOOL, 0, 0, 0};
    static const int32_t lost[] = {POOL, -1, INT32_MAX, INT32_MIN};
    static scene s;
    random_state random = {31};
    for (int i = 0; i < (slow ? 1 : COUNT(lost)) && device; i++) {
        make_scene(&s, 2 * i, &in, &random);
        s.table[0][3] = lost[i];
        if (!device->backend->host_pointers) {
            run_scene(&s, lost[i]);
            continue;
        }
        fa_saliency *saliency;
        ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_OK);
        fa_saliency_args args = {
            .struct_size = sizeof(args),
            .q = upload(s.q, sizeof(s.q)),
            .k = upload(s.k, sizeof(s.k)),
            .lse = upload(s.lse, sizeof(s.lse)),
            .keep = s.desc.keep.shape[0] ? upload(s.keep, sizeof(s.keep)) : NULL,
            .saliency = upload(s.out, sizeof(s.out)),
            .page_table = upload(s.table, sizeof(s.table)),
        };
        ck_assert_int_eq(fa_saliency_run(saliency, queue, &args), FA_INVALID);
        assert_message("page_table[0][3] is");
        fa_buffer *buffer[] = {args.q, args.k, args.lse, args.keep, args.saliency, args.page_table};
        for (int n = 0; n < COUNT(buffer); n++)
            fa_buffer_destroy(buffer[n]);
        fa_saliency_destroy(saliency);
    }
}
END_TEST

/* FlashMLA's rows, whose end is of another type than their codes, and which are v too; and rows that keep some elements. */
static void check_rows(fa_dtype type)
{
    enum { DIMS = 576, LATENT = 512, FEW = 6, HEADS = 2, KEPT = 200, BYTES = DIMS / 8 + 2 * KEPT };
    static float q[HEADS * DIMS], x[DIMS], rows[FEW][DIMS];
    static unsigned char k[FEW * 656];
    random_state random = {37};
    fa_attention_desc d = make_desc(1, HEADS, 1, 1, FEW, DIMS);
    fa_saliency_desc desc = {.struct_size = sizeof(desc), .attention = &d, .heads = HEADS};
    fa_saliency *saliency;
    double score[HEADS][FEW], size[HEADS][FEW];
    float lse[HEADS], out[HEADS * FEW];
    d.k.dtype = type;
    d.v_in_k = type == FA_FP8_DS_MLA;
    if (d.v_in_k) {
        d.v.dtype = type;
        d.v.shape[3] = d.o.shape[3] = LATENT;
    } else {
        d.k = fa_tensor_make_bitmap(1, 1, FEW, DIMS, KEPT);
    }
    for (int i = 0; i < HEADS * DIMS; i++)
        q[i] = random_float(&random, -1, 1);
    for (int j = 0; j < FEW; j++) {
        for (int e = 0; e < DIMS; e++) /* scales of groups differ */
            x[e] = random_float(&random, -1, 1) * (float)(1 + e / 128);
        fa_elements_store(type, k, j * DIMS, x, DIMS);
        for (int e = 0; e < DIMS && d.v_in_k; e++)
            rows[j][e] = fa_element(type, k, j * DIMS + e);
        if (!d.v_in_k) {
            ck_assert_int_eq(fa_bitmap_store(k + j * BYTES, BYTES, x, DIMS), FA_OK);
            ck_assert_int_eq(fa_bitmap_load(k + j * BYTES, BYTES, rows[j], DIMS), FA_OK);
        }
    }
    for (int h = 0; h < HEADS; h++) {
        double sum = 0;
        for (int j = 0; j < FEW; j++) {
            score[h][j] = size[h][j] = 0;
            for (int e = 0; e < DIMS; e++) {
                const double product = (double)q[h * DIMS + e] * (double)rows[j][e] / sqrt(DIMS);
                score[h][j] += product;
                size[h][j] += fabs(product);
            }
            sum += exp(score[h][j]);
        }
        lse[h] = (float)log(sum);
    }
    ck_assert_msg(fa_saliency_create(device, &desc, &saliency) == FA_OK, "%s", fa_last_error());
    const fa_saliency_args args = {.struct_size = sizeof(args),
                                   .q = upload(q, sizeof(q)),
                                   .k = upload(k, sizeof(k)),
                                   .lse = upload(lse, sizeof(lse)),
                                   .saliency = upload(out, sizeof(out))};
    ck_assert_msg(fa_saliency_run(saliency, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.saliency, 0, out, sizeof(out)), FA_OK);
    for (int h = 0; h < HEADS; h++) {
        for (int j = 0; j < FEW; j++) {
            const double off = score[h][j] - (double)lse[h], weight = exp(off),
                         wrong = 2 * (DIMS + 4) * size[h][j];
            ck_assert_msg(fabs((double)out[h * FEW + j] - weight) <=
                              weight * (2 * wrong + 8 + 4 * fabs(off)) * 0x1p-24,
                          "head %d, key %d is %.9g, expected %.9g", h, j, (double)out[h * FEW + j], weight);
        }
    }
    fa_buffer *const buffer[] = {args.q, args.k, args.lse, args.saliency};
    for (int i = 0; i < COUNT(buffer); i++)
        fa_buffer_destroy(buffer[i]);
    fa_saliency_destroy(saliency);
}

START_TEST(saliencies_of_rows)
{
    if (!device)
        return;
    check_rows(FA_FP8_DS_MLA);
    check_rows(FA_BITMAP_F16);
}
END_TEST

START_TEST(saliencies_refused)
{
    static scene s;
    random_state random = {17};
    fa_saliency *saliency;
    if (!device)
        return;
    make_scene(&s, 0, NULL, &random);
    ck_assert_int_eq(fa_saliency_create(device, NULL, &saliency), FA_INVALID);
    ck_assert_int_eq(fa_saliency_create(NULL, &s.saliency, &saliency), FA_INVALID);
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, NULL), FA_INVALID);
    s.saliency.heads = 3;
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_INVALID);
    assert_message("heads is 3, expected 0, 2 or 4");
    s.saliency.heads = 0;
    s.saliency.probes = -1;
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_INVALID);
    assert_message("probes is -1");
    s.saliency.probes = 0;
    s.saliency.sums = 2;
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_INVALID);
    assert_message("sums is 2");
    s.saliency.sums = 0;
    s.saliency.attention = NULL;
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_INVALID);
    assert_message("attention is NULL");
    s.saliency.attention = &s.desc;
    s.desc.lists = &(fa_block_lists){.struct_size = sizeof(fa_block_lists),
                                     .block_rows = 1 << 20,
                                     .block_keys = 1 << 20,
                                     .sequences = 1,
                                     .heads = 1,
                                     .row_blocks = 1,
                                     .key_blocks = 1,
                                     .mask = (const uint8_t[]){1}};
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_UNSUPPORTED);
    assert_message("attention.lists is given, expected NULL: saliencies do not serve it");
    s.desc.lists = NULL;
    s.desc.k = fa_tensor_make(FA_F32, BATCH, HEADS_KV, KEYS, 24);
    s.desc.q = fa_tensor_make(FA_F32, BATCH, HEADS_Q, 1 << 20, 24);
    s.desc.o = fa_tensor_make(FA_F32, BATCH, HEADS_Q, 1 << 20, s.desc.o.shape[3]);
    s.desc.bias.shape[0] = s.desc.keep.shape[0] = 0;
    s.desc.lens_q = NULL;
    if (device->limits.loop_turns > 0) {
        ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_UNSUPPORTED);
        assert_message("1048576 rows of 2 heads and 24 dims, but");
    }
    make_scene(&s, 0, NULL, &random);
    const fa_tensor of_q = s.desc.q, of_o = s.desc.o;
    s.desc.q.shape[1] = s.desc.o.shape[1] = 0; /* nothing to do, and nothing wrong */
    s.saliency.heads = 0;
    ck_assert_msg(fa_saliency_create(device, &s.saliency, &saliency) == FA_OK, "%s", fa_last_error());
    fa_saliency_destroy(saliency);
    s.desc.q = of_q;
    s.desc.o = of_o;
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_OK);
    fa_buffer *q = upload(s.q, sizeof(s.q)), *k = upload(s.k, sizeof(s.k)),
              *lse = upload(s.lse, sizeof(s.lse));
    const fa_saliency_args good = {.struct_size = sizeof(good), .q = q, .k = k, .lse = lse, .saliency = q};
    fa_saliency_args bad[4] = {good, good, good, good};
    bad[1].bias = lse;
    bad[2].lse = NULL;
    bad[3].saliency_offset = sizeof(s.q) - 4;
    static const char *const message[] = {"args.saliency overlaps args.q",
                                          "args.bias is given, expected NULL", "args.lse is NULL",
                                          "args.saliency has 4 bytes"};
    for (int i = 0; i < COUNT(bad); i++) {
        ck_assert_int_eq(fa_saliency_run(saliency, queue, &bad[i]), FA_INVALID);
        assert_message(message[i]);
    }
    ck_assert_int_eq(fa_saliency_run(saliency, NULL, &good), FA_INVALID);
    ck_assert_int_eq(fa_saliency_run(NULL, queue, &good), FA_INVALID);
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer_destroy(q);
    fa_buffer_destroy(k);
    fa_buffer_destroy(lse);
    fa_saliency_destroy(saliency);
    fa_saliency_destroy(NULL);
}
END_TEST

/* A plan of another description, or whose lengths are its own; work where there is no plan, or of another plan. */
START_TEST(lengths_refused)
{
    static scene s;
    random_state random = {43};
    fa_attention_desc longest, other;
    fa_saliency *saliency = NULL;
    fa_plan *plan, *second, *fixed;
    if (!device || slow)
        return;
    make_scene(&s, 0, NULL, &random);
    fa_buffer *work = make_work(&s, &longest, 1, &plan), *wrong = make_work(&s, &other, 1, &second);
    fa_saliency_desc d = s.saliency;
    d.attention = &longest;
    ck_assert_int_eq(fa_plan_create(device, &s.desc, &fixed), FA_OK);
    d.plan = fixed;
    ck_assert_int_eq(fa_saliency_create(device, &d, &saliency), FA_INVALID);
    assert_message("plan is of a description with dynamic_lengths 0, expected 1 or 2");
    d.plan = plan;
    longest.mask = longest.mask == FA_MASK_NONE ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE;
    ck_assert_int_eq(fa_saliency_create(device, &d, &saliency), FA_INVALID);
    assert_message("plan is of another description than attention");
    longest.mask = s.desc.mask;
    longest.scale =
        0.5f; /* of scores, as are softcap and the values of slopes, of which the work says nothing */
    longest.q.stride[0] = (HEADS_Q * ROWS + 4) * DIM;
    longest.q.stride[1] = ROWS * DIM;
    longest.q.stride[2] = DIM;
    longest.q.stride[3] = 1;
    ck_assert_int_eq(fa_saliency_create(device, &d, &saliency), FA_INVALID);
    assert_message("plan is of another description than attention");
    d.attention = &other;
    ck_assert_msg(fa_saliency_create(device, &d, &saliency) == FA_OK, "%s", fa_last_error());
    fa_buffer *q = upload(s.q, sizeof(s.q)), *k = upload(s.k, sizeof(s.k)),
              *lse = upload(s.lse, sizeof(s.lse)), *out = upload(s.out, sizeof(s.out));
    fa_saliency_args args = {.struct_size = sizeof(args),
                             .q = q,
                             .k = k,
                             .lse = lse,
                             .saliency = out,
                             .work = wrong,
                             .work_offset = 256};
    if (device->backend->host_pointers) {
        ck_assert_int_eq(fa_saliency_run(saliency, queue, &args), FA_INVALID);
        assert_message("args.work holds no work that fa_plan_schedule() made for the description's plan");
    }
    args.work = work;
    args.work_offset = 128;
    ck_assert_int_eq(fa_saliency_run(saliency, queue, &args), FA_INVALID);
    assert_message("args.work_offset is 128, expected a multiple of 256");
    fa_saliency_destroy(saliency);
    d.plan = NULL;
    ck_assert_int_eq(fa_saliency_create(device, &d, &saliency), FA_OK);
    args.work_offset = 256;
    ck_assert_int_eq(fa_saliency_run(saliency, queue, &args), FA_INVALID);
    assert_message("args.work is given, expected NULL: the description has no plan");
    fa_saliency_destroy(saliency);
    fa_plan_destroy(plan);
    fa_plan_destroy(second);
    fa_plan_destroy(fixed);
    fa_buffer *const buffer[] = {work, wrong, q, k, lse, out};
    for (int i = 0; i < COUNT(buffer); i++)
        fa_buffer_destroy(buffer[i]);
}
END_TEST

/* Each request for memory fails once. */
START_TEST(saliencies_out_of_memory)
{
    static scene s;
    random_state random = {17};
    fa_saliency *saliency;
    if (!device || strcmp(backend, "openmp") != 0)
        return;
    make_scene(&s, 7, NULL, &random);
    const long before = atomic_load(&memory.calls);
    ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_OK);
    fa_saliency_destroy(saliency);
    const long calls = atomic_load(&memory.calls) - before;
    for (long i = 0; i < calls; i++) {
        memory.fail_at = atomic_load(&memory.calls) + i;
        ck_assert_int_eq(fa_saliency_create(device, &s.saliency, &saliency), FA_OUT_OF_MEMORY);
        ck_assert_ptr_null(saliency);
    }
    memory.fail_at = -1;
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("saliency");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_add_test(tc, saliencies);
    tcase_add_test(tc, saliencies_of_caches);
    tcase_add_test(tc, saliencies_of_lengths);
    tcase_add_test(tc, saliencies_of_lost_pages);
    tcase_add_test(tc, saliencies_of_rows);
    tcase_add_test(tc, saliencies_refused);
    tcase_add_test(tc, lengths_refused);
    tcase_add_test(tc, saliencies_out_of_memory);
    return run_on_backend(suite);
}
