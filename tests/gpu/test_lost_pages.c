/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page tables in a device's memory that name pages which the pool does not have, on every kernel of the device: rows of the
 * sequence become NaN, those of others are as ever, and nothing is read there.
 */
#include <fastattn/reference.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/helpers.h"

enum { SEQUENCES = 2, HEADS = 2, ROWS = 3, DIM = 12, PAGE = 24, PAGES = 12, TABLE = 5, SKIPPED = 77 };
enum { OUT = SEQUENCES * HEADS * ROWS * DIM, LSE = SEQUENCES * HEADS * ROWS, POOL = PAGES * PAGE * DIM };

static bool has_device;
static fa_device *device;
static fa_queue *queue;

static struct {
    uint16_t q[OUT], k[POOL], v[POOL];
    int32_t table[SEQUENCES * TABLE];
    float o[OUT], lse[LSE];
    int32_t status[SEQUENCES];
} host;

static const int64_t lengths[SEQUENCES] = {PAGE * 4 + 5, PAGE * 4};

static fa_attention_desc describe(const fa_tuning *tuning)
{
    fa_attention_desc d = make_desc(SEQUENCES, HEADS, 1, ROWS, PAGE, DIM);
    d.q.dtype = FA_F16;
    d.k = d.v = fa_tensor_make(FA_F16, PAGES, 1, PAGE, DIM);
    d.page_table = fa_tensor_make(FA_I32, SEQUENCES, 1, 1, TABLE);
    d.lens_kv = lengths;
    d.want_lse = d.want_status = 1;
    d.dynamic_lengths = 2;
    d.tuning = tuning;
    return d;
}

static void fill(random_state *random, uint16_t *to, int count)
{
    for (int i = 0; i < count; i++)
        to[i] = fa_f32_to_f16(random_float(random, -1, 1));
}

/* A buffer with a copy of what is in host memory. */
static fa_buffer *upload(const void *from, size_t bytes)
{
    fa_buffer *buffer;
    ck_assert_int_eq(fa_buffer_create(device, bytes, &buffer), FA_OK);
    ck_assert_int_eq(fa_buffer_write(queue, buffer, 0, from, bytes), FA_OK);
    return buffer;
}

static fa_buffer *schedule(const fa_plan *plan, const int32_t *lens)
{
    fa_buffer *work, *list = upload(lens, SEQUENCES * sizeof(*lens));
    const fa_device_lengths on_device = {.struct_size = sizeof(on_device), .lens_kv = list};
    ck_assert_int_eq(fa_buffer_create(device, fa_plan_work(plan), &work), FA_OK);
    ck_assert_msg(fa_plan_schedule_device(plan, queue, &on_device, work, 0) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer_destroy(list);
    return work;
}

/* With the plan's own lengths, or with others in the device's memory. */
static void run(const fa_plan *plan, const int32_t *lens)
{
    const size_t bytes = fa_plan_workspace(plan);
    fa_buffer *workspace = NULL;
    if (bytes > 0)
        ck_assert_int_eq(fa_buffer_create(device, bytes, &workspace), FA_OK);
    const fa_attention_args args = {
        .struct_size = sizeof(args),
        .q = upload(host.q, sizeof(host.q)),
        .k = upload(host.k, sizeof(host.k)),
        .v = upload(host.v, sizeof(host.v)),
        .page_table = upload(host.table, sizeof(host.table)),
        .o = upload(host.o, sizeof(host.o)),
        .lse = upload(host.lse, sizeof(host.lse)),
        .workspace = workspace,
        .status = upload(host.status, sizeof(host.status)),
        .work = lens ? schedule(plan, lens) : NULL,
    };
    ck_assert_msg(fa_plan_run(plan, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.o, 0, host.o, sizeof(host.o)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, args.lse, 0, host.lse, sizeof(host.lse)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, args.status, 0, host.status, sizeof(host.status)), FA_OK);
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer *const all[] = {args.q,   args.k,    args.v,      args.page_table, args.o,
                              args.lse, workspace, args.status, args.work};
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(all[i]);
}

/* Rows of sequence `lost` are NaN, all others are the oracle's; -1: none is lost. Its status names the entry. */
static void check(const fa_attention_desc *d, int lost, int entry, const char *kernel)
{
    static double o[OUT], lse[LSE];
    int32_t table[SEQUENCES * TABLE];
    for (int i = 0; i < COUNT(table); i++)
        table[i] = host.table[i] < 0 || host.table[i] >= PAGES ? 0 : host.table[i];
    const fa_inputs in = {.q = host.q, .k = host.k, .v = host.v, .page_table = table};
    ck_assert_int_eq(fa_reference_attention(context, d, &in, o, lse), FA_OK);
    for (int n = 0; n < SEQUENCES; n++)
        ck_assert_msg(host.status[n] == (n == lost ? entry + 1 : 0), "%s: status[%d] is %d", kernel, n,
                      host.status[n]);
    for (int i = 0; i < OUT; i++) {
        const bool is_lost = i / (OUT / SEQUENCES) == lost;
        ck_assert_msg(is_lost ? isnan(host.o[i]) : fabs(host.o[i] - o[i]) < 1e-2, "%s: o[%d] is %g, not %g",
                      kernel, i, (double)host.o[i], is_lost ? NAN : o[i]);
    }
    for (int i = 0; i < LSE; i++) {
        const bool is_lost = i / (LSE / SEQUENCES) == lost;
        ck_assert_msg(is_lost ? isnan(host.lse[i]) : fabs(host.lse[i] - lse[i]) < 1e-2,
                      "%s: lse[%d] is %g, not %g", kernel, i, (double)host.lse[i], is_lost ? NAN : lse[i]);
    }
}

static void try_kernel(const char *kernel, int32_t splits)
{
    static const int32_t lost[] = {-1, PAGES, INT_MIN, INT_MAX, 1 << 20};
    const fa_tuning tuning = {
        .struct_size = sizeof(tuning), .kernel = kernel, .block_kv = 32, .splits = splits};
    const fa_attention_desc d = describe(&tuning);
    random_state random = {11};
    fa_plan *plan;
    const fa_status status = fa_plan_create(device, &d, &plan);
    if (status == FA_UNSUPPORTED)
        return;
    ck_assert_msg(status == FA_OK, "%s: %s", kernel, fa_last_error());
    fill(&random, host.q, OUT);
    fill(&random, host.k, POOL);
    fill(&random, host.v, POOL);
    for (int n = 0; n < SEQUENCES * TABLE; n++)
        host.table[n] = (n * 5 + 3) % PAGES;
    host.table[SEQUENCES * TABLE - 1] = INT_MAX; /* beyond the second sequence's keys */
    run(plan, NULL);
    check(&d, -1, 0, kernel);
    /* A length beyond what the table holds, which the device alone knows. */
    static const int32_t told[][SEQUENCES] = {
        {PAGE * 4 + 5, PAGE * 4}, {PAGE * TABLE + 1, PAGE * 4}, {PAGE * 4 + 5, INT_MAX}};
    for (int n = 0; n < COUNT(told); n++) {
        run(plan, told[n]);
        check(&d, n - 1, TABLE, kernel);
    }
    for (int n = 0; n < COUNT(lost) * SEQUENCES; n++) {
        int32_t *entry = &host.table[n % SEQUENCES * TABLE + n % 4];
        const int32_t was = *entry;
        *entry = lost[n % COUNT(lost)];
        run(plan, NULL);
        check(&d, n % SEQUENCES, n % 4, kernel);
        *entry = was;
    }
    fa_plan_destroy(plan);
}

/* All, unless the build names some: a driver on a CPU takes a second to compile each. */
static bool is_wanted(const char *kernel)
{
#ifdef FA_TEST_KERNELS
    return strcmp(kernel, "tile16") == 0 || strcmp(kernel, "rows64") == 0;
#else
    return kernel[0] != '\0';
#endif
}

START_TEST(every_kernel)
{
    fa_device_info info = {.struct_size = sizeof(info)};
    has_device = fa_device_open(context, FA_TEST_BACKEND, NULL, &device) == FA_OK;
    if (!has_device) {
        (void)printf("skipped: %s\n", fa_last_error());
        return;
    }
    ck_assert_int_eq(fa_queue_create(device, &queue), FA_OK);
    ck_assert_int_eq(fa_device_get_info(device, &info), FA_OK);
    char *rest = info.kernels;
    for (char *kernel = strtok_r(rest, ",", &rest); kernel; kernel = strtok_r(NULL, ",", &rest)) {
        if (!is_wanted(kernel))
            continue;
        try_kernel(kernel, 1);
        try_kernel(kernel, 2);
    }
    fa_queue_destroy(queue);
    fa_device_close(device);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lost_pages");
    TCase *tc = add_context_case(suite, "lost_pages");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, every_kernel);
    const int result = run_unforked(suite);
    return result == EXIT_SUCCESS && !has_device ? SKIPPED : result;
}
