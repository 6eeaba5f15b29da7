/* SPDX-License-Identifier: Apache-2.0 */
/*
 * With a real driver: a caller's context, streams and memory, and a graph of runs. Exit status 77, skipped, where there
 * is no driver or no device.
 */
#include <dlfcn.h>
#include <fastattn/cuda.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cuda/loader.h"
#include "tests/unit/helpers.h"

enum {
    HEADS = 4,
    ROWS = 48,
    KEYS = 500,
    DIM = 64,
    Q = HEADS * ROWS * DIM,
    KV = HEADS * KEYS * DIM,
    SKIPPED = 77
};

typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;

/* Of the driver, beside what fastattn uses itself. */
static struct {
    const fa_cu *cu;
    CUresult (*begin)(CUstream, int);
    CUresult (*end)(CUstream, CUgraph *);
    CUresult (*instantiate)(CUgraphExec *, CUgraph, unsigned long long);
    CUresult (*launch)(CUgraphExec, CUstream);
    CUresult (*destroy_exec)(CUgraphExec);
    CUresult (*destroy_graph)(CUgraph);
} driver;

static float q[Q], k[KV], v[KV], expected[Q], got[Q];

static void need(CUresult error, const char *call)
{
    ck_assert_msg(error == CUDA_SUCCESS, "%s: error %d", call, error);
}
#define NEED(call) need(call, #call)

/* Everything that a program has of its own, and what fastattn makes of it. */
typedef struct program {
    CUcontext context;
    CUstream stream;
    CUdeviceptr memory[4], workspace;
    fa_device *device;
    fa_queue *queue;
    fa_plan *plan;
    fa_attention_args args;
} program;

static void start(program *p)
{
    const size_t bytes[4] = {sizeof(q), sizeof(k), sizeof(v), sizeof(got)};
    fa_buffer *buffer[5] = {NULL};
    CUdevice id;
    NEED(driver.cu->cuDeviceGet(&id, 0));
    NEED(driver.cu->cuDevicePrimaryCtxRetain(&p->context, id));
    NEED(driver.cu->cuCtxPushCurrent(p->context));
    NEED(driver.cu->cuStreamCreate(&p->stream, CU_STREAM_NON_BLOCKING));
    ck_assert_msg(fa_device_open_cuda(context, p->context, &p->device) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_wrap_cuda(p->device, p->stream, &p->queue), FA_OK);
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .splits = 3};
    fa_attention_desc desc = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    desc.tuning = &tuning;
    ck_assert_msg(fa_plan_create(p->device, &desc, &p->plan) == FA_OK, "%s", fa_last_error());
    ck_assert_uint_gt(fa_plan_workspace(p->plan), 0);
    NEED(driver.cu->cuMemAlloc(&p->workspace, fa_plan_workspace(p->plan)));
    for (int t = 0; t < 4; t++) {
        NEED(driver.cu->cuMemAlloc(&p->memory[t], bytes[t]));
        ck_assert_int_eq(fa_buffer_wrap_cuda(p->device, p->memory[t], bytes[t], &buffer[t]), FA_OK);
    }
    ck_assert_int_eq(fa_buffer_wrap_cuda(p->device, p->workspace, fa_plan_workspace(p->plan), &buffer[4]),
                     FA_OK);
    p->args = (fa_attention_args){.struct_size = sizeof(p->args),
                                  .q = buffer[0],
                                  .k = buffer[1],
                                  .v = buffer[2],
                                  .o = buffer[3],
                                  .workspace = buffer[4]};
    NEED(driver.cu->cuMemcpyHtoD(p->memory[0], q, sizeof(q)));
    NEED(driver.cu->cuMemcpyHtoD(p->memory[1], k, sizeof(k)));
    NEED(driver.cu->cuMemcpyHtoD(p->memory[2], v, sizeof(v)));
    ck_assert_int_eq(fa_attention_host(p->device, &desc, q, k, v, NULL, NULL, expected, NULL), FA_OK);
}

static void end(program *p)
{
    CUcontext popped;
    CUdevice id;
    fa_buffer_destroy(p->args.q);
    fa_buffer_destroy(p->args.k);
    fa_buffer_destroy(p->args.v);
    fa_buffer_destroy(p->args.o);
    fa_buffer_destroy(p->args.workspace);
    fa_plan_destroy(p->plan);
    fa_queue_destroy(p->queue);
    fa_device_close(p->device);
    for (int t = 0; t < 4; t++)
        NEED(driver.cu->cuMemFree(p->memory[t]));
    NEED(driver.cu->cuMemFree(p->workspace));
    NEED(driver.cu->cuStreamDestroy(p->stream));
    NEED(driver.cu->cuCtxPopCurrent(&popped));
    NEED(driver.cu->cuDeviceGet(&id, 0));
    NEED(driver.cu->cuDevicePrimaryCtxRelease(id));
}

/* What o holds, which is made wrong on the way. */
static void assert_result(const program *p, CUstream stream)
{
    memset(got, 0, sizeof(got));
    NEED(driver.cu->cuMemcpyDtoHAsync(got, p->memory[3], sizeof(got), stream));
    NEED(driver.cu->cuStreamSynchronize(stream));
    ck_assert_int_eq(memcmp(got, expected, sizeof(got)), 0);
    memset(got, 0xff, sizeof(got));
    NEED(driver.cu->cuMemcpyHtoD(p->memory[3], got, sizeof(got)));
}

START_TEST(runs_are_in_the_callers_stream)
{
    program p = {0};
    double seconds = 0;
    start(&p);
    ck_assert_int_eq(fa_plan_run(p.plan, p.queue, &p.args), FA_OK);
    assert_result(&p, p.stream);
    ck_assert_int_eq(fa_queue_seconds(p.queue, &seconds), FA_OK);
    ck_assert_double_gt(seconds, 0);
    fa_queue *defaulted = NULL;
    ck_assert_int_eq(fa_queue_wrap_cuda(p.device, NULL, &defaulted), FA_OK);
    ck_assert_int_eq(fa_plan_run(p.plan, defaulted, &p.args), FA_OK);
    assert_result(&p, NULL);
    fa_queue_destroy(defaulted);
    end(&p);
}
END_TEST

START_TEST(runs_become_a_graph)
{
    program p = {0};
    CUgraph graph = NULL;
    CUgraphExec exec = NULL;
    start(&p);
    NEED(driver.begin(p.stream, 0));
    ck_assert_int_eq(fa_plan_run(p.plan, p.queue, &p.args), FA_OK);
    ck_assert_int_eq(fa_queue_wait(p.queue), FA_OK);
    ck_assert_int_eq(fa_buffer_read(p.queue, p.args.o, 0, got, sizeof(got)), FA_UNSUPPORTED);
    NEED(driver.end(p.stream, &graph));
    NEED(driver.instantiate(&exec, graph, 0));
    memset(got, 0xff, sizeof(got));
    NEED(driver.cu->cuMemcpyHtoD(p.memory[3], got, sizeof(got)));
    for (int turn = 0; turn < 2; turn++) {
        NEED(driver.launch(exec, p.stream));
        assert_result(&p, p.stream);
    }
    NEED(driver.destroy_exec(exec));
    NEED(driver.destroy_graph(graph));
    end(&p);
}
END_TEST

/* The result for so many keys, whose parts may be others than those of the plan. */
static void assert_near(const program *p, fa_attention_desc desc, int64_t keys)
{
    desc.lens_kv = &keys;
    ck_assert_int_eq(fa_attention_host(p->device, &desc, q, k, v, NULL, NULL, expected, NULL), FA_OK);
    NEED(driver.cu->cuMemcpyDtoHAsync(got, p->memory[3], sizeof(got), p->stream));
    NEED(driver.cu->cuStreamSynchronize(p->stream));
    for (int i = 0; i < Q; i++)
        ck_assert_msg(fabsf(got[i] - expected[i]) <= 1e-5F, "%lld keys: o[%d] is %g, expected %g",
                      (long long)keys, i, (double)got[i], (double)expected[i]);
}

/* Captured once, launched with one length of the cache after the other. */
START_TEST(a_graph_is_replayed_with_other_lengths)
{
    static const int64_t lengths[] = {KEYS, 1, 130, 0, 499};
    program p = {0};
    CUgraph graph = NULL;
    CUgraphExec exec = NULL;
    fa_plan *plan = NULL;
    fa_buffer *work = NULL, *workspace = NULL;
    start(&p);
    fa_attention_desc desc = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    desc.mask = FA_MASK_CAUSAL_TOP_LEFT;
    desc.dynamic_lengths = 1;
    ck_assert_msg(fa_plan_create(p.device, &desc, &plan) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(p.device, fa_plan_work(plan), &work), FA_OK);
    ck_assert_int_eq(fa_buffer_create(p.device, fa_plan_workspace(plan), &workspace), FA_OK);
    fa_attention_args args = p.args;
    fa_lengths now = {.struct_size = sizeof(now)};
    args.work = work;
    args.workspace = workspace;
    NEED(driver.begin(p.stream, 0));
    ck_assert_int_eq(fa_plan_run(plan, p.queue, &args), FA_OK);
    ck_assert_int_eq(fa_plan_schedule(plan, p.queue, &now, work, 0), FA_UNSUPPORTED);
    NEED(driver.end(p.stream, &graph));
    NEED(driver.instantiate(&exec, graph, 0));
    desc.dynamic_lengths = 0;
    for (int i = 0; i < COUNT(lengths); i++) {
        now.lens_kv = &lengths[i];
        ck_assert_msg(fa_plan_schedule(plan, p.queue, &now, work, 0) == FA_OK, "%s", fa_last_error());
        NEED(driver.launch(exec, p.stream));
        assert_near(&p, desc, lengths[i]);
    }
    NEED(driver.destroy_exec(exec));
    NEED(driver.destroy_graph(graph));
    fa_buffer_destroy(work);
    fa_buffer_destroy(workspace);
    fa_plan_destroy(plan);
    end(&p);
}
END_TEST

/* Captured once with what makes its work. What the stream writes before a launch is what the graph reads. */
START_TEST(a_graph_reads_its_lengths)
{
    static const int64_t most[] = {KEYS};
    static const int32_t lengths[] = {KEYS, 1, 130, 0, 499};
    program p = {0};
    CUgraph graph = NULL;
    CUgraphExec exec = NULL;
    fa_plan *plan = NULL;
    fa_buffer *work = NULL, *workspace = NULL, *lens = NULL;
    start(&p);
    fa_attention_desc desc = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    desc.mask = FA_MASK_CAUSAL_TOP_LEFT;
    desc.dynamic_lengths = 2;
    desc.lens_kv = most;
    ck_assert_msg(fa_plan_create(p.device, &desc, &plan) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(p.device, fa_plan_work(plan), &work), FA_OK);
    ck_assert_int_eq(fa_buffer_create(p.device, fa_plan_workspace(plan), &workspace), FA_OK);
    ck_assert_int_eq(fa_buffer_create(p.device, 2 * sizeof(int32_t), &lens), FA_OK);
    fa_attention_args args = p.args;
    args.work = work;
    args.workspace = workspace;
    const fa_device_lengths now = {
        .struct_size = sizeof(now), .lens_kv = lens, .lens_kv_offset = sizeof(int32_t)};
    NEED(driver.begin(p.stream, 0));
    ck_assert_msg(fa_plan_schedule_device(plan, p.queue, &now, work, 0) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_plan_run(plan, p.queue, &args) == FA_OK, "%s", fa_last_error());
    NEED(driver.end(p.stream, &graph));
    NEED(driver.instantiate(&exec, graph, 0));
    desc.dynamic_lengths = 0;
    for (int i = 0; i < COUNT(lengths); i++) {
        ck_assert_int_eq(fa_buffer_write(p.queue, lens, sizeof(int32_t), &lengths[i], sizeof(int32_t)),
                         FA_OK);
        NEED(driver.launch(exec, p.stream));
        assert_near(&p, desc, lengths[i]);
    }
    NEED(driver.destroy_exec(exec));
    NEED(driver.destroy_graph(graph));
    fa_buffer_destroy(work);
    fa_buffer_destroy(workspace);
    fa_buffer_destroy(lens);
    fa_plan_destroy(plan);
    end(&p);
}
END_TEST

/* False where there is no driver, or none with a device. */
static int find_driver(void)
{
    static const struct {
        const char *symbol;
        void *to;
    } wanted[] = {
        {"cuStreamBeginCapture_v2", &driver.begin},           {"cuStreamEndCapture", &driver.end},
        {"cuGraphInstantiateWithFlags", &driver.instantiate}, {"cuGraphLaunch", &driver.launch},
        {"cuGraphExecDestroy", &driver.destroy_exec},         {"cuGraphDestroy", &driver.destroy_graph},
    };
    char reason[256] = "the CUDA driver knows no device";
    int count = 0;
    driver.cu = fa_cu_load(reason, sizeof(reason));
    if (!driver.cu || driver.cu->cuDeviceGetCount(&count) != CUDA_SUCCESS || count == 0) {
        (void)printf("skipped: %s\n", reason);
        return 0;
    }
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    for (int i = 0; i < COUNT(wanted); i++) {
        void *symbol = library ? dlsym(library, wanted[i].symbol) : NULL;
        if (!symbol) {
            (void)printf("skipped: no function %s\n", wanted[i].symbol);
            return 0;
        }
        memcpy(wanted[i].to, &symbol, sizeof(symbol));
    }
    return 1;
}

int main(void)
{
    if (!find_driver())
        return SKIPPED;
    random_state random = {7};
    for (int i = 0; i < Q; i++)
        q[i] = random_float(&random, -1, 1);
    for (int i = 0; i < KV; i++) {
        k[i] = random_float(&random, -1, 1);
        v[i] = random_float(&random, -1, 1);
    }
    Suite *suite = suite_create("cuda interop");
    TCase *tc = add_context_case(suite, "interop");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, runs_are_in_the_callers_stream);
    tcase_add_test(tc, runs_become_a_graph);
    tcase_add_test(tc, a_graph_is_replayed_with_other_lengths);
    tcase_add_test(tc, a_graph_reads_its_lengths);
    return run_unforked(suite);
}
