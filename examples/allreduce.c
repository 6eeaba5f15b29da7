/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer whose heads are divided among ranks: each rank computes its heads and its rows of the output projection, chunk by
 * chunk, and a chunk is summed over the ranks while the next one is computed. The ranks are two threads over a link of
 * 0.1 ms and 1 GB/s:
 *
 *   cc allreduce.c $(pkg-config --cflags --libs fastattn) -lm -pthread -o allreduce && ./allreduce
 *
 * With -DWITH_MPI they are the processes of mpirun:
 *
 *     mpicc -DWITH_MPI allreduce.c $(pkg-config --cflags --libs fastattn) -lm -o allreduce && mpirun -n 2 ./allreduce
 *
 * Exit status 77: the module for MPI is not here. The reason is printed.
 */
#include <fastattn/fastattn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef WITH_MPI
#include <mpi.h>
#else
#include <pthread.h>
#endif

enum { HEADS = 4, ROWS = 1024, DIM = 64, WIDTH = 256, INNER = HEADS * DIM }; /* HEADS of each rank */

/* What a rank makes and gives back. */
typedef struct layer {
    fa_context *context;
    fa_device *device;
    fa_queue *queue;
    fa_sharded_layer *layer;
    fa_buffer *q, *k, *v, *o, *workspace;
    float *w, *y;
} layer;

static fa_status create(layer *l, const fa_transport *transport)
{
    fa_tensor rows = {
        .dtype = FA_F32, .shape = {1, HEADS, ROWS, DIM}, .stride = {ROWS * INNER, DIM, INNER, 1}};
    fa_attention_desc attention = {
        .struct_size = sizeof(attention),
        .q = rows,
        .k = rows,
        .v = rows,
        .o = rows, /* the heads of a row lie beside each other, as the projection takes them */
    };
    fa_sharded_layer_desc desc = {
        .struct_size = sizeof(desc), .attention = &attention, .width = WIDTH, .y = FA_F32, .w = FA_F32};
    const size_t bytes = ROWS * INNER * sizeof(float);
    fa_status status;
    if ((status = fa_context_create(NULL, &l->context)) != FA_OK ||
        (status = fa_device_open(l->context, "openmp", NULL, &l->device)) != FA_OK ||
        (status = fa_queue_create(l->device, &l->queue)) != FA_OK ||
        (status = fa_sharded_layer_create(l->device, transport, &desc, &l->layer)) != FA_OK ||
        (status = fa_buffer_create(l->device, bytes, &l->q)) != FA_OK ||
        (status = fa_buffer_create(l->device, bytes, &l->k)) != FA_OK ||
        (status = fa_buffer_create(l->device, bytes, &l->v)) != FA_OK ||
        (status = fa_buffer_create(l->device, bytes, &l->o)) != FA_OK ||
        (status = fa_buffer_create(l->device, fa_sharded_layer_workspace(l->layer), &l->workspace)) != FA_OK)
        return status;
    l->w = malloc(INNER * WIDTH * sizeof(float));
    l->y = malloc(ROWS * WIDTH * sizeof(float));
    return l->w && l->y ? FA_OK : FA_OUT_OF_MEMORY;
}

/* Scores are 0 everywhere, so each row of o is the mean of the values; those of rank r are all r + 1. All weights are 1 / INNER. */
static fa_status fill(const layer *l, int32_t rank)
{
    float *zeros = calloc(ROWS * INNER, sizeof(float)), *values = calloc(ROWS * INNER, sizeof(float));
    fa_status status = zeros && values ? FA_OK : FA_OUT_OF_MEMORY;
    for (int i = 0; values && i < ROWS * INNER; i++)
        values[i] = (float)(rank + 1);
    for (int i = 0; i < INNER * WIDTH; i++)
        l->w[i] = 1.0F / INNER;
    if (status == FA_OK)
        status = fa_buffer_write(l->queue, l->q, 0, zeros, ROWS * INNER * sizeof(float));
    if (status == FA_OK)
        status = fa_buffer_write(l->queue, l->k, 0, zeros, ROWS * INNER * sizeof(float));
    if (status == FA_OK)
        status = fa_buffer_write(l->queue, l->v, 0, values, ROWS * INNER * sizeof(float));
    free(zeros);
    free(values);
    return status;
}

static fa_status run(const layer *l)
{
    const fa_attention_args attention = {.struct_size = sizeof(attention),
                                         .q = l->q,
                                         .k = l->k,
                                         .v = l->v,
                                         .o = l->o,
                                         .workspace = l->workspace};
    const fa_sharded_layer_args args = {
        .struct_size = sizeof(args), .attention = &attention, .w = l->w, .y = l->y};
    return fa_sharded_layer_run(l->layer, l->queue, &args);
}

static void print_plan(const layer *l)
{
    fa_sharded_layer_info info = {.struct_size = sizeof(info)};
    if (fa_sharded_layer_get_info(l->layer, &info) != FA_OK)
        return;
    printf("%lld tokens in %lld chunks, projection by %s\n", (long long)info.tokens, (long long)info.chunks,
           info.projection);
    printf(
        "modelled: attention %.3f ms, projection %.3f ms, allreduce %.3f ms; in turn %.3f ms, so %.3f ms\n",
        1e3 * info.attention_seconds, 1e3 * info.projection_seconds, 1e3 * info.reduce_seconds,
        1e3 * info.in_turn_seconds, 1e3 * info.seconds);
}

static void destroy(layer *l)
{
    fa_queue_destroy(l->queue);
    fa_sharded_layer_destroy(l->layer);
    fa_buffer_destroy(l->workspace);
    fa_buffer_destroy(l->o);
    fa_buffer_destroy(l->v);
    fa_buffer_destroy(l->k);
    fa_buffer_destroy(l->q);
    fa_device_close(l->device);
    fa_context_destroy(l->context);
    free(l->w);
    free(l->y);
}

/* One rank, from beginning to end. The exit status. */
static int run_rank(const fa_transport *transport)
{
    layer l = {0};
    fa_status status = create(&l, transport);
    int wrong = 0;
    if (status == FA_OK)
        status = fill(&l, transport->rank);
    if (status == FA_OK)
        status = run(&l);
    if (status != FA_OK)
        fprintf(stderr, "rank %d: %s: %s\n", transport->rank, fa_status_name(status), fa_last_error());
    const float sum = (float)(transport->ranks * (transport->ranks + 1) / 2);
    for (int i = 0; status == FA_OK && i < ROWS * WIDTH && !wrong; i++) {
        wrong = !(fabsf(l.y[i] - sum) <= 1e-4F * sum);
        if (wrong)
            fprintf(stderr, "rank %d: y[%d] is %g, expected %g\n", transport->rank, i, (double)l.y[i],
                    (double)sum);
    }
    if (status == FA_OK && transport->rank == 0)
        print_plan(&l);
    destroy(&l);
    return status != FA_OK || wrong;
}

#ifdef WITH_MPI
int main(int argc, char **argv)
{
    fa_context *context = NULL;
    fa_transport *transport = NULL;
    int level, failed = 1;
    (void)MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &level);
    fa_status status = fa_context_create(NULL, &context);
    if (status == FA_OK)
        status = fa_transport_create_mpi(context, NULL, &transport);
    if (status == FA_OK)
        status = fa_transport_measure(context, transport); /* for the number of chunks */
    if (status != FA_OK)
        fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    else
        failed = run_rank(transport);
    fa_transport_destroy(transport);
    fa_context_destroy(context);
    if (failed && status != FA_UNSUPPORTED)
        (void)MPI_Abort(MPI_COMM_WORLD, failed); /* MPI_Finalize() would wait for a sum that never ends */
    (void)MPI_Finalize();
    return status == FA_UNSUPPORTED ? 77 : failed;
}
#else
enum { RANKS = 2 };

typedef struct thread {
    pthread_t id;
    const fa_transport *transport;
    int failed;
} thread;

static void *run_thread(void *argument)
{
    thread *t = argument;
    t->failed = run_rank(t->transport);
    return NULL;
}

int main(void)
{
    const fa_transport_local_desc desc = {
        .struct_size = sizeof(desc), .ranks = RANKS, .latency = 1e-4, .bandwidth = 1e9};
    fa_context *context = NULL;
    fa_transport *transport[RANKS] = {NULL};
    thread threads[RANKS];
    int failed = 0;
    fa_status status = fa_context_create(NULL, &context);
    if (status == FA_OK)
        status = fa_transport_create_local(context, &desc, transport);
    if (status != FA_OK)
        fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    for (int i = 0; status == FA_OK && i < RANKS; i++) {
        threads[i] = (thread){.transport = transport[i]};
        if (pthread_create(&threads[i].id, NULL, run_thread, &threads[i]) != 0)
            exit(1); /* the other rank would wait for its time-out */
    }
    for (int i = 0; status == FA_OK && i < RANKS; i++) {
        (void)pthread_join(threads[i].id, NULL);
        failed |= threads[i].failed;
    }
    for (int i = 0; i < RANKS; i++)
        fa_transport_destroy(transport[i]);
    fa_context_destroy(context);
    return status != FA_OK || failed;
}
#endif
