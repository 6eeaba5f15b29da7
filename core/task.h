/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task: a small program that every backend runs in a queue's order, beside attention. The core decides and writes
 * parameters; a backend learns once how to compile, bind and launch one. core/portable/task.h says how programs are
 * written.
 */
#ifndef FA_CORE_TASK_H
#define FA_CORE_TASK_H

#include <fastattn/buffer.h>
#include <fastattn/device.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    FA_TASK_OPERANDS = 14,
    FA_TASK_CONSTANTS = 4,
    FA_TASK_MOST = INT32_MAX - 1023 /* what programs count in steps of a group's work-items, in 32 bits */
};

/* What C functions are given: the words of core/portable/task.h for C are in core/task_words.h. */
typedef struct fa_task_view {
    const int32_t *constant;
    const void *params;
    char *at[FA_TASK_OPERANDS]; /* where operands begin; NULL: absent */
    int *shared;                /* FA_TASK_SHARED_INTS, of programs that share */
} fa_task_view;

typedef struct fa_task_operand {
    const char *name; /* as args of the public call have it; NULL: absent in every run */
    size_t span;      /* bytes */
    bool written;
} fa_task_operand;

/* The core fills all but `impl` and keeps it unchanged and in place until it is released. */
typedef struct fa_task {
    fa_device *device;
    int kind;         /* FA_TASK_* of core/portable/task.h */
    const char *name; /* the program's, for files and messages */
    int group;        /* work-items of a group that suit the program; a device may have fewer */
    int32_t constant[FA_TASK_CONSTANTS]; /* few sets of values: each may be a program to compile */
    const void *params;                  /* a struct of core/portable, its lists behind it */
    size_t params_bytes;                 /* a multiple of 8 */
    fa_task_operand operand[FA_TASK_OPERANDS];
    bool timed;                                       /* fa_queue_seconds() tells the time of its runs */
    void (*run)(const fa_task_view *view, int group); /* the share of one group */
    void *impl;                                       /* the backend's own */
} fa_task;

/* The memory of one run, each checked, and how many work-groups do it. */
typedef struct fa_task_binding {
    fa_buffer *buffer[FA_TASK_OPERANDS]; /* NULL: absent */
    size_t offset[FA_TASK_OPERANDS];
    int32_t groups; /* at least 1 */
} fa_task_binding;

/* FA_INVALID, with the names, where what a run writes shares bytes with something else of it. */
fa_status fa_task_check_overlap(const fa_task *task, const fa_task_binding *binding);

/* Where the operands of a run in host memory lie. */
fa_task_view fa_task_view_of(const fa_task *task, const fa_task_binding *binding);

/* Compiles or fetches the program, copies the parameters to the device. On failure there is nothing to release. */
fa_status fa_task_prepare(fa_task *task);
void fa_task_release(fa_task *task);

/* Only compiles the program of a task, whose parameters have these bytes. */
fa_status fa_task_compile(fa_task *task, const void *params, size_t bytes);
/* Enqueues it. It allocates nothing and waits for nothing, and can be captured or recorded as runs of attention are. */
fa_status fa_task_run(const fa_task *task, fa_queue *queue, const fa_task_binding *binding);

#endif
