/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu/measure.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"

enum { MOST_TURNS = 32, WARM = 2 };

void need(fa_status status)
{
    if (status == FA_OK)
        return;
    (void)fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    exit(status == FA_NO_DEVICE ? 77 : EXIT_FAILURE);
}

fa_buffer *buffer_of(fa_device *device, fa_queue *queue, size_t bytes, const void *from)
{
    fa_buffer *buffer;
    need(fa_buffer_create(device, bytes, &buffer));
    if (from)
        need(fa_buffer_write(queue, buffer, 0, from, bytes));
    return buffer;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double measure_median(fa_queue *queue, int turns, void (*run)(const void *what), const void *what)
{
    double seconds[MOST_TURNS];
    for (int turn = -WARM; turn < turns; turn++) {
        const double begin = fa_clock();
        run(what);
        need(fa_queue_wait(queue));
        if (turn >= 0)
            seconds[turn] = fa_clock() - begin;
    }
    qsort(seconds, (size_t)turns, sizeof(seconds[0]), by_size);
    return seconds[turns / 2];
}

uint32_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

float draw_float(uint64_t *state)
{
    return (float)draw(state) / (float)(1u << 30) - 1.0f;
}

float sign_of(uint64_t n)
{
    n = (n ^ n << 21 ^ n << 43) * 0x9e3779b97f4a7c15u;
    n = (n ^ n >> 32) * 0xd6e8feb86659fd93u;
    return n >> 63 ? 1.0f : -1.0f;
}
