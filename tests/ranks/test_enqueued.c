/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers whose chunks and sums are enqueued. The device is openmp with marks and a library of products of this test's; the transport
 * is local, and keeps what is enqueued until it is to finish it. Data lie in host memory, which both say is the device's.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "core/ranks/projection.h"
#include "core/ranks/transport.h"
#include "tests/ranks/layer_scene.h"
#include "tests/ranks/on_ranks.h"

typedef struct mark {
    int put;
} mark;

static atomic_int marks, products, refused_queues;
static fa_backend edited;

static fa_status create_mark(fa_device *device, void **made)
{
    (void)device;
    *made = calloc(1, sizeof(mark));
    marks += *made != NULL;
    return *made ? FA_OK : FA_OUT_OF_MEMORY;
}

static fa_status put_mark(fa_queue *queue, void *m)
{
    (void)queue;
    ((mark *)m)->put++;
    return FA_OK;
}

static fa_status wait_for_mark(fa_queue *queue, void *m)
{
    (void)queue;
    return ((mark *)m)->put > 0 ? FA_OK : fa_fail(FA_IO, "the mark is not put");
}

static void destroy_mark(fa_device *device, void *m)
{
    (void)device;
    marks--;
    free(m);
}

static const char *name_library(char *reason, size_t reason_size)
{
    (void)reason, (void)reason_size;
    return "a test's";
}

static const char *lack_library(char *reason, size_t reason_size)
{
    (void)snprintf(reason, reason_size, "it is not here");
    return NULL;
}

static fa_status pass(const fa_device *device, const char *name, const void *at, size_t size)
{
    (void)device, (void)name, (void)at, (void)size;
    return FA_OK;
}

static fa_status refuse_y(const fa_device *device, const char *name, const void *at, size_t size)
{
    (void)device, (void)at, (void)size;
    return strcmp(name, "args.y") == 0 ? fa_fail(FA_INVALID, "%s is no memory of the device's", name) : FA_OK;
}

static fa_status multiply(fa_queue *queue, const fa_device_product *p)
{
    const fa_product product = {p->o,     p->w,        p->y,        p->rows, p->inner,
                                p->width, p->o_stride, p->w_stride, p->width};
    (void)queue;
    products++;
    fa_plain_multiply(&product);
    return FA_OK;
}

/* The first one. */
static fa_status refuse_queue(const fa_queue *queue)
{
    (void)queue;
    return refused_queues++ == 0 ? fa_fail(FA_UNSUPPORTED, "the queue runs nothing") : FA_OK;
}

static fa_device *open_edited(void)
{
    fa_device *device = NULL;
    ck_assert_msg(fa_device_open(context, "openmp", NULL, &device) == FA_OK, "%s", fa_last_error());
    edited = *device->backend;
    edited.mark_create = create_mark;
    edited.mark_put = put_mark;
    edited.mark_wait = wait_for_mark;
    edited.mark_destroy = destroy_mark;
    edited.product_library = name_library;
    edited.address_check = pass;
    edited.product_run = multiply;
    device->backend = &edited;
    return device;
}

/* An end of a local transport, which sums when it is to finish. */
typedef struct sum {
    fa_dtype dtype;
    void *data;
    int64_t count;
} sum;

typedef struct delayed {
    const fa_transport *inner;
    sum sums[FA_SHARDED_MAX_CHUNKS];
    int count;
} delayed;

static fa_status reduce_now(void *user, fa_dtype dtype, void *data, int64_t count, double timeout,
                            char *message, size_t message_size)
{
    (void)user, (void)dtype, (void)data, (void)count, (void)timeout;
    (void)snprintf(message, message_size, "the host is to wait for nothing");
    return FA_IO;
}

static fa_status gather(void *user, const void *from, void *to, size_t bytes, double timeout, char *message,
                        size_t message_size)
{
    const fa_transport *t = ((delayed *)user)->inner;
    return t->allgather(t->user, from, to, bytes, timeout, message, message_size);
}

static fa_status enqueue(void *user, fa_dtype dtype, void *data, int64_t count, void *event, double timeout,
                         char *message, size_t message_size)
{
    delayed *d = user;
    (void)timeout;
    if (((mark *)event)->put == 0 || d->count == FA_SHARDED_MAX_CHUNKS) {
        (void)snprintf(message, message_size, "the mark is not put, or there are too many sums");
        return FA_IO;
    }
    d->sums[d->count++] = (sum){dtype, data, count};
    ((mark *)event)->put = 0;
    return FA_OK;
}

static fa_status finish(void *user, double timeout, char *message, size_t message_size)
{
    delayed *d = user;
    const fa_transport *t = d->inner;
    fa_status status = FA_OK;
    for (int i = 0; i < d->count && status == FA_OK; i++)
        status = t->allreduce(t->user, d->sums[i].dtype, d->sums[i].data, d->sums[i].count, timeout, message,
                              message_size);
    d->count = 0;
    return status;
}

static fa_transport delay(delayed *d)
{
    fa_transport t = *d->inner;
    t.user = d;
    t.name = "delayed";
    t.device_memory = 1;
    t.any_thread = 0; /* what is enqueued needs no thread */
    t.allreduce = reduce_now;
    t.allgather = gather;
    t.events = "openmp";
    t.enqueue = enqueue;
    t.finish = finish;
    return t;
}

typedef struct task {
    fa_device *device;
    const layer_scene *scene;
    layer_options options;
    int32_t fails; /* that rank's projection does, in the middle */
    char *y;
    fa_sharded_layer_info info[MOST_RANKS];
} task;

enum { Y_BYTES = TOKENS * WIDTH * 4 };

static void run_rank(a_rank *r)
{
    task *t = r->user;
    const int32_t n = r->transport->rank;
    delayed d = {.inner = r->transport};
    const fa_transport transport = delay(&d);
    int64_t first[FA_SHARDED_MAX_CHUNKS + 1];
    layer_options options = t->options;
    options.fails_at = n == t->fails ? TOKENS / 2 : -1;
    t->info[n].struct_size = sizeof(t->info[n]);
    keep_status(r, layer_scene_run(t->device, &transport, t->scene, &options, t->y + n * Y_BYTES, &t->info[n],
                                   first));
}

static const layer_kind kinds[] = {
    {.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT},
    {.mask = FA_MASK_CAUSAL_TOP_LEFT, .window_left = 20, .packed = 1},
};

START_TEST(equals_the_oracle)
{
    static const int64_t chunks[] = {1, 2, 5, 64, 0};
    fa_device *device = open_edited();
    char *y = malloc(MOST_RANKS * (size_t)Y_BYTES);
    for (int32_t ranks = 1; ranks <= 4; ranks += ranks) {
        layer_scene scene;
        ck_assert_msg(layer_scene_make(context, &kinds[_i], ranks, &scene) == FA_OK, "%s", fa_last_error());
        for (int i = 0; i < 2 * COUNT(chunks); i++) {
            task t = {.device = device, .scene = &scene, .fails = -1, .y = y};
            a_rank found[MOST_RANKS];
            t.options = (layer_options){.chunks = chunks[i / 2], .callback = i % 2, .enqueues = i % 2};
            products = 0;
            on_ranks(ranks, 0, 0, 20, run_rank, &t, found);
            for (int32_t r = 0; r < ranks; r++) {
                ck_assert_msg(found[r].status == FA_OK, "%s", found[r].message);
                ck_assert_int_eq(layer_scene_compare(&scene, y + r * Y_BYTES), 0);
                ck_assert_str_eq(t.info[r].projection, i % 2 ? "caller" : "a test's");
                ck_assert_int_eq(t.info[r].overlapped, t.info[r].chunks > 1);
            }
            if (chunks[i / 2] == 5)
                ck_assert_int_gt(t.info[0].chunks, 1);
            ck_assert_int_eq(products, i % 2 ? 0 : 2 * ranks * (int)t.info[0].chunks); /* of two runs */
            ck_assert_int_eq(marks, 0);
        }
        layer_scene_release(&scene);
    }
    free(y);
    fa_device_close(device);
}
END_TEST

/* Its chunks before are not summed either: nothing was enqueued of them, and the others wait in vain. */
START_TEST(a_rank_that_fails_in_the_middle)
{
    fa_device *device = open_edited();
    layer_scene scene;
    a_rank found[MOST_RANKS];
    task t = {.device = device, .scene = &scene, .fails = 2, .y = malloc(MOST_RANKS * (size_t)Y_BYTES)};
    ck_assert_msg(layer_scene_make(context, &kinds[0], 3, &scene) == FA_OK, "%s", fa_last_error());
    t.options = (layer_options){.chunks = 4, .callback = 1, .enqueues = 1};
    on_ranks(3, 0, 0, 1, run_rank, &t, found);
    ck_assert_int_eq(found[2].status, FA_IO);
    ck_assert_msg(strstr(found[2].message, "project failed with FA_IO") != NULL, "%s", found[2].message);
    for (int32_t r = 0; r < 2; r++) {
        ck_assert_int_eq(found[r].status, FA_RANK_LOST);
        ck_assert_msg(strstr(found[r].message, "rank 2 did not come within 1 s") != NULL, "%s",
                      found[r].message);
        ck_assert_double_lt(found[r].seconds, 1 + SLACK);
    }
    ck_assert_int_eq(marks, 0);
    layer_scene_release(&scene);
    free(t.y);
    fa_device_close(device);
}
END_TEST

/* One layer of one rank, which a change makes wrong. */
typedef struct refusal {
    const char *message;
    void (*change)(fa_transport *t, fa_sharded_layer_desc *d);
    fa_status status;
} refusal;

static void lack_enqueue(fa_transport *t, fa_sharded_layer_desc *d)
{
    (void)d;
    t->enqueue = NULL;
}

static void lack_finish(fa_transport *t, fa_sharded_layer_desc *d)
{
    (void)d;
    t->finish = NULL;
}

static void lack_events(fa_transport *t, fa_sharded_layer_desc *d)
{
    (void)d;
    t->events = NULL;
}

static void be_on_the_host(fa_transport *t, fa_sharded_layer_desc *d)
{
    (void)d;
    t->device_memory = 0;
}

static void want_own(fa_transport *t, fa_sharded_layer_desc *d)
{
    (void)t;
    d->own_gemm = 1;
}

static void mix_factors(fa_transport *t, fa_sharded_layer_desc *d)
{
    (void)t;
    d->w = FA_F16;
}

static void mix_result(fa_transport *t, fa_sharded_layer_desc *d)
{
    (void)t;
    d->y = FA_BF16;
}

static void have_no_library(fa_transport *t, fa_sharded_layer_desc *d)
{
    (void)t, (void)d;
    edited.product_library = lack_library;
}

static void have_no_products(fa_transport *t, fa_sharded_layer_desc *d)
{
    (void)t, (void)d;
    edited.product_run = NULL;
}

static void change_nothing(fa_transport *t, fa_sharded_layer_desc *d)
{
    (void)t, (void)d;
}

static const refusal refusals[] = {
    {"transport.enqueue is NULL with events openmp", lack_enqueue, FA_INVALID},
    {"transport.finish is NULL with events openmp", lack_finish, FA_INVALID},
    {"transport.enqueue is given, expected NULL without events", lack_events, FA_INVALID},
    {"transport.device_memory is 0, expected 1 with events openmp", be_on_the_host, FA_INVALID},
    {"own_gemm is 1, expected 0 with transport.device_memory 1", want_own, FA_UNSUPPORTED},
    {"w is f16, expected attention.o.dtype f32", mix_factors, FA_UNSUPPORTED},
    {"y is bf16, expected attention.o.dtype f32 or f32", mix_result, FA_UNSUPPORTED},
    {"the caller projects (it is not here)", have_no_library, FA_UNSUPPORTED},
    {"the caller projects on", have_no_products, FA_UNSUPPORTED},
    {"", change_nothing, FA_OK},
};

static void refuse(a_rank *r)
{
    const refusal *f = ((void **)r->user)[0];
    delayed d = {.inner = r->transport};
    fa_transport transport = delay(&d);
    const fa_tensor rows = {.shape = {1, 1, 4, 8}, .stride = {32, 8, 8, 1}};
    const fa_attention_desc attention = {
        .struct_size = sizeof(attention), .q = rows, .k = rows, .v = rows, .o = rows};
    fa_sharded_layer_desc desc = {.struct_size = sizeof(desc), .attention = &attention, .width = 8};
    fa_sharded_layer *layer = NULL;
    f->change(&transport, &desc);
    keep_status(r, fa_sharded_layer_create(((void **)r->user)[1], &transport, &desc, &layer));
    fa_sharded_layer_destroy(layer);
}

START_TEST(what_is_refused)
{
    for (int i = 0; i < COUNT(refusals); i++) {
        fa_device *device = open_edited();
        void *user[2] = {(void *)(uintptr_t)&refusals[i], device};
        a_rank found[MOST_RANKS];
        on_ranks(1, 0, 0, 10, refuse, user, found);
        ck_assert_msg(found[0].status == refusals[i].status, "%d: %s", i, found[0].message);
        ck_assert_msg(strstr(found[0].message, refusals[i].message) != NULL, "%d: %s", i, found[0].message);
        ck_assert_int_eq(marks, 0);
        fa_device_close(device);
    }
}
END_TEST

/* Memory of y that is not the device's, and a queue that runs nothing: neither run has begun, so that the next one is good. */
static void run_badly(a_rank *r)
{
    enum { N = 4, DIMS = 8 };
    static float data[N * DIMS], o[N * DIMS], w[DIMS * DIMS], y[N * DIMS];
    fa_device *device = r->user;
    delayed d = {.inner = r->transport};
    const fa_transport transport = delay(&d);
    const fa_tensor rows = {.shape = {1, 1, N, DIMS}, .stride = {N * DIMS, DIMS, DIMS, 1}};
    const fa_attention_desc attention = {
        .struct_size = sizeof(attention), .q = rows, .k = rows, .v = rows, .o = rows};
    const fa_sharded_layer_desc desc = {.struct_size = sizeof(desc), .attention = &attention, .width = DIMS};
    fa_sharded_layer *layer = NULL;
    fa_queue *queue = NULL;
    fa_buffer *in = NULL, *out = NULL, *workspace = NULL;
    fa_status status = fa_sharded_layer_create(device, &transport, &desc, &layer);
    if (status == FA_OK)
        status = fa_queue_create(device, &queue);
    if (status == FA_OK)
        status = fa_buffer_wrap_host(device, data, sizeof(data), &in);
    if (status == FA_OK)
        status = fa_buffer_wrap_host(device, o, sizeof(o), &out);
    if (status == FA_OK)
        status = fa_buffer_create(device, fa_sharded_layer_workspace(layer), &workspace);
    const fa_attention_args a = {
        .struct_size = sizeof(a), .q = in, .k = in, .v = in, .o = out, .workspace = workspace};
    const fa_sharded_layer_args args = {.struct_size = sizeof(args), .attention = &a, .w = w, .y = y};
    edited.address_check = refuse_y;
    if (status == FA_OK && (fa_sharded_layer_run(layer, queue, &args) != FA_INVALID ||
                            !strstr(fa_last_error(), "args.y is no memory of the device's")))
        status = FA_IO;
    edited.address_check = pass;
    edited.queue_check = refuse_queue;
    if (status == FA_OK && (fa_sharded_layer_run(layer, queue, &args) != FA_UNSUPPORTED ||
                            !strstr(fa_last_error(), "the queue runs nothing")))
        status = FA_IO;
    if (status == FA_OK)
        status = fa_sharded_layer_run(layer, queue, &args);
    keep_status(r, status);
    fa_buffer_destroy(in);
    fa_buffer_destroy(out);
    fa_buffer_destroy(workspace);
    fa_queue_destroy(queue);
    fa_sharded_layer_destroy(layer);
}

START_TEST(runs_that_are_refused)
{
    fa_device *device = open_edited();
    a_rank found[MOST_RANKS];
    refused_queues = 0;
    on_ranks(1, 0, 0, 10, run_badly, device, found);
    ck_assert_msg(found[0].status == FA_OK, "%s", found[0].message);
    fa_device_close(device);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("enqueued");
    TCase *tc = add_context_case(suite, "enqueued");
    tcase_set_timeout(tc, 100);
    tcase_add_loop_test(tc, equals_the_oracle, 0, COUNT(kinds));
    tcase_add_test(tc, a_rank_that_fails_in_the_middle);
    tcase_add_test(tc, what_is_refused);
    tcase_add_test(tc, runs_that_are_refused);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
