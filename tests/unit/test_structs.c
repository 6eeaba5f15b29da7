/* SPDX-License-Identifier: Apache-2.0 */
/* struct_size, both ways: callers older and newer than this library. */
#include "core/structs.h"

#include <stdio.h>
#include <string.h>

#include "helpers.h"
#include "suites.h"

#define BEHIND 64
#define MOST (1 << 16) /* bytes of a struct that are believed */

/* A call that takes the struct at that address. */
typedef fa_status struct_call(void *at);

static fa_status call_context(void *at)
{
    fa_context *made;
    fa_status status = fa_context_create(at, &made);
    fa_context_destroy(made);
    return status;
}

static fa_status call_tuning(void *at)
{
    fa_attention_desc d = make_desc(1, 2, 1, 8, 8, 8);
    d.tuning = at;
    return fa_device_supports(null_device, &d, NULL, 0);
}

static fa_status call_desc(void *at)
{
    return fa_device_supports(null_device, at, NULL, 0);
}

static fa_status call_args(void *at)
{
    /* No heads: nothing is needed, and nothing runs. */
    const fa_attention_desc d = make_desc(1, 0, 0, 8, 8, 8);
    fa_plan *plan;
    ck_assert_int_eq(fa_plan_create(null_device, &d, &plan), FA_OK);
    fa_status status = fa_plan_run(plan, null_queue, at);
    fa_plan_destroy(plan);
    return status;
}

static fa_status call_host_args(void *at)
{
    const fa_attention_desc d = make_desc(1, 0, 0, 8, 8, 8);
    fa_plan *plan;
    ck_assert_int_eq(fa_plan_create(null_device, &d, &plan), FA_OK);
    fa_status status = fa_plan_run_host(plan, null_queue, at);
    fa_plan_destroy(plan);
    return status;
}

static fa_status schedule(const void *lengths, bool on_device)
{
    fa_attention_desc d = make_desc(1, 2, 1, 8, 8, 8);
    fa_plan *plan;
    fa_buffer *work;
    d.dynamic_lengths = 2;
    ck_assert_int_eq(fa_plan_create(null_device, &d, &plan), FA_OK);
    ck_assert_int_eq(fa_buffer_create(null_device, fa_plan_work(plan), &work), FA_OK);
    fa_status status = on_device ? fa_plan_schedule_device(plan, null_queue, lengths, work, 0)
                                 : fa_plan_schedule(plan, null_queue, lengths, work, 0);
    fa_buffer_destroy(work);
    fa_plan_destroy(plan);
    return status;
}

static fa_status call_lengths(void *at)
{
    return schedule(at, false);
}

static fa_status call_device_lengths(void *at)
{
    return schedule(at, true);
}

static fa_status call_merge(void *at)
{
    return fa_merge_host(at, NULL, NULL, NULL, NULL);
}

#if FA_WITH_VULKAN
/* A struct that was taken is refused for what it holds, which is nothing. */
static fa_status call_vulkan(void *at)
{
    fa_device *device;
    fa_status status = fa_device_open_vulkan(context, at, &device);
    return status == FA_INVALID && strncmp(fa_last_error(), "desc.", 5) == 0 ? FA_OK : status;
}
#endif

static fa_status call_describe(void *at)
{
    return fa_device_describe(context, 0, at);
}

static fa_status call_device_info(void *at)
{
    return fa_device_get_info(null_device, at);
}

static fa_status call_plan_info(void *at)
{
    const fa_attention_desc d = make_desc(1, 2, 1, 8, 8, 8);
    fa_plan *plan;
    ck_assert_int_eq(fa_plan_create(null_device, &d, &plan), FA_OK);
    fa_status status = fa_plan_get_info(plan, at);
    fa_plan_destroy(plan);
    return status;
}

typedef struct public_struct {
    const char *name;
    size_t size, oldest;
    struct_call *call;
} public_struct;

static const public_struct inputs[] = {
    {"fa_context_options", sizeof(fa_context_options), FA_CONTEXT_OPTIONS_0_1, call_context},
    {"fa_tuning", sizeof(fa_tuning), FA_TUNING_0_1, call_tuning},
    {"fa_attention_desc", sizeof(fa_attention_desc), FA_ATTENTION_DESC_0_1, call_desc},
    {"fa_attention_args", sizeof(fa_attention_args), FA_ATTENTION_ARGS_0_1, call_args},
    {"fa_host_args", sizeof(fa_host_args), FA_HOST_ARGS_0_1, call_host_args},
    {"fa_lengths", sizeof(fa_lengths), FA_LENGTHS_0_1, call_lengths},
    {"fa_device_lengths", sizeof(fa_device_lengths), FA_DEVICE_LENGTHS_0_1, call_device_lengths},
    {"fa_merge_desc", sizeof(fa_merge_desc), FA_MERGE_DESC_0_1, call_merge},
#if FA_WITH_VULKAN
    {"fa_vulkan_device_desc", sizeof(fa_vulkan_device_desc), FA_VULKAN_DEVICE_DESC_0_1, call_vulkan},
#endif
};

static const public_struct outputs[] = {
    {"fa_device_info", sizeof(fa_device_info), FA_DEVICE_INFO_0_1, call_describe},
    {"fa_device_info", sizeof(fa_device_info), FA_DEVICE_INFO_0_1, call_device_info},
    {"fa_plan_info", sizeof(fa_plan_info), FA_PLAN_INFO_0_1, call_plan_info},
};

/* A valid struct of `size` bytes. */
static void fill_struct(const public_struct *s, size_t size, unsigned char *at)
{
    const fa_attention_desc desc = make_desc(1, 2, 1, 8, 8, 8);
    const fa_tensor empty = fa_tensor_make(FA_F32, 0, 1, 1, 1);
    const fa_merge_desc merge = {.partial = empty, .o = empty};
    const void *content = s->call == call_desc ? (const void *)&desc : s->call == call_merge ? &merge : NULL;
    memset(at, 0, size);
    if (content)
        memcpy(at, content, size < s->size ? size : s->size);
    memcpy(at, &size, sizeof(size));
}

static void expect(const public_struct *s, size_t size, unsigned char *at)
{
    fa_status expected = size < s->oldest || size > MOST ? FA_INVALID : FA_OK;
    char message[160];
    fill_struct(s, size, at);
    fa_status status = s->call(at);
    ck_assert_msg(status == expected, "%s of %zu bytes: %s \"%s\"", s->name, size, fa_status_name(status),
                  fa_last_error());
    (void)snprintf(message, sizeof(message), "%s.struct_size is %zu, expected sizeof(%s), %zu", s->name, size,
                   s->name, s->size);
    if (expected == FA_INVALID)
        assert_message(message);
}

/* In front of memory that must not be touched, and in front of bytes that look like fields. */
static void expect_size(const public_struct *s, size_t size)
{
    static unsigned char at[MOST + 1 + BEHIND];
    fence f = fence_make(size);
    expect(s, size, f.memory);
    fence_release(&f);
    memset(at + size, 0xff, BEHIND);
    expect(s, size, at);
    for (size_t i = 0; i < BEHIND; i++) {
        if (at[size + i] != 0xff)
            ck_abort_msg("%s of %zu bytes: byte %zu behind it was written", s->name, size, i);
    }
}

/* Cut at every byte, and so at every field. */
static void expect_sizes(const public_struct *s)
{
    for (size_t size = sizeof(size_t); size <= s->size + BEHIND; size++)
        expect_size(s, size);
    expect_size(s, MOST);
    expect_size(s, MOST + 1);
}

START_TEST(inputs_of_any_size)
{
    const public_struct *s = &inputs[_i];
    expect_sizes(s);
    for (size_t i = s->size; i < s->size + BEHIND; i++) {
        unsigned char at[2048];
        char message[128];
        fill_struct(s, s->size + BEHIND, at);
        at[i] = 1;
        ck_assert_int_eq(s->call(at), FA_UNSUPPORTED);
        (void)snprintf(message, sizeof(message), "%s: byte %zu is not 0", s->name, i);
        assert_message(message);
    }
}
END_TEST

START_TEST(outputs_of_any_size)
{
    const public_struct *s = &outputs[_i];
    expect_sizes(s);
    /* Whatever stood there: what we know is filled alike, what we do not know is zero. */
    static unsigned char exact[MOST], larger[MOST];
    size_t size = s->size + BEHIND;
    fill_struct(s, s->size, exact);
    memset(larger, 0xaa, size);
    memcpy(larger, &size, sizeof(size));
    ck_assert_int_eq(s->call(exact), FA_OK);
    ck_assert_int_eq(s->call(larger), FA_OK);
    ck_assert_int_eq(memcmp(larger, &size, sizeof(size)), 0);
    ck_assert_int_eq(memcmp(exact + sizeof(size), larger + sizeof(size), s->size - sizeof(size)), 0);
    for (size_t i = s->size; i < size; i++)
        ck_assert(larger[i] == 0);
}
END_TEST

/* A struct as a later version may have it: two fields more than the oldest. */
typedef struct grown {
    size_t struct_size;
    int32_t old;
    char text[4];
    int64_t added;
    uint16_t last[4];
} grown;

enum { OLDEST = FA_SIZE_THROUGH(grown, text) };

static const grown full = {sizeof(grown), 5, "abc", 0x1122334455667788, {1, 2, 3, 4}};

/* Between the oldest size and ours, bytes are taken up to the cut and no further. */
START_TEST(grown_since_copied)
{
    for (size_t size = sizeof(size_t); size <= sizeof(grown) + BEHIND; size++) {
        unsigned char theirs[sizeof(grown) + 2 * BEHIND] = {0};
        grown ours, expected = {0};
        memcpy(theirs, &full, sizeof(full));
        memset(theirs + size, 0xff, sizeof(theirs) - size);
        memcpy(theirs, &size, sizeof(size));
        memcpy(&expected, theirs, size < sizeof(grown) ? size : sizeof(grown));
        fa_status status = fa_copy_struct(&ours, sizeof(ours), OLDEST, theirs, "grown");
        ck_assert_int_eq(status, size < OLDEST ? FA_INVALID : FA_OK);
        if (status == FA_OK)
            ck_assert_int_eq(memcmp(&ours, &expected, sizeof(ours)), 0);
    }
}
END_TEST

START_TEST(grown_since_filled)
{
    for (size_t size = sizeof(size_t); size <= sizeof(grown) + BEHIND; size++) {
        unsigned char theirs[sizeof(grown) + 2 * BEHIND];
        memset(theirs, 0xff, sizeof(theirs));
        memcpy(theirs, &size, sizeof(size));
        fa_status status = fa_fill_struct(&full, sizeof(full), OLDEST, theirs, "grown");
        ck_assert_int_eq(status, size < OLDEST ? FA_INVALID : FA_OK);
        size_t kept;
        memcpy(&kept, theirs, sizeof(kept));
        ck_assert_uint_eq(kept, size);
        for (size_t i = sizeof(size_t); i < sizeof(theirs); i++) {
            int filled = i < sizeof(full) ? ((const unsigned char *)&full)[i] : 0;
            ck_assert_int_eq(theirs[i], status != FA_OK || i >= size ? 0xff : filled);
        }
    }
}
END_TEST

Suite *structs_suite(void)
{
    Suite *suite = suite_create("structs");
    TCase *tc = add_device_case(suite, "structs");
    tcase_add_loop_test(tc, inputs_of_any_size, 0, COUNT(inputs));
    tcase_add_loop_test(tc, outputs_of_any_size, 0, COUNT(outputs));
    tcase_add_test(tc, grown_since_copied);
    tcase_add_test(tc, grown_since_filled);
    return suite;
}
