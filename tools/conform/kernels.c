/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of a device, and what the sizes of a case come to on one. */
#include <string.h>

#include "tools/conform/conform.h"

/* A plan for `length` rows and keys of dim 64, of some type that the kernel serves, with v in k or k and v in a format where it
 * serves nothing else: what it works in is the kernel's own. */
static bool probe(fa_device *device, const char *kernel, int64_t length, int32_t block_q, int32_t block_kv,
                  fa_plan_info *info)
{
    fa_tuning tuning = {
        .struct_size = sizeof(tuning), .kernel = kernel, .block_q = block_q, .block_kv = block_kv};
    for (int i = 0; i < 7; i++) {
        const fa_dtype dtype = i < 6 ? (fa_dtype)(FA_F32 + i % 3) : FA_F16;
        const fa_tensor t = fa_tensor_make(dtype, 1, 1, length, 64),
                        kv = fa_tensor_make(i < 6 ? dtype : FA_Q8_0, 1, 1, length, 64);
        fa_attention_desc desc = {.struct_size = sizeof(desc),
                                  .q = t,
                                  .k = kv,
                                  .v = kv,
                                  .o = t,
                                  .tuning = &tuning,
                                  .v_in_k = i / 3 == 1};
        fa_plan *plan;
        if (fa_plan_create(device, &desc, &plan) != FA_OK)
            continue;
        *info = (fa_plan_info){.struct_size = sizeof(*info)};
        fa_status status = fa_plan_get_info(plan, info);
        fa_plan_destroy(plan);
        return status == FA_OK;
    }
    return false;
}

void conform_suite_kernels(conform_suite *suite)
{
    const char *at = suite->info.kernels;
    while (*at && suite->kernels < CONFORM_MAX_KERNELS) {
        conform_kernel *kernel = &suite->kernel[suite->kernels++];
        int length = (int)strcspn(at, ",");
        (void)snprintf(kernel->name, sizeof(kernel->name), "%.*s", length, at);
        at += length + (at[length] == ',');
    }
}

static bool needs_tile(const conform_case *c)
{
    return c->blocks == CONFORM_BLOCKS_TWO_TILES || c->len_q.base == CONFORM_TILE ||
           c->len_kv.base == CONFORM_TILE;
}

/* Blocks of two tiles, or of one where the kernel has none that large. */
static void choose_blocks(fa_device *device, conform_kernel *kernel)
{
    fa_plan_info info;
    kernel->two_q =
        probe(device, kernel->name, 256, 2 * kernel->tile_q, 0, &info) ? 2 * kernel->tile_q : kernel->tile_q;
    kernel->two_kv = probe(device, kernel->name, 256, 0, 2 * kernel->tile_kv, &info) ? 2 * kernel->tile_kv
                                                                                     : kernel->tile_kv;
}

bool conform_measure_kernel(fa_device *device, const conform_case *c, conform_kernel *kernel, char *message,
                            size_t size)
{
    bool tile = needs_tile(c) && kernel->tile_q == 0,
         blocks = c->blocks == CONFORM_BLOCKS_LONG && kernel->long_block_q == 0;
    fa_plan_info info;
    if ((tile && !probe(device, kernel->name, 256, 0, 0, &info)) ||
        (blocks && !probe(device, kernel->name, 4096, 0, 0, &info))) {
        (void)snprintf(message, size, "kernel %s is listed but serves no attention without extras: %s",
                       kernel->name, fa_last_error());
        return false;
    }
    if (tile || blocks) {
        kernel->tile_q = info.tile_q;
        kernel->tile_kv = info.tile_kv;
    }
    if (c->blocks == CONFORM_BLOCKS_TWO_TILES && kernel->two_q == 0)
        choose_blocks(device, kernel);
    if (blocks) {
        kernel->long_block_q = info.block_q;
        kernel->long_block_kv = info.block_kv;
    }
    return true;
}

static int32_t resolve_length(conform_length length, int32_t tile, int32_t block)
{
    int32_t base = length.base == CONFORM_TILE ? tile : length.base == CONFORM_BLOCK ? block : 0;
    return base + length.add > 0 ? base + length.add : 0;
}

conform_sizes conform_resolve(const conform_case *c, const conform_kernel *kernel)
{
    conform_sizes s = {0};
    if (c->blocks == CONFORM_BLOCKS_NUMBERS) {
        s.block_q = c->block_q;
        s.block_kv = c->block_kv;
    } else if (c->blocks == CONFORM_BLOCKS_TWO_TILES) {
        s.block_q = kernel->two_q;
        s.block_kv = kernel->two_kv;
    } else if (c->blocks == CONFORM_BLOCKS_LONG) {
        s.block_q = kernel->long_block_q;
        s.block_kv = kernel->long_block_kv;
    }
    s.len_q = resolve_length(c->len_q, kernel->tile_q, s.block_q);
    s.len_kv = resolve_length(c->len_kv, kernel->tile_kv, s.block_kv);
    if (c->layout == CONFORM_PACKED)
        s.len_kv = s.len_q;
    return s;
}
