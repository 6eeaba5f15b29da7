/* SPDX-License-Identifier: Apache-2.0 */
/* How long the planning of a neighbourhood takes: 128 x 128 x 16 tokens, kernel 13 x 13 x 5, the best of some. */
#include <fastattn/sparse.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"

int main(void)
{
    const fa_neighbourhood grid = {
        .struct_size = sizeof(grid), .axes = 3, .size = {128, 128, 16}, .kernel = {13, 13, 5}};
    const fa_sparse_neighbourhood_desc d = {.struct_size = sizeof(d), .neighbourhood = &grid};
    fa_context *context;
    double best = 1e9;
    fa_block_lists lists = {.struct_size = sizeof(lists)};
    int64_t blocks = 0;
    if (fa_context_create(NULL, &context) != FA_OK)
        return EXIT_FAILURE;
    for (int n = 0; n < 20; n++) {
        fa_block_mask *mask;
        const double begin = fa_clock();
        if (fa_sparse_neighbourhood(context, &d, &mask) != FA_OK)
            return EXIT_FAILURE;
        const double seconds = fa_clock() - begin;
        best = seconds < best ? seconds : best;
        if (fa_block_mask_lists(mask, &lists) == FA_OK)
            blocks = lists.indptr[lists.row_blocks];
        fa_block_mask_destroy(mask);
    }
    (void)printf("%.2f ms, %lld blocks in lists of %lld rows' blocks\n", best * 1e3, (long long)blocks,
                 (long long)lists.row_blocks);
    fa_context_destroy(context);
    return EXIT_SUCCESS;
}
