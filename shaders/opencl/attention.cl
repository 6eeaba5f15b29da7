/* SPDX-License-Identifier: Apache-2.0 */
/* All kernels: one is compiled at a time, with the macros that backends/opencl/pipeline.c gives it. */
#include "softmax.cl"

#if defined(FA_KERNEL_TILE)
#include "tile.cl"
#elif defined(FA_KERNEL_ROWS)
#include "rows.cl"
#else
#include "merge.cl"
#endif
