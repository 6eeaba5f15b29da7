/* SPDX-License-Identifier: Apache-2.0 */
/* fa_attention_host() on a device that copies: the CPU, which for this says that it cannot reach host memory. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "core/status.h"
#include "helpers.h"
#include "suites.h"

static fa_device *in_place, *apart;
static const fa_backend *cpu;
static fa_backend counted;
static size_t sent, received;
static int reads, read_that_fails; /* -1: none */

static fa_status count_write(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                             size_t size)
{
    sent += size;
    return cpu->buffer_write(queue, buffer, offset, source, size);
}

static fa_status count_read(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                            size_t size)
{
    received += size;
    if (reads++ != read_that_fails)
        return cpu->buffer_read(queue, buffer, offset, target, size);
    memset(target, 0x77, size / 2); /* some of it had come */
    return fa_fail(FA_DEVICE_LOST, "the read failed");
}

static void setup(void)
{
    in_place = apart = NULL;
    if (fa_device_open(context, "openmp", NULL, &in_place) != FA_OK)
        return; /* a library without it */
    ck_assert_int_eq(fa_device_open(context, "openmp", NULL, &apart), FA_OK);
    cpu = apart->backend;
    counted = *cpu;
    counted.buffer_write = count_write;
    counted.buffer_read = count_read;
    apart->backend = &counted;
    apart->info.host_memory = 0;
    sent = received = 0;
    reads = 0;
    read_that_fails = -1;
}

static void teardown(void)
{
    fa_device_close(apart);
    fa_device_close(in_place);
}

/* A small problem: batch, heads, rows and keys, dims; elements of each tensor. */
enum { B = 2, H = 3, S = 10, D = 8, PLAIN = B * H * S * D };

/* Where operands lie, in floats, in one piece of memory. */
enum { ARENA = 1 << 17 };
typedef struct scene {
    fa_attention_desc d;
    size_t q, k, v, o, bias, lse;
    size_t keep;      /* bytes, in memory of its own; SIZE_MAX: none */
    size_t most_sent; /* bytes that are allowed to travel */
} scene;

static float *make_arena(void)
{
    float *arena = malloc(ARENA * sizeof(float));
    random_state random = {7};
    ck_assert_ptr_nonnull(arena);
    for (int i = 0; i < ARENA; i++)
        arena[i] = random_float(&random, -1, 1);
    return arena;
}

static fa_status run_scene(fa_device *device, const scene *s, float *arena, unsigned char *flags)
{
    return fa_attention_host(
        device, &s->d, arena + s->q, arena + s->k, arena + s->v, s->d.bias.shape[0] ? arena + s->bias : NULL,
        s->keep != SIZE_MAX ? flags + s->keep : NULL, arena + s->o, s->d.want_lse ? arena + s->lse : NULL);
}

/* Byte for byte what the same call leaves in place, gaps and all that lies around included. */
static void compare(const scene *s, const char *what)
{
    static unsigned char flags[4096];
    for (int i = 0; i < COUNT(flags); i++)
        flags[i] = i % 3 != 0;
    float *expected = make_arena(), *found = make_arena();
    sent = received = 0;
    fa_status status = run_scene(in_place, s, expected, flags);
    ck_assert_msg(status == FA_OK, "%s: %s", what, fa_last_error());
    status = run_scene(apart, s, found, flags);
    ck_assert_msg(status == FA_OK, "%s: %s", what, fa_last_error());
    for (int i = 0; i < ARENA; i++) {
        if (memcmp(&expected[i], &found[i], sizeof(float)) != 0)
            ck_abort_msg("%s: float %d is %g, expected %g", what, i, (double)found[i], (double)expected[i]);
    }
    ck_assert_msg(sent > 0 && sent <= s->most_sent, "%s: %zu bytes were sent, expected at most %zu", what,
                  sent, s->most_sent);
    ck_assert_uint_le(received, (PLAIN + B * H * S) * sizeof(float));
    /* Results are handed out only when nothing can fail any more. */
    for (read_that_fails = 0; read_that_fails < 1 + s->d.want_lse; read_that_fails++) {
        float *untouched = make_arena(), *tried = make_arena();
        reads = 0;
        ck_assert_int_eq(run_scene(apart, s, tried, flags), FA_DEVICE_LOST);
        assert_message("the read failed");
        ck_assert_msg(memcmp(untouched, tried, ARENA * sizeof(float)) == 0, "%s: read %d fails: written",
                      what, read_that_fails);
        free(untouched);
        free(tried);
    }
    read_that_fails = -1;
    free(expected);
    free(found);
}

static scene plain(void)
{
    scene s = {.q = 0, .k = PLAIN, .v = 2 * PLAIN, .o = 3 * PLAIN, .lse = 4 * PLAIN, .keep = SIZE_MAX};
    s.d = make_desc(B, H, H, S, S, D);
    s.d.want_lse = 1;
    s.d.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    s.most_sent = 3 * PLAIN * sizeof(float);
    return s;
}

START_TEST(plain_layouts)
{
    if (!apart)
        return;
    scene s = plain();
    compare(&s, "(batch, head, row, dim)");
    const int64_t rows_first[4] = {S * H * D, D, H * D, 1};
    fa_tensor *const tensor[] = {&s.d.q, &s.d.k, &s.d.v, &s.d.o};
    for (int t = 0; t < 4; t++)
        memcpy(tensor[t]->stride, rows_first, sizeof(rows_first));
    compare(&s, "(batch, row, head, dim)");
}
END_TEST

/* q, k, v and o of one row side by side, and the LSE behind a gap. */
START_TEST(one_packed_buffer)
{
    if (!apart)
        return;
    for (int by_head = 0; by_head < 2; by_head++) {
        scene s = plain();
        const int64_t strides[4] = {4 * S * H * D, by_head ? 4 * D : D, 4 * H * D, 1};
        fa_tensor *const tensor[] = {&s.d.q, &s.d.k, &s.d.v, &s.d.o};
        size_t *const at[] = {&s.q, &s.k, &s.v, &s.o};
        for (int t = 0; t < 4; t++) {
            memcpy(tensor[t]->stride, strides, sizeof(strides));
            *at[t] = (size_t)(by_head ? t * D : t * H * D);
        }
        s.lse = 4 * PLAIN + 5;
        compare(&s, by_head ? "packed by head" : "packed");
        /* o where k is: refused on both, and nothing sent. */
        s.o = s.k;
        float *arena = make_arena();
        sent = 0;
        ck_assert_int_eq(run_scene(in_place, &s, arena, NULL), FA_INVALID);
        assert_message("args.o overlaps args.k");
        ck_assert_int_eq(run_scene(apart, &s, arena, NULL), FA_INVALID);
        assert_message("args.o overlaps args.k");
        ck_assert_uint_eq(sent, 0);
        free(arena);
    }
}
END_TEST

/* A few keys of a large cache: the rest of it never travels, nor do repeated heads more than once. */
START_TEST(views_of_a_cache)
{
    if (!apart)
        return;
    static const int64_t lens[B] = {3, 9};
    scene s = plain();
    enum { CACHE = 500 };
    s.d.k = s.d.v = (fa_tensor){FA_F32, {B, H, CACHE, D}, {CACHE * H * D, 0, H * D, 1}};
    s.d.lens_kv = lens;
    s.k = 5 * PLAIN;
    s.v = s.k + 2 * CACHE * H * D + 100;
    s.most_sent = (PLAIN + 2 * B * 9 * D) * sizeof(float);
    compare(&s, "a cache");
}
END_TEST

/* v as a part of k travels with it, once, whether it is given or not. */
START_TEST(values_in_keys)
{
    if (!apart)
        return;
    static const int64_t lens[B] = {3, 9};
    enum { CACHE = 500, DV = D - 3 };
    scene s = plain();
    s.d.k = (fa_tensor){FA_F32, {B, H, CACHE, D}, {CACHE * H * D, 0, H * D, 1}};
    s.d.v = s.d.k;
    s.d.v.shape[3] = s.d.o.shape[3] = DV;
    s.d.v_in_k = 1;
    s.d.lens_kv = lens;
    s.v = s.k = 5 * PLAIN;
    s.most_sent = (PLAIN + B * 9 * D) * sizeof(float);
    compare(&s, "in k");
    float *given = make_arena(), *none = make_arena();
    ck_assert_int_eq(run_scene(apart, &s, given, NULL), FA_OK);
    ck_assert_int_eq(
        fa_attention_host(apart, &s.d, none + s.q, none + s.k, NULL, NULL, NULL, none + s.o, none + s.lse),
        FA_OK);
    ck_assert_int_eq(memcmp(given, none, ARENA * sizeof(float)), 0);
    s.v++;
    ck_assert_int_eq(run_scene(in_place, &s, none, NULL), FA_INVALID);
    assert_message("args.v begins elsewhere than args.k");
    ck_assert_int_eq(run_scene(apart, &s, none, NULL), FA_INVALID);
    assert_message("args.v begins elsewhere than args.k");
    free(given);
    free(none);
}
END_TEST

START_TEST(packed_sequences)
{
    if (!apart)
        return;
    static const int64_t rows[] = {3, 5, 5, 9}, keys[] = {1, 4, 8, 20};
    scene s = plain();
    s.d.q = s.d.o = (fa_tensor){FA_F32, {1, H, 14, D}, {0, 14 * D + 8, D, 1}};
    s.d.k = s.d.v = (fa_tensor){FA_F32, {1, H, 40, D}, {77777, D + 1, H * (D + 1), 1}};
    s.d.sequences = 3;
    s.d.cu_rows_q = rows;
    s.d.cu_rows_kv = keys;
    s.k = 1000;
    s.v = 3000;
    s.o = 5000;
    s.lse = 7000;
    s.most_sent = (9 * H * D + 2 * 20 * H * D) * sizeof(float);
    compare(&s, "packed sequences");
}
END_TEST

START_TEST(bias_and_keep)
{
    if (!apart)
        return;
    scene s = plain();
    s.d.bias = (fa_tensor){FA_F32, {1, H, S, S}, {0, 300, S + 3, 1}};
    s.bias = 9000;
    s.d.keep = (fa_tensor){FA_BOOL, {B, 1, 1, S}, {100, 3, 3, 1}};
    s.keep = 1;
    s.most_sent = 3 * PLAIN * sizeof(float) + H * S * S * sizeof(float) + B * S;
    compare(&s, "bias and keep");
    /* Rows of keys that overlap, as a sliding view has them, need less as they are. */
    s.d.bias = (fa_tensor){FA_F32, {1, 1, S, S}, {0, 0, 1, 1}};
    s.most_sent = 3 * PLAIN * sizeof(float) + (2 * S - 1) * sizeof(float) + B * S;
    compare(&s, "a sliding bias");
    /* One element for all keys, of each row or of all. */
    s.d.bias = (fa_tensor){FA_F32, {1, H, S, S}, {0, 2 * S, 2, 0}};
    s.most_sent = 3 * PLAIN * sizeof(float) + H * S * sizeof(float) + B * S;
    compare(&s, "a bias for each row");
    s.d.bias = (fa_tensor){FA_F32, {1, 1, 1, S}, {5, 5, 5, 0}};
    s.most_sent = 3 * PLAIN * sizeof(float) + sizeof(float) + B * S;
    compare(&s, "one bias");
}
END_TEST

/* More rows with gaps than are collected at a time, and a tensor that is sent row by row. */
START_TEST(many_pieces)
{
    if (!apart)
        return;
    enum { ROWS = 40000, WIDE = 40 };
    float *memory_of_k = calloc((size_t)ROWS * WIDE, sizeof(float));
    float q[WIDE] = {1}, o[2][32], lse[2];
    ck_assert_ptr_nonnull(memory_of_k);
    for (int i = 0; i < ROWS * WIDE; i++)
        memory_of_k[i] = i % WIDE < 32 ? (float)(i % 1000) * 0.001f : NAN;
    fa_attention_desc d = make_desc(1, 1, 1, 1, ROWS, 32);
    d.k = d.v = (fa_tensor){FA_F32, {1, 1, ROWS, 32}, {0, 0, WIDE, 1}};
    d.want_lse = 1;
    ck_assert_int_eq(fa_attention_host(in_place, &d, q, memory_of_k, memory_of_k, NULL, NULL, o[0], &lse[0]),
                     FA_OK);
    ck_assert_int_eq(fa_attention_host(apart, &d, q, memory_of_k, memory_of_k, NULL, NULL, o[1], &lse[1]),
                     FA_OK);
    ck_assert_uint_eq(sent, (32 + 2 * (size_t)ROWS * 32) * sizeof(float));
    ck_assert_mem_eq(o[0], o[1], sizeof(o[0]));
    ck_assert_mem_eq(&lse[0], &lse[1], sizeof(lse[0]));
    free(memory_of_k);
}
END_TEST

/* The same refusals, whether the device copies or not. */
START_TEST(refusals_are_the_same)
{
    if (!apart)
        return;
    fa_device *const devices[] = {in_place, apart};
    for (int i = 0; i < COUNT(devices); i++) {
        scene s = plain();
        float *arena = make_arena();
        const float *a = arena;
        fa_device *device = devices[i];
        ck_assert_int_eq(fa_attention_host(device, &s.d, a, NULL, a, NULL, NULL, arena + s.o, arena + s.lse),
                         FA_INVALID);
        assert_message("args.k is NULL");
        ck_assert_int_eq(fa_attention_host(device, &s.d, a, a, a, NULL, NULL, arena + s.o, NULL), FA_INVALID);
        assert_message("args.lse is NULL");
        ck_assert_int_eq(fa_attention_host(device, &s.d, a, a, a, a, NULL, arena + s.o, arena + s.lse),
                         FA_INVALID);
        assert_message("args.bias is given, expected NULL");
        ck_assert_int_eq(fa_attention_host(device, &s.d, (const char *)a + 2, a, a, NULL, NULL, arena + s.o,
                                           arena + s.lse),
                         FA_INVALID);
        assert_message("args.q lies at address");
        ck_assert_int_eq(fa_attention_host(device, NULL, a, a, a, NULL, NULL, arena + s.o, arena + s.lse),
                         FA_INVALID);
        assert_message("desc is NULL");
        s.lse = s.o + PLAIN - 1;
        ck_assert_int_eq(run_scene(device, &s, arena, NULL), FA_INVALID);
        assert_message("args.o overlaps args.lse");
        s.d.q.dtype = FA_BOOL;
        ck_assert_int_eq(run_scene(device, &s, arena, NULL), FA_INVALID);
        assert_message("q.dtype is bool");
        s.d.q.dtype = FA_F32;
        fa_attention_desc cached = s.d;
        cached.k_scale = fa_tensor_make(FA_F32, 1, cached.k.shape[1], 1, 1);
        cached.k.dtype = FA_I8;
        ck_assert_int_eq(fa_attention_host(device, &cached, a, a, a, NULL, NULL, arena + s.o, arena + s.lse),
                         FA_INVALID);
        assert_message("k_scale.shape[0] is 1, expected no k_scale: fa_attention_host() has no argument for");
        cached = s.d;
        cached.page_table = fa_tensor_make(FA_I32, cached.q.shape[0], 1, 1, 1);
        ck_assert_int_eq(fa_attention_host(device, &cached, a, a, a, NULL, NULL, arena + s.o, arena + s.lse),
                         FA_INVALID);
        assert_message("expected no page_table: fa_attention_host() has no argument for");
        const fa_attention_desc empty = make_desc(1, 2, 2, 0, 5, 4);
        ck_assert_int_eq(fa_attention_host(device, &empty, NULL, a, a, NULL, NULL, NULL, NULL), FA_OK);
        free(arena);
    }
    ck_assert_uint_eq(sent, 2 * 2 * 5 * 4 * sizeof(float)); /* of the empty problem's keys and values */
}
END_TEST

Suite *host_suite(void)
{
    Suite *suite = suite_create("host");
    TCase *tc = add_context_case(suite, "copies");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, plain_layouts);
    tcase_add_test(tc, one_packed_buffer);
    tcase_add_test(tc, views_of_a_cache);
    tcase_add_test(tc, values_in_keys);
    tcase_add_test(tc, packed_sequences);
    tcase_add_test(tc, bias_and_keep);
    tcase_add_test(tc, many_pieces);
    tcase_add_test(tc, refusals_are_the_same);
    return suite;
}
