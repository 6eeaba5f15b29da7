/* SPDX-License-Identifier: Apache-2.0 */
#include "helpers.h"

#include <stdlib.h>
#include <string.h>

#include "core/platform.h"
#include "platform.h"

/* Lies right in front of each piece of memory. */
typedef struct header {
    size_t size;
    void *block;
} header;

counting memory;
fa_context *context;
fa_device *null_device;
fa_queue *null_queue;

/* Check writes each assertion that a test meets to a file, and reads them all when it ends: none here, where nothing fails. */
static void *counting_allocate(void *user, size_t size, size_t alignment)
{
    counting *books = user;
    if (size == 0 || alignment == 0 || (alignment & (alignment - 1)) != 0)
        ck_abort_msg("%zu bytes at a multiple of %zu are asked for", size, alignment);
    if (atomic_fetch_add(&books->calls, 1) == books->fail_at)
        return NULL;
    size_t front = alignment > sizeof(header) ? alignment : sizeof(header);
    void *block = size <= SIZE_MAX - front ? fa_system_allocate(front + size, front) : NULL;
    if (!block)
        return NULL;
    unsigned char *given = (unsigned char *)block + front;
    header h = {size, block};
    memcpy(given - sizeof(h), &h, sizeof(h));
    memset(given, 0xa5, size);
    atomic_fetch_add(&books->live, 1);
    atomic_fetch_add(&books->bytes, (long)size);
    return given;
}

static void counting_release(void *user, void *given, size_t size)
{
    counting *books = user;
    header h;
    if (!given)
        ck_abort_msg("NULL is released");
    memcpy(&h, (unsigned char *)given - sizeof(h), sizeof(h));
    if (h.size != size)
        ck_abort_msg("released with size %zu, allocated with %zu", size, h.size);
    atomic_fetch_sub(&books->live, 1);
    atomic_fetch_sub(&books->bytes, (long)size);
    fa_system_release(h.block);
}

fa_allocator counting_allocator(counting *books)
{
    return (fa_allocator){counting_allocate, counting_release, books};
}

static void setup(void)
{
    unsetenv("FASTATTN_BACKEND");
    unsetenv("FASTATTN_DEVICE");
    atomic_store(&memory.calls, 0);
    atomic_store(&memory.live, 0);
    atomic_store(&memory.bytes, 0);
    memory.fail_at = -1;
    const fa_context_options options = {.struct_size = sizeof(options),
                                        .allocator = counting_allocator(&memory)};
    ck_assert_int_eq(fa_context_create(&options, &context), FA_OK);
}

static void teardown(void)
{
    fa_context_destroy(context);
    context = NULL;
    ck_assert_int_eq(atomic_load(&memory.live), 0);
    ck_assert_int_eq(atomic_load(&memory.bytes), 0);
}

void add_context_fixture(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
}

TCase *add_context_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, 120); /* sanitizers and a busy machine are slow */
    add_context_fixture(tc);
    suite_add_tcase(suite, tc);
    return tc;
}

/* splitmix64 */
uint64_t random_bits(random_state *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int64_t random_between(random_state *random, int64_t low, int64_t high)
{
    return low + (int64_t)(random_bits(random) % (uint64_t)(high - low + 1));
}

float random_float(random_state *random, float low, float high)
{
    return low + (high - low) * (float)(random_bits(random) >> 40) / (float)(1 << 24);
}

fa_status append_live(append_life *life, fa_device *device, fa_queue *queue)
{
    enum { DIM = 32, KEYS = 4 };
    const fa_append_desc desc = {
        .struct_size = sizeof(desc),
        .k = fa_tensor_make(FA_F32, 1, 1, 2, DIM),
        .cache_k = fa_tensor_make(FA_Q8_0, 1, 1, KEYS, DIM),
        .rotary = {.form = FA_ROTARY_HALVES},
    };
    static const float k[2 * DIM];
    static const int32_t slots[] = {2, 0}, positions[] = {9, 7};
    fa_append_args *args = &life->args;
    args->struct_size = sizeof(*args);
    fa_status status = fa_append_create(device, &desc, &life->append);
    if (status == FA_OK)
        status = fa_buffer_create(device, sizeof(k), &args->k);
    if (status == FA_OK)
        status = fa_buffer_create(device, sizeof(slots), &args->slots);
    if (status == FA_OK)
        status = fa_buffer_create(device, sizeof(positions), &args->positions);
    if (status == FA_OK)
        status = fa_buffer_create(device, (size_t)KEYS * fa_dtype_size(FA_Q8_0), &args->cache_k);
    if (status == FA_OK)
        status = fa_buffer_write(queue, args->k, 0, k, sizeof(k));
    if (status == FA_OK)
        status = fa_buffer_write(queue, args->slots, 0, slots, sizeof(slots));
    if (status == FA_OK)
        status = fa_buffer_write(queue, args->positions, 0, positions, sizeof(positions));
    for (int turn = 0; turn < 2 && status == FA_OK; turn++)
        status = fa_append_run(life->append, queue, args);
    if (status == FA_OK)
        status = fa_queue_wait(queue);
    return status;
}

void append_die(append_life *life)
{
    fa_append_destroy(life->append);
    fa_buffer_destroy(life->args.k);
    fa_buffer_destroy(life->args.slots);
    fa_buffer_destroy(life->args.positions);
    fa_buffer_destroy(life->args.cache_k);
    *life = (append_life){.append = NULL};
}

fa_attention_desc make_desc(int64_t batch, int64_t heads_q, int64_t heads_kv, int64_t len_q, int64_t len_kv,
                            int64_t dim)
{
    return (fa_attention_desc){
        .struct_size = sizeof(fa_attention_desc),
        .q = fa_tensor_make(FA_F32, batch, heads_q, len_q, dim),
        .k = fa_tensor_make(FA_F32, batch, heads_kv, len_kv, dim),
        .v = fa_tensor_make(FA_F32, batch, heads_kv, len_kv, dim),
        .o = fa_tensor_make(FA_F32, batch, heads_q, len_q, dim),
    };
}

void assert_message(const char *part)
{
    ck_assert_msg(strstr(fa_last_error(), part) != NULL, "the message is \"%s\", expected \"%s\" in it",
                  fa_last_error(), part);
}

void assert_unavailable(const char *backend, const char *reason)
{
    size_t count = fa_device_count(context);
    for (size_t i = 0; i < count; i++) {
        fa_device_info info = {.struct_size = sizeof(info)};
        ck_assert_int_eq(fa_device_describe(context, i, &info), FA_OK);
        if (strcmp(info.backend, backend) != 0)
            continue;
        ck_assert_int_eq(info.available, 0);
        ck_assert_msg(strstr(info.reason, reason) != NULL, "\"%s\" lacks \"%s\"", info.reason, reason);
        return;
    }
    ck_abort_msg("no device of %s is listed", backend);
}

fa_device *open_null(void)
{
    fa_device *opened;
    fa_status status = fa_device_open(context, "null", NULL, &opened);
    ck_assert_msg(status == FA_OK, "null: %s", fa_last_error());
    return opened;
}

static void setup_device(void)
{
    null_device = open_null();
    ck_assert_int_eq(fa_queue_create(null_device, &null_queue), FA_OK);
}

static void teardown_device(void)
{
    fa_queue_destroy(null_queue);
    fa_device_close(null_device);
}

TCase *add_device_case(Suite *suite, const char *name)
{
    TCase *tc = add_context_case(suite, name);
    tcase_add_checked_fixture(tc, setup_device, teardown_device);
    return tc;
}

fa_plan *make_plan(const fa_attention_desc *desc)
{
    fa_plan *plan;
    fa_status status = fa_plan_create(null_device, desc, &plan);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    return plan;
}

fence fence_make(size_t bytes)
{
    size_t page = platform_page(), usable = (bytes + page - 1) / page * page;
    fence f = {.pages = platform_fenced(usable), .usable = usable};
    ck_assert_ptr_nonnull(f.pages);
    f.memory = f.pages + usable - bytes;
    return f;
}

void fence_release(fence *f)
{
    platform_fenced_release(f->pages, f->usable);
    *f = (fence){0};
}

int run_unforked(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
