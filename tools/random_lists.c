/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/random_lists.h"

#include <inttypes.h>
#include <stdlib.h>

#include "tools/cli.h"
#include "tools/conform/conform.h"

bool random_lists_options(const char *command, double density, int64_t block, int64_t head, int64_t heads_kv)
{
    if (!(density >= 0 && density <= 1))
        cli_error(command, "--density is %g, expected 0 to 1", density);
    else if (block < 1 || block > FA_MAX_LENGTH)
        cli_error(command, "--list-block is %" PRId64 ", expected 1 to %d", block, FA_MAX_LENGTH);
    else if (head < 0 || (head >= heads_kv && head > 0))
        cli_error(command, "--head is %" PRId64 ", expected 0 to %" PRId64, head, heads_kv - 1);
    else
        return true;
    return false;
}

/* `kept` of `blocks` blocks, each choice of them as likely. */
static void draw_list(uint8_t *mask, int64_t blocks, int64_t kept, conform_random *random)
{
    for (int64_t block = 0; block < blocks; block++) {
        mask[block] = conform_random_below(random, (uint32_t)(blocks - block)) < kept;
        kept -= mask[block];
    }
}

bool random_lists_make(double density, int64_t block, uint64_t seed, fa_attention_desc *desc,
                       random_lists *out)
{
    const int64_t pages = desc->page_table.shape[3];
    const int64_t keys = desc->k.shape[2] * (pages > 0 ? pages : 1), rows = desc->q.shape[2];
    const int64_t heads = desc->k.shape[1];
    if (!(density > 0))
        return true;
    out->lists = (fa_block_lists){
        .struct_size = sizeof(out->lists),
        .block_rows = (int32_t)block,
        .block_keys = (int32_t)block,
        .sequences = 1,
        .heads = heads,
        .row_blocks = (rows + block - 1) / block,
        .key_blocks = (keys + block - 1) / block,
    };
    conform_random random = conform_random_of(seed, "lists");
    const int64_t lists = heads * out->lists.row_blocks, blocks = out->lists.key_blocks;
    const int64_t kept = (int64_t)(density * (double)blocks + 0.5);
    if (blocks > 0 && lists > INT64_MAX / 2 / blocks)
        return false;
    out->mask = malloc((size_t)(lists * blocks) + 1);
    for (int64_t n = 0; out->mask && n < lists; n++)
        draw_list(out->mask + n * blocks, blocks, kept > 0 ? kept : 1, &random);
    out->lists.mask = out->mask;
    desc->lists = &out->lists;
    return out->mask != NULL;
}

void random_lists_free(random_lists *lists)
{
    free(lists->mask);
    *lists = (random_lists){.mask = NULL};
}
