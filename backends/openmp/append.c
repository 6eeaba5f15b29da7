/* SPDX-License-Identifier: Apache-2.0 */
/* New rows into a cache: one row of one head at a time. */
#include "backends/openmp/cpu.h"
#include "backends/openmp/kernel.h"
#include "backends/openmp/loop.h"
#include "backends/openmp/run.h"
#include "core/tensor.h"

typedef struct append_run {
    const fa_append *append;
    const void *memory[FA_APPEND_OPERANDS];
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

static void copy_row(const append_run *run, int from, int to, int64_t batch, int64_t head, int64_t row,
                     int64_t slot)
{
    const fa_append *a = run->append;
    const fa_tensor *source = &a->tensor[from], *target = &a->tensor[to];
    run->row(source->dtype, run->memory[from], fa_tensor_offset(source, batch, head, row), target->dtype,
             (void *)(uintptr_t)run->memory[to],
             fa_tensor_offset(target, slot / a->keys, head, slot % a->keys), (int)source->shape[3]);
}

/* Of the list of heads of rows. */
static void do_row(const void *of, int64_t index, void *scratch)
{
    (void)scratch;
    const append_run *run = of;
    const fa_append *a = run->append;
    const int64_t head = index % a->heads, row = index / a->heads;
    const int64_t slot = ((const int32_t *)run->memory[FA_APPEND_SLOTS])[row];
    if (slot < 0)
        return;
    copy_row(run, FA_APPEND_K, FA_APPEND_CACHE_K, row / a->rows, head, row % a->rows, slot);
    if (a->has_v)
        copy_row(run, FA_APPEND_V, FA_APPEND_CACHE_V, row / a->rows, head, row % a->rows, slot);
}

fa_status fa_openmp_append_run(const fa_append *append, fa_queue *queue, const fa_append_binding *binding)
{
    enum { ROWS_OF_TASK = 32 }; /* fewer are written faster than shared */
    const int64_t count = append->batch * append->rows * append->heads;
    append_run run = {.append = append, .row = best_row()};
    (void)queue;
    for (int t = 0; t < FA_APPEND_OPERANDS; t++) {
        const fa_buffer *buffer = binding->buffer[t];
        run.memory[t] = buffer ? (const char *)buffer->address + binding->offset[t] : NULL;
    }
    const int64_t most = fa_cpu_loop_tasks(append->device), wanted = count / ROWS_OF_TASK;
    fa_cpu_loop loop = {
        .one = do_row,
        .of = &run,
        .count = count,
        .tasks = (int32_t)FA_MAX(FA_MIN(most, wanted), 1),
    };
    return fa_cpu_loop_run(append->device, &loop);
}
