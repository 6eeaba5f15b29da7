/* SPDX-License-Identifier: Apache-2.0 */
/* The vector vocabulary (see vec.h) for a machine with no vectors that we know: one lane, plain C. */
#include "core/half.h"

enum { VL = 1, PANEL_VECS = 4, SCORE_KEYS = 4, VALUE_DIMS = 4 };

typedef float vf;
typedef int vi;

/* A line for each word: */
/* clang-format off */
static inline vf v_load(const float *p) { return *p; }
static inline void v_store(float *p, vf a) { *p = a; }
static inline vf v_set1(float a) { return a; }
static inline vf v_add(vf a, vf b) { return a + b; }
static inline vf v_sub(vf a, vf b) { return a - b; }
static inline vf v_mul(vf a, vf b) { return a * b; }
static inline vf v_div(vf a, vf b) { return a / b; }
static inline vf v_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf v_max(vf a, vf b) { return a > b ? a : b; }
static inline vf v_abs(vf a) { return fabsf(a); }
static inline vf v_if_less(vf a, vf b, vf yes, vf no) { return a < b ? yes : no; }
static inline bool v_all_equal(vf a, vf b) { return a == b; }
static inline float v_top(vf a) { return a; }
static inline float v_sum(vf a) { return a; }
static inline void v_sum4(const vf a[4], float *sums)
{
    for (int i = 0; i < 4; i++)
        sums[i] = a[i];
}

static inline vf v_exponent(vf a) { return fa_as_float(fa_as_uint(a) << 23); }

static inline vi vi_load(const int *p) { return *p; }
static inline vi vi_set1(int a) { return a; }
static inline vi vi_count(int first) { return first; }
static inline vf v_distance(vi a, vi b) { return (float)(a > b ? a - b : b - a); }
static inline vf v_hide_outside(vf a, vi key, vi begin, vi end) { return begin <= key && key < end ? a : -INFINITY; }

static inline vf v_load_f16(const uint16_t *p) { return fa_f16_widen(*p); }
static inline vf v_load_bf16(const uint16_t *p) { return fa_bf16_widen(*p); }
static inline void v_store_f16(uint16_t *p, vf a) { *p = (uint16_t)fa_f16_narrow(a); }
static inline void v_store_bf16(uint16_t *p, vf a) { *p = (uint16_t)fa_bf16_narrow(a); }

static inline void v_transpose(vf r[VL])
{
    (void)r;
}
