/* SPDX-License-Identifier: Apache-2.0 */
/* Rings, on ranks that are threads, against the oracle of the whole sequence. The argument is a backend's name. */
#include <stdio.h>
#include <string.h>

#include "core/ranks/shares.h"
#include "tests/ranks/on_ranks.h"
#include "tests/ranks/ring_scene.h"

typedef struct task {
    fa_device *device;
    const ring_scene *scene;
    int wrong[MOST_RANKS];
    int kind;
    int32_t in_turn; /* 1: no other thread calls the transport */
    int32_t absent;  /* a rank that comes to `shifts` shifts and to no more; -1: none */
    int32_t shifts;
} task;

static int64_t keys_of(const fa_ring_rule *rule, int64_t tokens, int32_t ranks, int32_t rank, int piece,
                       int32_t from)
{
    fa_ring_part part[FA_RING_PIECES];
    int64_t keys = 0;
    for (int n = 0, parts = fa_ring_parts(rule, tokens, ranks, rank, piece, from, part); n < parts; n++)
        keys += part[n].keys;
    return keys;
}

/* Whole chunks before a piece and its own: all that its rows see, from whichever rank it comes. */
static int64_t check_keys(int64_t tokens, int32_t ranks, int32_t rank)
{
    static const fa_ring_rule masked = {.mask = {.left = FA_UNLIMITED, .right = 1}},
                              open = {.mask = {.left = FA_UNLIMITED, .right = FA_UNLIMITED}};
    const fa_share own = fa_share_of(tokens, ranks, rank);
    int64_t pairs = 0;
    for (int piece = 0; piece < FA_RING_PIECES; piece++) {
        int64_t causal = 0, full = 0;
        for (int32_t step = 0; step < ranks; step++) {
            const int32_t from = fa_ring_source(ranks, rank, step);
            causal += keys_of(&masked, tokens, ranks, rank, piece, from);
            full += keys_of(&open, tokens, ranks, rank, piece, from);
        }
        ck_assert_int_eq(causal, own.count[piece] > 0 ? own.first[piece] + own.count[piece] : 0);
        ck_assert_int_eq(full, own.count[piece] > 0 ? tokens : 0);
        pairs += own.count[piece] * causal - own.count[piece] * (own.count[piece] - 1) / 2;
    }
    return pairs;
}

/* Whether a row of the sequence sees a key of it, told by the one part that has the key. No part is seen by no row. */
static void check_part(const fa_ring_rule *rule, const fa_share *own, int piece, const fa_share *keys,
                       const fa_ring_part *part, bool seen[32][32])
{
    const fa_mask m = {.len_kv = (int)part->keys,
                       .diagonal = (int)part->diagonal,
                       .left = rule->mask.left,
                       .right = rule->mask.right};
    int some = 0;
    for (int64_t i = 0; i < own->count[piece]; i++) {
        for (int64_t j = 0; j < part->keys; j++) {
            const int64_t row = part->row + j, first = keys->count[0],
                          key = row < first ? keys->first[0] + row : keys->first[1] + row - first;
            const bool sees = !part->placed || fa_mask_visible(m, (int)i, (int)j);
            ck_assert(!seen[own->first[piece] + i][key]);
            seen[own->first[piece] + i][key] = sees;
            some += sees;
        }
    }
    ck_assert_int_gt(some, 0);
}

/* Parts of all ranks together are the mask of the whole sequence. */
START_TEST(parts)
{
    static const int window[] = {1, 2, 5, 9, FA_UNLIMITED};
    for (int i = 0; i < 2 * COUNT(window) * COUNT(window); i++) {
        const fa_ring_rule rule = {
            .mask = {.left = window[i / 2 % COUNT(window)], .right = window[i / 2 / COUNT(window)]},
            .sloped = i % 2};
        for (int32_t tokens = 1; tokens <= 29; tokens += 7) {
            for (int32_t ranks = 1; ranks <= 5; ranks++) {
                bool seen[32][32] = {{false}};
                for (int32_t n = 0; n < ranks * ranks * FA_RING_PIECES; n++) {
                    const int32_t rank = n / FA_RING_PIECES / ranks, from = n / FA_RING_PIECES % ranks;
                    const fa_share own = fa_share_of(tokens, ranks, rank),
                                   keys = fa_share_of(tokens, ranks, from);
                    fa_ring_part part[FA_RING_PIECES];
                    const int count =
                        fa_ring_parts(&rule, tokens, ranks, rank, n % FA_RING_PIECES, from, part);
                    for (int c = 0; c < count; c++)
                        check_part(&rule, &own, n % FA_RING_PIECES, &keys, &part[c], seen);
                }
                const fa_mask whole = fa_mask_of(rule.mask, tokens, tokens, 0);
                for (int32_t row = 0; row < tokens; row++) {
                    for (int32_t key = 0; key < tokens; key++)
                        ck_assert_int_eq(seen[row][key], fa_mask_visible(whole, row, key));
                }
            }
        }
    }
}
END_TEST

/* Each token is of one rank, all ranks have about as many, and about as much to compute. */
START_TEST(shares)
{
    static const int64_t lengths[] = {1, 2, 7, 8, 60, 61, 1000003, FA_MAX_LENGTH};
    for (int l = 0; l < COUNT(lengths); l++) {
        const int64_t tokens = lengths[l];
        for (int32_t ranks = 1; ranks <= FA_MAX_RANKS; ranks += ranks < 9 ? 1 : 203) {
            int64_t sum = 0, least = INT64_MAX, most = 0;
            for (int32_t rank = 0; rank < ranks; rank++) {
                int64_t first[2], count[2];
                ck_assert_int_eq(fa_ring_share(tokens, ranks, rank, first, count), FA_OK);
                ck_assert(first[0] + count[0] <= first[1] && first[1] + count[1] <= tokens);
                ck_assert_int_le(llabs(count[0] + count[1] - tokens / ranks), 2);
                sum += count[0] + count[1];
                const int64_t pairs = ranks < 9 ? check_keys(tokens, ranks, rank) : 0;
                least = pairs < least ? pairs : least;
                most = pairs > most ? pairs : most;
            }
            ck_assert_int_eq(sum, tokens);
            ck_assert_int_le(most - least, 3 * tokens);
        }
    }
}
END_TEST

START_TEST(refused_shares)
{
    int64_t first[2], count[2];
    ck_assert_int_eq(fa_ring_share(0, 1, 0, first, count), FA_INVALID);
    assert_message("tokens is 0, expected 1 to");
    ck_assert_int_eq(fa_ring_share(8, FA_MAX_RANKS + 1, 0, first, count), FA_INVALID);
    assert_message("ranks is 1025, expected 1 to 1024");
    ck_assert_int_eq(fa_ring_share(8, 2, 2, first, count), FA_INVALID);
    assert_message("rank is 2, expected 0 to 1");
    ck_assert_int_eq(fa_ring_share(8, 2, 1, NULL, count), FA_INVALID);
    assert_message("first is NULL");
}
END_TEST

static const char *backend = "openmp";

static fa_device *open_device(void)
{
    fa_device *device = NULL;
    ck_assert_msg(fa_device_open(context, backend, NULL, &device) == FA_OK, "%s", fa_last_error());
    return device;
}

/* A link that comes to some shifts and then to no more. */
typedef struct short_link {
    fa_transport over;
    int32_t left;
} short_link;

static fa_status shift_some(void *user, const void *from, void *to, size_t bytes, double timeout,
                            char *message, size_t size)
{
    short_link *l = user;
    if (l->left-- > 0)
        return l->over.shift(l->over.user, from, to, bytes, timeout, message, size);
    (void)snprintf(message, size, "the link is cut");
    return FA_IO;
}

static fa_status gather_over(void *user, const void *from, void *to, size_t bytes, double timeout,
                             char *message, size_t size)
{
    const short_link *l = user;
    return l->over.allgather(l->over.user, from, to, bytes, timeout, message, size);
}

static void run_rank(a_rank *r)
{
    task *t = r->user;
    const int32_t rank = r->transport->rank;
    fa_transport mine = *r->transport;
    short_link cut = {.over = mine, .left = t->shifts};
    mine.any_thread = !t->in_turn;
    if (rank == t->absent) {
        mine.user = &cut;
        mine.shift = shift_some;
        mine.allgather = gather_over;
    }
    keep_status(r, ring_scene_run(t->device, &mine, t->scene, &t->wrong[rank]));
}

static void check_scene(task *t, const ring_kind *kind, int32_t ranks)
{
    ring_scene scene;
    a_rank found[MOST_RANKS];
    ck_assert_msg(ring_scene_make(context, kind, ranks, &scene) == FA_OK, "%s", fa_last_error());
    t->scene = &scene;
    memset(t->wrong, 0, sizeof(t->wrong));
    on_ranks(ranks, 0, 0, 20, run_rank, t, found);
    for (int32_t r = 0; r < ranks; r++) {
        ck_assert_msg(found[r].status == FA_OK, "%lld tokens, rank %d of %d: %s", (long long)kind->tokens, r,
                      ranks, found[r].message);
        ck_assert_msg(t->wrong[r] == 0, "%lld tokens, mask %d, rank %d of %d: %d are wrong",
                      (long long)kind->tokens, (int)kind->mask, r, ranks, t->wrong[r]);
    }
    ring_scene_release(&scene);
}

START_TEST(equals_the_oracle)
{
    static const ring_kind kinds[] = {
        {.tokens = 61, .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT},
        {.tokens = 61, .by_token = 1, .sinks = 1},
        {.tokens = 64, .mask = FA_MASK_CAUSAL_TOP_LEFT, .f16 = 1, .by_token = 1, .sinks = 1},
        {.tokens = 5, .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT, .no_lse = 1},
        {.tokens = 1, .f16 = 1, .no_lse = 1},
        {.tokens = 61, .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT, .window_left = 13, .sinks = 1},
        {.tokens = 61, .window_left = 20, .window_right = 4, .f16 = 1, .by_token = 1, .sinks = 1},
        {.tokens = 61, .window_right = 1, .no_lse = 1},
        {.tokens = 40, .window_left = 100, .window_right = 100, .sinks = 1, .softcap = 3},
        {.tokens = 61, .mask = FA_MASK_CAUSAL_TOP_LEFT, .slopes = 1, .softcap = 5, .f16 = 1},
        {.tokens = 61, .slopes = 1, .window_left = 30, .by_token = 1, .sinks = 1},
    };
    task t = {.device = open_device(), .absent = -1};
    const bool all = strcmp(backend, "openmp") == 0; /* elsewhere each kind may be programs to compile */
    for (int kind = 0; kind < (all ? COUNT(kinds) : 1); kind++) {
        for (int32_t ranks = all ? 1 : 3; ranks <= (all ? MOST_RANKS : 3); ranks++)
            check_scene(&t, &kinds[kind], ranks);
    }
    t.in_turn = 1;
    check_scene(&t, &kinds[0], 3);
    fa_device_close(t.device);
}
END_TEST

/* A rank whose link breaks in the middle of its ring: it has the link's status, the others the time-out's. */
START_TEST(a_link_that_is_cut)
{
    static const ring_kind kind = {.tokens = 61, .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT};
    ring_scene scene;
    task t = {.device = open_device(), .scene = &scene, .absent = 1};
    ck_assert_int_eq(ring_scene_make(context, &kind, 4, &scene), FA_OK);
    for (t.shifts = 0; t.shifts < 3; t.shifts += 2) {
        a_rank found[MOST_RANKS];
        on_ranks(4, 0, 0, 0.5, run_rank, &t, found);
        for (int32_t r = 0; r < 4; r++) {
            ck_assert_msg(found[r].status == (r == 1 ? FA_IO : FA_RANK_LOST), "%s", found[r].message);
            ck_assert_msg(strstr(found[r].message,
                                 r == 1 ? "the link is cut" : "rank 1 did not come within 0.5 s") != NULL,
                          "%s", found[r].message);
            ck_assert_double_lt(found[r].seconds, 0.5 + SLACK);
        }
    }
    ring_scene_release(&scene);
    fa_device_close(t.device);
}
END_TEST

/* Rank 1's description, or its transport, changed in one way. */
static void differ(a_rank *r)
{
    static const float sinks[RING_HEADS] = {0};
    static const float slopes[RING_HEADS] = {0};
    static const int64_t lens[RING_BATCH] = {1, 1};
    const task *t = r->user;
    const int32_t other = r->transport->rank == 1;
    int64_t first[2], count[2];
    fa_transport mine = *r->transport;
    const int64_t tokens = t->kind == 0 && other ? 9 : 16;
    const ring_kind kind = {.tokens = tokens,
                            .mask = t->kind == 17 ? FA_MASK_NONE : FA_MASK_CAUSAL_BOTTOM_RIGHT,
                            .f16 = t->kind == 3 && other};
    (void)fa_ring_share(tokens, mine.ranks, mine.rank, first, count);
    fa_attention_desc d = ring_scene_describe(&kind, count[0] + count[1]);
    fa_ring_desc desc = {.struct_size = sizeof(desc), .attention = &d, .tokens = tokens};
    fa_ring *ring = NULL;
    if (other) {
        const fa_attention_desc more = ring_scene_describe(&kind, count[0] + count[1] + 1);
        d.q = t->kind == 1 ? more.q : d.q;
        d.o = t->kind == 1 ? more.o : d.o;
        d.k = t->kind == 2 ? more.k : d.k;
        d.v = t->kind == 2 ? more.v : d.v;
        d.mask = t->kind == 4 ? FA_MASK_NONE : d.mask;
        d.sinks = t->kind == 5 ? sinks : NULL;
        d.scale = t->kind == 6 ? 0.5F : 0;
        d.window_left = t->kind == 7 ? 4 : 0;
        d.alibi_slopes = t->kind == 8 ? slopes : NULL;
        d.lens_kv = t->kind == 9 ? lens : NULL;
        d.k.dtype = t->kind == 10 ? FA_E4M3 : d.k.dtype;
        desc.tokens = t->kind == 11 ? 0 : desc.tokens;
        desc.attention = t->kind == 12 ? NULL : &d;
        mine.shift = t->kind == 13 ? NULL : mine.shift;
        mine.device_memory = t->kind == 14;
        mine.rank = t->kind == 15 ? 0 : mine.rank;
        d.prefix = t->kind == 16;
        d.window_right = t->kind == 17 ? 3 : 0;
    }
    keep_status(r, fa_ring_create(t->device, &mine, &desc, &ring));
    if ((ring != NULL) != (r->status == FA_OK))
        r->status = FA_IO;
    fa_ring_destroy(ring);
}

START_TEST(ranks_that_disagree)
{
    static const char failed[] = "rank 1 failed to make a ring with FA_";
    static const char *const expected[][2] = {
        {"tokens is 16 on rank 0 and 9 on rank 1", "tokens is 9 on rank 1 and 16 on rank 0"},
        {failed,
         "attention.q.shape[2] is 9, expected 8: of 16 tokens, rank 1 of 2 has 4 from token 4 on and 4 "
         "from token 8 on"},
        {failed, "attention.k.shape[2] is 9, expected 8"},
        {"attention.k.dtype is 0 on rank 0 and 1 on rank 1", "attention.k.dtype is 1 on rank 1"},
        {"whether attention.mask is causal is 1 on rank 0 and 0 on rank 1",
         "whether attention.mask is causal"},
        {"whether there are attention.sinks is 0 on rank 0 and 1 on rank 1",
         "whether there are attention.sinks"},
        {"attention.scale, as the bits of an f32, is", "attention.scale, as the bits of an f32, is"},
        {"attention.window_left is 0 on rank 0 and 4 on rank 1", "attention.window_left is 4 on rank 1"},
        {"whether there are attention.alibi_slopes is 0 on rank 0 and 1 on rank 1",
         "whether there are attention.alibi_slopes"},
        {failed, "attention.lens_kv is given"},
        {failed, "attention.k.dtype is e4m3, a ring serves f32, f16 and bf16"},
        {failed, "tokens is 0, expected 1 to"},
        {failed, "attention is NULL"},
        {failed, "transport.shift is NULL: there are no rings over local"},
        {failed, "transport.device_memory is 1, and buffers of openmp are not addresses on a device"},
        {"transport.rank is 0 on rank 1, expected 1", "transport.rank is 0 on rank 1, expected 1"},
        {failed, "attention.prefix is given: a ring serves none"},
        {"attention.window_right is 0 on rank 0 and 3 on rank 1", "attention.window_right is 3 on rank 1"},
        {"", ""},
    };
    task t = {.device = open_device()};
    on_pairs(differ, &t, &t.kind, COUNT(expected), expected);
    fa_device_close(t.device);
}
END_TEST

/* A refused run is repeated; behind one that failed there is no other. */
static void run_often(a_rank *r)
{
    enum { ROWS = 8, BYTES = RING_BATCH * RING_HEADS * ROWS * RING_DIM_QK * 4 };
    const task *t = r->user;
    const ring_kind kind = {.tokens = 2 * ROWS, .no_lse = 1};
    const fa_attention_desc d = ring_scene_describe(&kind, ROWS);
    const fa_ring_desc desc = {.struct_size = sizeof(desc), .attention = &d, .tokens = 2 * ROWS};
    short_link cut = {.over = *r->transport, .left = 1};
    fa_transport mine = *r->transport;
    fa_ring *ring = NULL;
    fa_queue *queue = NULL;
    fa_buffer *buffer[5] = {NULL};
    mine.user = &cut;
    mine.shift = shift_some;
    mine.allgather = gather_over;
    keep_status(r, fa_ring_create(t->device, &mine, &desc, &ring));
    if (r->status == FA_OK)
        keep_status(r, fa_queue_create(t->device, &queue));
    for (int i = 0; i < 5 && r->status == FA_OK; i++)
        keep_status(r, fa_buffer_create(t->device, i < 4 ? BYTES : fa_ring_workspace(ring), &buffer[i]));
    fa_attention_args args = {
        .struct_size = sizeof(args), .k = buffer[1], .v = buffer[2], .o = buffer[3], .workspace = buffer[4]};
    static const struct {
        fa_status status;
        const char *message;
    } calls[] = {{FA_INVALID, "args.q is NULL"},
                 {FA_OK, ""},
                 {FA_IO, "the link is cut"},
                 {FA_RANK_LOST, "an earlier run of the ring failed"}};
    for (int i = 0; i < COUNT(calls) && r->status == FA_OK; i++) {
        args.q = i == 0 ? NULL : buffer[0];
        const fa_status status = fa_ring_run(ring, queue, &args);
        if (status != calls[i].status || !strstr(fa_last_error(), calls[i].message))
            keep_status(r, FA_INVALID);
    }
    fa_queue_destroy(queue);
    fa_ring_destroy(ring);
    for (int i = 0; i < 5; i++)
        fa_buffer_destroy(buffer[i]);
}

START_TEST(runs_that_fail)
{
    task t = {.device = open_device()};
    a_rank found[MOST_RANKS];
    on_ranks(2, 0, 0, 10, run_often, &t, found);
    for (int32_t r = 0; r < 2; r++)
        ck_assert_msg(found[r].status == FA_OK, "%s", found[r].message);
    fa_device_close(t.device);
}
END_TEST

/* Without sequences there is no memory, and nothing travels. */
static void run_empty(a_rank *r)
{
    const task *t = r->user;
    const ring_kind kind = {.tokens = 16, .no_lse = 1};
    fa_attention_desc d = ring_scene_describe(&kind, 8);
    const fa_ring_desc desc = {.struct_size = sizeof(desc), .attention = &d, .tokens = 16};
    const fa_attention_args args = {.struct_size = sizeof(args)};
    fa_ring *ring = NULL;
    fa_queue *queue = NULL;
    d.q.shape[0] = d.k.shape[0] = d.v.shape[0] = d.o.shape[0] = 0;
    keep_status(r, fa_ring_create(t->device, r->transport, &desc, &ring));
    if (r->status == FA_OK)
        keep_status(r, fa_queue_create(t->device, &queue));
    for (int turn = 0; turn < 2 && r->status == FA_OK; turn++)
        keep_status(r, fa_ring_run(ring, queue, &args));
    fa_queue_destroy(queue);
    fa_ring_destroy(ring);
}

START_TEST(no_sequences)
{
    task t = {.device = open_device()};
    a_rank found[MOST_RANKS];
    on_ranks(2, 0, 0, 10, run_empty, &t, found);
    for (int32_t r = 0; r < 2; r++)
        ck_assert_msg(found[r].status == FA_OK, "%s", found[r].message);
    fa_device_close(t.device);
}
END_TEST

static void make_listed(a_rank *r)
{
    static const fa_block_lists lists = {.struct_size = sizeof(lists)};
    fa_attention_desc d = make_desc(1, 1, 1, 4, 4, 16);
    const fa_ring_desc desc = {.struct_size = sizeof(desc), .attention = &d, .tokens = 4};
    fa_ring *made = NULL;
    d.lists = &lists;
    keep_status(r, fa_ring_create(r->user, r->transport, &desc, &made));
    fa_ring_destroy(made);
}

START_TEST(refusals)
{
    fa_device *device = open_device();
    a_rank found[MOST_RANKS];
    on_ranks(1, 0, 0, 10, make_listed, device, found);
    ck_assert_int_eq(found[0].status, FA_UNSUPPORTED);
    ck_assert_ptr_nonnull(
        strstr(found[0].message, "lists is given, expected NULL: a ring does not serve it"));
    const fa_ring_desc desc = {.struct_size = sizeof(desc), .tokens = 1};
    fa_ring *ring = NULL;
    ck_assert_int_eq(fa_ring_create(device, NULL, &desc, &ring), FA_INVALID);
    assert_message("transport is NULL");
    ck_assert_int_eq(fa_ring_create(NULL, NULL, &desc, &ring), FA_INVALID);
    assert_message("device is NULL");
    ck_assert_int_eq(fa_ring_create(device, NULL, &desc, NULL), FA_INVALID);
    assert_message("ring is NULL");
    ck_assert_int_eq(fa_ring_run(NULL, NULL, NULL), FA_INVALID);
    assert_message("ring is NULL");
    ck_assert_uint_eq(fa_ring_workspace(NULL), 0);
    fa_ring_destroy(NULL);
    fa_device_close(device);
}
END_TEST

int main(int argc, char **argv)
{
    const bool all = argc == 1;
    if (argc > 1)
        backend = argv[1];
    const int missing = look_for_device(backend);
    if (missing)
        return missing;
    Suite *suite = suite_create("ring");
    TCase *tc = add_context_case(suite, "ring");
    tcase_add_test(tc, equals_the_oracle);
    tcase_add_test(tc, no_sequences);
    if (all) {
        tcase_add_test(tc, shares);
        tcase_add_test(tc, parts);
        tcase_add_test(tc, refused_shares);
        tcase_add_test(tc, a_link_that_is_cut);
        tcase_add_test(tc, ranks_that_disagree);
        tcase_add_test(tc, runs_that_fail);
        tcase_add_test(tc, refusals);
    }
    return run_unforked(suite);
}
