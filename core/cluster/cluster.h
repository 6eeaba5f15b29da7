/* SPDX-License-Identifier: Apache-2.0 */
/* Clusterings after validation. */
#ifndef FA_CORE_CLUSTER_H
#define FA_CORE_CLUSTER_H

#include <fastattn/cluster.h>

#include "core/task_words.h"

#include "core/portable/cluster.h"

enum { FA_CLUSTER_OPERANDS = FA_CLUSTER_COUNTS + 1, FA_CLUSTER_PROGRAMS = FA_CLUSTER_MEAN + 1 };

struct fa_cluster {
    fa_device *device;
    fa_cluster_desc desc; /* normalised */
    size_t span[FA_CLUSTER_OPERANDS];
    fa_cluster_params params;
    fa_task task[FA_CLUSTER_PROGRAMS];
    int prepared; /* the tasks before that number that the description has */
};

/* Validates `desc` and fills all but the tasks. */
fa_status fa_cluster_init(fa_cluster *cluster, const fa_cluster_desc *desc);

/* Whether runs have that program, and how many work-groups do it. */
bool fa_cluster_has(const fa_cluster *cluster, int program);
int32_t fa_cluster_groups(const fa_cluster *cluster, int program);

#endif
