/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Not a test: a measurement. How long fa_plan_create() takes with lists of 4096 x 4096 blocks of 64, the best of some: those of a
 * neighbourhood, and a quarter of the blocks drawn at random.
 *
 *   time_lists BACKEND
 */
#include <fastattn/fastattn.h>
#include <fastattn/sparse.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"

enum { BLOCKS = 4096, BLOCK = 64, TURNS = 5 };

static fa_device *device;

static void need(fa_status status)
{
    if (status == FA_OK)
        return;
    (void)fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    exit(status == FA_NO_DEVICE ? 77 : EXIT_FAILURE);
}

/* The least seconds of a plan's creation. */
static double measure(const fa_block_lists *lists)
{
    const fa_tensor x = {FA_F32, {1, 1, (int64_t)BLOCKS * BLOCK, 64}, {0}};
    const fa_attention_desc desc = {
        .struct_size = sizeof(desc), .q = x, .k = x, .v = x, .o = x, .lists = lists};
    double least = 1e9;
    for (int turn = 0; turn < TURNS; turn++) {
        fa_plan *plan;
        const double begin = fa_clock();
        need(fa_plan_create(device, &desc, &plan));
        const double seconds = fa_clock() - begin;
        least = seconds < least ? seconds : least;
        fa_plan_destroy(plan);
    }
    return least;
}

static void measure_case(const char *name, fa_block_mask *mask)
{
    fa_block_lists lists = {.struct_size = sizeof(lists)};
    need(fa_block_mask_lists(mask, &lists));
    (void)printf("%-14s %9.2f ms, %lld blocks\n", name, measure(&lists) * 1e3,
                 (long long)lists.indptr[lists.row_blocks]);
    fa_block_mask_destroy(mask);
}

int main(int argc, char **argv)
{
    const fa_neighbourhood near = {
        .struct_size = sizeof(near), .axes = 3, .size = {128, 128, 16}, .kernel = {13, 13, 5}};
    const fa_sparse_neighbourhood_desc patches = {.struct_size = sizeof(patches), .neighbourhood = &near};
    const fa_sparse_window_desc drawn = {
        .struct_size = sizeof(drawn),
        .shape = {.rows = (int64_t)BLOCKS * BLOCK, .keys = (int64_t)BLOCKS * BLOCK},
        .random = BLOCKS / 4,
        .seed = 1,
    };
    fa_context *context;
    fa_block_mask *mask;
    need(fa_context_create(NULL, &context));
    need(fa_device_open(context, argc > 1 ? argv[1] : "openmp", 0, &device));
    need(fa_sparse_neighbourhood(context, &patches, &mask));
    measure_case("neighbourhood", mask);
    need(fa_sparse_window(context, &drawn, &mask));
    measure_case("random", mask);
    fa_device_close(device);
    fa_context_destroy(context);
    return EXIT_SUCCESS;
}
