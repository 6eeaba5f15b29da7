/* SPDX-License-Identifier: Apache-2.0 */
/* A plan as data for the kernels of a GPU: core/portable/table.h, filled. */
#ifndef FA_GPU_TABLE_H
#define FA_GPU_TABLE_H

#include "core/plan.h"

/*
 * Parameters, sequences, work items, merges, slopes, sinks and factors in one piece of host memory; release it with
 * fa_release(). FA_OUT_OF_MEMORY where it is larger than `most` bytes, which a device allocates at once.
 */
fa_status fa_table_make(const fa_plan *plan, size_t most, void **table, size_t *size);

#endif
