/* SPDX-License-Identifier: Apache-2.0 */
/* All kernels: one is compiled at a time, with the macros that the host (backends/opencl) gives it. */
#include "softmax.cl"

#ifdef FA_ROWS
#include "product.cl"
#endif

#if defined(FA_KERNEL_TILE)
#include "tile.cl"
#elif defined(FA_KERNEL_ROWS)
#include "rows.cl"
#else
#include "merge.cl"
#endif
