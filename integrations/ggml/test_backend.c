/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads the backend as a program with ggml does, gives ggml's scheduler graphs of one FLASH_ATTN_EXT, and compares with the
 * library's reference in double precision, which is told the mask as a plain bias. Then NaN and infinity lie in cells of the
 * cache: no row that does not see them may have another bit.
 *
 * test_backend FILE    FILE is libggml-fastattn.so
 */
#define _POSIX_C_SOURCE 200809L
#include "scene.h"

#include <fastattn/fastattn.h>
#include <fastattn/reference.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MERGES 64 /* of parts of a row; no plan here has more */

/* ---- one case ---- */

static void slopes(float max_bias, int heads, float *factor)
{
    const int n = 1 << (int)floor(log2(heads));
    for (int h = 0; h < heads; h++)
        factor[h] = h < n ? powf(exp2f(-max_bias / (float)n), (float)(h + 1))
                          : powf(exp2f(-max_bias / 2 / (float)n), (float)(2 * (h - n) + 1));
}

/* Compares with the reference. f32 arithmetic, in whatever order, is as near as fa_reference_limit() says. */
static void compare(const test_case *c, const struct ggml_tensor *node)
{
    const struct ggml_tensor *q = node->src[0], *k = node->src[1], *v = node->src[2], *mask = node->src[3];
    const size_t count = (size_t)ggml_nelements(node), rows = count / (size_t)c->dim_v;
    float factor[64];
    slopes(c->max_bias, c->heads, factor);
    fa_attention_desc desc = {
        .struct_size = sizeof(desc),
        .q = view_of(q),
        .k = view_of(k),
        .v = view_of(v),
        .o = fa_tensor_make(FA_F32, c->batch, c->heads, c->rows, c->dim_v),
        .softcap = c->softcap,
        .sinks = c->sinks ? node->src[4]->data : NULL,
        .bias_factors = c->max_bias > 0 ? factor : NULL,
    };
    fa_inputs inputs = {.q = q->data, .k = k->data, .v = v->data};
    if (mask) {
        desc.bias = view_of(mask);
        inputs.bias = mask->data;
    }
    double *o = allocate(count * sizeof(double)), *limit = allocate(rows * sizeof(double)),
           *lse = allocate(rows * sizeof(double));
    fa_context *context;
    fa_status status = fa_context_create(NULL, &context);
    if (!status)
        status = fa_reference_attention(context, &desc, &inputs, o, NULL);
    if (!status)
        status = fa_reference_limit(context, &desc, &inputs, FA_F32, MERGES, limit, lse);
    EXPECT(!status, "%s: %s", c->name, fa_last_error());
    double worst = 0;
    for (size_t i = 0; !status && i < count; i++) {
        /* (batch, head, row, dim) there, (batch, row, head, dim) here */
        const size_t d = i % (size_t)c->dim_v, row = i / (size_t)c->dim_v, r = row % (size_t)c->rows,
                     h = row / (size_t)c->rows % (size_t)c->heads, b = row / (size_t)(c->rows * c->heads);
        const float *at = (const float *)node->data +
                          ((b * (size_t)c->rows + r) * (size_t)c->heads + h) * (size_t)c->dim_v + d;
        const double error = fabs((double)*at - o[i]) / (limit[row] + fabs(o[i]) * 0x1p-24 + 0x1p-149);
        worst = error > worst || error != error ? error : worst;
    }
    EXPECT(worst <= 1, "%s: %g of what f32 may be wrong", c->name, worst);
    fa_context_destroy(context);
    free(o);
    free(limit);
    free(lse);
}

typedef struct backends {
    ggml_backend_t own, cpu;
    void (*set_threads)(ggml_backend_t backend, int threads);
} backends;

/* One node and its neighbour in a scheduler that has both backends. */
typedef struct job {
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer;
    ggml_backend_sched_t scheduler;
    struct ggml_cgraph *graph;
    struct ggml_tensor *node;
} job;

static job open_job(const backends *with, const test_case *c)
{
    struct ggml_init_params parameters = {.mem_size = 64 * ggml_tensor_overhead() + ggml_graph_overhead(),
                                          .no_alloc = true};
    struct ggml_context *ctx = ggml_init(parameters);
    scene_seed = 1;

    struct ggml_tensor *q =
        new_tensor(ctx, GGML_TYPE_F32, c->permuted, c->dim_qk, c->rows, c->heads, c->batch);
    struct ggml_tensor *k = new_tensor(ctx, c->k, c->permuted, c->dim_qk, c->keys, c->heads_kv, c->batch);
    struct ggml_tensor *v =
        c->v_in_k
            ? ggml_view_4d(ctx, k, c->dim_v, c->keys, c->heads_kv, c->batch, k->nb[1], k->nb[2], k->nb[3], 0)
            : new_tensor(ctx, c->v, c->permuted, c->dim_v, c->keys, c->heads_kv, c->batch);
    struct ggml_tensor *mask =
        c->mask ? ggml_new_tensor_4d(ctx, GGML_TYPE_F16, c->keys, c->rows, mask_heads(c), c->batch) : NULL;
    struct ggml_tensor *sinks = c->sinks ? ggml_new_tensor_1d(ctx, GGML_TYPE_F32, c->heads) : NULL;
    job j = {.ctx = ctx, .buffer = ggml_backend_alloc_ctx_tensors(ctx, with->cpu)};
    fill(q->view_src ? q->view_src : q);
    fill(k->view_src ? k->view_src : k);
    if (!c->v_in_k)
        fill(v->view_src ? v->view_src : v);
    if (mask)
        fill_mask(c, mask);
    if (sinks)
        fill(sinks);

    j.node = ggml_flash_attn_ext(ctx, q, k, v, mask, 1 / sqrtf((float)c->dim_qk), c->max_bias, c->softcap);
    ggml_flash_attn_ext_add_sinks(j.node, sinks);
    j.graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(j.graph, ggml_scale(ctx, j.node, 1));
    ggml_backend_t list[2] = {with->own, with->cpu};
    j.scheduler = ggml_backend_sched_new(list, NULL, 2, GGML_DEFAULT_GRAPH_SIZE, false, false);
    EXPECT(ggml_backend_sched_alloc_graph(j.scheduler, j.graph), "%s", c->name);
    EXPECT(ggml_backend_sched_get_tensor_backend(j.scheduler, j.node) == with->own, "%s: computed elsewhere",
           c->name);
    /* The scheduler puts a copy in the place of a source that it has to copy. */
    EXPECT(j.node->src[0] == q && j.node->src[1] == k && j.node->src[2] == v && j.node->src[3] == mask &&
               j.node->src[4] == sinks,
           "%s: something is copied", c->name);
    return j;
}

static void close_job(job *j)
{
    ggml_backend_sched_free(j->scheduler);
    ggml_backend_buffer_free(j->buffer);
    ggml_free(j->ctx);
}

static void compute(const job *j, const test_case *c)
{
    memset(j->node->data, 0xFF, ggml_nbytes(j->node));
    EXPECT(ggml_backend_sched_graph_compute(j->scheduler, j->graph) == GGML_STATUS_SUCCESS, "%s", c->name);
}

static void run_case(const backends *with, const test_case *c)
{
    job j = open_job(with, c);
    const size_t bytes = ggml_nbytes(j.node);
    void *before = allocate(bytes);
    for (int threads = 1; threads <= 3; threads++) {
        with->set_threads(with->own, threads);
        for (int again = 0; again < 2; again++) {
            compute(&j, c);
            compare(c, j.node);
            if (again)
                EXPECT(memcmp(before, j.node->data, bytes) == 0, "%s: other bits in a second run", c->name);
            memcpy(before, j.node->data, bytes);
        }
    }
    if (j.node->src[3]) { /* the mask changes where it lies, as from one token to the next */
        test_case shorter = *c;
        shorter.seen -= c->batch > 1 ? 1 : 5;
        fill_mask(&shorter, j.node->src[3]);
        compute(&j, c);
        compare(&shorter, j.node);
    }
    free(before);
    close_job(&j);
}

/* ---- cells that hold no numbers ---- */

/* Each element NaN, or infinite: of a block, which begins with its scale, that. */
static void spoil(const struct ggml_tensor *t, int key, int head, int batch, bool infinite)
{
    const size_t size = ggml_type_size(t->type), blocks = (size_t)(t->ne[0] / ggml_blck_size(t->type));
    const uint32_t f32 = 0x7F800000u;
    const uint16_t f16 = t->type == GGML_TYPE_BF16 ? 0x7F80u : 0x7C00u;
    uint8_t *at =
        (uint8_t *)t->data + (size_t)key * t->nb[1] + (size_t)head * t->nb[2] + (size_t)batch * t->nb[3];
    for (size_t i = 0; i < blocks; i++, at += size) {
        if (!infinite)
            memset(at, 0xFF, size);
        else if (t->type == GGML_TYPE_F32)
            memcpy(at, &f32, sizeof(f32));
        else
            memcpy(at, &f16, sizeof(f16));
    }
}

/* Spoils the keys that no row sees, or those that the first row does not see. How many there are. */
static int spoil_keys(const test_case *c, const struct ggml_tensor *node, bool first, bool infinite,
                      bool *spoiled)
{
    int count = 0;
    for (int b = 0; b < c->batch; b++) {
        for (int j = 0; j < c->keys; j++) {
            bool *at = &spoiled[b * c->keys + j];
            *at = first ? !sees(c, b, 0, 0, j) : !any_sees(c, b, j);
            for (int h = 0; *at && h < c->heads_kv; h++) {
                spoil(node->src[1], j, h, b, infinite);
                spoil(node->src[2], j, h, b, infinite);
            }
            count += *at;
        }
    }
    return count;
}

/* A row that sees a spoiled key is none of numbers; any other is what it was. */
static void compare_rows(const test_case *c, const struct ggml_tensor *node, const float *before,
                         const bool *spoiled)
{
    const float *now = node->data;
    int wrong = 0;
    for (int i = 0; i < c->batch * c->rows * c->heads; i++) {
        const int h = i % c->heads, r = i / c->heads % c->rows, b = i / c->heads / c->rows;
        bool meets = false, finite = true;
        for (int j = 0; j < c->keys; j++)
            meets = meets || (spoiled[b * c->keys + j] && sees(c, b, h, r, j));
        for (int d = 0; d < c->dim_v; d++)
            finite = finite && isfinite(now[i * c->dim_v + d]);
        wrong +=
            meets ? finite
                  : memcmp(now + i * c->dim_v, before + i * c->dim_v, (size_t)c->dim_v * sizeof(float)) != 0;
    }
    EXPECT(wrong == 0, "%s, %s beside %s: %d rows", c->name, ggml_type_name(c->k), ggml_type_name(c->v),
           wrong);
}

static void test_spoiled(const backends *with, const test_case *c)
{
    bool *spoiled = allocate((size_t)(c->batch * c->keys));
    with->set_threads(with->own, 1);
    for (int infinite = 0; infinite < 2; infinite++) {
        job j = open_job(with, c);
        compute(&j, c);
        float *before = allocate(ggml_nbytes(j.node));
        memcpy(before, j.node->data, ggml_nbytes(j.node));
        for (int first = 0; first < 2; first++) {
            EXPECT(spoil_keys(c, j.node, first, infinite, spoiled) > 0, "%s: nothing is hidden", c->name);
            compute(&j, c);
            compare_rows(c, j.node, before, spoiled);
        }
        free(before);
        close_job(&j);
    }
    free(spoiled);
}

static void test_all_spoiled(const backends *with)
{
    static const enum ggml_type types[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16,
                                           GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1,
                                           GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_IQ4_NL};
    static const test_case problems[] = {
        {"spoiled cells", 0, 0, 64, 64, 4, 2, 19, 150, 1, CELLS, 130, .permuted = true},
        {"spoiled cells, one row", 0, 0, 64, 64, 8, 2, 1, 300, 1, CELLS, 270, .permuted = true},
        {"spoiled cells, ALiBi", 0, 0, 64, 96, 6, 2, 5, 150, 1, ALIBI_CELLS, 130, .max_bias = 8},
        {"spoiled cells of a prompt", 0, 0, 64, 64, 4, 2, 70, 150, 1, CAUSAL, 130, .permuted = true},
        {"spoiled cells, a mask of each head", 0, 0, 64, 64, 4, 2, 3, 150, 1, CELLS, 130, .head_masks = true},
        {"spoiled cells of sequences", 0, 0, 64, 64, 4, 2, 6, 128, 3, RAGGED, 90, .permuted = true},
    };
    /* Keys and values are read each for themselves: all pairs meet the first two problems, which have other kernels. */
    enum {
        TYPES = sizeof(types) / sizeof(types[0]),
        PROBLEMS = sizeof(problems) / sizeof(problems[0]),
        PAIRED = 2
    };
    for (int i = 0; i < TYPES * TYPES * PROBLEMS; i++) {
        test_case c = problems[i % PROBLEMS];
        c.k = types[i / PROBLEMS % TYPES];
        c.v = types[i / PROBLEMS / TYPES];
        if (i % PROBLEMS < PAIRED || c.k == c.v)
            test_spoiled(with, &c);
    }
    for (int i = 0; i < TYPES; i++) {
        const test_case latent = {
            "spoiled latent cells", types[i], types[i], 576, 512, 16, 1, 3, 64, 1, CELLS, 60, .v_in_k = true};
        test_spoiled(with, &latent);
    }
}

/* ---- what it does not take ---- */

static bool takes(ggml_backend_dev_t device, enum ggml_type type, int dim, int mask_heads, bool transposed)
{
    struct ggml_init_params parameters = {.mem_size = 16 * ggml_tensor_overhead(), .no_alloc = true};
    struct ggml_context *ctx = ggml_init(parameters);
    struct ggml_tensor *q = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, dim, 4, 4, 1);
    struct ggml_tensor *k = ggml_new_tensor_4d(ctx, type, dim, 64, 4, 1);
    struct ggml_tensor *v = transposed ? ggml_transpose(ctx, ggml_new_tensor_4d(ctx, type, 64, dim, 4, 1))
                                       : ggml_new_tensor_4d(ctx, type, dim, 64, 4, 1);
    struct ggml_tensor *mask = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, 64, 4, mask_heads, 1);
    const bool answer =
        ggml_backend_dev_supports_op(device, ggml_flash_attn_ext(ctx, q, k, v, mask, 1, 0, 0));
    ggml_free(ctx);
    return answer;
}

/* llama.cpp's order of calls: a context asks once, synchronises, and asks again for each graph. */
static void test_first_graphs(ggml_backend_dev_t device, const backends *with)
{
    EXPECT(!takes(device, GGML_TYPE_F16, 64, 1, false), "where -fa auto asks");
    ggml_backend_synchronize(with->own);
    EXPECT(takes(device, GGML_TYPE_F16, 64, 1, false), "the first graph");
    ggml_backend_t second = ggml_backend_dev_init(device, NULL);
    EXPECT(!takes(device, GGML_TYPE_F16, 64, 1, false), "where -fa auto asks again");
    with->set_threads(with->own, 1);
    EXPECT(takes(device, GGML_TYPE_F16, 64, 1, false), "beside a backend that computes nothing");
    ggml_backend_free(second);
    ggml_backend_free(ggml_backend_dev_init(device, NULL));
    EXPECT(takes(device, GGML_TYPE_F16, 64, 1, false), "behind a backend that computed nothing");
}

static void test_refusals(ggml_backend_dev_t device)
{
    EXPECT(takes(device, GGML_TYPE_F16, 64, 1, false), "the plain case");
    EXPECT(takes(device, GGML_TYPE_F16, 64, 4, false), "a mask of each head");
    EXPECT(!takes(device, GGML_TYPE_F16, 64, 2, false), "a mask of each second head");
    EXPECT(!takes(device, GGML_TYPE_F16, FA_MAX_HEAD_DIM + 64, 1, false), "a head dim beyond the library's");
    EXPECT(!takes(device, GGML_TYPE_Q4_K, 256, 1, false), "a type that is no cache's");
    EXPECT(!takes(device, GGML_TYPE_F16, 64, 1, true), "v transposed");
}

/* ---- what it says ---- */

static char said[2048]; /* what was logged */

static void keep_log(enum ggml_log_level level, const char *text, void *user)
{
    (void)level;
    (void)user;
    const size_t length = strlen(said);
    snprintf(said + length, sizeof(said) - length, "%s", text);
}

static void test_device(const char *file, const char *name, const char *message)
{
    said[0] = 0;
    ggml_log_set(keep_log, NULL);
    setenv("FASTATTN_BACKEND", name, 1);
    EXPECT(!ggml_backend_load(file), "with FASTATTN_BACKEND=%s", name);
    EXPECT(strstr(said, message), "FASTATTN_BACKEND=%s: \"%s\" is not in: %s", name, message, said);
    unsetenv("FASTATTN_BACKEND");
    ggml_log_set(NULL, NULL);
}

/* A node that the library has no words for, which a scheduler would have given to another backend. */
static void test_failure(ggml_backend_t own, ggml_backend_t cpu)
{
    struct ggml_init_params parameters = {.mem_size = 16 * ggml_tensor_overhead() + ggml_graph_overhead(),
                                          .no_alloc = true};
    struct ggml_context *ctx = ggml_init(parameters);
    struct ggml_tensor *q = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, 64, 4, 4, 1);
    struct ggml_tensor *k = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, 64, 64, 4, 1);
    struct ggml_tensor *mask = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, 64, 4, 2, 1);
    struct ggml_cgraph *graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, ggml_flash_attn_ext(ctx, q, k, k, mask, 1, 0, 0));
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(ctx, cpu);
    said[0] = 0;
    ggml_log_set(keep_log, NULL);
    EXPECT(ggml_backend_graph_compute(own, graph) == GGML_STATUS_FAILED, "a mask of each second head");
    ggml_log_set(NULL, NULL);
    EXPECT(strstr(said, "UNSUPPORTED: a mask that repeats"), "the log: %s", said);
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
}

static const test_case cases[] = {
    {"no mask", GGML_TYPE_F16, GGML_TYPE_F16, 64, 64, 4, 4, 33, 129, 1, NO_MASK, .permuted = true},
    {"prompt", GGML_TYPE_F16, GGML_TYPE_F16, 64, 64, 9, 3, 70, 256, 1, CAUSAL, 70, .permuted = true},
    {"prompt at depth", GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, 64, 64, 9, 3, 70, 512, 1, CAUSAL, 400,
     .permuted = true},
    {"decode", GGML_TYPE_F16, GGML_TYPE_F16, 64, 64, 9, 3, 1, 1024, 1, CAUSAL, 1000, .permuted = true},
    {"decode, q8_0", GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, 128, 128, 8, 2, 1, 512, 1, CAUSAL, 290,
     .permuted = true},
    {"f32", GGML_TYPE_F32, GGML_TYPE_F32, 80, 80, 4, 2, 5, 64, 1, CAUSAL, 50, .permuted = false},
    {"bf16", GGML_TYPE_BF16, GGML_TYPE_BF16, 96, 64, 4, 2, 5, 64, 1, CAUSAL, 50, .permuted = false},
    {"q4_0, q4_1", GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, 64, 64, 4, 2, 20, 64, 1, CAUSAL, 50, .permuted = false},
    {"q5_0, q5_1", GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, 64, 96, 4, 2, 20, 64, 1, CAUSAL, 50, .permuted = true},
    {"iq4_nl, f16", GGML_TYPE_IQ4_NL, GGML_TYPE_F16, 64, 64, 4, 2, 2, 64, 1, CAUSAL, 50, .permuted = false},
    {"q8_0, q4_0", GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, 64, 64, 4, 4, 1, 64, 1, CAUSAL, 50, .permuted = false},
    {"window", GGML_TYPE_F16, GGML_TYPE_F16, 64, 64, 4, 2, 17, 128, 1, WINDOW, 90, .permuted = true},
    {"window, one row", GGML_TYPE_F16, GGML_TYPE_F16, 64, 64, 4, 2, 1, 128, 1, WINDOW, 90, .permuted = true},
    {"sequences", GGML_TYPE_F16, GGML_TYPE_Q8_0, 64, 64, 4, 2, 6, 128, 3, RAGGED, 90, .permuted = true},
    {"ALiBi", GGML_TYPE_F16, GGML_TYPE_F16, 64, 64, 12, 4, 11, 128, 1, ALIBI, 90, .max_bias = 8},
    {"holes", GGML_TYPE_F16, GGML_TYPE_F16, 64, 64, 4, 2, 19, 128, 1, HOLES, 90, .permuted = false},
    {"a row that sees nothing", GGML_TYPE_F16, GGML_TYPE_F16, 64, 64, 4, 2, 4, 128, 1, HIDDEN_ROW, 90,
     .permuted = false},
    {"two sequences", GGML_TYPE_F16, GGML_TYPE_F16, 64, 64, 4, 2, 19, 150, 1, CELLS, 130, .permuted = true},
    {"two sequences, one row", GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, 64, 64, 8, 2, 1, 300, 1, CELLS, 270,
     .permuted = true},
    {"two sequences, ALiBi", GGML_TYPE_F16, GGML_TYPE_F16, 64, 64, 12, 4, 11, 150, 1, ALIBI_CELLS, 130,
     .max_bias = 8},
    {"a mask of each head", GGML_TYPE_F16, GGML_TYPE_F16, 64, 64, 4, 2, 11, 150, 1, CELLS, 130,
     .head_masks = true},
    {"softcap", GGML_TYPE_F16, GGML_TYPE_F16, 128, 128, 4, 2, 12, 128, 1, CAUSAL, 90, .softcap = 10},
    {"sinks", GGML_TYPE_F16, GGML_TYPE_F16, 64, 64, 8, 1, 12, 128, 1, WINDOW, 90, .sinks = true},
    {"latent", GGML_TYPE_F16, GGML_TYPE_F16, 576, 512, 16, 1, 3, 64, 1, CAUSAL, 60, .v_in_k = true},
    {"latent, q8_0", GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, 576, 512, 16, 1, 1, 64, 1, CAUSAL, 60, .v_in_k = true},
};

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    test_device(argv[1], "null", "computes nothing");
    test_device(argv[1], "nonsense", "nonsense");
    ggml_backend_reg_t reg = ggml_backend_load(argv[1]);
    if (!reg) {
        printf("ggml does not load %s\n", argv[1]);
        return 1;
    }
    ggml_backend_dev_t device = ggml_backend_reg_dev_get(reg, 0);
    EXPECT(strcmp(ggml_backend_reg_name(reg), "FASTATTN") == 0, "%s", ggml_backend_reg_name(reg));
    EXPECT(ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_ACCEL, "its type");
    EXPECT(ggml_backend_dev_buffer_type(device) == ggml_backend_cpu_buffer_type(), "its memory");
    backends with = {ggml_backend_dev_init(device, NULL), ggml_backend_cpu_init(), NULL};
    void *function = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    memcpy(&with.set_threads, &function, sizeof(function));
    if (!with.own || !with.cpu || !with.set_threads)
        return 1;
    ggml_backend_cpu_set_n_threads(with.cpu, 1);
    test_first_graphs(device, &with);
    test_refusals(device);
    test_failure(with.own, with.cpu);
    test_masks();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        run_case(&with, &cases[i]);
    test_all_spoiled(&with);
    ggml_backend_free(with.own);
    ggml_backend_free(with.cpu);
    ggml_backend_unload(reg);
    printf("%d failures\n", failures);
    return failures > 0;
}
