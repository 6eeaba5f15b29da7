/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call on host memory: causal attention with grouped query heads (GQA), and its log-sum-exp (LSE).
 *
 *   cc host.c $(pkg-config --cflags --libs fastattn) -lm -o host && ./host
 *
 * The call plans, copies what a GPU needs, computes and waits. plan.c does these steps apart, as an engine would.
 * Exit status 77: no device that FASTATTN_BACKEND allows is here. The reason is printed.
 */
#include <fastattn/fastattn.h>
#include <math.h>
#include <stdio.h>

enum { HEADS = 4, HEADS_KV = 2, ROWS = 96, DIM = 64 };

static float q[HEADS][ROWS][DIM], k[HEADS_KV][ROWS][DIM], v[HEADS_KV][ROWS][DIM];
static float o[HEADS][ROWS][DIM], lse[HEADS][ROWS];

/* q is 0, so all scores are 0 and every visible key has the same weight. Key j has the value 2 j + (its head). */
static void fill_inputs(void)
{
    for (int head = 0; head < HEADS_KV; head++) {
        for (int key = 0; key < ROWS; key++) {
            for (int dim = 0; dim < DIM; dim++) {
                k[head][key][dim] = (float)(dim % 5);
                v[head][key][dim] = (float)(2 * key + head);
            }
        }
    }
}

/* Row i sees keys 0 to i. Their mean is i + (the KV head); the LSE is the logarithm of how many there are. */
static int check_outputs(void)
{
    for (int head = 0; head < HEADS; head++) {
        for (int row = 0; row < ROWS; row++) {
            float mean = (float)(row + head / (HEADS / HEADS_KV)), log_keys = logf((float)(row + 1));
            for (int dim = 0; dim < DIM; dim++) {
                if (!(fabsf(o[head][row][dim] - mean) <= 1e-5F * mean)) {
                    fprintf(stderr, "o[%d][%d][%d] is %g, expected %g\n", head, row, dim,
                            (double)o[head][row][dim], (double)mean);
                    return 0;
                }
            }
            if (!(fabsf(lse[head][row] - log_keys) <= 1e-5F)) {
                fprintf(stderr, "lse[%d][%d] is %g, expected %g\n", head, row, (double)lse[head][row],
                        (double)log_keys);
                return 0;
            }
        }
    }
    return 1;
}

int main(void)
{
    fa_context *context = NULL;
    fa_device *device = NULL;
    fa_device_info info = {.struct_size = sizeof(info)};
    fa_attention_desc desc = {
        .struct_size = sizeof(desc), /* every field that is not named is 0: its default */
        .q = fa_tensor_make(FA_F32, 1, HEADS, ROWS, DIM), /* batch, heads, rows, dim; contiguous */
        .k = fa_tensor_make(FA_F32, 1, HEADS_KV, ROWS, DIM),
        .v = fa_tensor_make(FA_F32, 1, HEADS_KV, ROWS, DIM),
        .o = fa_tensor_make(FA_F32, 1, HEADS, ROWS, DIM),
        .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT,
        .want_lse = 1,
    };
    fill_inputs();

    /* A NULL name: what FASTATTN_BACKEND says, or the device that the cost model finds fastest for desc. */
    fa_status status = fa_context_create(NULL, &context);
    if (status == FA_OK)
        status = fa_device_open(context, NULL, &desc, &device);
    if (status == FA_OK)
        status = fa_device_get_info(device, &info);
    if (status == FA_OK)
        status = fa_attention_host(device, &desc, q, k, v, NULL, NULL, o, &lse[0][0]);
    if (status != FA_OK)
        fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    fa_device_close(device); /* NULL is allowed, so one way out serves every failure */
    fa_context_destroy(context);
    if (status != FA_OK || !check_outputs())
        return status == FA_NO_DEVICE ? 77 : 1;
    printf("%s, %s: row %d is %g, its LSE %g\n", info.backend, info.name, ROWS - 1, (double)o[0][ROWS - 1][0],
           (double)lse[0][ROWS - 1]);
    return 0;
}
