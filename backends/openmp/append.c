/* SPDX-License-Identifier: Apache-2.0 */
/* New rows into a cache: one row of one head at a time. */
#include "core/append/append.h"
#include "backends/openmp/cpu.h"
#include "backends/openmp/kernel.h"
#include "backends/openmp/loop.h"
#include "backends/openmp/run.h"

typedef struct append_run {
    fa_task_view view;
    fa_cpu_append_row *row;
} append_run;

/* That of the best instruction set. */
static fa_cpu_append_row *best_row(void)
{
#if FA_WITH_AVX512
    if (fa_cpu_has(FA_ISA_AVX512))
        return fa_avx512_append_row;
#endif
#if FA_WITH_AVX2
    if (fa_cpu_has(FA_ISA_AVX2))
        return fa_avx2_append_row;
#endif
#if FA_WITH_NEON
    if (fa_cpu_has(FA_ISA_NEON))
        return fa_neon_append_row;
#endif
    return fa_scalar_append_row;
}

static const fa_append_params *params_of(const append_run *run)
{
    return run->view.params;
}

/* Elements that precede a row. */
static int64_t row_at(const int64_t stride[3], int64_t a, int64_t b, int64_t c)
{
    return a * stride[0] + b * stride[1] + c * stride[2];
}

/* Of the list of heads of rows. */
static void do_row(const void *of, int64_t index, void *scratch)
{
    (void)scratch;
    const append_run *run = of;
    const fa_append_params *p = params_of(run);
    const fa_task_view *v = &run->view;
    const int32_t *type = v->constant;
    const int64_t head = index % p->heads, row = index / p->heads, batch = row / p->rows,
                  within = row % p->rows;
    const int64_t slot = ((const int32_t *)(const void *)v->at[FA_APPEND_SLOTS])[row];
    if (slot < 0)
        return;
    const int64_t entry = slot / p->keys, key = slot % p->keys;
    run->row((fa_dtype)type[FA_APPEND_K], v->at[FA_APPEND_K], row_at(p->k_stride, batch, head, within),
             (fa_dtype)type[FA_APPEND_CACHE_K], v->at[FA_APPEND_CACHE_K],
             row_at(p->cache_k_stride, entry, head, key), p->dim_k);
    if (p->dim_v > 0)
        run->row((fa_dtype)type[FA_APPEND_V], v->at[FA_APPEND_V], row_at(p->v_stride, batch, head, within),
                 (fa_dtype)type[FA_APPEND_CACHE_V], v->at[FA_APPEND_CACHE_V],
                 row_at(p->cache_v_stride, entry, head, key), p->dim_v);
}

fa_status fa_openmp_append_run(const fa_task *task, const fa_task_binding *binding)
{
    enum { ROWS_OF_TASK = 32 }; /* fewer are written faster than shared */
    const append_run run = {fa_task_view_of(task, binding), best_row()};
    const fa_append_params *p = params_of(&run);
    const int64_t count = (int64_t)p->batch * p->rows * p->heads;
    const int64_t most = fa_cpu_loop_tasks(task->device), wanted = count / ROWS_OF_TASK;
    fa_cpu_loop loop = {
        .one = do_row,
        .of = &run,
        .count = count,
        .tasks = (int32_t)FA_MAX(FA_MIN(most, wanted), 1),
    };
    return fa_cpu_loop_run(task->device, &loop);
}
