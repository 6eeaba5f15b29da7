/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program of someone else's looks like, in the language that is both C11 and C++17: one call, compared with the
 * oracle; then, as an engine does it, a plan for a request, run on the engine's own threads and in its own memory.
 */
#include <fastattn/fastattn.h>
#include <fastattn/reference.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Scores are all 0, so each row of the output is the mean of the rows of v: 1, 3, 5, 7. */
enum { ROWS = 2048, KEYS = 2048, DIM = 4 };
static float q[ROWS * DIM], k[KEYS * DIM], v[KEYS * DIM], o[ROWS * DIM];

/* The engine's parallel for, which may be a loop. */
static void parallel_for(void *user, int32_t count, void (*task)(void *argument, int32_t index),
                         void *argument)
{
    *(int *)user += 1;
    for (int32_t i = count; i-- > 0;)
        task(argument, i);
}

static fa_attention_desc describe(int64_t rows, int64_t keys)
{
    fa_attention_desc desc;
    memset(&desc, 0, sizeof(desc));
    desc.struct_size = sizeof(desc);
    desc.q = desc.o = fa_tensor_make(FA_F32, 1, 1, rows, DIM);
    desc.k = desc.v = fa_tensor_make(FA_F32, 1, 1, keys, DIM);
    return desc;
}

/* One plan of the family whose workspace is given, on host pointers. */
static fa_status run_plan(fa_device *device, const fa_attention_desc *desc, void *workspace, size_t bytes)
{
    fa_plan *plan = NULL;
    fa_queue *queue = NULL;
    fa_host_args args;
    memset(&args, 0, sizeof(args));
    args.struct_size = sizeof(args);
    args.q = q;
    args.k = k;
    args.v = v;
    args.o = o;
    args.workspace = workspace;
    fa_status status = fa_plan_create(device, desc, &plan);
    if (status == FA_OK && fa_plan_workspace(plan) > bytes)
        status = FA_OUT_OF_MEMORY;
    if (status == FA_OK)
        status = fa_queue_create(device, &queue);
    if (status == FA_OK)
        status = fa_plan_run_host(plan, queue, &args);
    if (status == FA_OK)
        status = fa_queue_wait(queue);
    fa_queue_destroy(queue);
    fa_plan_destroy(plan);
    return status;
}

/* A workspace for every length up to ROWS and KEYS, then requests of two lengths. */
static fa_status serve(fa_device *device)
{
    fa_attention_desc largest = describe(ROWS, KEYS), request = describe(1, 2);
    size_t bytes = 0;
    fa_status status = fa_workspace_bound(device, &largest, &bytes);
    if (status != FA_OK)
        return status;
    char *memory = (char *)malloc(bytes + 64);
    if (!memory)
        return FA_OUT_OF_MEMORY;
    char *workspace = memory + (64 - (uintptr_t)memory % 64) % 64;
    memset(o, 0, sizeof(o));
    status = run_plan(device, &request, workspace, bytes);
    if (status == FA_OK)
        status = run_plan(device, &largest, workspace, bytes);
    free(memory);
    return status;
}

/* A causal problem of two heads in one call. f32 arithmetic may be as far from the oracle as fa_reference_limit() says. */
static fa_status compare(fa_context *context, fa_device *device, int *differ)
{
    enum { HEADS = 2, LENGTH = 33, DIMS = 24, COUNT = HEADS * LENGTH * DIMS };
    static double exact[COUNT], exact_lse[HEADS * LENGTH], limit[HEADS * LENGTH], limit_lse[HEADS * LENGTH];
    fa_attention_desc desc = describe(1, 1);
    desc.q = desc.k = desc.v = desc.o = fa_tensor_make(FA_F32, 1, HEADS, LENGTH, DIMS);
    desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    fa_inputs inputs;
    memset(&inputs, 0, sizeof(inputs));
    inputs.q = inputs.k = k;
    inputs.v = v;
    fa_status status = fa_attention_host(device, &desc, k, k, v, NULL, NULL, o, NULL);
    if (status == FA_OK)
        status = fa_reference_attention(context, &desc, &inputs, exact, exact_lse);
    if (status == FA_OK)
        status = fa_reference_limit(context, &desc, &inputs, FA_F32, 0, limit, limit_lse);
    for (int i = 0; status == FA_OK && i < COUNT; i++) {
        double rounding = fabs(exact[i]) / (1 << 24); /* of the output itself */
        if (!(fabs((double)o[i] - exact[i]) <= limit[i / DIMS] + rounding))
            *differ += 1;
    }
    return status;
}

static int wrong(const char *step)
{
    fprintf(stderr, "%s: %g %g %g %g\n", step, (double)o[0], (double)o[1], (double)o[2], (double)o[3]);
    return 1;
}

static int is_mean(const float *row)
{
    return row[0] == 1 && row[1] == 3 && row[2] == 5 && row[3] == 7;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    int runs = 0, differ = 0, computes = !(name && strcmp(name, "null") == 0);
    fa_context *context = NULL;
    fa_device *device = NULL;
    fa_context_options options;
    memset(&options, 0, sizeof(options));
    options.struct_size = sizeof(options);
    options.threads = 4;
    options.executor.parallel_for = parallel_for;
    options.executor.user = &runs;
    for (int i = 0; i < KEYS * DIM; i++) {
        k[i] = (float)(i % 8);
        v[i] = (float)(i % DIM * 2 + i / DIM % 2 * 2);
    }

    fa_attention_desc desc = describe(1, 2);
    fa_status status = fa_context_create(&options, &context);
    if (status == FA_OK)
        status = fa_device_open(context, name, &desc, &device);
    if (status == FA_OK)
        status = fa_attention_host(device, &desc, q, k, v, NULL, NULL, o, NULL);
    int failed = status == FA_OK && computes && !is_mean(o) ? wrong("one call") : 0;
    if (status == FA_OK && computes)
        status = compare(context, device, &differ);
    if (differ)
        fprintf(stderr, "%d elements are further from the oracle than f32 can be\n", differ);
    if (status == FA_OK)
        status = serve(device);
    if (status == FA_OK && computes && !failed)
        failed = is_mean(o) && is_mean(o + (ROWS - 1) * DIM) && runs > 0 ? 0 : wrong("a plan");
    if (status != FA_OK)
        fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    fa_device_close(device);
    fa_context_destroy(context);
    printf("fastattn %s: %g %g %g %g, %d parallel loops\n", fa_version(), (double)o[0], (double)o[1],
           (double)o[2], (double)o[3], runs);
    return failed || differ || status != FA_OK;
}
