/* SPDX-License-Identifier: Apache-2.0 */
/* Runs on the null backend, which computes nothing and checks everything. */
#include "core/backend.h"

#include <stdio.h>
#include <string.h>

#include "helpers.h"
#include "suites.h"

/* Everything that a run can be given, each in its own buffer. */
enum { ELEMENTS = 2 * 2 * 8 * 4, BYTES = ELEMENTS * 4 };

typedef struct run_case {
    fa_plan *plan;
    fa_buffer *buffer[8]; /* q k v o bias keep lse workspace */
    fa_attention_args args;
} run_case;

static fa_attention_desc full_desc(void)
{
    fa_attention_desc d = make_desc(2, 2, 2, 8, 8, 4);
    d.q.dtype = FA_F16;
    d.bias = fa_tensor_make(FA_F32, 2, 2, 8, 8);
    d.keep = fa_tensor_make(FA_BOOL, 2, 2, 8, 8);
    d.want_lse = 1;
    return d;
}

static void make_run(run_case *r)
{
    const fa_attention_desc d = full_desc();
    r->plan = make_plan(&d);
    const size_t size[8] = {BYTES / 2, BYTES,     BYTES,     BYTES,
                            2 * BYTES, BYTES / 2, BYTES / 4, fa_plan_workspace(r->plan)};
    ck_assert_uint_gt(size[7], 0);
    for (int i = 0; i < 8; i++)
        ck_assert_int_eq(fa_buffer_create(null_device, size[i], &r->buffer[i]), FA_OK);
    fa_buffer *const *b = r->buffer;
    r->args = (fa_attention_args){.struct_size = sizeof(r->args),
                                  .q = b[0],
                                  .k = b[1],
                                  .v = b[2],
                                  .o = b[3],
                                  .bias = b[4],
                                  .keep = b[5],
                                  .lse = b[6],
                                  .workspace = b[7]};
}

static void free_run(run_case *r)
{
    for (int i = 0; i < 8; i++)
        fa_buffer_destroy(r->buffer[i]);
    fa_plan_destroy(r->plan);
}

/* The i-th buffer of the arguments and its offset, in the order of `buffer` above. */
static fa_buffer **buffer_of(fa_attention_args *a, int i)
{
    fa_buffer **const of[8] = {&a->q, &a->k, &a->v, &a->o, &a->bias, &a->keep, &a->lse, &a->workspace};
    return of[i];
}

static size_t *offset_of(fa_attention_args *a, int i)
{
    size_t *const of[8] = {&a->q_offset,    &a->k_offset,    &a->v_offset,   &a->o_offset,
                           &a->bias_offset, &a->keep_offset, &a->lse_offset, &a->workspace_offset};
    return of[i];
}

static const char *const operand[8] = {"q", "k", "v", "o", "bias", "keep", "lse", "workspace"};

static void refuse_run(const run_case *r, const fa_attention_args *args, const char *format, int i)
{
    char message[120];
    snprintf(message, sizeof(message), format, operand[i], operand[i]);
    fa_status status = fa_plan_run(r->plan, null_queue, args);
    ck_assert_msg(status == FA_INVALID, "%s: %s", message, fa_status_name(status));
    assert_message(message);
}

START_TEST(runs)
{
    run_case r;
    make_run(&r);
    long calls = atomic_load(&memory.calls);
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &r.args), FA_OK);
    ck_assert_int_eq(fa_queue_wait(null_queue), FA_OK);
    ck_assert_int_eq(atomic_load(&memory.calls), calls); /* a run allocates nothing */
    /* Inputs may share memory. */
    r.args.v = r.args.k;
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &r.args), FA_OK);
    free_run(&r);
}
END_TEST

START_TEST(runs_refused_by_name)
{
    run_case r;
    make_run(&r);
    fa_device *other = open_null();
    for (int i = 0; i < 8; i++) {
        fa_attention_args a = r.args;
        *buffer_of(&a, i) = NULL;
        refuse_run(&r, &a, "args.%s is NULL, expected a buffer of at least ", i);
        a = r.args;
        *offset_of(&a, i) = i == 7 ? 64 : 4;
        refuse_run(&r, &a, "args.%s has ", i);
        *offset_of(&a, i) = (SIZE_MAX - 63) / 64 * 64;
        refuse_run(&r, &a, "args.%s has 0 bytes behind offset ", i);
        a = r.args;
        *offset_of(&a, i) = i == 7 ? 32 : 1;
        if (i != 5) /* bytes lie anywhere */
            refuse_run(&r, &a, "args.%s_offset is ", i);
        fa_buffer *foreign;
        ck_assert_int_eq(fa_buffer_create(other, 1 << 16, &foreign), FA_OK);
        a = r.args;
        *buffer_of(&a, i) = foreign;
        refuse_run(&r, &a, "args.%s belongs to another device", i);
        fa_buffer_destroy(foreign);
    }
    fa_device_close(other);
    free_run(&r);
}
END_TEST

static void refuse_host(const fa_plan *plan, const fa_host_args *a, const char *message)
{
    ck_assert_int_eq(fa_plan_run_host(plan, null_queue, a), FA_INVALID);
    assert_message(message);
}

/* Runs on pointers as they are: what fa_plan_run() checks is checked, and nothing is allocated. */
START_TEST(runs_on_host_pointers)
{
    static _Alignas(64) char storage[8][4 * BYTES];
    const fa_attention_desc d = full_desc();
    fa_plan *plan = make_plan(&d);
    char *const s[8] = {storage[0], storage[1], storage[2], storage[3],
                        storage[4], storage[5], storage[6], storage[7]};
    ck_assert_uint_le(fa_plan_workspace(plan), sizeof(storage[7]));
    const fa_host_args good = {.struct_size = sizeof(good),
                               .q = s[0],
                               .k = s[1],
                               .v = s[2],
                               .bias = s[4],
                               .keep = s[5],
                               .o = s[3],
                               .lse = (float *)(void *)s[6],
                               .workspace = s[7]};
    long calls = atomic_load(&memory.calls);
    ck_assert_int_eq(fa_plan_run_host(plan, null_queue, &good), FA_OK);
    ck_assert_int_eq(atomic_load(&memory.calls), calls);
    fa_host_args a = good;
    a.v = a.k; /* inputs may share memory, and bytes lie anywhere */
    a.keep = s[5] + 1;
    ck_assert_int_eq(fa_plan_run_host(plan, null_queue, &a), FA_OK);
    a = good;
    a.q = NULL;
    refuse_host(plan, &a, "args.q is NULL, expected a buffer of at least 256 bytes");
    a = good;
    a.lse = NULL;
    refuse_host(plan, &a, "args.lse is NULL, expected a buffer of at least 128 bytes");
    a = good;
    a.workspace = NULL;
    refuse_host(plan, &a, "args.workspace is NULL");
    a = good;
    a.workspace = s[7] + 32;
    refuse_host(plan, &a, "args.workspace lies at address ");
    a = good;
    a.bias = s[4] + 2;
    refuse_host(plan, &a, "args.bias lies at address ");
    a = good;
    a.o = s[1] + BYTES - 4;
    refuse_host(plan, &a, "args.o overlaps args.k");
    ck_assert_int_eq(fa_plan_run_host(NULL, null_queue, &good), FA_INVALID);
    assert_message("plan is NULL");
    ck_assert_int_eq(fa_plan_run_host(plan, NULL, &good), FA_INVALID);
    assert_message("queue is NULL");
    refuse_host(plan, NULL, "args is NULL");
    fa_plan_destroy(plan);
}
END_TEST

/* o, lse and workspace share no byte with anything. */
START_TEST(overlapping_outputs_are_refused)
{
    static const size_t alignment[8] = {2, 4, 4, 4, 4, 1, 4, 64};
    run_case r;
    make_run(&r);
    fa_buffer *big;
    ck_assert_int_eq(fa_buffer_create(null_device, 1 << 16, &big), FA_OK);
    for (int written = 3; written < 8; written++) {
        if (written == 4 || written == 5)
            continue;
        for (int i = 0; i < 8; i++) {
            if (i == written)
                continue;
            fa_attention_args a = r.args;
            *buffer_of(&a, written) = *buffer_of(&a, i) = big;
            *offset_of(&a, written) = 1024;
            size_t size = fa_buffer_size(r.buffer[written]);
            *offset_of(&a, i) =
                1024 + (size - 1) / alignment[i] * alignment[i]; /* the last element's worth */
            fa_status status = fa_plan_run(r.plan, null_queue, &a);
            ck_assert_msg(status == FA_INVALID, "%s and %s", operand[written], operand[i]);
            assert_message("overlaps args.");
            assert_message(operand[written]);
            assert_message(operand[i]);
            *offset_of(&a, i) = 1024 + (size + alignment[i] - 1) / alignment[i] * alignment[i];
            ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_OK);
            /* The same from the other side. */
            *offset_of(&a, i) = 1024 + alignment[i] - fa_buffer_size(r.buffer[i]);
            ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_INVALID);
            assert_message("overlaps args.");
            *offset_of(&a, i) = 1024 - fa_buffer_size(r.buffer[i]);
            ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_OK);
        }
    }
    fa_buffer_destroy(big);
    free_run(&r);
}
END_TEST

/* Rows of o, lse and the inputs by turns in one buffer: what they share is a span, no byte. */
START_TEST(rows_by_turns)
{
    enum { ROWS = 10, HEADS = 3, DIM = 8, ROW = 4 * HEADS * DIM + 4 };
    fa_attention_desc d = make_desc(1, HEADS, HEADS, ROWS, ROWS, DIM);
    d.q.stride[0] = d.q.stride[3] = 1;
    d.q.stride[1] = DIM;
    d.q.stride[2] = ROW;
    memcpy(d.k.stride, d.q.stride, sizeof(d.q.stride));
    memcpy(d.v.stride, d.q.stride, sizeof(d.q.stride));
    memcpy(d.o.stride, d.q.stride, sizeof(d.q.stride));
    fa_plan *plan = make_plan(&d);
    fa_buffer *buffer, *workspace;
    ck_assert_int_eq(fa_buffer_create(null_device, ROWS * ROW * 4, &buffer), FA_OK);
    ck_assert_int_eq(fa_buffer_create(null_device, fa_plan_workspace(plan), &workspace), FA_OK);
    fa_attention_args a = {.struct_size = sizeof(a),
                           .q = buffer,
                           .k = buffer,
                           .v = buffer,
                           .o = buffer,
                           .workspace = workspace,
                           .k_offset = HEADS * DIM * 4,
                           .v_offset = 2 * HEADS * DIM * 4};
    for (size_t at = 0; at <= 4 * (ROW - HEADS * DIM); at += 4) {
        a.o_offset = at;
        fa_status status = fa_plan_run(plan, null_queue, &a);
        bool apart = at >= 3 * HEADS * DIM * 4;
        ck_assert_msg(status == (apart ? FA_OK : FA_INVALID), "o at %zu: %s", at, fa_last_error());
        if (!apart)
            assert_message("args.o overlaps args.");
    }
    fa_buffer_destroy(workspace);
    fa_buffer_destroy(buffer);
    fa_plan_destroy(plan);
}
END_TEST

/* What kernels take to lie at multiples of 64 bytes does, also in memory that the caller wrapped. */
START_TEST(workspaces_at_odd_addresses)
{
    static _Alignas(64) unsigned char odd[1 << 16];
    run_case r;
    make_run(&r);
    for (size_t shift = 0; shift <= 128; shift += 8) {
        fa_buffer *wrapped;
        fa_attention_args a = r.args;
        ck_assert_int_eq(fa_buffer_wrap_host(null_device, odd + shift, sizeof(odd) - shift, &wrapped), FA_OK);
        a.workspace = wrapped;
        fa_status status = fa_plan_run(r.plan, null_queue, &a);
        ck_assert_int_eq(status, shift % 64 == 0 ? FA_OK : FA_INVALID);
        if (shift % 64 != 0)
            assert_message("args.workspace lies at address ");
        fa_buffer_destroy(wrapped);
    }
    fa_buffer *wrapped;
    ck_assert_int_eq(fa_buffer_wrap_host(null_device, odd, PTRDIFF_MAX, &wrapped), FA_OK);
    fa_buffer_destroy(wrapped);
    ck_assert_int_eq(fa_buffer_wrap_host(null_device, (void *)(UINTPTR_MAX - 63), 65, &wrapped), FA_INVALID);
    assert_message("size is 65 from address ");
    free_run(&r);
}
END_TEST

/* The same address means the same bytes only in the same memory. */
START_TEST(other_storage_does_not_overlap)
{
    static const char memory_of_a_device[2];
    run_case r;
    make_run(&r);
    fa_buffer o = *r.buffer[3], q = *r.buffer[0];
    q.address = o.address = (void *)(uintptr_t)64; /* an offset; the null backend touches nothing */
    fa_attention_args a = r.args;
    a.o = &o;
    a.q = &q;
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_INVALID);
    assert_message("args.o overlaps args.q");
    o.storage = &memory_of_a_device[0];
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_OK);
    q.storage = &memory_of_a_device[1];
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_OK);
    q.storage = o.storage;
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_INVALID);
    assert_message("args.o overlaps args.q");
    free_run(&r);
}
END_TEST

START_TEST(what_is_not_asked_for_is_refused)
{
    run_case r;
    make_run(&r);
    const fa_attention_desc d = make_desc(2, 2, 2, 8, 8, 4);
    fa_plan *plain = make_plan(&d);
    fa_attention_args a = r.args;
    for (int i = 4; i < 7; i++) {
        char message[80];
        a = r.args;
        a.bias = a.keep = a.lse = NULL;
        a.q = a.k; /* f32 here */
        ck_assert_int_eq(fa_plan_run(plain, null_queue, &a), FA_OK);
        *buffer_of(&a, i) = r.buffer[i];
        snprintf(message, sizeof(message), "args.%s is given, expected NULL", operand[i]);
        ck_assert_int_eq(fa_plan_run(plain, null_queue, &a), FA_INVALID);
        assert_message(message);
    }
    ck_assert_int_eq(fa_plan_run(NULL, null_queue, &r.args), FA_INVALID);
    assert_message("plan is NULL");
    ck_assert_int_eq(fa_plan_run(r.plan, NULL, &r.args), FA_INVALID);
    assert_message("queue is NULL");
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, NULL), FA_INVALID);
    assert_message("args is NULL");
    a = r.args;
    a.struct_size = 16;
    ck_assert_int_eq(fa_plan_run(r.plan, null_queue, &a), FA_INVALID);
    assert_message("fa_attention_args.struct_size is 16");
    fa_device *other = open_null();
    fa_queue *foreign;
    ck_assert_int_eq(fa_queue_create(other, &foreign), FA_OK);
    ck_assert_int_eq(fa_plan_run(r.plan, foreign, &r.args), FA_INVALID);
    assert_message("queue belongs to device");
    fa_queue_destroy(foreign);
    fa_device_close(other);
    fa_plan_destroy(plain);
    free_run(&r);
}
END_TEST

/* No rows, no heads, no batch: a run needs no memory and does nothing. */
/* v as a part of k: it is not given, or given where k is. */
START_TEST(values_in_keys)
{
    static _Alignas(64) float host[5][4 * ELEMENTS];
    fa_attention_desc d = make_desc(2, 2, 2, 8, 8, 4);
    d.v.shape[3] = d.o.shape[3] = 3;
    d.v_in_k = 1;
    run_case r;
    make_run(&r);
    fa_plan *plan = make_plan(&d);
    fa_plan_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_OK);
    ck_assert_double_eq(info.bytes_compulsory, (3 * 4 - 1) * 2.0 * 2 * 8 * 4); /* q, k and o: no v */
    fa_buffer *workspace;
    ck_assert_int_eq(fa_buffer_create(null_device, fa_plan_workspace(plan) + 64, &workspace), FA_OK);
    fa_attention_args a = {
        .struct_size = sizeof(a),
        .q = r.buffer[1],
        .k = r.buffer[2],
        .o = r.buffer[3],
        .workspace = workspace,
    };
    ck_assert_int_eq(fa_plan_run(plan, null_queue, &a), FA_OK);
    a.v = a.k;
    ck_assert_int_eq(fa_plan_run(plan, null_queue, &a), FA_OK);
    a.v = a.q;
    ck_assert_int_eq(fa_plan_run(plan, null_queue, &a), FA_INVALID);
    assert_message("args.v begins elsewhere than args.k, expected NULL or the same place");
    a.v = a.k;
    a.v_offset = 4;
    ck_assert_int_eq(fa_plan_run(plan, null_queue, &a), FA_INVALID);
    assert_message("args.v begins elsewhere than args.k");
    a.v = a.k = NULL;
    ck_assert_int_eq(fa_plan_run(plan, null_queue, &a), FA_INVALID);
    assert_message("args.k is NULL, expected a buffer");
    ck_assert_uint_le(fa_plan_workspace(plan), sizeof(host[4]));
    fa_host_args h = {
        .struct_size = sizeof(h), .q = host[0], .k = host[1], .o = host[2], .workspace = host[4]};
    ck_assert_int_eq(fa_plan_run_host(plan, null_queue, &h), FA_OK);
    h.v = host[3];
    ck_assert_int_eq(fa_plan_run_host(plan, null_queue, &h), FA_INVALID);
    assert_message("args.v begins elsewhere than args.k");
    fa_buffer_destroy(workspace);
    fa_plan_destroy(plan);
    free_run(&r);
}
END_TEST

START_TEST(empty_problems_run)
{
    for (int zero = 1; zero < 8; zero++) {
        int64_t heads = zero & 2 ? 0 : 2;
        fa_attention_desc d = make_desc(zero & 1 ? 0 : 2, heads, heads, zero & 4 ? 0 : 8, 0, 16);
        fa_plan *plan = make_plan(&d);
        const fa_attention_args none = {.struct_size = sizeof(none)};
        fa_status status = fa_plan_run(plan, null_queue, &none);
        ck_assert_msg(status == FA_OK, "%s", fa_last_error());
        ck_assert_int_eq(fa_attention_host(null_device, &d, NULL, NULL, NULL, NULL, NULL, NULL, NULL), FA_OK);
        fa_plan_destroy(plan);
    }
    /* An empty output shares no byte with the keys in whose buffer it is said to lie. */
    const fa_attention_desc d = make_desc(1, 2, 2, 0, 8, 4);
    fa_plan *plan = make_plan(&d);
    fa_buffer *buffer;
    ck_assert_int_eq(fa_buffer_create(null_device, 1024, &buffer), FA_OK);
    const fa_attention_args args = {
        .struct_size = sizeof(args), .q = buffer, .k = buffer, .v = buffer, .o = buffer, .o_offset = 64};
    fa_status status = fa_plan_run(plan, null_queue, &args);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    fa_buffer_destroy(buffer);
    fa_plan_destroy(plan);
}
END_TEST

START_TEST(host_calls)
{
    static float q[ELEMENTS], k[ELEMENTS], v[ELEMENTS], o[ELEMENTS], bias[2 * ELEMENTS], lse[ELEMENTS];
    static unsigned char keep[2 * ELEMENTS];
    const fa_attention_desc d = full_desc();
    for (int i = 0; i < ELEMENTS; i++)
        o[i] = lse[i] = 7;
    ck_assert_int_eq(fa_attention_host(null_device, &d, q, k, v, bias, keep, o, lse), FA_OK);
    const void *in[5] = {q, k, v, bias, keep};
    static const char *const name[5] = {"q", "k", "v", "bias", "keep"};
    for (int i = 0; i < 5; i++) {
        const void *a[5];
        char message[64];
        memcpy(a, in, sizeof(a));
        a[i] = NULL;
        snprintf(message, sizeof(message), "args.%s is NULL", name[i]);
        ck_assert_int_eq(fa_attention_host(null_device, &d, a[0], a[1], a[2], a[3], a[4], o, lse),
                         FA_INVALID);
        assert_message(message);
    }
    ck_assert_int_eq(fa_attention_host(null_device, &d, q, k, v, bias, keep, NULL, lse), FA_INVALID);
    assert_message("args.o is NULL");
    ck_assert_int_eq(fa_attention_host(null_device, &d, q, k, v, bias, keep, o, NULL), FA_INVALID);
    assert_message("args.lse is NULL");
    ck_assert_int_eq(fa_attention_host(null_device, &d, q, k, v, bias, keep, k, lse), FA_INVALID);
    assert_message("overlaps");
    ck_assert_int_eq(fa_attention_host(null_device, &d, q, k, v, bias, keep, (char *)o + 1, lse), FA_INVALID);
    assert_message("args.o lies at address ");
    ck_assert_int_eq(fa_attention_host(null_device, NULL, q, k, v, bias, keep, o, lse), FA_INVALID);
    assert_message("desc is NULL");
    ck_assert_int_eq(fa_attention_host(NULL, &d, q, k, v, bias, keep, o, lse), FA_INVALID);
    assert_message("device is NULL");
    const fa_attention_desc plain = make_desc(2, 2, 2, 8, 8, 4);
    ck_assert_int_eq(fa_attention_host(null_device, &plain, q, k, v, NULL, NULL, o, lse), FA_INVALID);
    assert_message("args.lse is given, expected NULL");
    for (int i = 0; i < ELEMENTS; i++)
        ck_assert(o[i] == 7 && lse[i] == 7);
}
END_TEST

Suite *run_suite(void)
{
    Suite *suite = suite_create("run");
    TCase *run = add_device_case(suite, "run");
    tcase_add_test(run, runs);
    tcase_add_test(run, runs_on_host_pointers);
    tcase_add_test(run, runs_refused_by_name);
    tcase_add_test(run, overlapping_outputs_are_refused);
    tcase_add_test(run, rows_by_turns);
    tcase_add_test(run, workspaces_at_odd_addresses);
    tcase_add_test(run, other_storage_does_not_overlap);
    tcase_add_test(run, what_is_not_asked_for_is_refused);
    tcase_add_test(run, values_in_keys);
    tcase_add_test(run, empty_problems_run);
    tcase_add_test(run, host_calls);
    return suite;
}
