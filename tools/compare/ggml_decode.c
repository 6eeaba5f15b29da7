/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times ggml's flash attention on the CPU. docs/benchmarks.md says how to build it, and beside which case of
 * `fastattn bench` it stands. LAYOUT is hnd, where a head's rows lie one after the other, or nhd, where the heads of a
 * token do, as in llama.cpp's cache.
 *
 *     ggml_decode TYPE LAYOUT HEADS HEADS_KV DIM ROWS KEYS THREADS    prints the median of 15 runs in milliseconds
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ggml-cpu.h>
#include <ggml.h>

enum { RUNS = 15, WARM = 3 };

static const enum ggml_type types[] = {GGML_TYPE_F16,  GGML_TYPE_Q8_0, GGML_TYPE_Q4_0,  GGML_TYPE_Q4_1,
                                       GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_IQ4_NL};

static float noise(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

/* Rows of random numbers in the tensor's type. */
static void fill(struct ggml_tensor *t, uint32_t seed)
{
    const int64_t dim = t->ne[0], rows = ggml_nrows(t);
    float *row = malloc((size_t)dim * sizeof(*row));
    if (!row)
        exit(EXIT_FAILURE);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t d = 0; d < dim; d++)
            row[d] = noise(&seed);
        char *to = (char *)t->data + r * (int64_t)ggml_row_size(t->type, dim);
        (void)ggml_quantize_chunk(t->type, row, to, 0, 1, dim, NULL);
    }
    free(row);
}

static struct ggml_tensor *make_cache(struct ggml_context *context, enum ggml_type type, bool nhd,
                                      int64_t dim, int64_t keys, int64_t heads, uint32_t seed)
{
    struct ggml_tensor *cache =
        ggml_new_tensor_3d(context, type, dim, nhd ? heads : keys, nhd ? keys : heads);
    fill(cache, seed);
    return nhd ? ggml_permute(context, cache, 0, 2, 1, 3) : cache;
}

static int by_time(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    int64_t number[6];
    size_t type = 0;
    if (argc != 9)
        return EXIT_FAILURE;
    for (int i = 0; i < 6; i++)
        number[i] = strtoll(argv[3 + i], NULL, 10);
    while (type < sizeof(types) / sizeof(*types) && strcmp(ggml_type_name(types[type]), argv[1]) != 0)
        type++;
    if (type == sizeof(types) / sizeof(*types)) {
        (void)fprintf(stderr,
                      "ggml_decode: TYPE: '%s' is not f16 or one of ggml's blocks that fastattn serves\n",
                      argv[1]);
        return EXIT_FAILURE;
    }
    const bool nhd = strcmp(argv[2], "nhd") == 0;
    const int64_t heads = number[0], heads_kv = number[1], dim = number[2], rows = number[3],
                  keys = number[4];
    const size_t row_bytes = ggml_row_size(types[type], dim);
    const size_t bytes =
        2 * row_bytes * (size_t)(keys * heads_kv) + 16 * (size_t)(dim * rows * heads) + (64 << 20);
    struct ggml_context *context =
        ggml_init((struct ggml_init_params){.mem_size = bytes, .mem_buffer = NULL, .no_alloc = false});
    if (!context)
        return EXIT_FAILURE;
    struct ggml_tensor *q = ggml_new_tensor_3d(context, GGML_TYPE_F32, dim, rows, heads);
    uint32_t seed = 1;
    for (int64_t i = 0; i < ggml_nelements(q); i++)
        ((float *)q->data)[i] = noise(&seed);
    struct ggml_tensor *k = make_cache(context, types[type], nhd, dim, keys, heads_kv, 2),
                       *v = make_cache(context, types[type], nhd, dim, keys, heads_kv, 3);
    struct ggml_tensor *o = ggml_flash_attn_ext(context, q, k, v, NULL, 0.088388348f, 0, 0);
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, o);

    int64_t time[RUNS];
    for (int i = -WARM; i < RUNS; i++) {
        const int64_t began = ggml_time_us();
        if (ggml_graph_compute_with_ctx(context, graph, (int)number[5]) != GGML_STATUS_SUCCESS)
            return EXIT_FAILURE;
        if (i >= 0)
            time[i] = ggml_time_us() - began;
    }
    qsort(time, RUNS, sizeof(*time), by_time);
    (void)printf("%s %s %.3f ms\n", argv[1], argv[2], (double)time[RUNS / 2] / 1000);
    ggml_free(context);
    return EXIT_SUCCESS;
}
