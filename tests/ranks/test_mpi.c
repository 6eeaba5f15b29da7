/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One rank of a test over MPI; mpi.py runs several.
 *
 *   test_mpi FOLDER sums | layer | context | ring | stalled | killed | ring-killed
 *
 * Each rank writes a line to FOLDER/rank.N: "right", or what it found to be wrong; of the last three kinds, the status of a call to
 * which rank 1 does not come, or which it leaves in the middle, and the seconds that it took.
 */
#include <fastattn/fastattn.h>
#include <fastattn/reference.h>
#include <math.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/half.h"
#include "core/ranks/transport.h"
#include "tests/ranks/context_scene.h"
#include "tests/ranks/latent_scene.h"
#include "tests/ranks/layer_scene.h"
#include "tests/ranks/ring_scene.h"

enum { MOST = 100000 };
static fa_context *context;
static char wrong[1024];

static float element(fa_dtype dtype, int rank, int64_t i)
{
    char rounded[4] = {0};
    fa_store(dtype, rounded, 0, (float)((i * 37 + rank * 101) % 199 - 99) / 64.0F + 0.001F * (float)(i % 7));
    return fa_load(dtype, rounded, 0);
}

/* Whether a call went well. */
static int went(const char *what, fa_status status)
{
    if (status != FA_OK && wrong[0] == '\0')
        (void)snprintf(wrong, sizeof(wrong), "%s: %s: %s", what, fa_status_name(status), fa_last_error());
    return status == FA_OK;
}

/* Sums in any order: each of at most ranks - 1 additions is rounded to the type, and the sums before it are no larger than
 * that of the magnitudes. */
static void check_sums(const fa_transport *t, fa_dtype dtype, int64_t count)
{
    static char data[4 * MOST];
    const double unit = dtype == FA_F32 ? 0x1p-24 : dtype == FA_F16 ? 0x1p-11 : 0x1p-8;
    for (int64_t i = 0; i < count; i++)
        fa_store(dtype, data, i, element(dtype, t->rank, i));
    if (!went("allreduce", fa_allreduce(t, dtype, data, count)))
        return;
    for (int64_t i = 0; i < count; i++) {
        double sum = 0, magnitude = 0;
        for (int rank = 0; rank < t->ranks; rank++) {
            sum += (double)element(dtype, rank, i);
            magnitude += fabs((double)element(dtype, rank, i));
        }
        const double bound = (pow(1 + unit, t->ranks - 1) - 1) * magnitude;
        if (!(fabs((double)fa_load(dtype, data, i) - sum) <= bound) && wrong[0] == '\0')
            (void)snprintf(wrong, sizeof(wrong), "%s: element %lld of %lld is %g, expected %g +- %g",
                           fa_dtype_name(dtype), (long long)i, (long long)count,
                           (double)fa_load(dtype, data, i), sum, bound);
    }
}

static void check_gather(const fa_transport *t)
{
    int64_t own[2] = {t->rank, -t->rank}, all[2 * 64];
    if (!went("allgather", fa_allgather(t, own, all, sizeof(own))))
        return;
    for (int i = 0; i < 2 * t->ranks; i++) {
        if (all[i] != (i % 2 ? -(i / 2) : i / 2))
            (void)snprintf(wrong, sizeof(wrong), "gathered %lld at %d", (long long)all[i], i);
    }
}

/* Sizes that MPI sends at once, that it sends when they are asked for, and more than one piece of the module's. */
static void check_shift(const fa_transport *t)
{
    static const size_t sizes[] = {0, 1, 100000, ((size_t)1 << 22) + 5};
    const int before = (t->rank + t->ranks - 1) % t->ranks;
    unsigned char *sent = malloc(sizes[3]), *received = malloc(sizes[3]);
    for (int s = 0; s < 4 && sent && received; s++) {
        for (size_t i = 0; i < sizes[s]; i++)
            sent[i] = (unsigned char)((size_t)t->rank * 31 + i % 251);
        if (!went("shift", fa_shift(t, sent, received, sizes[s])))
            break;
        for (size_t i = 0; i < sizes[s]; i++) {
            if (received[i] != (unsigned char)((size_t)before * 31 + i % 251) && wrong[0] == '\0')
                (void)snprintf(wrong, sizeof(wrong), "shift: byte %zu of %zu is %d", i, sizes[s],
                               received[i]);
        }
    }
    free(sent);
    free(received);
}

static void check_agreement(const fa_transport *t)
{
    char expected[64];
    const fa_rank_word word = {"width", t->rank == t->ranks - 1 ? 9 : 8};
    const fa_status status = fa_ranks_agree(context, t, "a layer", FA_OK, &word, 1, NULL, 0);
    (void)snprintf(expected, sizeof(expected), "width is %lld on rank %d and %d on rank",
                   (long long)word.value, t->rank, t->rank == t->ranks - 1 ? 8 : 9);
    if (t->ranks > 1 && (status != FA_INVALID || !strstr(fa_last_error(), expected)))
        (void)snprintf(wrong, sizeof(wrong), "ranks that differ: %s: %s", fa_status_name(status),
                       fa_last_error());
}

static void check_transport(fa_transport *t)
{
    static const fa_dtype types[] = {FA_F32, FA_F16, FA_BF16};
    static const int64_t counts[] = {0, 1, 5, 1000, MOST};
    for (int type = 0; type < 3; type++) {
        for (int i = 0; i < 5; i++)
            check_sums(t, types[type], counts[i]);
    }
    check_gather(t);
    check_shift(t);
    check_agreement(t);
    if (went("measure", fa_transport_measure(context, t)) && !(t->latency > 0 && t->bandwidth > 0))
        (void)snprintf(wrong, sizeof(wrong), "measured %g s, %g B/s", t->latency, t->bandwidth);
}

/* The world as it is, and a communicator of the caller's whose ranks are numbered the other way round. */
static void check_all(void)
{
    int rank, ranks;
    MPI_Comm turned;
    MPI_Errhandler before, after;
    fa_transport *t;
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    (void)MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (went("the world", fa_transport_create_mpi(context, NULL, &t))) {
        check_transport(t);
        fa_transport_destroy(t);
    }
    (void)MPI_Comm_split(MPI_COMM_WORLD, 0, -rank, &turned);
    (void)MPI_Comm_get_errhandler(turned, &before);
    if (went("a communicator", fa_transport_create_mpi(context, &turned, &t))) {
        if (t->rank != ranks - 1 - rank || t->ranks != ranks || !t->any_thread)
            (void)snprintf(wrong, sizeof(wrong), "rank %d of %d in a communicator that was turned", t->rank,
                           t->ranks);
        check_transport(t);
        fa_transport_destroy(t);
    }
    (void)MPI_Comm_get_errhandler(turned, &after);
    if (before != after)
        (void)snprintf(wrong, sizeof(wrong), "the communicator's error handler was changed");
    (void)MPI_Comm_free(&turned);
}

/* A layer in one chunk and in several, each within the bound of the oracle. */
static void check_layer(void)
{
    static const layer_kind kinds[] = {{.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT},
                                       {.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT, .packed = 1, .y = FA_F16},
                                       {.y = FA_BF16, .w = FA_BF16}};
    static float y[TOKENS * WIDTH];
    fa_device *device = NULL;
    fa_transport *t = NULL;
    if (!went("the world", fa_transport_create_mpi(context, NULL, &t)) ||
        !went("a device", fa_device_open(context, "openmp", NULL, &device)))
        return;
    for (int kind = 0; kind < 3; kind++) {
        layer_scene scene;
        if (!went("a scene", layer_scene_make(context, &kinds[kind], t->ranks, &scene)))
            return;
        for (int64_t chunks = 1; chunks <= 6; chunks += 5) {
            const layer_options options = {.chunks = chunks, .fails_at = -1};
            if (!went("a layer", layer_scene_run(device, t, &scene, &options, y, NULL, NULL)))
                return;
            const int off = layer_scene_compare(&scene, y);
            if (off > 0)
                (void)snprintf(wrong, sizeof(wrong), "kind %d in %lld chunks: %d elements are wrong", kind,
                               (long long)chunks, off);
        }
        layer_scene_release(&scene);
    }
    fa_device_close(device);
    fa_transport_destroy(t);
}

/* Keys of all ranks, within the bound of their oracle. */
static void check_context(void)
{
    static const context_kind kinds[] = {{.rows = 1, .f16 = 1}, {.rows = 3, .sinks = 1, .dynamic = 1}};
    fa_device *device = NULL;
    fa_transport *t = NULL;
    if (!went("the world", fa_transport_create_mpi(context, NULL, &t)) ||
        !went("a device", fa_device_open(context, "openmp", NULL, &device)))
        return;
    for (int kind = 0; kind < 2; kind++) {
        context_scene scene;
        int off = 0;
        if (!went("a scene", context_scene_make(context, &kinds[kind], t->ranks, &scene)))
            return;
        if (went("a context", context_scene_run(device, t, &scene, &off)) && off > 0)
            (void)snprintf(wrong, sizeof(wrong), "kind %d: %d elements are wrong", kind, off);
        context_scene_release(&scene);
    }
    int off = 0;
    if (went("a latent in shards", latent_scene_run(context, device, t, 2, &off)) && off > 0)
        (void)snprintf(wrong, sizeof(wrong), "a latent in shards: %d elements are wrong", off);
    fa_device_close(device);
    fa_transport_destroy(t);
}

/* Tokens of all ranks, which do not divide, within the bound of their oracle. */
static void check_ring(void)
{
    static const ring_kind kinds[] = {
        {.tokens = 61, .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT, .f16 = 1, .by_token = 1},
        {.tokens = 83, .sinks = 1, .no_lse = 1},
        {.tokens = 83, .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT, .window_left = 19, .sinks = 1},
        {.tokens = 61, .slopes = 1, .softcap = 5}};
    fa_device *device = NULL;
    fa_transport *t = NULL;
    if (!went("the world", fa_transport_create_mpi(context, NULL, &t)) ||
        !went("a device", fa_device_open(context, "openmp", NULL, &device)))
        return;
    for (int kind = 0; kind < (int)(sizeof(kinds) / sizeof(kinds[0])); kind++) {
        ring_scene scene;
        int off = 0;
        if (!went("a scene", ring_scene_make(context, &kinds[kind], t->ranks, &scene)))
            return;
        if (went("a ring", ring_scene_run(device, t, &scene, &off)) && off > 0)
            (void)snprintf(wrong, sizeof(wrong), "kind %d: %d elements are wrong", kind, off);
        ring_scene_release(&scene);
    }
    fa_device_close(device);
    fa_transport_destroy(t);
}

static void report(const char *folder, int rank, const char *text)
{
    char path[1024];
    (void)snprintf(path, sizeof(path), "%s/rank.%d", folder, rank);
    FILE *file = fopen(path, "w");
    if (file) {
        (void)fprintf(file, "%s\n", text);
        (void)fclose(file);
    }
}

static fa_transport dying;

/* What the ring of a rank calls that dies in its second shift. */
static fa_status shift_and_die(void *user, const void *from, void *to, size_t bytes, double timeout,
                               char *message, size_t size)
{
    static int shifts;
    if (shifts++ == 1)
        (void)raise(SIGKILL);
    return dying.shift(user, from, to, bytes, timeout, message, size);
}

/* A ring of which rank 1 dies on the way. Who has all keys by then misses it in the next run. What others wait for ends, and
 * their transport serves no more. */
static void lose_one_in_a_ring(const char *folder)
{
    static const ring_kind kind = {.tokens = 61, .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT};
    ring_scene scene;
    char text[1200] = "";
    int off = 0;
    fa_device *device = NULL;
    fa_transport *t = NULL;
    if (!went("the world", fa_transport_create_mpi(context, NULL, &t)) ||
        !went("a device", fa_device_open(context, "openmp", NULL, &device)) ||
        !went("a scene", ring_scene_make(context, &kind, t->ranks, &scene)))
        return;
    t->timeout = 1;
    dying = *t;
    fa_transport mine = *t;
    mine.shift = t->rank == 1 ? shift_and_die : t->shift;
    const double start = fa_clock();
    const fa_status status = ring_scene_run(device, &mine, &scene, &off),
                    again = fa_allgather(t, text, text, 0);
    (void)snprintf(text, sizeof(text), "%s %s %.3f %s", fa_status_name(status), fa_status_name(again),
                   fa_clock() - start, fa_last_error());
    report(folder, t->rank, text);
    (void)sleep(2); /* mpirun may end all when one ends */
    _exit(0);       /* MPI_Finalize() waits for what never comes */
}

/* Rank 1 dies, or does nothing for long. The others see that, and that it stays so. */
static void lose_one(const char *folder, int die)
{
    float data[1000] = {0};
    char text[1200];
    fa_transport *t;
    if (!went("the world", fa_transport_create_mpi(context, NULL, &t)))
        return;
    t->timeout = 1;
    (void)went("a first call", fa_allreduce(t, FA_F32, data, 1000));
    if (t->rank == 1 && die)
        (void)raise(SIGKILL);
    if (t->rank == 1)
        (void)sleep(6);
    const double start = fa_clock();
    const fa_status status = fa_allreduce(t, FA_F32, data, 1000), again = fa_allreduce(t, FA_F32, data, 1000);
    (void)snprintf(text, sizeof(text), "%s %s %.3f %s%s", fa_status_name(status), fa_status_name(again),
                   fa_clock() - start, wrong, fa_last_error());
    report(folder, t->rank, text);
    (void)sleep(3); /* mpirun may end all when one ends */
    fa_transport_destroy(t);
    fa_context_destroy(context);
    _exit(0); /* MPI_Finalize() waits for what never comes */
}

int main(int argc, char **argv)
{
    int level, rank;
    if (argc != 3)
        return 2;
    if (!went("a context", fa_context_create(NULL, &context)))
        return 1;
    fa_transport *none;
    if (fa_transport_create_mpi(context, NULL, &none) != FA_INVALID ||
        !strstr(fa_last_error(), "not initialised"))
        (void)snprintf(wrong, sizeof(wrong), "before MPI_Init(): %s", fa_last_error());
    (void)MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &level);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (strcmp(argv[2], "sums") == 0)
        check_all();
    else if (strcmp(argv[2], "layer") == 0)
        check_layer();
    else if (strcmp(argv[2], "context") == 0)
        check_context();
    else if (strcmp(argv[2], "ring") == 0)
        check_ring();
    else if (strcmp(argv[2], "ring-killed") == 0)
        lose_one_in_a_ring(argv[1]);
    else
        lose_one(argv[1], strcmp(argv[2], "killed") == 0);
    report(argv[1], rank, wrong[0] ? wrong : "right");
    fa_context_destroy(context);
    (void)MPI_Finalize();
    return wrong[0] != '\0';
}
