/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/cuda/stub_life.h"

#include <string.h>

float bytes_in[HEADS * KEYS * DIM], bytes_out[HEADS * KEYS * DIM];

fa_status make_things(life *l, const char *kernel, int splits)
{
    static const int64_t most[] = {KEYS};
    fa_attention_desc desc = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    fa_tuning tuning = {.struct_size = sizeof(tuning), .kernel = kernel, .splits = splits};
    desc.tuning = &tuning;
    desc.dynamic_lengths = l->dynamic;
    desc.lens_kv = l->dynamic == 2 ? most : NULL;
    fa_status status = fa_queue_create(l->device, &l->queue);
    for (int t = 0; t < 4 && status == FA_OK; t++) {
        status = fa_buffer_create(l->device, sizeof(bytes_in), &l->buffer[t]);
        if (status == FA_OK)
            status = fa_buffer_write(l->queue, l->buffer[t], 0, bytes_in, sizeof(bytes_in));
    }
    if (status == FA_OK)
        status = fa_plan_create(l->device, &desc, &l->plan);
    if (status == FA_OK && fa_plan_workspace(l->plan) > 0)
        status = fa_buffer_create(l->device, fa_plan_workspace(l->plan), &l->workspace);
    return status;
}

fa_attention_args args_of(const life *l)
{
    return (fa_attention_args){.struct_size = sizeof(fa_attention_args),
                               .q = l->buffer[0],
                               .k = l->buffer[1],
                               .v = l->buffer[2],
                               .o = l->buffer[3],
                               .workspace = l->workspace};
}

fa_status run_life(const life *l, fa_queue *queue)
{
    const fa_attention_args args = args_of(l);
    return fa_plan_run(l->plan, queue, &args);
}

fa_status live_on(life *l, const char *kernel, int splits)
{
    double seconds;
    fa_status status = fa_device_open(context, "cuda", NULL, &l->device);
    if (status == FA_OK)
        status = make_things(l, kernel, splits);
    if (status == FA_OK)
        status = append_live(&l->append, l->device, l->queue);
    for (int turn = 0; turn < 3 && status == FA_OK; turn++)
        status = run_life(l, l->queue);
    if (status == FA_OK)
        status = fa_queue_wait(l->queue);
    if (status == FA_OK)
        status = fa_queue_seconds(l->queue, &seconds);
    if (status == FA_OK)
        status = fa_buffer_read(l->queue, l->buffer[0], 0, bytes_out, sizeof(bytes_out));
    return status;
}

void die(life *l)
{
    append_die(&l->append);
    fa_plan_destroy(l->plan);
    for (int t = 0; t < 4; t++)
        fa_buffer_destroy(l->buffer[t]);
    fa_buffer_destroy(l->workspace);
    fa_queue_destroy(l->queue);
    fa_device_close(l->device);
    ck_assert_int_eq(stub_live(), l->kept);
    *l = (life){0};
    ck_assert_int_eq(stub_misuses(), 0);
}

void check_good_life(const char *kernel, int splits)
{
    life l = {0};
    for (int i = 0; i < HEADS * KEYS * DIM; i++)
        bytes_in[i] = (float)i;
    memset(bytes_out, 0, sizeof(bytes_out));
    const long launches = stub_launches();
    fa_status status = live_on(&l, kernel, splits);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(memcmp(bytes_in, bytes_out, sizeof(bytes_in)), 0);
    ck_assert_int_ge(stub_launches() - launches, 3);
    die(&l);
}
