/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/ranks/on_ranks.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"

typedef struct job {
    a_rank *rank;
    void (*body)(a_rank *r);
} job;

void keep_status(a_rank *r, fa_status status)
{
    r->status = status;
    (void)snprintf(r->message, sizeof(r->message), "%s", fa_last_error());
}

static void *run(void *argument)
{
    const job *j = argument;
    const double start = fa_clock();
    j->body(j->rank);
    j->rank->seconds = fa_clock() - start;
    return NULL;
}

void on_ranks(int32_t count, double latency, double bandwidth, double timeout, void (*body)(a_rank *r),
              void *user, a_rank ranks[MOST_RANKS])
{
    const fa_transport_local_desc desc = {
        .struct_size = sizeof(desc), .ranks = count, .latency = latency, .bandwidth = bandwidth};
    fa_transport *made[MOST_RANKS];
    pthread_t thread[MOST_RANKS];
    job jobs[MOST_RANKS];
    ck_assert_int_le(count, MOST_RANKS);
    ck_assert_msg(fa_transport_create_local(context, &desc, made) == FA_OK, "%s", fa_last_error());
    for (int32_t i = 0; i < count; i++) {
        made[i]->timeout = timeout;
        ranks[i] = (a_rank){.transport = made[i], .user = user};
        jobs[i] = (job){&ranks[i], body};
        ck_assert_int_eq(pthread_create(&thread[i], NULL, run, &jobs[i]), 0);
    }
    for (int32_t i = 0; i < count; i++)
        (void)pthread_join(thread[i], NULL);
    for (int32_t i = 0; i < count; i++)
        fa_transport_destroy(made[i]);
}

void on_pairs(void (*body)(a_rank *r), void *user, int *kind, int kinds, const char *const (*expected)[2])
{
    for (*kind = 0; *kind < kinds; (*kind)++) {
        a_rank found[MOST_RANKS];
        on_ranks(2, 0, 0, 10, body, user, found);
        for (int32_t r = 0; r < 2; r++) {
            ck_assert_msg((found[r].status == FA_OK) == (*kind == kinds - 1), "%d, rank %d: %s", *kind, r,
                          found[r].message);
            ck_assert_msg(strstr(found[r].message, expected[*kind][r]) != NULL, "%d, rank %d: %s", *kind, r,
                          found[r].message);
        }
    }
}

int look_for_device(const char *backend)
{
    fa_context *own = NULL;
    fa_device *device = NULL;
    fa_device_info info = {.struct_size = sizeof(info)};
    fa_status status = fa_context_create(NULL, &own);
    if (status == FA_OK)
        status = fa_device_open(own, backend, NULL, &device);
    if (status == FA_OK)
        status = fa_device_get_info(device, &info);
    if (status != FA_OK)
        printf("%s\n", fa_last_error());
    fa_device_close(device);
    fa_context_destroy(own);
    return status == FA_NO_DEVICE || (status == FA_OK && !info.host_memory) ? 77 : status != FA_OK;
}
