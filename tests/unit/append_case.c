/* SPDX-License-Identifier: Apache-2.0 */
#include "append_case.h"

#include <fastattn/reference.h>
#include <stdlib.h>
#include <string.h>

static fa_context *append_context;
fa_device *append_cpu;
fa_queue *append_queue;

void append_setup(void)
{
    ck_assert_int_eq(fa_context_create(NULL, &append_context), FA_OK);
    ck_assert_int_eq(fa_device_open(append_context, "openmp", NULL, &append_cpu), FA_OK);
    ck_assert_int_eq(fa_queue_create(append_cpu, &append_queue), FA_OK);
}

void append_teardown(void)
{
    fa_queue_destroy(append_queue);
    fa_device_close(append_cpu);
    fa_context_destroy(append_context);
}

fa_append_desc append_desc_of(fa_dtype rows, fa_dtype cache_k, fa_dtype cache_v)
{
    return (fa_append_desc){
        .struct_size = sizeof(fa_append_desc),
        .k = fa_tensor_make(rows, BATCH, HEADS, ROWS, DIM_QK),
        .v = fa_tensor_make(rows, BATCH, HEADS, ROWS, DIM_V),
        .cache_k = fa_tensor_make(cache_k, ENTRIES, HEADS, KEYS, DIM_QK),
        .cache_v = fa_tensor_make(cache_v, ENTRIES, HEADS, KEYS, DIM_V),
    };
}

append_piece append_make_piece(size_t bytes)
{
    append_piece m = {malloc(bytes + 1), bytes, NULL};
    memset(m.at, 0xa5, bytes + 1);
    ck_assert_int_eq(fa_buffer_wrap_host(append_cpu, m.at, bytes, &m.buffer), FA_OK);
    return m;
}

append_piece append_make_tensor(const fa_tensor *t)
{
    size_t span;
    ck_assert_int_eq(fa_tensor_span(t, &span), FA_OK);
    return append_make_piece(span);
}

void append_free_piece(append_piece *m)
{
    fa_buffer_destroy(m->buffer);
    free(m->at);
}

float append_element(int of_v, int64_t row, int head, int d)
{
    return (float)(((d + 3 * head + 7 * (int)row + 11 * of_v) * 37 % 64 - 29)) / 8 + (float)(d % 3) / 64;
}

void append_fill(const fa_tensor *t, append_piece *m, int of_v)
{
    int64_t at = 0;
    for (int64_t b = 0; b < t->shape[0]; b++) {
        for (int head = 0; head < HEADS; head++) {
            for (int64_t r = 0; r < t->shape[2]; r++) {
                for (int d = 0; d < t->shape[3]; d++, at++) {
                    const float x = append_element(of_v, b * ROWS + r, head, d);
                    if (t->dtype == FA_F32)
                        ((float *)(void *)m->at)[at] = x;
                    else
                        ((uint16_t *)(void *)m->at)[at] = fa_f32_to_f16(x);
                }
            }
        }
    }
}

void append_make_scene(append_scene *s, const fa_append_desc *desc)
{
    *s = (append_scene){.desc = *desc};
    ck_assert_int_eq(fa_append_create(append_cpu, desc, &s->append), FA_OK);
    s->k = append_make_tensor(&desc->k);
    s->v = append_make_tensor(&desc->v);
    s->cache_k = append_make_tensor(&desc->cache_k);
    s->cache_v = append_make_tensor(&desc->cache_v);
    s->slots = append_make_piece(BATCH * ROWS * sizeof(int32_t));
    append_fill(&desc->k, &s->k, 0);
    append_fill(&desc->v, &s->v, 1);
    for (int i = 0; i < BATCH * ROWS; i++)
        ((int32_t *)(void *)s->slots.at)[i] = i == 4 ? -1 : (i * 7 + 3) % (ENTRIES * KEYS);
    s->args = (fa_append_args){
        .struct_size = sizeof(fa_append_args),
        .k = s->k.buffer,
        .v = s->v.buffer,
        .cache_k = s->cache_k.buffer,
        .cache_v = s->cache_v.buffer,
        .slots = s->slots.buffer,
    };
}

void append_free_scene(append_scene *s)
{
    append_piece *const all[] = {&s->k, &s->v, &s->cache_k, &s->cache_v, &s->slots};
    fa_append_destroy(s->append);
    for (int i = 0; i < COUNT(all); i++)
        append_free_piece(all[i]);
}

fa_append_desc append_scaled_desc(void)
{
    fa_append_desc d = append_desc_of(FA_F32, FA_I8, FA_U4);
    d.k_scale = fa_tensor_make(FA_F32, ENTRIES, HEADS, KEYS, 1);
    d.v_scale = d.v_zero = fa_tensor_make(FA_F16, ENTRIES, HEADS, KEYS, 2);
    return d;
}
