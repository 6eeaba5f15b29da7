/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sparse attention in three ways: a neighbourhood on a grid, MoBA's gate, which chooses on the device, and a list of
 * keys for each row.
 *
 *   cc sparse.c $(pkg-config --cflags --libs fastattn) -lm -o sparse && FASTATTN_BACKEND=openmp ./sparse
 *
 * Exit status 77: the named device is not here. The reason is printed.
 */
#include <fastattn/fastattn.h>
#include <math.h>
#include <stdio.h>

enum { SIDE = 32, TOKENS = SIDE * SIDE, DIM = 64, SIZE = TOKENS * DIM };
enum { WINDOW = 5, CHUNK = 64, CHUNKS = TOKENS / CHUNK, LISTED = 8 };

static float q[SIZE], k[SIZE], v[SIZE], o[SIZE];

/* Everything that must be given back. */
typedef struct machine {
    fa_context *context;
    fa_device *device;
    fa_queue *queue;
    fa_plan *plan;
    fa_gate *gate;
    fa_key_lists *lists;
    fa_buffer *q, *k, *v, *o, *mask, *scratch, *workspace, *work;
} machine;

static fa_attention_desc describe(void)
{
    const fa_tensor tensor = fa_tensor_make(FA_F32, 1, 1, TOKENS, DIM);
    return (fa_attention_desc){
        .struct_size = sizeof(fa_attention_desc), .q = tensor, .k = tensor, .v = tensor, .o = tensor};
}

static fa_status open_machine(machine *m)
{
    fa_status status;
    if ((status = fa_context_create(NULL, &m->context)) != FA_OK ||
        (status = fa_device_open(m->context, NULL, NULL, &m->device)) != FA_OK ||
        (status = fa_queue_create(m->device, &m->queue)) != FA_OK ||
        (status = fa_buffer_create(m->device, sizeof(q), &m->q)) != FA_OK ||
        (status = fa_buffer_create(m->device, sizeof(k), &m->k)) != FA_OK ||
        (status = fa_buffer_create(m->device, sizeof(v), &m->v)) != FA_OK)
        return status;
    return fa_buffer_create(m->device, sizeof(o), &m->o);
}

/* The queue first: it waits for what still runs. NULL is allowed. */
static void close_machine(machine *m)
{
    fa_queue_destroy(m->queue);
    fa_plan_destroy(m->plan);
    fa_gate_destroy(m->gate);
    fa_key_lists_destroy(m->lists);
    fa_buffer_destroy(m->mask);
    fa_buffer_destroy(m->scratch);
    fa_buffer_destroy(m->workspace);
    fa_buffer_destroy(m->work);
    fa_buffer_destroy(m->q);
    fa_buffer_destroy(m->k);
    fa_buffer_destroy(m->v);
    fa_buffer_destroy(m->o);
    fa_device_close(m->device);
    fa_context_destroy(m->context);
}

static fa_status write_inputs(const machine *m)
{
    fa_status status;
    if ((status = fa_buffer_write(m->queue, m->q, 0, q, sizeof(q))) != FA_OK ||
        (status = fa_buffer_write(m->queue, m->k, 0, k, sizeof(k))) != FA_OK)
        return status;
    return fa_buffer_write(m->queue, m->v, 0, v, sizeof(v));
}

static fa_attention_args arguments(const machine *m)
{
    return (fa_attention_args){.struct_size = sizeof(fa_attention_args),
                               .q = m->q,
                               .k = m->k,
                               .v = m->v,
                               .o = m->o,
                               .workspace = m->workspace,
                               .work = m->work};
}

static fa_neighbourhood describe_grid(void)
{
    return (fa_neighbourhood){
        .struct_size = sizeof(fa_neighbourhood), .axes = 2, .size = {SIDE, SIDE}, .kernel = {WINDOW, WINDOW}};
}

/* A neighbourhood is a field of the description, and its lists are the library's. */
static fa_status meet_neighbours(machine *m)
{
    const fa_neighbourhood grid = describe_grid();
    fa_attention_desc desc = describe();
    desc.neighbourhood = &grid;
    fa_status status;
    if ((status = fa_plan_create(m->device, &desc, &m->plan)) != FA_OK ||
        (status = fa_buffer_create(m->device, fa_plan_workspace(m->plan), &m->workspace)) != FA_OK)
        return status;
    const fa_attention_args args = arguments(m);
    return fa_plan_run(m->plan, m->queue, &args);
}

/* The lists of the description are sizes alone: the gate leaves their contents on the device. */
static fa_status create_gate(machine *m)
{
    fa_attention_desc desc = describe();
    const fa_gate_desc gate = {
        .struct_size = sizeof(gate), .q = desc.q, .k = desc.k, .block_keys = CHUNK, .topk = 1};
    fa_block_lists lists = {.struct_size = sizeof(lists)};
    fa_status status;
    if ((status = fa_gate_create(m->device, &gate, &m->gate)) != FA_OK ||
        (status = fa_gate_lists(m->gate, &lists)) != FA_OK)
        return status;
    desc.lists = &lists;
    desc.dynamic_lengths = 2;
    const size_t mask = (size_t)(lists.sequences * lists.heads * lists.row_blocks * lists.key_blocks);
    if ((status = fa_plan_create(m->device, &desc, &m->plan)) != FA_OK ||
        (status = fa_buffer_create(m->device, mask, &m->mask)) != FA_OK ||
        (status = fa_buffer_create(m->device, fa_gate_workspace(m->gate), &m->scratch)) != FA_OK ||
        (status = fa_buffer_create(m->device, fa_plan_work(m->plan), &m->work)) != FA_OK)
        return status;
    return fa_buffer_create(m->device, fa_plan_workspace(m->plan), &m->workspace);
}

/* What follows the first call is a step: the host enqueues it, waits for nothing and learns nothing. */
static fa_status meet_chosen_blocks(machine *m)
{
    const fa_device_lengths lengths = {.struct_size = sizeof(lengths)}; /* those of the tensors */
    fa_status status;
    if ((status = create_gate(m)) != FA_OK ||
        (status = fa_plan_schedule_device(m->plan, m->queue, &lengths, m->work, 0)) != FA_OK)
        return status;
    const fa_gate_args gate = {
        .struct_size = sizeof(gate), .q = m->q, .k = m->k, .mask = m->mask, .workspace = m->scratch};
    const fa_device_lists lists = {.struct_size = sizeof(lists), .mask = m->mask};
    const fa_attention_args args = arguments(m);
    if ((status = fa_gate_run(m->gate, m->queue, &gate)) != FA_OK ||
        (status = fa_plan_schedule_lists(m->plan, m->queue, &lists, m->work, 0)) != FA_OK)
        return status;
    return fa_plan_run(m->plan, m->queue, &args);
}

static int32_t listed(int row, int n)
{
    return (row + 100 * n) % TOKENS;
}

/* The list of each row comes from the host. */
static fa_status meet_listed_keys(machine *m)
{
    static int32_t indices[TOKENS * LISTED];
    for (int i = 0; i < TOKENS * LISTED; i++)
        indices[i] = listed(i / LISTED, i % LISTED);
    fa_attention_desc desc = describe();
    desc.scale_is_set = 1; /* to 0: all keys of a list weigh the same, as the check below expects */
    const fa_key_lists_desc lists = {.struct_size = sizeof(lists), .attention = &desc, .topk = LISTED};
    fa_status status;
    if ((status = fa_key_lists_create(m->device, &lists, &m->lists)) != FA_OK ||
        (status = fa_buffer_create(m->device, fa_key_lists_workspace(m->lists), &m->workspace)) != FA_OK ||
        (status = fa_buffer_create(m->device, fa_key_lists_work(m->lists), &m->work)) != FA_OK ||
        (status = fa_key_lists_schedule(m->lists, m->queue, indices, NULL, 0, m->work, 0)) != FA_OK)
        return status;
    const fa_attention_args args = arguments(m);
    return fa_key_lists_run(m->lists, m->queue, &args);
}

/* Where a window around x begins that the borders shift inwards. */
static int begin_of(int x)
{
    const int begin = x - WINDOW / 2;
    return begin < 0 ? 0 : begin > SIDE - WINDOW ? SIDE - WINDOW : begin;
}

/* The means of the numbers of the keys that a row sees. */
static double mean_of_neighbours(int token)
{
    const double middle = (WINDOW - 1) / 2.0;
    return (begin_of(token / SIDE) + middle) * SIDE + begin_of(token % SIDE) + middle;
}

static double mean_of_chosen(int row)
{
    return row % CHUNKS * CHUNK + (CHUNK - 1) / 2.0;
}

static double mean_of_listed(int row)
{
    double sum = 0;
    for (int n = 0; n < LISTED; n++)
        sum += listed(row, n);
    return sum / LISTED;
}

/* One way, from the first call to the last. Row i is token order[i], and values are numbers of tokens. */
static fa_status attend(const char *name, fa_status (*meet)(machine *), double (*mean)(int),
                        const int32_t *order)
{
    machine m = {0};
    for (int i = 0; i < SIZE; i++)
        v[i] = (float)order[i / DIM];
    fa_status status = open_machine(&m);
    if (status == FA_OK)
        status = write_inputs(&m);
    if (status == FA_OK)
        status = meet(&m);
    if (status == FA_OK)
        status = fa_buffer_read(m.queue, m.o, 0, o, sizeof(o));
    if (status != FA_OK)
        fprintf(stderr, "%s: %s: %s\n", name, fa_status_name(status), fa_last_error());
    close_machine(&m);
    for (int i = 0; status == FA_OK && i < SIZE; i++) {
        const double expected = mean(order[i / DIM]);
        if (!(fabs((double)o[i] - expected) <= 1e-5 * TOKENS)) {
            fprintf(stderr, "%s: o[%d] is %g, expected %g\n", name, i, (double)o[i], expected);
            return FA_INVALID;
        }
    }
    if (status == FA_OK)
        printf("%s: %g ... %g\n", name, (double)o[0], (double)o[SIZE - 1]);
    return status;
}

int main(void)
{
    static int32_t patches[TOKENS], rows[TOKENS];
    const fa_neighbourhood grid = describe_grid();
    for (int i = 0; i < TOKENS; i++)
        rows[i] = i;
    /* A neighbourhood wants tokens in an order in which a block of them is a patch of the grid. q and k are 0 yet. */
    fa_status status = fa_sparse_neighbourhood_order(&grid, patches);
    if (status == FA_OK)
        status = attend("neighbourhood", meet_neighbours, mean_of_neighbours, patches);
    /* Each chunk of keys has a direction of its own, and a row looks for one of them. */
    for (int i = 0; i < TOKENS; i++) {
        q[i * DIM + i % CHUNKS] = 1;
        k[i * DIM + i / CHUNK] = 1;
    }
    if (status == FA_OK)
        status = attend("gate", meet_chosen_blocks, mean_of_chosen, rows);
    if (status == FA_OK)
        status = attend("lists of keys", meet_listed_keys, mean_of_listed, rows);
    return status == FA_NO_DEVICE ? 77 : status != FA_OK;
}
