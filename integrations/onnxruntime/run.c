/* SPDX-License-Identifier: Apache-2.0 */
/** The device, its threads, and the plans that a node keeps: lengths change, and come back. */
#include "node.h"

#include <stdio.h>
#include <stdlib.h>

static pthread_mutex_t device_mutex = PTHREAD_MUTEX_INITIALIZER;
static fa_context *context;
static fa_device *device;
static char device_message[512];

/* The run under way on this thread. Its session's threads compute. */
static _Thread_local node_call *current;

void node_use_threads(node_call *call)
{
    current = call;
}

typedef struct executor_task {
    void (*task)(void *argument, int32_t index);
    void *argument;
} executor_task;

static void run_task(void *argument, size_t index)
{
    const executor_task *one = argument;
    one->task(one->argument, (int32_t)index);
}

static void parallel_for(void *user, int32_t count, void (*task)(void *argument, int32_t index),
                         void *argument)
{
    (void)user;
    executor_task one = {task, argument};
    if (current)
        node_parallel(current, count, run_task, &one);
    else
        for (int32_t i = 0; i < count; i++)
            task(argument, i);
}

/*
 * FASTATTN_ONNXRUNTIME_THREADS=own: the library's threads instead of the session's. The device stays open as long
 * as the process lives: sessions come and go, and the library is not unloaded.
 */
fa_device *node_device(const char **message)
{
    pthread_mutex_lock(&device_mutex);
    if (!device) {
        const char *threads = getenv("FASTATTN_ONNXRUNTIME_THREADS");
        fa_context_options options = {.struct_size = sizeof(options)};
        if (!threads || strcmp(threads, "own") != 0)
            options.executor.parallel_for = parallel_for;
        if ((!context && fa_context_create(&options, &context) != FA_OK) ||
            fa_device_open(context, "openmp", NULL, &device) != FA_OK)
            snprintf(device_message, sizeof(device_message), "fastattn: %s", fa_last_error());
    }
    pthread_mutex_unlock(&device_mutex);
    *message = device_message;
    return device;
}

node_problem node_problem_make(const node_kernel *kernel)
{
    node_problem problem;
    memset(&problem, 0, sizeof(problem)); /* padding too: plans are found by their bytes */
    problem.desc.struct_size = sizeof(problem.desc);
    problem.desc.scale = kernel->scale;
    problem.desc.scale_is_set = kernel->scale_is_set;
    problem.desc.softcap = kernel->softcap;
    problem.desc.window_left = kernel->window_left;
    problem.desc.window_right = kernel->window_right;
    problem.args.struct_size = sizeof(problem.args);
    return problem;
}

/* What a plan depends on: the description without its pointers, then its lists. */
static void *key_of(node_call *call, const fa_attention_desc *desc, size_t *bytes)
{
    fa_attention_desc plain = *desc;
    size_t entries = (size_t)desc->q.shape[0], heads = (size_t)desc->q.shape[1];
    const void *lists[] = {desc->lens_q32, desc->lens_kv32, desc->sinks};
    size_t sizes[] = {entries * sizeof(int32_t), entries * sizeof(int32_t), heads * sizeof(float)};
    plain.lens_q32 = plain.lens_kv32 = NULL;
    plain.sinks = NULL;
    char *key = malloc(sizeof(plain) + 3 + sizes[0] + sizes[1] + sizes[2]);
    if (!key) {
        node_fail(call, "no memory for a plan");
        return NULL;
    }
    memcpy(key, &plain, sizeof(plain));
    *bytes = sizeof(plain);
    for (int i = 0; i < 3; i++) {
        key[(*bytes)++] = lists[i] != NULL;
        if (lists[i]) {
            memcpy(key + *bytes, lists[i], sizes[i]);
            *bytes += sizes[i];
        }
    }
    return key;
}

static node_plan *plan_found(node_kernel *kernel, const void *key, size_t bytes)
{
    for (int i = 0; i < NODE_PLANS; i++) {
        node_plan *plan = &kernel->plans[i];
        if (plan->plan && plan->key_bytes == bytes && memcmp(plan->key, key, bytes) == 0)
            return plan;
    }
    return NULL;
}

/* The place of the plan that was used longest ago. NULL if runs have all of them. */
static node_plan *place_for(node_kernel *kernel)
{
    node_plan *oldest = NULL;
    for (int i = 0; i < NODE_PLANS; i++) {
        node_plan *plan = &kernel->plans[i];
        if (plan->users == 0 && (!oldest || plan->used < oldest->used))
            oldest = plan;
    }
    return oldest;
}

static void drop(node_plan *plan)
{
    fa_plan_destroy(plan->plan);
    free(plan->key);
    *plan = (node_plan){0};
}

/* Takes a plan that is kept, or makes one. `own` is its place if there is none among those kept. */
static node_plan *take(node_call *call, const fa_attention_desc *desc, node_plan *own)
{
    node_kernel *kernel = call->kernel;
    const char *message;
    size_t bytes;
    void *key = key_of(call, desc, &bytes);
    if (!key)
        return NULL;
    pthread_mutex_lock(&kernel->mutex);
    node_plan *plan = plan_found(kernel, key, bytes);
    if (plan) {
        free(key);
    } else {
        node_plan made = {.key = key, .key_bytes = bytes};
        if (fa_plan_create(node_device(&message), desc, &made.plan) != FA_OK) {
            node_fail(call, "%s", fa_last_error());
            free(key);
        } else {
            plan = place_for(kernel);
            made.kept = plan != NULL;
            if (plan)
                drop(plan);
            else
                plan = own;
            *plan = made;
        }
    }
    if (plan) {
        plan->users++;
        plan->used = ++kernel->clock;
    }
    pthread_mutex_unlock(&kernel->mutex);
    return plan;
}

static void give_back(node_kernel *kernel, node_plan *plan)
{
    pthread_mutex_lock(&kernel->mutex);
    plan->users--;
    if (!plan->kept)
        drop(plan);
    pthread_mutex_unlock(&kernel->mutex);
}

void node_drop_plans(node_kernel *kernel)
{
    for (int i = 0; i < NODE_PLANS; i++)
        drop(&kernel->plans[i]);
}

void node_run(node_call *call, node_problem *problem)
{
    const fa_tensor *o = &problem->desc.o;
    const char *message;
    fa_queue *queue = NULL;
    node_plan own;
    if (call->status || o->shape[0] == 0 || o->shape[1] == 0 || o->shape[2] == 0 || o->shape[3] == 0)
        return;
    node_plan *plan = take(call, &problem->desc, &own);
    if (!plan)
        return;
    size_t workspace = fa_plan_workspace(plan->plan);
    if (workspace > 0)
        problem->args.workspace = node_scratch(call, 1, workspace);
    if (!call->status) {
        node_use_threads(call);
        if (fa_queue_create(node_device(&message), &queue) != FA_OK ||
            fa_plan_run_host(plan->plan, queue, &problem->args) != FA_OK)
            node_fail(call, "%s", fa_last_error());
        node_use_threads(NULL);
        fa_queue_destroy(queue);
    }
    give_back(call->kernel, plan);
}
