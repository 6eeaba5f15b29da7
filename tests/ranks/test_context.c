/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts with sharded keys, on ranks that are threads, against the oracle of all keys. The argument is a backend's name. */
#include <stdio.h>
#include <string.h>

#include "tests/ranks/context_scene.h"
#include "tests/ranks/latent_scene.h"
#include "tests/ranks/on_ranks.h"

typedef struct task {
    fa_device *device;
    const context_scene *scene;
    int wrong[MOST_RANKS];
    int kind;
    int32_t absent; /* a rank that does not come */
} task;

static void run_rank(a_rank *r)
{
    task *t = r->user;
    if (r->transport->rank != t->absent)
        keep_status(r, context_scene_run(t->device, r->transport, t->scene, &t->wrong[r->transport->rank]));
}

static const char *backend = "openmp";

static fa_device *open_device(void)
{
    fa_device *device = NULL;
    ck_assert_msg(fa_device_open(context, backend, NULL, &device) == FA_OK, "%s", fa_last_error());
    return device;
}

START_TEST(equals_the_oracle)
{
    static const context_kind kinds[] = {{.rows = 1},
                                         {.rows = 3, .sinks = 1},
                                         {.rows = 1, .f16 = 1, .dynamic = 1},
                                         {.rows = 2, .dynamic = 1, .sinks = 1}};
    fa_device *device = open_device();
    for (int kind = 0; kind < COUNT(kinds); kind++) {
        const bool all = strcmp(backend, "openmp") == 0; /* elsewhere each kind may be programs to compile */
        for (int32_t ranks = all ? 1 : 3; ranks <= (all ? MOST_RANKS : 3); ranks++) {
            context_scene scene;
            a_rank found[MOST_RANKS];
            task t = {.device = device, .scene = &scene, .absent = -1};
            ck_assert_msg(context_scene_make(context, &kinds[kind], ranks, &scene) == FA_OK, "%s",
                          fa_last_error());
            on_ranks(ranks, 0, 0, 20, run_rank, &t, found);
            for (int32_t r = 0; r < ranks; r++) {
                ck_assert_msg(found[r].status == FA_OK, "%s", found[r].message);
                ck_assert_msg(t.wrong[r] == 0, "kind %d, rank %d of %d: %d are wrong", kind, r, ranks,
                              t.wrong[r]);
            }
            context_scene_release(&scene);
        }
    }
    fa_device_close(device);
}
END_TEST

static void run_latent(a_rank *r)
{
    task *t = r->user;
    keep_status(r,
                latent_scene_run(context, t->device, r->transport, t->kind, &t->wrong[r->transport->rank]));
}

START_TEST(a_latent_in_shards)
{
    for (int32_t ranks = 1; ranks <= MOST_RANKS; ranks++) {
        a_rank found[MOST_RANKS];
        task t = {.device = open_device(), .kind = ranks % 2 + 1};
        on_ranks(ranks, 0, 0, 20, run_latent, &t, found);
        for (int32_t r = 0; r < ranks; r++) {
            ck_assert_msg(found[r].status == FA_OK, "%s", found[r].message);
            ck_assert_msg(t.wrong[r] == 0, "rank %d of %d: %d are wrong", r, ranks, t.wrong[r]);
        }
        fa_device_close(t.device);
    }
}
END_TEST

/* Without sequences there is no memory, and nothing is gathered. */
static void run_empty(a_rank *r)
{
    const task *t = r->user;
    const fa_attention_desc d = make_desc(0, 2, 1, 1, 10, 16);
    const fa_attention_args args = {.struct_size = sizeof(args)};
    fa_sharded_context *made = NULL;
    fa_queue *queue = NULL;
    keep_status(r, fa_sharded_context_create(t->device, r->transport, &d, &made));
    if (r->status == FA_OK)
        keep_status(r, fa_queue_create(t->device, &queue));
    for (int turn = 0; turn < 2 && r->status == FA_OK; turn++)
        keep_status(r, fa_sharded_context_run(made, queue, &args));
    fa_queue_destroy(queue);
    fa_sharded_context_destroy(made);
}

START_TEST(no_sequences)
{
    a_rank found[MOST_RANKS];
    task t = {.device = open_device()};
    on_ranks(2, 0, 0, 10, run_empty, &t, found);
    for (int32_t r = 0; r < 2; r++)
        ck_assert_msg(found[r].status == FA_OK, "%s", found[r].message);
    fa_device_close(t.device);
}
END_TEST

START_TEST(a_rank_that_is_gone)
{
    static const context_kind kind = {.rows = 1};
    context_scene scene;
    a_rank found[MOST_RANKS];
    task t = {.device = open_device(), .scene = &scene, .absent = 0};
    ck_assert_int_eq(context_scene_make(context, &kind, 3, &scene), FA_OK);
    on_ranks(3, 0, 0, 0.3, run_rank, &t, found);
    for (int32_t r = 1; r < 3; r++) {
        ck_assert_int_eq(found[r].status, FA_RANK_LOST);
        ck_assert_double_lt(found[r].seconds, 0.3 + SLACK);
        ck_assert_msg(strstr(found[r].message, "rank 0 did not come within 0.3 s") != NULL, "%s",
                      found[r].message);
    }
    context_scene_release(&scene);
    fa_device_close(t.device);
}
END_TEST

/* Ranks whose descriptions differ in one field each. */
static void differ(a_rank *r)
{
    static const float sinks[2] = {0, 1};
    const task *t = r->user;
    const int32_t n = r->transport->rank;
    fa_attention_desc d = make_desc(t->kind == 0 && n == 1 ? 3 : 2, 2, t->kind == 8 ? 2 : 1 + n,
                                    t->kind == 1 && n == 1 ? 2 : 1, 10 * n, 16);
    fa_sharded_context *made = NULL;
    if (t->kind == 2 && n == 1)
        d.scale = 0.5F;
    if (t->kind == 3)
        d.sinks = sinks;
    static const int64_t one[] = {1, 1}, offsets[2][3] = {{0, 1, 2}, {0, 2, 2}};
    if (t->kind == 4 && n == 1)
        d.want_status = 1;
    if (t->kind == 5 && n == 1)
        d.lens_q = one;
    if (t->kind == 6 || t->kind == 7) { /* packed rows: other sequences', and one that no sequence has */
        d = make_desc(1, 2, 2, 2, 4, 16);
        d.k = d.v = fa_tensor_make(FA_F32, 2, 2, 4, 16);
        d.sequences = 2;
        d.cu_rows_q = offsets[t->kind == 6 ? n : 0];
        if (t->kind == 7 && n == 1)
            d.q.shape[2] = d.o.shape[2] = 3;
    }
    keep_status(r, fa_sharded_context_create(t->device, r->transport, &d, &made));
    fa_sharded_context_destroy(made);
}

START_TEST(ranks_that_disagree)
{
    static const char *const expected[][2] = {
        {"q.shape[0] is 2 on rank 0 and 3 on rank 1", "q.shape[0] is 3 on rank 1 and 2 on rank 0"},
        {"q.shape[2] is 1 on rank 0 and 2 on rank 1", "q.shape[2] is 2 on rank 1 and 1 on rank 0"},
        {"scale, as the bits of an f32, is", "scale, as the bits of an f32, is"},
        {"sinks are given on ranks 0 and 1, expected on one",
         "sinks are given on ranks 0 and 1, expected on one"},
        {"rank 1 failed to make a sharded context with FA_", "want_status"},
        {"rank 1 failed to make a sharded context with FA_UNSUPPORTED", "lens_q is given"},
        {"the checksum of offsets or lengths of rows is", "the checksum of offsets or lengths of rows is"},
        {"rank 1 failed to make a sharded context with FA_UNSUPPORTED",
         "cu_rows_q has 2 rows, expected all 3 of q"},
        {"", ""},
    };
    task t = {.device = open_device()};
    on_pairs(differ, &t, &t.kind, COUNT(expected), expected);
    fa_device_close(t.device);
}
END_TEST

/* A transport over that of one rank, whose gathers are counted; one of them is done and then fails. */
typedef struct failing {
    fa_transport over;
    int gathers, fails_at;
} failing;

static fa_status gather(void *user, const void *from, void *to, size_t bytes, double timeout, char *message,
                        size_t size)
{
    failing *f = user;
    const fa_status status = f->over.allgather(f->over.user, from, to, bytes, timeout, message, size);
    return ++f->gathers == f->fails_at ? FA_IO : status;
}

/* What a test makes of one rank's keys, and what it does with them. */
typedef struct alone {
    fa_sharded_context *made;
    fa_queue *queue;
    fa_attention_args args;
    failing *transport;
    fa_buffer *buffer, *workspace, *work;
} alone;

static fa_status make_alone(fa_device *device, const fa_transport *over, alone *a)
{
    enum { BYTES = 4096 };
    fa_attention_desc d = make_desc(1, 1, 1, 2, 4, 16);
    d.dynamic_lengths = 1;
    fa_transport t = *over;
    t.user = a->transport;
    t.allgather = gather;
    a->transport->over = *over;
    fa_status status = fa_sharded_context_create(device, &t, &d, &a->made);
    if (status == FA_OK)
        status = fa_queue_create(device, &a->queue);
    if (status == FA_OK)
        status = fa_buffer_create(device, BYTES, &a->buffer);
    if (status == FA_OK)
        status = fa_buffer_create(device, fa_sharded_context_workspace(a->made), &a->workspace);
    if (status == FA_OK)
        status = fa_buffer_create(device, fa_plan_work(fa_sharded_context_plan(a->made)), &a->work);
    a->args = (fa_attention_args){.struct_size = sizeof(a->args),
                                  .q = a->buffer,
                                  .k = a->buffer,
                                  .v = a->buffer,
                                  .o = a->buffer,
                                  .workspace = a->workspace,
                                  .k_offset = BYTES / 4,
                                  .v_offset = BYTES / 2,
                                  .o_offset = BYTES / 4 * 3};
    return status;
}

static void release_alone(alone *a)
{
    fa_queue_destroy(a->queue);
    fa_buffer_destroy(a->buffer);
    fa_buffer_destroy(a->workspace);
    fa_buffer_destroy(a->work);
    fa_sharded_context_destroy(a->made);
}

/* Keeps the status and the message of a call that is not the expected one, or that was not expected to say this. */
static bool is(a_rank *r, fa_status status, fa_status expected, const char *message)
{
    const bool same = status == expected && strstr(fa_last_error(), message);
    if (!same)
        (void)snprintf(r->message, sizeof(r->message), "%s and '%s', expected %s and '%s'",
                       fa_status_name(status), fa_last_error(), fa_status_name(expected), message);
    r->status = same ? FA_OK : FA_IO;
    return same;
}

/* A refused run is repeated. After one that fails behind its gather no other gathers. */
static void fail_behind_a_gather(a_rank *r)
{
    failing transport = {.fails_at = 4}; /* the first is that of making it */
    alone a = {.transport = &transport};
    bool good = is(r, make_alone(r->user, r->transport, &a), FA_OK, "");
    good = good && is(r, fa_sharded_context_run(a.made, a.queue, &a.args), FA_OK, "");
    a.args.q = NULL;
    good = good && is(r, fa_sharded_context_run(a.made, a.queue, &a.args), FA_INVALID, "args.q is NULL");
    a.args.q = a.buffer;
    good = good && is(r, fa_sharded_context_run(a.made, a.queue, &a.args), FA_OK, "");
    good = good && is(r, fa_sharded_context_run(a.made, a.queue, &a.args), FA_IO, "");
    good = good && is(r, fa_sharded_context_run(a.made, a.queue, &a.args), FA_RANK_LOST,
                      "an earlier run of the context failed");
    if (good && transport.gathers != 4)
        (void)snprintf(r->message, sizeof(r->message), "%d gathers, expected 4", transport.gathers);
    r->status = good && transport.gathers == 4 ? FA_OK : FA_IO;
    release_alone(&a);
}

/* Lengths of a run are those of keys: a row that a rank has no state of would be merged all the same. */
static void schedule_rows(a_rank *r)
{
    static const int64_t one = 1, offsets[] = {0, 1};
    const struct {
        fa_lengths lengths;
        const char *message;
    } list[] = {
        {{.sequences = 1}, "sequences is 1, expected 0: rows are the description's"},
        {{.lens_q = &one}, "lens_q is given, expected NULL: rows are the description's"},
        {{.lens_q32 = (const int32_t[]){1}}, "lens_q32 is given"},
        {{.cu_rows_q = offsets}, "cu_rows_q is given"},
        {{.lens_kv = &one}, ""},
    };
    failing transport = {.gathers = 0};
    alone a = {.transport = &transport};
    bool good = is(r, make_alone(r->user, r->transport, &a), FA_OK, "");
    for (int i = 0; i < COUNT(list) && good; i++) {
        fa_lengths lengths = list[i].lengths;
        lengths.struct_size = sizeof(lengths);
        good = is(r, fa_plan_schedule(fa_sharded_context_plan(a.made), a.queue, &lengths, a.work, 0),
                  i < COUNT(list) - 1 ? FA_INVALID : FA_OK, list[i].message);
    }
    a.args.work = a.work;
    good = good && is(r, fa_sharded_context_run(a.made, a.queue, &a.args), FA_OK, "");
    release_alone(&a);
}

START_TEST(lengths_of_keys_alone)
{
    fa_device *device = open_device();
    a_rank found[MOST_RANKS];
    on_ranks(1, 0, 0, 10, schedule_rows, device, found);
    ck_assert_msg(found[0].status == FA_OK, "%s", found[0].message);
    fa_device_close(device);
}
END_TEST

START_TEST(a_failed_run)
{
    fa_device *device = open_device();
    a_rank found[MOST_RANKS];
    on_ranks(1, 0, 0, 10, fail_behind_a_gather, device, found);
    ck_assert_msg(found[0].status == FA_OK, "%s", found[0].message);
    fa_device_close(device);
}
END_TEST

static void make_listed(a_rank *r)
{
    static const fa_block_lists lists = {.struct_size = sizeof(lists)};
    fa_attention_desc d = make_desc(1, 1, 1, 4, 4, 16);
    fa_sharded_context *made = NULL;
    d.lists = &lists;
    keep_status(r, fa_sharded_context_create(r->user, r->transport, &d, &made));
    fa_sharded_context_destroy(made);
}

START_TEST(refusals)
{
    fa_device *device = open_device();
    a_rank found[MOST_RANKS];
    on_ranks(1, 0, 0, 10, make_listed, device, found);
    ck_assert_int_eq(found[0].status, FA_UNSUPPORTED);
    ck_assert_ptr_nonnull(
        strstr(found[0].message, "lists is given, expected NULL: a sharded context does not serve it"));
    const fa_attention_desc d = make_desc(1, 1, 1, 1, 4, 16);
    fa_sharded_context *made = NULL;
    ck_assert_int_eq(fa_sharded_context_create(device, NULL, &d, &made), FA_INVALID);
    assert_message("transport is NULL");
    ck_assert_int_eq(fa_sharded_context_create(NULL, NULL, &d, &made), FA_INVALID);
    assert_message("device is NULL");
    ck_assert_int_eq(fa_sharded_context_run(NULL, NULL, NULL), FA_INVALID);
    assert_message("context is NULL");
    ck_assert_uint_eq(fa_sharded_context_workspace(NULL), 0);
    ck_assert_ptr_null(fa_sharded_context_plan(NULL));
    fa_sharded_context_destroy(NULL);
    fa_device_close(device);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1)
        backend = argv[1];
    const int missing = look_for_device(backend);
    if (missing)
        return missing;
    Suite *suite = suite_create("sharded context");
    TCase *tc = add_context_case(suite, "sharded context");
    tcase_add_test(tc, equals_the_oracle);
    if (strcmp(backend, "openmp") == 0) /* a layer projects in host memory */
        tcase_add_test(tc, a_latent_in_shards);
    tcase_add_test(tc, no_sequences);
    tcase_add_test(tc, a_rank_that_is_gone);
    tcase_add_test(tc, ranks_that_disagree);
    tcase_add_test(tc, a_failed_run);
    tcase_add_test(tc, lengths_of_keys_alone);
    tcase_add_test(tc, refusals);
    return run_unforked(suite);
}
