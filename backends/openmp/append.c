/* SPDX-License-Identifier: Apache-2.0 */
/* New rows into a cache: all heads of one at a time. */
#include <fastattn/reference.h>

#include "backends/openmp/cpu.h"
#include "backends/openmp/kernel.h"
#include "backends/openmp/loop.h"
#include "backends/openmp/run.h"
#include "core/append/append.h"
#include "core/half.h"

typedef struct append_run {
    fa_task_view view;
    fa_cpu_append_rows *rows;
} append_run;

fa_cpu_append_rows *fa_openmp_best_append(void)
{
#if FA_WITH_AVX512
    if (fa_cpu_has(FA_ISA_AVX512))
        return fa_avx512_append_rows;
#endif
#if FA_WITH_AVX2
    if (fa_cpu_has(FA_ISA_AVX2))
        return fa_avx2_append_rows;
#endif
#if FA_WITH_NEON
    if (fa_cpu_has(FA_ISA_NEON))
        return fa_neon_append_rows;
#endif
    return fa_scalar_append_rows;
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

/* A row that is on its way, and the angles that all of its heads turn by. */
typedef struct moving_row {
    const append_run *run;
    int64_t batch, within, entry, key;
    float cosine[FA_MAX_HEAD_DIM / 2], sine[FA_MAX_HEAD_DIM / 2];
} moving_row;

/* A head of k (of_v false) or v as numbers, as they go into the cache. */
static void take_head(const moving_row *m, bool of_v, int64_t head, float *x)
{
    const fa_append_params *p = params_of(m->run);
    const fa_task_view *v = &m->run->view;
    const fa_dtype type = (fa_dtype)(of_v ? FA_APPEND_TYPE_V(v) : FA_APPEND_TYPE_K(v));
    m->run->rows(type, v->at[of_v ? FA_APPEND_V : FA_APPEND_K],
                 row_at(of_v ? p->v_stride : p->k_stride, m->batch, head, m->within), 0, FA_F32, x, 0, 0, 1,
                 of_v ? p->dim_v : p->dim_k);
    if (!of_v)
        rotate(FA_APPEND_FORM(v), p->pairs, m->cosine, m->sine, x + p->rotary_first);
}

/* Of each group of `dims`: its range, with what is there if `more`. */
static void find_ranges(const float *x, int dim, int dims, bool more, fa_block_range *range)
{
    for (int begin = 0; begin < dim; begin += dims, range++) {
        fa_block_range r = more ? *range : fa_block_range_of(x[begin]);
        for (int i = begin; i < begin + dims; i++)
            r = fa_block_range_with(r, x[i]);
        *range = r;
    }
}

/* One head into a cache whose scales lie in tensors of their own. `range` is that of each group whose scale is computed. */
static void store_scaled(const moving_row *m, bool of_v, int64_t head, const float *x,
                         const fa_block_range *range)
{
    const fa_append_params *p = params_of(m->run);
    const fa_task_view *v = &m->run->view;
    const fa_scales *s = of_v ? &p->v_scales : &p->k_scales;
    const int type = of_v ? FA_APPEND_TYPE_CACHE_V(v) : FA_APPEND_TYPE_CACHE_K(v),
              fits = of_v ? p->v_fits : p->k_fits, dim = of_v ? p->dim_v : p->dim_k;
    const int64_t entry = m->entry, key = m->key;
    const bool writes = fits == FA_APPEND_FITS_HEAD || head == 0;
    int64_t scale = row_at(s->scale_stride, entry, head, key),
            zero = row_at(s->zero_stride, entry, head, key);
    float number[FA_MAX_HEAD_DIM];
    for (int begin = 0; begin < dim;
         begin += s->dims, scale += s->scale_stride[3], zero += s->zero_stride[3]) {
        fa_scaling scaling;
        if (fits == FA_APPEND_FITS_NONE) {
            scaling = of_v ? fa_append_scaling_v(v, scale, zero) : fa_append_scaling_k(v, scale, zero);
        } else {
            scaling = fa_fitted(type, range[begin / s->dims], s->zero_type >= 0);
            scaling = of_v ? fa_append_round_v(v, scaling, scale, zero, writes)
                           : fa_append_round_k(v, scaling, scale, zero, writes);
        }
        const fa_coder c = fa_scaled_coder(scaling);
        for (int i = begin; i < begin + s->dims; i++)
            number[i] = fa_coded_number(c, x[i]);
    }
    fa_elements_store((fa_dtype)type, v->at[of_v ? FA_APPEND_CACHE_V : FA_APPEND_CACHE_K],
                      row_at(of_v ? p->cache_v_stride : p->cache_k_stride, entry, head, key), number, dim);
}

static void append_scaled(const moving_row *m, bool of_v)
{
    const fa_append_params *p = params_of(m->run);
    const int dim = of_v ? p->dim_v : p->dim_k, dims = of_v ? p->v_scales.dims : p->k_scales.dims,
              fits = of_v ? p->v_fits : p->k_fits;
    float x[FA_MAX_HEAD_DIM];
    fa_block_range range[FA_MAX_HEAD_DIM / 8];
    for (int64_t head = 0; head < p->heads && fits == FA_APPEND_FITS_ROW; head++) {
        take_head(m, of_v, head, x);
        find_ranges(x, dim, dims, head > 0, range);
    }
    for (int64_t head = 0; head < p->heads; head++) {
        take_head(m, of_v, head, x);
        if (fits == FA_APPEND_FITS_HEAD)
            find_ranges(x, dim, dims, false, range);
        store_scaled(m, of_v, head, x, range);
    }
}

/* All heads of a row, each of which keeps some of its elements. */
static void append_pruned(const moving_row *m, bool of_v)
{
    const fa_append_params *p = params_of(m->run);
    const int dim = of_v ? p->dim_v : p->dim_k, bytes = of_v ? p->v_scales.row_bytes : p->k_scales.row_bytes;
    char *cache = m->run->view.at[of_v ? FA_APPEND_CACHE_V : FA_APPEND_CACHE_K];
    float x[FA_MAX_HEAD_DIM];
    for (int64_t head = 0; head < p->heads; head++) {
        take_head(m, of_v, head, x);
        fa_store_pruned(cache + row_at(of_v ? p->cache_v_stride : p->cache_k_stride, m->entry, head, m->key),
                        bytes, x, dim);
    }
}

/* Rows that are not rotated go straight from memory to memory. */
static void append_plain(const moving_row *m, bool of_v)
{
    const fa_append_params *p = params_of(m->run);
    const fa_task_view *v = &m->run->view;
    const bool rotated = !of_v && p->pairs > 0;
    const int dim = of_v ? p->dim_v : p->dim_k;
    const fa_dtype type = (fa_dtype)(of_v ? FA_APPEND_TYPE_V(v) : FA_APPEND_TYPE_K(v)),
                   to_type = (fa_dtype)(of_v ? FA_APPEND_TYPE_CACHE_V(v) : FA_APPEND_TYPE_CACHE_K(v));
    const fa_long *stride = of_v ? p->v_stride : p->k_stride,
                  *to_stride = of_v ? p->cache_v_stride : p->cache_k_stride;
    const void *from = v->at[of_v ? FA_APPEND_V : FA_APPEND_K];
    void *cache = v->at[of_v ? FA_APPEND_CACHE_V : FA_APPEND_CACHE_K];
    const int64_t at = row_at(stride, m->batch, 0, m->within);
    int64_t to = row_at(to_stride, m->entry, 0, m->key);
    float x[FA_MAX_HEAD_DIM];
    if (!rotated)
        m->run->rows(type, from, at, stride[1], to_type, cache, to, to_stride[1], p->heads, dim);
    for (int64_t head = 0; rotated && head < p->heads; head++, to += to_stride[1]) {
        take_head(m, false, head, x);
        m->run->rows(FA_F32, x, 0, 0, to_type, cache, to, 0, 1, dim);
    }
}

/* Of the list of rows: all heads of one. */
static void do_row(const void *of, int64_t row, void *scratch)
{
    const append_run *run = of;
    const fa_append_params *p = params_of(run);
    const fa_task_view *v = &run->view;
    const int32_t number = (int32_t)row, slot = ((const int32_t *)(const void *)v->at[FA_APPEND_SLOTS])[row];
    moving_row m;
    float x[FA_MAX_HEAD_DIM];
    (void)scratch;
    m.run = run;
    m.batch = number / p->rows;
    m.within = number % p->rows;
    m.entry = slot / p->keys;
    m.key = slot % p->keys;
    if (p->pairs > 0)
        find_rotation(run, fa_append_position(v, (int)row), m.cosine, m.sine);
    for (int of_v = 0; of_v < (p->dim_v > 0 ? 2 : 1) && slot >= 0; of_v++) {
        if (FA_TYPE_PRUNES(of_v ? FA_APPEND_TYPE_CACHE_V(v) : FA_APPEND_TYPE_CACHE_K(v)))
            append_pruned(&m, of_v);
        else if ((of_v ? FA_APPEND_TYPE_V_SCALE(v) : FA_APPEND_TYPE_K_SCALE(v)) >= 0)
            append_scaled(&m, of_v);
        else
            append_plain(&m, of_v);
    }
    for (int64_t head = 0; head < p->heads_q; head++) {
        run->rows((fa_dtype)FA_APPEND_TYPE_Q(v), v->at[FA_APPEND_Q],
                  row_at(p->q_stride, m.batch, head, m.within), 0, FA_F32, x, 0, 0, 1, p->dim_k);
        rotate(FA_APPEND_FORM(v), p->pairs, m.cosine, m.sine, x + p->rotary_first);
        run->rows(FA_F32, x, 0, 0, (fa_dtype)FA_APPEND_TYPE_Q_OUT(v), v->at[FA_APPEND_Q_OUT],
                  row_at(p->q_out_stride, m.batch, head, m.within), 0, 1, p->dim_k);
    }
}

fa_status fa_openmp_append_run(const fa_task *task, const fa_task_binding *binding)
{
    enum { HEADS_OF_TASK = 256 }; /* fewer are written faster than shared */
    const fa_cpu_device *device = task->device->impl;
    const append_run run = {fa_task_view_of(task, binding), device->append_rows};
    const fa_append_params *p = params_of(&run);
    const int64_t rows = (int64_t)p->batch * p->rows, wanted = rows * (p->heads + p->heads_q) / HEADS_OF_TASK;
    fa_cpu_loop loop = {
        .one = do_row,
        .of = &run,
        .count = rows,
        .tasks = (int32_t)FA_MAX(FA_MIN(fa_cpu_loop_tasks(task->device), wanted), 1),
    };
    return fa_cpu_loop_run(task->device, &loop);
}
