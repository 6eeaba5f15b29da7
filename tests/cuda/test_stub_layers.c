/* SPDX-License-Identifier: Apache-2.0 */
/* A sharded layer on the stub: chunks, products and sums that are enqueued. The transport has one rank, whose sums are nothing. */
#include <fastattn/cuda.h>
#include <fastattn/ranks.h>
#include <stdio.h>
#include <string.h>

#include "core/status.h"
#include "tests/cuda/stub.h"
#include "tests/unit/helpers.h"

enum { TOKENS = 512, SIZE = 32, WIDTH = 24 };
static int sums, finished;

/* The stub's device 0 is number 100 to its driver. */
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult stub_release(CUdevice device) __asm__("cuDevicePrimaryCtxRelease_v2");

static fa_status reduce(void *user, fa_dtype dtype, void *data, int64_t count, double timeout, char *message,
                        size_t message_size)
{
    (void)user, (void)dtype, (void)data, (void)count, (void)timeout;
    (void)snprintf(message, message_size, "the host is to wait for nothing");
    return FA_IO;
}

static fa_status gather(void *user, const void *from, void *to, size_t bytes, double timeout, char *message,
                        size_t message_size)
{
    (void)user, (void)timeout, (void)message, (void)message_size;
    memcpy(to, from, bytes);
    return FA_OK;
}

static fa_status enqueue(void *user, fa_dtype dtype, void *data, int64_t count, void *event, double timeout,
                         char *message, size_t message_size)
{
    (void)user, (void)dtype, (void)data, (void)count, (void)timeout, (void)message, (void)message_size;
    sums++;
    return event ? FA_OK : FA_IO;
}

static fa_status finish(void *user, double timeout, char *message, size_t message_size)
{
    (void)user, (void)timeout, (void)message, (void)message_size;
    finished++;
    return FA_OK;
}

static const fa_transport one_rank = {.struct_size = sizeof(one_rank),
                                      .ranks = 1,
                                      .timeout = 1,
                                      .device_memory = 1,
                                      .allreduce = reduce,
                                      .allgather = gather,
                                      .events = "cuda",
                                      .enqueue = enqueue,
                                      .finish = finish};

/* What a layer needs, up to the first failure. */
typedef struct scene {
    fa_device *device;
    fa_queue *queue;
    fa_sharded_layer *layer;
    fa_buffer *in, *o, *w, *y, *workspace;
    fa_sharded_layer_info info;
} scene;

static fa_status fill(const scene *s, fa_buffer *buffer, int64_t count, float step)
{
    static float data[TOKENS * SIZE];
    for (int64_t i = 0; i < count; i++)
        data[i] = (float)(i % 7) * step;
    return fa_buffer_write(s->queue, buffer, 0, data, (size_t)count * sizeof(float));
}

static fa_status make(scene *s, int64_t chunks)
{
    const fa_tensor rows = {.shape = {1, 1, TOKENS, SIZE}, .stride = {TOKENS * SIZE, SIZE, SIZE, 1}};
    const fa_attention_desc attention = {
        .struct_size = sizeof(attention), .q = rows, .k = rows, .v = rows, .o = rows};
    const fa_sharded_layer_desc desc = {
        .struct_size = sizeof(desc), .attention = &attention, .width = WIDTH, .chunks = chunks};
    const size_t bytes = TOKENS * SIZE * sizeof(float);
    FA_TRY(fa_device_open(context, "cuda", NULL, &s->device));
    FA_TRY(fa_queue_create(s->device, &s->queue));
    FA_TRY(fa_sharded_layer_create(s->device, &one_rank, &desc, &s->layer));
    s->info.struct_size = sizeof(s->info);
    FA_TRY(fa_sharded_layer_get_info(s->layer, &s->info));
    FA_TRY(fa_buffer_create(s->device, bytes, &s->in));
    FA_TRY(fa_buffer_create(s->device, bytes + 64, &s->o));
    FA_TRY(fa_buffer_create(s->device, SIZE * WIDTH * sizeof(float), &s->w));
    FA_TRY(fa_buffer_create(s->device, TOKENS * WIDTH * sizeof(float) + 128, &s->y));
    FA_TRY(fa_buffer_create(s->device, fa_sharded_layer_workspace(s->layer), &s->workspace));
    FA_TRY(fill(s, s->in, TOKENS * SIZE, 0.5F)); /* which the stub writes to o, as attention */
    return fill(s, s->w, SIZE * WIDTH, 2);
}

static float *memory_of(const fa_buffer *buffer)
{
    return stub_address(fa_buffer_size(buffer));
}

static fa_status run(const scene *s, const void *w, void *y)
{
    const fa_attention_args attention = {.struct_size = sizeof(attention),
                                         .q = s->in,
                                         .k = s->in,
                                         .v = s->in,
                                         .o = s->o,
                                         .workspace = s->workspace};
    const fa_sharded_layer_args args = {.struct_size = sizeof(args), .attention = &attention, .w = w, .y = y};
    return fa_sharded_layer_run(s->layer, s->queue, &args);
}

static void end(scene *s)
{
    fa_sharded_layer_destroy(s->layer);
    fa_buffer_destroy(s->in);
    fa_buffer_destroy(s->o);
    fa_buffer_destroy(s->w);
    fa_buffer_destroy(s->y);
    fa_buffer_destroy(s->workspace);
    fa_queue_destroy(s->queue);
    fa_device_close(s->device);
    *s = (scene){0};
    ck_assert_int_eq(stub_live(), 0);
    ck_assert_int_eq(stub_misuses(), 0);
}

START_TEST(layers_are_enqueued)
{
    static const int64_t chunks[] = {1, 2, 3};
    for (int i = 0; i < COUNT(chunks); i++) {
        scene s = {0};
        sums = finished = 0;
        ck_assert_msg(make(&s, chunks[i]) == FA_OK, "%s", fa_last_error());
        ck_assert_int_eq(s.info.chunks, chunks[i]);
        ck_assert_str_eq(s.info.projection, getenv("FASTATTN_CUBLAS_LIBRARY"));
        ck_assert_msg(run(&s, memory_of(s.w), memory_of(s.y)) == FA_OK, "%s", fa_last_error());
        ck_assert_int_eq(sums, chunks[i]);
        ck_assert_int_eq(finished, 1);
        for (int row = 0; row < TOKENS; row++) {
            for (int column = 0; column < WIDTH; column++) {
                float sum = 0;
                for (int l = 0; l < SIZE; l++)
                    sum += (float)((row * SIZE + l) % 7) * 0.5F * (float)((l * WIDTH + column) % 7) * 2;
                ck_assert(memory_of(s.y)[row * WIDTH + column] == sum); /* of few digits */
            }
        }
        end(&s);
    }
}
END_TEST

START_TEST(layers_refuse_memory_and_streams)
{
    static float outside[TOKENS * WIDTH];
    scene s = {0};
    fa_queue *queue = NULL, *own = NULL;
    ck_assert_msg(make(&s, 2) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(run(&s, memory_of(s.w), outside), FA_INVALID);
    assert_message("args.y: cuPointerGetAttribute");
    ck_assert_int_eq(run(&s, outside, memory_of(s.y)), FA_INVALID);
    assert_message("args.w: cuPointerGetAttribute");
    ck_assert_int_eq(run(&s, memory_of(s.w), memory_of(s.y) + 64), FA_INVALID);
    assert_message("bytes from args.y on");
    ck_assert_int_eq(run(&s, memory_of(s.y) + 1, memory_of(s.y)), FA_INVALID);
    assert_message("args.y overlaps args.w");
    CUcontext primary = NULL;
    ck_assert_int_eq(cuDevicePrimaryCtxRetain(&primary, 100), CUDA_SUCCESS);
    CUstream stream = stub_stream(primary);
    own = s.queue;
    ck_assert_msg(fa_queue_wrap_cuda(s.device, stream, &queue) == FA_OK, "%s", fa_last_error());
    stub_capture(stream, 1);
    s.queue = queue;
    ck_assert_int_eq(run(&s, memory_of(s.w), memory_of(s.y)), FA_UNSUPPORTED);
    assert_message("is being captured, and runs nothing");
    stub_capture(stream, 0);
    ck_assert_msg(run(&s, memory_of(s.w), memory_of(s.y)) == FA_OK, "%s", fa_last_error());
    s.queue = own;
    fa_queue_destroy(queue);
    stub_stream_destroy(stream);
    ck_assert_int_eq(stub_release(100), CUDA_SUCCESS);
    end(&s);
}
END_TEST

/* Calls that fail, each at its first few times: a status, nothing left behind, and a layer that runs no more. */
typedef struct failing {
    const char *function;
    int error;
    fa_status status;
} failing;

static const failing may_fail[] = {
    {"cublasCreate_v2", 3, FA_OUT_OF_MEMORY}, {"cublasSetStream_v2", 1, FA_DEVICE_LOST},
    {"cublasGemmEx", 13, FA_DEVICE_LOST},     {"cuStreamCreateWithPriority", 2, FA_OUT_OF_MEMORY},
    {"cuStreamWaitEvent", 1, FA_DEVICE_LOST}, {"cuEventCreate", 2, FA_OUT_OF_MEMORY},
    {"cuEventRecord", 1, FA_DEVICE_LOST},     {"cuStreamSynchronize", 719, FA_DEVICE_LOST},
};

START_TEST(layers_tell_what_failed)
{
    const failing *f = &may_fail[_i];
    int failures = 0;
    for (int nth = 1; nth <= 24; nth++) {
        scene s = {0};
        stub_fail(f->function, nth, f->error);
        fa_status status = make(&s, 3);
        const bool made = status == FA_OK;
        if (made)
            status = run(&s, memory_of(s.w), memory_of(s.y));
        const bool failed = stub_has_failed();
        ck_assert_msg(status == (failed ? f->status : FA_OK), "%s, %d: %d %s", f->function, nth, (int)status,
                      fa_last_error());
        stub_fail(NULL, 0, 0);
        if (made && failed)
            ck_assert_int_eq(run(&s, memory_of(s.w), memory_of(s.y)), FA_RANK_LOST);
        failures += failed;
        end(&s);
    }
    ck_assert_int_gt(failures, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda stub layers");
    (void)setenv("FASTATTN_CACHE", "off", 1);
    TCase *tc = add_context_case(suite, "layers");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, layers_are_enqueued);
    tcase_add_test(tc, layers_refuse_memory_and_streams);
    tcase_add_loop_test(tc, layers_tell_what_failed, 0, COUNT(may_fail));
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK); /* the driver is looked for once in a process */
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
