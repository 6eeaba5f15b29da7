/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kernel on tensors, and in a workspace, that end where memory ends: what reads or writes one element too
 * far dies here, in assembly too, which no sanitizer watches. The results are compared loosely; conformance compares them well.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <fastattn/fastattn.h>

#include "core/half.h"
#include "helpers.h"

typedef struct fenced_case {
    int64_t heads_q, heads_kv, len_q, len_kv;
    int64_t dim, dim_v;
    int32_t block_kv;
    bool causal;
} fenced_case;

static const fenced_case cases[] = {
    {1, 1, 1, 1, 1, 1, 0, false},       {2, 1, 3, 5, 17, 9, 0, false},     {4, 2, 9, 33, 40, 40, 0, true},
    {2, 2, 70, 70, 64, 64, 0, true},    {1, 1, 33, 95, 31, 33, 32, false}, {2, 1, 130, 67, 32, 80, 16, true},
    {8, 1, 4, 64, 128, 128, 32, false}, {3, 3, 17, 161, 96, 48, 64, true},
};
enum { CASES = sizeof(cases) / sizeof(cases[0]) };

/* The workspace is as long as the plan says and not a byte longer. */
static void run_fenced(fa_device *device, const fa_attention_desc *desc, const fence f[4],
                       const int64_t count[4], size_t size)
{
    fa_plan *plan;
    fa_queue *queue;
    fa_buffer *buffer[5] = {NULL};
    ck_assert_int_eq(fa_plan_create(device, desc, &plan), FA_OK);
    ck_assert_int_eq(fa_queue_create(device, &queue), FA_OK);
    fence workspace = fence_make(fa_plan_workspace(plan));
    for (int t = 0; t < 4; t++)
        ck_assert_int_eq(fa_buffer_wrap_host(device, f[t].memory, (size_t)count[t] * size, &buffer[t]),
                         FA_OK);
    ck_assert_int_eq(fa_buffer_wrap_host(device, workspace.memory, fa_plan_workspace(plan), &buffer[4]),
                     FA_OK);
    fa_attention_args args = {.struct_size = sizeof(args),
                              .q = buffer[0],
                              .k = buffer[1],
                              .v = buffer[2],
                              .o = buffer[3],
                              .workspace = buffer[4]};
    fa_status status = fa_plan_run(plan, queue, &args);
    ck_assert_msg(status == FA_OK, "%s: %s", desc->tuning->kernel, fa_last_error());
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    for (int t = 0; t < 5; t++)
        fa_buffer_destroy(buffer[t]);
    fence_release(&workspace);
    fa_queue_destroy(queue);
    fa_plan_destroy(plan);
}

/* One kernel on one case; a kernel that does not serve it is passed over. Returns whether it ran. */
static bool attend(fa_context *owner, fa_device *device, const char *kernel, const fenced_case *c,
                   fa_dtype dtype)
{
    fa_tuning tuning = {.struct_size = sizeof(tuning), .kernel = kernel, .block_kv = c->block_kv};
    fa_attention_desc desc = {
        .struct_size = sizeof(desc),
        .q = fa_tensor_make(dtype, 1, c->heads_q, c->len_q, c->dim),
        .k = fa_tensor_make(dtype, 1, c->heads_kv, c->len_kv, c->dim),
        .v = fa_tensor_make(dtype, 1, c->heads_kv, c->len_kv, c->dim_v),
        .o = fa_tensor_make(dtype, 1, c->heads_q, c->len_q, c->dim_v),
        .mask = c->causal ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE,
        .tuning = &tuning,
    };
    if (fa_device_supports(device, &desc, NULL, 0) != FA_OK)
        return false;
    size_t size = fa_dtype_size(dtype);
    int64_t count[4] = {c->heads_q * c->len_q * c->dim, c->heads_kv * c->len_kv * c->dim,
                        c->heads_kv * c->len_kv * c->dim_v, c->heads_q * c->len_q * c->dim_v};
    fence f[4];
    random_state random = {3};
    for (int t = 0; t < 4; t++) {
        f[t] = fence_make((size_t)count[t] * size);
        for (int64_t i = 0; i < count[t]; i++)
            fa_store(dtype, f[t].memory, i, random_float(&random, -1, 1));
    }
    run_fenced(device, &desc, f, count, size);
    double *exact = malloc((size_t)count[3] * sizeof(*exact));
    ck_assert_ptr_nonnull(exact);
    fa_inputs inputs = {.q = f[0].memory, .k = f[1].memory, .v = f[2].memory};
    ck_assert_int_eq(fa_reference_attention(owner, &desc, &inputs, exact, NULL), FA_OK);
    for (int64_t i = 0; i < count[3]; i++) {
        double found = (double)fa_load(dtype, f[3].memory, i);
        if (!(fabs(found - exact[i]) < 0.02))
            ck_abort_msg("%s: element %lld is %g, expected %g", kernel, (long long)i, found, exact[i]);
    }
    free(exact);
    for (int t = 0; t < 4; t++)
        fence_release(&f[t]);
    return true;
}

START_TEST(no_kernel_reads_or_writes_beyond_a_tensor)
{
    fa_context *owner;
    fa_device *device;
    fa_device_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_context_create(NULL, &owner), FA_OK);
    ck_assert_int_eq(fa_device_open(owner, "openmp", NULL, &device), FA_OK);
    ck_assert_int_eq(fa_device_get_info(device, &info), FA_OK);
    char *names = info.kernels, *next;
    for (char *name = names; name; name = next) {
        next = strchr(name, ',');
        if (next)
            *next++ = '\0';
        int ran = 0;
        for (int i = 0; i < CASES * 3; i++)
            ran += attend(owner, device, name, &cases[i / 3], (fa_dtype)(i % 3));
        ck_assert_msg(ran > 0, "%s ran on no case", name);
    }
    fa_device_close(device);
    fa_context_destroy(owner);
}
END_TEST

enum { TREE_ROWS = 5, TREE_KEYS = 96, TREE_SHOWN = 64, TREE_DIM = 40, TREE_BLOCK = 32 };

/* Bits hide the last block of keys from all rows. Memory ends before it, so who reads the block dies. */
static bool attend_tree(fa_device *device, const char *kernel, fa_dtype dtype)
{
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .kernel = kernel, .block_kv = TREE_BLOCK};
    const fa_attention_desc desc = {
        .struct_size = sizeof(desc),
        .q = fa_tensor_make(dtype, 1, 1, TREE_ROWS, TREE_DIM),
        .k = fa_tensor_make(dtype, 1, 1, TREE_KEYS, TREE_DIM),
        .v = fa_tensor_make(dtype, 1, 1, TREE_KEYS, TREE_DIM),
        .o = fa_tensor_make(dtype, 1, 1, TREE_ROWS, TREE_DIM),
        .keep = fa_tensor_make(FA_I32, 1, 1, TREE_ROWS, TREE_KEYS / 32),
        .tuning = &tuning,
    };
    uint32_t bits[TREE_ROWS][TREE_KEYS / 32];
    fa_plan *plan;
    fa_queue *queue;
    if (fa_device_supports(device, &desc, NULL, 0) != FA_OK)
        return false;
    for (int row = 0; row < TREE_ROWS; row++) {
        for (int word = 0; word < TREE_KEYS / 32; word++)
            bits[row][word] = word < TREE_SHOWN / 32 ? 0x80000001u << word : 0;
    }
    ck_assert_int_eq(fa_plan_create(device, &desc, &plan), FA_OK);
    ck_assert_int_eq(fa_queue_create(device, &queue), FA_OK);
    const size_t rows = TREE_ROWS * TREE_DIM * fa_dtype_size(dtype),
                 keys = TREE_SHOWN * TREE_DIM * fa_dtype_size(dtype);
    fence q = fence_make(rows), k = fence_make(keys), v = fence_make(keys), o = fence_make(rows),
          workspace = fence_make(fa_plan_workspace(plan));
    memset(q.memory, 0, rows);
    memset(k.memory, 0, keys);
    for (int64_t i = 0; i < TREE_SHOWN * TREE_DIM; i++)
        fa_store(dtype, v.memory, i, 1);
    const fa_host_args args = {.struct_size = sizeof(args),
                               .q = q.memory,
                               .k = k.memory,
                               .v = v.memory,
                               .o = o.memory,
                               .keep = bits,
                               .workspace = workspace.memory};
    ck_assert_msg(fa_plan_run_host(plan, queue, &args) == FA_OK, "%s: %s", kernel, fa_last_error());
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    for (int64_t i = 0; i < TREE_ROWS * TREE_DIM; i++)
        ck_assert_msg(fa_load(dtype, o.memory, i) == 1, "%s: element %lld", kernel, (long long)i);
    fence *const all[] = {&q, &k, &v, &o, &workspace};
    for (int i = 0; i < 5; i++)
        fence_release(all[i]);
    fa_queue_destroy(queue);
    fa_plan_destroy(plan);
    return true;
}

START_TEST(blocks_that_bits_hide_are_not_read)
{
    fa_context *owner;
    fa_device *device;
    fa_device_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_context_create(NULL, &owner), FA_OK);
    ck_assert_int_eq(fa_device_open(owner, "openmp", NULL, &device), FA_OK);
    ck_assert_int_eq(fa_device_get_info(device, &info), FA_OK);
    int ran = 0;
    for (char *rest = info.kernels, *name = rest; *name; name = rest) {
        rest += strcspn(rest, ",");
        rest += *rest == ',' ? (*rest = '\0', 1) : 0;
        for (int dtype = FA_F32; dtype <= FA_BF16 && !strstr(name, "standard"); dtype++)
            ran += attend_tree(device, name, (fa_dtype)dtype);
    }
    ck_assert_int_ge(ran, 6);
    fa_device_close(device);
    fa_context_destroy(owner);
}
END_TEST

/* Only where rows are split do parts of the output join the blocks in the workspace. */
START_TEST(workspace_does_not_grow_with_length)
{
    fa_context *owner;
    fa_device *device;
    ck_assert_int_eq(fa_context_create(NULL, &owner), FA_OK);
    ck_assert_int_eq(fa_device_open(owner, "openmp", NULL, &device), FA_OK);
    for (int dtype = FA_F32; dtype <= FA_BF16; dtype++) {
        size_t first = 0;
        for (int64_t length = 8192; length <= 131072; length *= 4) {
            fa_tensor t = fa_tensor_make((fa_dtype)dtype, 1, 64, length, 128);
            fa_attention_desc desc = {.struct_size = sizeof(desc), .q = t, .k = t, .v = t, .o = t};
            fa_plan *plan;
            ck_assert_int_eq(fa_plan_create(device, &desc, &plan), FA_OK);
            first = first ? first : fa_plan_workspace(plan);
            ck_assert_uint_eq(fa_plan_workspace(plan), first);
            fa_plan_destroy(plan);
        }
    }
    fa_device_close(device);
    fa_context_destroy(owner);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fence");
    TCase *tc = tcase_create("fence");
    tcase_set_timeout(tc, 240);
    tcase_add_test(tc, no_kernel_reads_or_writes_beyond_a_tensor);
    tcase_add_test(tc, blocks_that_bits_hide_are_not_read);
    tcase_add_test(tc, workspace_does_not_grow_with_length);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
