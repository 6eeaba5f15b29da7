/* SPDX-License-Identifier: Apache-2.0 */
/* Layers with sharded heads, on ranks that are threads: against the oracle, over links of a stated speed, with ranks that fail. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "core/ranks/chunks.h"
#include "core/ranks/transport.h"
#include "tests/ranks/layer_scene.h"
#include "tests/ranks/on_ranks.h"

/* What every rank of a test does. */
typedef struct task {
    fa_device *device;
    const layer_scene *scene;
    layer_options options;
    char *y; /* of each rank */
    fa_sharded_layer_info info[MOST_RANKS];
    int64_t first[MOST_RANKS][FA_SHARDED_MAX_CHUNKS + 1];
    int32_t absent; /* a rank that makes no layer */
} task;

enum { Y_BYTES = TOKENS * WIDTH * 4 };

static void run_rank(a_rank *r)
{
    task *t = r->user;
    const int32_t n = r->transport->rank;
    if (n == t->absent)
        return;
    t->info[n].struct_size = sizeof(t->info[n]);
    memset(t->y + n * Y_BYTES, 0x5a, Y_BYTES);
    keep_status(r, layer_scene_run(t->device, r->transport, t->scene, &t->options, t->y + n * Y_BYTES,
                                   &t->info[n], t->first[n]));
}

static fa_device *open_openmp(void)
{
    fa_device *device = NULL;
    ck_assert_msg(fa_device_open(context, "openmp", NULL, &device) == FA_OK, "%s", fa_last_error());
    return device;
}

static void run_task(task *t, int32_t ranks, a_rank found[MOST_RANKS])
{
    t->absent = -1;
    on_ranks(ranks, 0, 0, 20, run_rank, t, found);
}

static const layer_kind kinds[] = {
    {.mask = FA_MASK_NONE},
    {.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT, .y = FA_F16, .w = FA_BF16},
    {.mask = FA_MASK_CAUSAL_TOP_LEFT, .window_left = 20, .y = FA_BF16, .alibi = 1},
    {.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT, .packed = 1, .w = FA_F16},
    {.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT, .packed = 1, .window_left = 33, .alibi = 1},
    {.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT, .padded = 1},
};

/* Nothing is written behind y. */
static bool is_clean(const char *y, fa_dtype dtype)
{
    for (size_t i = TOKENS * WIDTH * fa_dtype_size(dtype); i < Y_BYTES; i++) {
        if (y[i] != 0x5a)
            return false;
    }
    return true;
}

/* On every number of ranks and chunks within the bound, on all ranks the same, and with the plain product the same bits. */
START_TEST(equals_the_oracle)
{
    static const int64_t chunks[] = {1, 2, 5, 64, 0};
    const layer_kind *kind = &kinds[_i];
    fa_device *device = open_openmp();
    char *y = malloc(MOST_RANKS * (size_t)Y_BYTES), *one = malloc(Y_BYTES);
    for (int32_t ranks = 1; ranks <= 4; ranks += ranks) {
        layer_scene scene;
        ck_assert_msg(layer_scene_make(context, kind, ranks, &scene) == FA_OK, "%s", fa_last_error());
        for (int i = 0; i < 3 * COUNT(chunks); i++) {
            task t = {.device = device, .scene = &scene, .y = y};
            a_rank found[MOST_RANKS];
            const int own = i % 3 == 0, callback = i % 3 == 2;
            t.options = (layer_options){
                .chunks = chunks[i / 3], .own_gemm = own, .callback = callback, .fails_at = -1};
            run_task(&t, ranks, found);
            for (int32_t r = 0; r < ranks; r++) {
                ck_assert_msg(found[r].status == FA_OK, "%s", found[r].message);
                ck_assert_int_eq(layer_scene_compare(&scene, y + r * Y_BYTES), 0);
                ck_assert(is_clean(y + r * Y_BYTES, kind->y));
                ck_assert(memcmp(y, y + r * Y_BYTES, TOKENS * WIDTH * fa_dtype_size(kind->y)) == 0);
                ck_assert_int_ge(t.info[r].chunks, 1);
                ck_assert_int_le(t.info[r].chunks, chunks[i / 3] ? chunks[i / 3] : FA_SHARDED_MAX_CHUNKS);
                ck_assert_int_eq(t.first[r][0], 0);
                ck_assert_int_eq(t.first[r][t.info[r].chunks], TOKENS);
            }
            if (own && i == 0)
                memcpy(one, y, Y_BYTES);
            if (own)
                ck_assert_msg(memcmp(one, y, TOKENS * WIDTH * fa_dtype_size(kind->y)) == 0,
                              "%lld chunks on %d ranks are not one", (long long)t.info[0].chunks, ranks);
            if (chunks[i / 3] == 5)
                ck_assert_int_gt(t.info[0].chunks, 1);
            if (own || callback)
                ck_assert_str_eq(t.info[0].projection, own ? "own" : "caller");
        }
        layer_scene_release(&scene);
    }
    free(y);
    free(one);
    fa_device_close(device);
}
END_TEST

/* A callback that fails on all ranks ends each run with its status; a rank that makes no layer is missed in time. */
START_TEST(failures_of_ranks)
{
    fa_device *device = open_openmp();
    layer_scene scene;
    char *y = malloc(MOST_RANKS * (size_t)Y_BYTES);
    a_rank found[MOST_RANKS];
    task t = {.device = device, .scene = &scene, .y = y, .absent = -1};
    ck_assert_int_eq(layer_scene_make(context, &kinds[0], 3, &scene), FA_OK);
    t.options = (layer_options){.chunks = 8, .callback = 1, .fails_at = TOKENS - 1};
    run_task(&t, 3, found);
    for (int32_t r = 0; r < 3; r++) {
        ck_assert_int_eq(found[r].status, FA_IO);
        ck_assert_msg(strstr(found[r].message, "project failed with FA_IO") != NULL, "%s", found[r].message);
    }
    t.absent = 2;
    on_ranks(3, 0, 0, 1, run_rank, &t, found);
    for (int32_t r = 0; r < 2; r++) {
        ck_assert_int_eq(found[r].status, FA_RANK_LOST);
        ck_assert_double_lt(found[r].seconds, 1 + SLACK);
        ck_assert_msg(strstr(found[r].message, "rank 2 did not come within 1 s") != NULL, "%s",
                      found[r].message);
    }
    layer_scene_release(&scene);
    free(y);
    fa_device_close(device);
}
END_TEST

/* A rank that dies in the middle: its projection never ends, as the others see it. */
static fa_status stop(void *user, int64_t first, int64_t count)
{
    (void)user, (void)count;
    return first == 0 ? FA_OK : FA_IO;
}

/* Rows of 4 chunks; on the last rank the second one fails, and no more is reduced. */
static void run_and_stop(a_rank *r)
{
    enum { LONG = 512 };
    static float q[LONG * DIM], y[MOST_RANKS][LONG], o[MOST_RANKS][LONG * DIM];
    const bool last = r->transport->rank == r->transport->ranks - 1;
    fa_device *device = r->user;
    fa_attention_desc d = make_desc(1, 1, 1, LONG, LONG, DIM);
    const fa_sharded_layer_desc desc = {
        .struct_size = sizeof(desc), .attention = &d, .width = 1, .chunks = 4, .project = last ? stop : NULL};
    fa_sharded_layer *layer = NULL;
    fa_queue *queue = NULL;
    fa_buffer *in = NULL, *out = NULL, *workspace = NULL;
    fa_status status = fa_sharded_layer_create(device, r->transport, &desc, &layer);
    if (status == FA_OK)
        status = fa_queue_create(device, &queue);
    if (status == FA_OK)
        status = fa_buffer_wrap_host(device, q, sizeof(q), &in);
    if (status == FA_OK)
        status = fa_buffer_wrap_host(device, o[r->transport->rank], sizeof(o[0]), &out);
    if (status == FA_OK)
        status = fa_buffer_create(device, fa_sharded_layer_workspace(layer), &workspace);
    const fa_attention_args attention = {
        .struct_size = sizeof(attention), .q = in, .k = in, .v = in, .o = out, .workspace = workspace};
    const fa_sharded_layer_args args = {.struct_size = sizeof(args),
                                        .attention = &attention,
                                        .w = last ? NULL : q,
                                        .y = y[r->transport->rank]};
    if (status == FA_OK)
        status = fa_sharded_layer_run(layer, queue, &args);
    keep_status(r, status);
    /* Again, at once: its first chunk would be summed with another one of the others. */
    if (last && status == FA_IO && fa_sharded_layer_run(layer, queue, &args) != FA_RANK_LOST)
        r->status = FA_OK;
    fa_buffer_destroy(in);
    fa_buffer_destroy(out);
    fa_buffer_destroy(workspace);
    fa_queue_destroy(queue);
    fa_sharded_layer_destroy(layer);
}

START_TEST(a_rank_that_fails_in_the_middle)
{
    fa_device *device = open_openmp();
    a_rank found[MOST_RANKS];
    on_ranks(3, 0, 0, 1, run_and_stop, device, found);
    ck_assert_int_eq(found[2].status, FA_IO);
    for (int32_t r = 0; r < 2; r++) {
        ck_assert_msg(found[r].status == FA_RANK_LOST, "%d %s", (int)found[r].status, found[r].message);
        ck_assert_msg(strstr(found[r].message, "rank 2 did not come within 1 s") != NULL, "%s",
                      found[r].message);
        ck_assert_double_lt(found[r].seconds, 1 + SLACK);
    }
    fa_device_close(device);
}
END_TEST

/* Ranks whose descriptions differ in one field each. */
static void differ(a_rank *r)
{
    const int32_t n = r->transport->rank, kind = *(int *)((void **)r->user)[0];
    fa_device *device = ((void **)r->user)[1];
    fa_attention_desc d =
        make_desc(kind == 1 && n == 1 ? 3 : 2, 1 + n, 1 + n, kind == 2 && n == 1 ? 9 : 8, 8, 16);
    static const int64_t lens[] = {8, 5};
    const fa_sharded_layer_desc desc = {
        .struct_size = sizeof(desc),
        .attention = &d,
        .width = kind == 0 && n == 1 ? 9 : 7,
        .y = kind == 3 && n == 1 ? FA_F16 : FA_F32,
        .chunks = kind == 4 && n == 1   ? 2
                  : kind == 6 && n == 1 ? 99
                                        : 0,
    };
    fa_sharded_layer *layer = NULL;
    for (fa_tensor *o = &d.o; o; o = NULL) { /* its heads beside each other */
        o->stride[3] = 1;
        o->stride[1] = o->shape[3];
        o->stride[2] = o->shape[1] * o->stride[1];
        o->stride[0] = o->shape[2] * o->stride[2];
    }
    if (kind == 5 && n == 1)
        d.lens_q = lens;
    keep_status(r, fa_sharded_layer_create(device, r->transport, &desc, &layer));
    fa_sharded_layer_destroy(layer);
}

START_TEST(ranks_that_disagree)
{
    static const char *const expected[][2] = {
        {"width is 7 on rank 0 and 9 on rank 1", "width is 9 on rank 1 and 7 on rank 0"},
        {"attention.q.shape[0] is 2 on rank 0 and 3 on rank 1", "attention.q.shape[0] is 3 on rank 1 and 2"},
        {"attention.q.shape[2] is 8 on rank 0 and 9 on rank 1", "attention.q.shape[2] is 9 on rank 1 and 8"},
        {"y is 0 on rank 0 and 1 on rank 1", "y is 1 on rank 1 and 0 on rank 0"},
        {"chunks is 0 on rank 0 and 2 on rank 1", "chunks is 2 on rank 1 and 0 on rank 0"},
        {"the checksum of offsets or lengths of rows is", "the checksum of offsets or lengths of rows is"},
        {"rank 1 failed to make a sharded layer with FA_INVALID", "chunks is 99, expected 0 to 64"},
        {"", ""},
    };
    fa_device *device = open_openmp();
    for (int kind = 0; kind < COUNT(expected); kind++) {
        void *user[2] = {&kind, device};
        a_rank found[MOST_RANKS];
        on_ranks(2, 0, 0, 10, differ, user, found);
        for (int32_t r = 0; r < 2; r++) {
            ck_assert_msg(found[r].status == (kind == COUNT(expected) - 1 ? FA_OK : FA_INVALID),
                          "%d, rank %d: %s", kind, r, found[r].message);
            ck_assert_msg(strstr(found[r].message, expected[kind][r]) != NULL, "%d, rank %d: %s", kind, r,
                          found[r].message);
        }
    }
    fa_device_close(device);
}
END_TEST

/* What one rank is refused, by field and value. */
typedef struct refusal {
    fa_status status;
    const char *message;
    fa_sharded_layer_desc desc;
    fa_attention_desc attention;
} refusal;

static void refuse(a_rank *r)
{
    refusal *f = ((void **)r->user)[0];
    fa_sharded_layer *layer = (fa_sharded_layer *)f;
    if (!f->desc.attention)
        f->desc.attention = &f->attention;
    keep_status(r, fa_sharded_layer_create(((void **)r->user)[1], r->transport, &f->desc, &layer));
    if (layer)
        r->status = FA_OK;
}

START_TEST(refusals)
{
    fa_device *device = open_openmp();
    static const int64_t lens[] = {3};
    const fa_attention_desc good = make_desc(1, 1, 1, 4, 8, 16);
    const fa_sharded_layer_desc layer = {.struct_size = sizeof(layer), .width = 8};
    static const fa_block_lists lists = {.struct_size = sizeof(lists)};
    refusal list[13];
    for (int i = 0; i < COUNT(list); i++)
        list[i] = (refusal){.status = FA_INVALID, .desc = layer, .attention = good};
    list[0].message = "width is 0, expected 1 to";
    list[0].desc.width = 0;
    list[1].message = "y is bool, expected f32, f16 or bf16";
    list[1].desc.y = FA_BOOL;
    list[2].message = "w is q8_0, expected f32, f16 or bf16";
    list[2].desc.w = FA_Q8_0;
    list[3].message = "w_stride is 7, expected 0, or width 8";
    list[3].desc.w_stride = 7;
    list[4].message = "chunks is -1, expected 0 to 64";
    list[4].desc.chunks = -1;
    list[5].message = "project_seconds is -1";
    list[5].desc.project_seconds = -1;
    list[6].message = "fa_sharded_layer_desc.struct_size is 3";
    list[6].desc.struct_size = 3;
    list[7].message = "attention.dynamic_lengths is 1";
    list[7].attention.dynamic_lengths = 1;
    list[7].status = FA_UNSUPPORTED;
    list[8].message = "attention.keep.shape[2] is 4, expected 1";
    list[8].attention.keep = fa_tensor_make(FA_BOOL, 1, 1, 4, 8);
    list[8].status = FA_UNSUPPORTED;
    list[9].message = "attention.o.dtype is f16, expected f32";
    list[9].attention.o.dtype = FA_F16;
    list[9].status = FA_UNSUPPORTED;
    list[10].message = "attention.o.stride[1] is 64, expected dim_v 16";
    list[10].attention = make_desc(1, 2, 2, 4, 8, 16);
    list[10].status = FA_UNSUPPORTED;
    list[11].message = "lens_kv[0] is 3"; /* the attention's own refusals pass through */
    list[11].attention.k.shape[2] = list[11].attention.v.shape[2] = 2;
    list[11].attention.lens_kv = lens;
    list[12].message = "lists is given, expected NULL: a sharded layer does not serve it";
    list[12].attention.lists = &lists;
    list[12].status = FA_UNSUPPORTED;
    for (int i = 0; i < COUNT(list); i++) {
        void *user[2] = {&list[i], device};
        a_rank found[MOST_RANKS];
        on_ranks(1, 0, 0, 10, refuse, user, found);
        ck_assert_msg(found[0].status == list[i].status, "%d: %s", i, found[0].message);
        ck_assert_msg(strstr(found[0].message, list[i].message) != NULL, "%d: %s", i, found[0].message);
    }
    fa_device_close(device);
}
END_TEST

static void call_badly(a_rank *r)
{
    enum { N = 4 };
    static float q[N * DIM], k[N * DIM], v[N * DIM], o[N * DIM], pool[N * 2 + DIM * 2], y[N * 2];
    float *const w = pool + N * 2;
    fa_device *device = r->user;
    const fa_attention_desc d = make_desc(1, 1, 1, N, N, DIM);
    const fa_sharded_layer_desc desc = {.struct_size = sizeof(desc), .attention = &d, .width = 2};
    float *const tensor[4] = {q, k, v, o};
    fa_buffer *buffer[5] = {NULL};
    fa_sharded_layer *layer = NULL;
    fa_queue *queue = NULL;
    fa_status status = fa_sharded_layer_create(device, r->transport, &desc, &layer);
    if (status == FA_OK)
        status = fa_queue_create(device, &queue);
    for (int i = 0; i < 4 && status == FA_OK; i++)
        status = fa_buffer_wrap_host(device, tensor[i], sizeof(q), &buffer[i]);
    if (status == FA_OK)
        status = fa_buffer_create(device, fa_sharded_layer_workspace(layer), &buffer[4]);
    fa_attention_args a = {.struct_size = sizeof(a),
                           .q = buffer[0],
                           .k = buffer[1],
                           .v = buffer[2],
                           .o = buffer[3],
                           .workspace = buffer[4]};
    fa_sharded_layer_args args = {.struct_size = sizeof(args), .attention = &a, .w = w, .y = y};
    const char *wrong = status == FA_OK ? NULL : "setup";
    for (int i = 0; i < 6 && !wrong; i++) {
        static const char *const expected[] = {"args.y is NULL",         "args.w is NULL",
                                               "args.y overlaps args.w", "args.y overlaps args.k",
                                               "args.q is NULL",         ""};
        args.y = i == 0 ? NULL : i == 2 ? pool + 1 : i == 3 ? k + 3 : y;
        args.w = i == 1 ? NULL : w;
        a.q = i == 4 ? NULL : buffer[0];
        status = fa_sharded_layer_run(layer, queue, &args);
        if (status != (i == 5 ? FA_OK : FA_INVALID) || !strstr(fa_last_error(), expected[i]))
            wrong = expected[i];
    }
    keep_status(r, status);
    if (wrong) {
        (void)snprintf(r->message, sizeof(r->message), "%s: %s", wrong, fa_last_error());
        r->status = FA_IO;
    }
    for (int i = 0; i < 5; i++)
        fa_buffer_destroy(buffer[i]);
    fa_queue_destroy(queue);
    fa_sharded_layer_destroy(layer);
}

START_TEST(arguments)
{
    fa_device *device = open_openmp();
    a_rank found[MOST_RANKS];
    on_ranks(1, 0, 0, 10, call_badly, device, found);
    ck_assert_msg(found[0].status == FA_OK, "%s", found[0].message);
    ck_assert_int_eq(fa_sharded_layer_run(NULL, NULL, NULL), FA_INVALID);
    assert_message("layer is NULL");
    ck_assert_uint_eq(fa_sharded_layer_workspace(NULL), 0);
    fa_sharded_layer_destroy(NULL);
    fa_device_close(device);
}
END_TEST

/* A layer on one thread for each rank, and the fastest of a few runs. */
typedef struct timing {
    int64_t chunks;
    double seconds[MOST_RANKS];
    int overlapped[MOST_RANKS];
} timing;

enum { TIMED_ROWS = 2048, TIMED_HEADS = 2, TIMED_WIDTH = 256, TIMED_INNER = TIMED_HEADS * DIM };

static fa_status time_runs(fa_device *device, a_rank *r, const float *in, const float *w, float *o, float *y)
{
    timing *t = r->user;
    const fa_tensor rows = {.shape = {1, TIMED_HEADS, TIMED_ROWS, DIM},
                            .stride = {TIMED_ROWS * TIMED_INNER, DIM, TIMED_INNER, 1}};
    const fa_attention_desc d = {.struct_size = sizeof(d), .q = rows, .k = rows, .v = rows, .o = rows};
    const fa_sharded_layer_desc desc = {.struct_size = sizeof(desc),
                                        .attention = &d,
                                        .width = TIMED_WIDTH,
                                        .chunks = t->chunks,
                                        .own_gemm = 1};
    const size_t bytes = (size_t)TIMED_ROWS * TIMED_INNER * sizeof(float);
    fa_sharded_layer *layer = NULL;
    fa_queue *queue = NULL;
    fa_buffer *read = NULL, *out = NULL, *workspace = NULL;
    fa_sharded_layer_info info = {.struct_size = sizeof(info)};
    fa_status status = fa_sharded_layer_create(device, r->transport, &desc, &layer);
    if (status == FA_OK)
        status = fa_queue_create(device, &queue);
    if (status == FA_OK)
        status = fa_buffer_wrap_host(device, (void *)in, bytes, &read);
    if (status == FA_OK)
        status = fa_buffer_wrap_host(device, o, bytes, &out);
    if (status == FA_OK)
        status = fa_buffer_create(device, fa_sharded_layer_workspace(layer), &workspace);
    const fa_attention_args attention = {
        .struct_size = sizeof(attention), .q = read, .k = read, .v = read, .o = out, .workspace = workspace};
    const fa_sharded_layer_args args = {.struct_size = sizeof(args), .attention = &attention, .w = w, .y = y};
    for (int turn = 0; turn < 3 && status == FA_OK; turn++) {
        char own = 0, all[MOST_RANKS];
        status = fa_allgather(r->transport, &own, all, 1); /* all begin together */
        const double start = fa_clock();
        if (status == FA_OK)
            status = fa_sharded_layer_run(layer, queue, &args);
        const double took = fa_clock() - start, before = t->seconds[r->transport->rank];
        t->seconds[r->transport->rank] = before > 0 && before < took ? before : took;
    }
    if (layer && fa_sharded_layer_get_info(layer, &info) == FA_OK)
        t->overlapped[r->transport->rank] = info.overlapped;
    fa_buffer_destroy(read);
    fa_buffer_destroy(out);
    fa_buffer_destroy(workspace);
    fa_queue_destroy(queue);
    fa_sharded_layer_destroy(layer);
    return status;
}

static void time_rank(a_rank *r)
{
    const fa_context_options options = {.struct_size = sizeof(options), .threads = 1};
    fa_context *own = NULL;
    fa_device *device = NULL;
    float *in = calloc((size_t)TIMED_ROWS * TIMED_INNER, sizeof(*in)),
          *w = calloc((size_t)TIMED_INNER * TIMED_WIDTH, sizeof(*w)),
          *o = calloc((size_t)TIMED_ROWS * TIMED_INNER, sizeof(*o)),
          *y = calloc((size_t)TIMED_ROWS * TIMED_WIDTH, sizeof(*y));
    fa_status status = in && w && o && y ? fa_context_create(&options, &own) : FA_OUT_OF_MEMORY;
    if (status == FA_OK)
        status = fa_device_open(own, "openmp", NULL, &device);
    if (status == FA_OK)
        status = time_runs(device, r, in, w, o, y);
    keep_status(r, status);
    fa_device_close(device);
    fa_context_destroy(own);
    free(in);
    free(w);
    free(o);
    free(y);
}

static double time_layer(int32_t ranks, double latency, double bandwidth, int64_t chunks)
{
    timing t = {.chunks = chunks};
    a_rank found[MOST_RANKS];
    double slowest = 0;
    on_ranks(ranks, latency, bandwidth, 20, time_rank, &t, found);
    for (int32_t r = 0; r < ranks; r++) {
        ck_assert_msg(found[r].status == FA_OK, "%s", found[r].message);
        ck_assert_int_eq(t.overlapped[r], chunks > 1);
        slowest = fmax(slowest, t.seconds[r]);
    }
    return slowest;
}

/*
 * A link that takes as long for y as computing it does: in turn that is twice the time, and in 4 chunks 5/4 of it. 0.85 leaves room
 * for a busy machine, which gets a few tries.
 */
START_TEST(hides_a_slow_link)
{
    const double bytes = (double)TIMED_ROWS * TIMED_WIDTH * sizeof(float);
    for (int32_t ranks = 2; ranks <= 4; ranks += 2) {
        double ratio = INFINITY;
        for (int turn = 0; turn < 12 && ratio > 0.85; turn++) {
            const double compute = time_layer(ranks, 0, 0, 1),
                         in_turn = time_layer(ranks, 1e-4, bytes / compute, 1),
                         overlapped = time_layer(ranks, 1e-4, bytes / compute, 4);
            ratio = fmin(ratio, overlapped / in_turn);
            printf("%d ranks: computing takes %.2f ms, in turn with the link %.2f ms, overlapped %.2f ms\n",
                   ranks, 1e3 * compute, 1e3 * in_turn, 1e3 * overlapped);
        }
        ck_assert_double_le(ratio, 0.85);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("layer");
    TCase *tc = add_context_case(suite, "layer");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, equals_the_oracle, 0, COUNT(kinds));
    tcase_add_test(tc, failures_of_ranks);
    tcase_add_test(tc, a_rank_that_fails_in_the_middle);
    tcase_add_test(tc, ranks_that_disagree);
    tcase_add_test(tc, refusals);
    tcase_add_test(tc, arguments);
    tc = add_context_case(suite, "slow link"); /* which is timed, and has a run of its own */
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, hides_a_slow_link);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
