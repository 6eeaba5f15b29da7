/* SPDX-License-Identifier: Apache-2.0 */
/* How blocks of device memory are divided: offsets alone, without a driver. */
#include <stdlib.h>

#include "backends/vulkan/memory.h"
#include "core/context.h"
#include "tests/unit/helpers.h"

enum { BYTES = 1 << 16, PIECES = 60, TURNS = 20000 };

/* Parts follow each other without gaps, and no two free ones do. (Check writes each assertion that it meets to a file.) */
static void check_parts(const fa_vk_part *first)
{
    uint64_t at = 0;
    for (const fa_vk_part *part = first; part; part = part->next) {
        bool merged = part->used || !part->next || part->next->used;
        if (part->offset != at || part->size == 0 || !merged)
            ck_abort_msg("%llu bytes at %llu, expected some at %llu%s", (unsigned long long)part->size,
                         (unsigned long long)part->offset, (unsigned long long)at,
                         merged ? "" : ", and not two free parts in a row");
        at += part->size;
    }
    ck_assert_uint_eq(at, BYTES);
}

static fa_vk_part *whole_block(void)
{
    fa_vk_part *first = fa_alloc_zeroed(context, sizeof(*first));
    first->size = BYTES;
    return first;
}

/* As the allocator does it: records are taken before, and what is left is given back. */
static fa_vk_part *take(fa_vk_part *first, uint64_t size, uint64_t align)
{
    fa_vk_spares spares;
    ck_assert(fa_vk_spares_take(context, &spares));
    fa_vk_part *part = fa_vk_parts_take(&spares, first, size, align);
    fa_vk_spares_give(context, &spares);
    return part;
}

static bool give(fa_vk_part *first, fa_vk_part *part)
{
    fa_vk_spares spares = {NULL, NULL};
    bool empty = fa_vk_parts_give(&spares, first, part);
    fa_vk_spares_give(context, &spares);
    return empty;
}

START_TEST(random_pieces)
{
    random_state random = {3};
    fa_vk_part *first = whole_block(), *piece[PIECES] = {NULL};
    for (int turn = 0; turn < TURNS; turn++) {
        int n = (int)random_between(&random, 0, PIECES - 1);
        if (piece[n]) {
            (void)give(first, piece[n]);
            piece[n] = NULL;
        } else {
            uint64_t size = (uint64_t)random_between(&random, 1, BYTES / 16);
            uint64_t align = (uint64_t)1 << random_between(&random, 0, 10);
            piece[n] = take(first, size, align);
            if (piece[n]) {
                ck_assert_uint_eq(piece[n]->size, size);
                ck_assert_uint_eq(piece[n]->offset % align, 0);
            }
        }
        check_parts(first);
    }
    bool empty = false;
    for (int n = 0; n < PIECES; n++) {
        if (piece[n])
            empty = give(first, piece[n]);
    }
    ck_assert(empty && !first->next && !first->used);
    fa_release(context, first, sizeof(*first));
}
END_TEST

START_TEST(a_full_block_has_no_room)
{
    fa_vk_part *first = whole_block();
    fa_vk_part *all = take(first, BYTES, 256);
    ck_assert_ptr_eq(all, first);
    ck_assert_ptr_null(take(first, 1, 1));
    ck_assert(give(first, all));
    ck_assert_ptr_null(take(first, BYTES + 1, 1));
    fa_release(context, first, sizeof(*first));
}
END_TEST

/* Whichever record there is no memory for: none stays taken. */
START_TEST(records_without_host_memory)
{
    fa_vk_spares spares;
    long live = memory.live;
    for (int n = 0; n < 4; n++) {
        memory.fail_at = memory.calls + n;
        ck_assert(!fa_vk_spares_take(context, &spares));
        ck_assert_int_eq(memory.live, live);
    }
    memory.fail_at = -1;
    ck_assert(fa_vk_spares_take(context, &spares));
    fa_vk_spares_give(context, &spares);
    ck_assert_int_eq(memory.live, live);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vulkan memory");
    TCase *tc = add_context_case(suite, "parts");
    tcase_add_test(tc, random_pieces);
    tcase_add_test(tc, a_full_block_has_no_room);
    tcase_add_test(tc, records_without_host_memory);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
