/* SPDX-License-Identifier: Apache-2.0 */
/* New rows into a cache: one row of one head at a time, or of all heads where they are rotated. */
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

static void append_v(const append_run *run, int64_t batch, int64_t head, int64_t within, int64_t slot)
{
    const fa_append_params *p = params_of(run);
    const fa_task_view *v = &run->view;
    run->row((fa_dtype)FA_APPEND_TYPE_V(v), v->at[FA_APPEND_V], row_at(p->v_stride, batch, head, within),
             (fa_dtype)FA_APPEND_TYPE_CACHE_V(v), v->at[FA_APPEND_CACHE_V],
             row_at(p->cache_v_stride, slot / p->keys, head, slot % p->keys), p->dim_v);
}

/* Of the list of heads of rows. */
static void do_row(const void *of, int64_t index, void *scratch)
{
    (void)scratch;
    const append_run *run = of;
    const fa_append_params *p = params_of(run);
    const fa_task_view *v = &run->view;
    const int64_t head = index % p->heads, row = index / p->heads, batch = row / p->rows,
                  within = row % p->rows;
    const int64_t slot = ((const int32_t *)(const void *)v->at[FA_APPEND_SLOTS])[row];
    if (slot < 0)
        return;
    const int64_t entry = slot / p->keys, key = slot % p->keys;
    run->row((fa_dtype)FA_APPEND_TYPE_K(v), v->at[FA_APPEND_K], row_at(p->k_stride, batch, head, within),
             (fa_dtype)FA_APPEND_TYPE_CACHE_K(v), v->at[FA_APPEND_CACHE_K],
             row_at(p->cache_k_stride, entry, head, key), p->dim_k);
    if (p->dim_v > 0)
        append_v(run, batch, head, within, slot);
}

/* The cosines and sines of a row's pairs. */
static void find_rotation(const append_run *run, int position, float cosine[], float sine[])
{
    for (int i = 0; i < params_of(run)->pairs; i++) {
        const fa_rotation r = fa_append_rotation(&run->view, position, i);
        cosine[i] = r.cosine;
        sine[i] = r.sine;
    }
}

static void rotate(int form, int pairs, const float *restrict cosine, const float *restrict sine,
                   float *restrict x)
{
    for (int i = 0; i < pairs && form == FA_PAIRS_BESIDE; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cosine[i] - b * sine[i];
        x[2 * i + 1] = b * cosine[i] + a * sine[i];
    }
    for (int i = 0; i < pairs && form == FA_PAIRS_HALVES; i++) {
        const float a = x[i], b = x[i + pairs];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + pairs] = b * cosine[i] + a * sine[i];
    }
}

/* Of the list of rows: all heads of k and q turn by the same angles. */
static void do_rotated_row(const void *of, int64_t row, void *scratch)
{
    const append_run *run = of;
    const fa_append_params *p = params_of(run);
    const fa_task_view *v = &run->view;
    const int64_t batch = row / p->rows, within = row % p->rows;
    const int64_t slot = ((const int32_t *)(const void *)v->at[FA_APPEND_SLOTS])[row];
    float cosine[FA_MAX_HEAD_DIM / 2], sine[FA_MAX_HEAD_DIM / 2], x[FA_MAX_HEAD_DIM];
    (void)scratch;
    find_rotation(run, fa_append_position(v, (int)row), cosine, sine);
    for (int64_t head = 0; head < p->heads && slot >= 0; head++) {
        const int64_t to = row_at(p->cache_k_stride, slot / p->keys, head, slot % p->keys);
        run->row((fa_dtype)FA_APPEND_TYPE_K(v), v->at[FA_APPEND_K], row_at(p->k_stride, batch, head, within),
                 FA_F32, x, 0, p->dim_k);
        rotate(FA_APPEND_FORM(v), p->pairs, cosine, sine, x);
        run->row(FA_F32, x, 0, (fa_dtype)FA_APPEND_TYPE_CACHE_K(v), v->at[FA_APPEND_CACHE_K], to, p->dim_k);
        if (p->dim_v > 0)
            append_v(run, batch, head, within, slot);
    }
    for (int64_t head = 0; head < p->heads_q; head++) {
        run->row((fa_dtype)FA_APPEND_TYPE_Q(v), v->at[FA_APPEND_Q], row_at(p->q_stride, batch, head, within),
                 FA_F32, x, 0, p->dim_k);
        rotate(FA_APPEND_FORM(v), p->pairs, cosine, sine, x);
        run->row(FA_F32, x, 0, (fa_dtype)FA_APPEND_TYPE_Q_OUT(v), v->at[FA_APPEND_Q_OUT],
                 row_at(p->q_out_stride, batch, head, within), p->dim_k);
    }
}

fa_status fa_openmp_append_run(const fa_task *task, const fa_task_binding *binding)
{
    enum { HEADS_OF_TASK = 32 }; /* fewer are written faster than shared */
    const append_run run = {fa_task_view_of(task, binding), best_row()};
    const fa_append_params *p = params_of(&run);
    const bool rotates = FA_APPEND_FORM(&run.view) != FA_PAIRS_NONE;
    const int64_t rows = (int64_t)p->batch * p->rows, heads = rows * (p->heads + p->heads_q);
    const int64_t most = fa_cpu_loop_tasks(task->device), wanted = heads / HEADS_OF_TASK;
    fa_cpu_loop loop = {
        .one = rotates ? do_rotated_row : do_row,
        .of = &run,
        .count = rotates ? rows : rows * p->heads,
        .tasks = (int32_t)FA_MAX(FA_MIN(most, wanted), 1),
    };
    return fa_cpu_loop_run(task->device, &loop);
}
