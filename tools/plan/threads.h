/* SPDX-License-Identifier: Apache-2.0 */
/* The schedule of one problem for several numbers of threads, which this machine need not have. */
#ifndef FASTATTN_TOOLS_PLAN_THREADS_H
#define FASTATTN_TOOLS_PLAN_THREADS_H

#include <stdbool.h>
#include <stddef.h>

#include <fastattn/fastattn.h>

enum { PLAN_MAX_THREADS = 1024 };

typedef struct plan_threads {
    int count[PLAN_MAX_THREADS];
    int counts;
} plan_threads;

/* Reads "1,2,4-8", numbers and ranges of them. On failure `error` names the part that is wrong. */
bool plan_threads_parse(const char *text, plan_threads *list, char *error, size_t error_size);

/*
 * Opens the device anew for each number and prints a line, or an object of a JSON array. FASTATTN_THREADS is
 * set meanwhile, so no other thread may read the environment. False after an error.
 */
bool plan_threads_show(fa_context *context, const char *command, const char *backend, const char *problem,
                       const fa_attention_desc *desc, const plan_threads *list, bool json);

#endif
