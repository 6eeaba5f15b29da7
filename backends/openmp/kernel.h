/* SPDX-License-Identifier: Apache-2.0 */
/* What the OpenMP backend's kernels are given, and what they are. */
#ifndef FA_OPENMP_KERNEL_H
#define FA_OPENMP_KERNEL_H

#include "core/plan.h"

/* One run of a plan: where everything is. */
typedef struct fa_cpu_run {
    const fa_plan *plan;
    const void *q, *k, *v, *bias, *keep;
    void *o;
    float *lse;     /* NULL: not wanted */
    float *partial; /* normalised outputs of split items, dim_v floats a row */
    fa_state *partial_state;
} fa_cpu_run;

/* A kernel executes one work item at a time, on one thread, in scratch of its own. */
typedef struct fa_cpu_kernel {
    size_t (*scratch_bytes)(const fa_plan *plan);
    void (*item)(const fa_cpu_run *run, const fa_work_item *item, void *scratch);
} fa_cpu_kernel;

/* fa_<isa>_<kernel>, one object per instruction set. */
#define FA_CPU_ISA(isa) extern const fa_cpu_kernel fa_##isa##_tile, fa_##isa##_rows, fa_##isa##_standard;
FA_CPU_ISA(scalar)
FA_CPU_ISA(avx2)
FA_CPU_ISA(avx512)
FA_CPU_ISA(neon)
#undef FA_CPU_ISA
extern const fa_cpu_kernel fa_avx512bf16_tile, fa_amx_tile;

#endif
