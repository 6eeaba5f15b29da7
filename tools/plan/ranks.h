/* SPDX-License-Identifier: Apache-2.0 */
/* One layer on numbers of ranks, which need not be there, over a link of a stated speed. */
#ifndef FASTATTN_TOOLS_PLAN_RANKS_H
#define FASTATTN_TOOLS_PLAN_RANKS_H

#include "tools/plan/threads.h"

typedef struct plan_link {
    double latency, bandwidth; /* seconds, and bytes a second */
} plan_link;

/* Reads "10,50": microseconds and GB/s. On failure `error` says what is wrong. */
bool plan_link_parse(const char *text, plan_link *link, char *error, size_t error_size);

/*
 * Simulates the problem on an open device's model and prints a table for each scheme, or a JSON object. `width` is that of the
 * layer's output; 0: heads * dim_v. False after an error.
 */
bool plan_ranks_show(fa_device *device, const char *command, const char *problem,
                     const fa_attention_desc *desc, const plan_threads *list, const plan_link *link,
                     int64_t width, bool json);

#endif
