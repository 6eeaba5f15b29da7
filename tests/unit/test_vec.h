/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vector vocabulary and the micro-kernels of one instruction set as plain functions. test_vec.c is compiled
 * once for each, as the kernels are; the files beside it, compiled for any machine, call what this CPU has.
 */
#ifndef FASTATTN_TESTS_UNIT_TEST_VEC_H
#define FASTATTN_TESTS_UNIT_TEST_VEC_H

#include <fastattn/attention.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct vec_ops {
    int lanes, panel, panel_vecs, most_keys, most_dims;

    /* On arrays whose `count` is a multiple of the lanes. */
    void (*exp2)(const float *x, float *y, int count);
    void (*tanh)(const float *x, float *y, int count);
    void (*exponent)(const float *x, float *y, int count);
    void (*max)(const float *a, const float *b, float *y, int count);
    void (*load)(fa_dtype dtype, const void *from, float *to, int count);
    void (*store)(fa_dtype dtype, const float *from, void *to, int count);

    /* On one vector. */
    float (*sum)(const float *x);
    void (*sum4)(const float *x, float *sums); /* of four vectors, one behind the other */
    float (*top)(const float *x);
    bool (*all_equal)(const float *a, const float *b);
    void (*if_less)(const float *a, const float *b, const float *yes, const float *no, float *y);
    void (*count_from)(int first, int other, float *y); /* distances of first, first + 1, ... from other */
    void (*distance)(const int *a, const int *b, float *y);
    void (*hide_outside)(const float *a, int key, const int *begin, const int *end, float *y);
    void (*transpose)(float *matrix);
    void (*load_some)(fa_dtype dtype, const void *base, int64_t index, int count, float *to);
    void (*store_some)(fa_dtype dtype, const float *from, void *base, int64_t index, int count);

    void (*convert_rows)(fa_dtype dtype, const void *base, int64_t index, int64_t stride, int rows, int dim,
                         float *target, ptrdiff_t target_stride);
    void (*pack_panel)(fa_dtype dtype, const void *base, const int64_t *row, int count, int dim,
                       float *panel);
    void (*unpack_panel)(fa_dtype dtype, void *base, const int64_t *row, int count, int dim,
                         const float *panel, const float *factor);

    /* The micro-kernels on a panel of `nv` vectors. `max` is read and written, `rescale` is one factor per lane.
     * Both look ahead at the rows that they are given. */
    void (*scores)(int nv, const float *qt, const float *k, ptrdiff_t stride, int dim, int keys, float *st,
                   float *max);
    void (*values)(int nv, const float *pt, const float *v, ptrdiff_t stride, int keys, int dim,
                   const float *rescale, float *ot);
} vec_ops;

/* Those that the library was built with and this CPU has, and their names. */
extern const vec_ops *vec_isa[];
extern const char *vec_isa_name[];
extern int vec_isas;

struct Suite;
void add_math_tests(struct Suite *suite);
void add_lane_tests(struct Suite *suite);
void add_micro_tests(struct Suite *suite);

#define VEC_OPS(isa) extern const vec_ops fa_##isa##_vec_ops;
VEC_OPS(scalar)
VEC_OPS(avx2)
VEC_OPS(avx512)
VEC_OPS(neon)
#undef VEC_OPS

#endif
