/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One node of flash attention by the backend and by ggml's CPU backend, in turns in one process: milliseconds of CPU time over all
 * threads, medians, and the median of the turns' ratios. The rows are the last ones of a causal sequence, or of several in one
 * cache: their prompts behind each other in its first half, then a key of each in turn.
 *
 *   bench_op libggml-fastattn.so CACHE HEADS HEADS_KV DIM ROWS KEYS THREADS TURNS [SEQUENCES]
 *
 * CACHE is a type as ggml calls it: f16, q8_0. Heads lie between rows, as in llama.cpp.
 */
#define _POSIX_C_SOURCE 200809L
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct shape {
    enum ggml_type cache;
    int heads, heads_kv, dim, rows, keys, sequences;
} shape;

static enum ggml_type type_of(const char *name)
{
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char *other = ggml_type_name((enum ggml_type)i);
        if (other && strcmp(other, name) == 0)
            return (enum ggml_type)i;
    }
    fprintf(stderr, "ggml has no type %s\n", name);
    exit(2);
}

static double cpu_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static struct ggml_tensor *new_tensor(struct ggml_context *ctx, enum ggml_type type, int dim, int rows,
                                      int heads)
{
    return ggml_permute(ctx, ggml_new_tensor_4d(ctx, type, dim, heads, rows, 1), 0, 2, 1, 3);
}

static void fill(struct ggml_tensor *t)
{
    const int64_t count = ggml_nelements(t), row = t->ne[0];
    float *number = calloc((size_t)count, sizeof(float));
    if (!number)
        abort();
    uint32_t seed = 1;
    for (int64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        number[i] = (float)(seed >> 8) / (float)(1 << 23) - 1;
    }
    if (t->type == GGML_TYPE_F32)
        memcpy(t->data, number, (size_t)count * sizeof(float));
    else
        ggml_quantize_chunk(t->type, number, t->data, 0, count / row, row, NULL);
    free(number);
}

static int sequence_of(const shape *s, int key)
{
    const int prompts = s->keys / 2;
    return key < prompts ? (int)((int64_t)key * s->sequences / prompts) : key % s->sequences;
}

static void fill_mask(const shape *s, uint16_t *at)
{
    for (int i = 0; i < s->rows; i++) {
        const int own = s->keys - s->rows + i, sequence = sequence_of(s, own);
        for (int j = 0; j < s->keys; j++)
            *at++ = ggml_fp32_to_fp16(j <= own && sequence_of(s, j) == sequence ? 0 : -INFINITY);
    }
}

static double run(ggml_backend_t backend, struct ggml_cgraph *graph, int times)
{
    const double start = cpu_time();
    for (int i = 0; i < times; i++) {
        if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS)
            exit(1);
    }
    return (cpu_time() - start) / times;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int count)
{
    qsort(x, (size_t)count, sizeof(*x), compare);
    return (x[(count - 1) / 2] + x[count / 2]) / 2;
}

int main(int argc, char **argv)
{
    if (argc != 10 && argc != 11) {
        fprintf(stderr, "bench_op BACKEND CACHE HEADS HEADS_KV DIM ROWS KEYS THREADS TURNS [SEQUENCES]\n");
        return 2;
    }
    const shape s = {type_of(argv[2]),
                     atoi(argv[3]),
                     atoi(argv[4]),
                     atoi(argv[5]),
                     atoi(argv[6]),
                     atoi(argv[7]),
                     argc > 10 ? atoi(argv[10]) : 1};
    const int threads = atoi(argv[8]), turns = atoi(argv[9]);
    ggml_backend_reg_t reg = ggml_backend_load(argv[1]);
    if (!reg)
        return 1;
    ggml_backend_t backend[2] = {ggml_backend_cpu_init(),
                                 ggml_backend_dev_init(ggml_backend_reg_dev_get(reg, 0), NULL)};
    void *function = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    ggml_backend_set_n_threads_t set_threads;
    memcpy(&set_threads, &function, sizeof(function));
    set_threads(backend[1], threads);
    ggml_backend_cpu_set_n_threads(backend[0], threads);

    struct ggml_init_params p = {.mem_size = 32 * ggml_tensor_overhead() + ggml_graph_overhead(),
                                 .no_alloc = true};
    struct ggml_context *ctx = ggml_init(p);
    struct ggml_tensor *q = new_tensor(ctx, GGML_TYPE_F32, s.dim, s.rows, s.heads);
    struct ggml_tensor *k = new_tensor(ctx, s.cache, s.dim, s.keys, s.heads_kv);
    struct ggml_tensor *v = new_tensor(ctx, s.cache, s.dim, s.keys, s.heads_kv);
    struct ggml_tensor *mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, s.keys, s.rows);
    struct ggml_cgraph *graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, ggml_flash_attn_ext(ctx, q, k, v, mask, 1 / sqrtf((float)s.dim), 0, 0));
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(ctx, backend[0]);
    fill(q->view_src);
    fill(k->view_src);
    fill(v->view_src);
    fill_mask(&s, mask->data);

    double *time[3];
    for (int i = 0; i < 3; i++)
        time[i] = calloc((size_t)turns, sizeof(double));
    int times[2];
    for (int side = 0; side < 2; side++) /* some 20 ms for each measurement */
        times[side] = (int)(20 / fmin(20, fmax(0.01, run(backend[side], graph, 2)))) + 1;
    for (int i = 0; i < turns; i++) {
        for (int side = 0; side < 2; side++)
            time[side][i] = run(backend[side], graph, times[side]);
        time[2][i] = time[0][i] / time[1][i];
    }
    printf(
        "%s, heads %d/%d, dim %d, %d rows, %d keys of %d, %d threads: ggml %.3f ms, the backend %.3f ms; ratio %.2f\n",
        argv[2], s.heads, s.heads_kv, s.dim, s.rows, s.keys, s.sequences, threads, median(time[0], turns),
        median(time[1], turns), median(time[2], turns));
    for (int i = 0; i < 3; i++)
        free(time[i]);
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
    ggml_backend_free(backend[1]);
    ggml_backend_free(backend[0]);
    return 0;
}
