/* SPDX-License-Identifier: Apache-2.0 */
/* Tests on ranks that are threads: one function, run on each of them. Check's assertions belong to the main thread. */
#ifndef FASTATTN_TESTS_RANKS_ON_RANKS_H
#define FASTATTN_TESTS_RANKS_ON_RANKS_H

#include "tests/unit/helpers.h"

enum { MOST_RANKS = 5 };

/* Seconds that a busy machine may add to a time-out. */
#define SLACK 2.0

/* What a rank finds, and what it leaves to be looked at. */
typedef struct a_rank {
    fa_transport *transport;
    void *user;
    fa_status status;
    char message[256];
    double seconds; /* that the body took */
} a_rank;

/* Keeps the status and the message of a call. */
void keep_status(a_rank *r, fa_status status);

/* Makes a group, runs `body` on every rank at the same time, destroys the group. */
void on_ranks(int32_t count, double latency, double bandwidth, double timeout, void (*body)(a_rank *r),
              void *user, a_rank ranks[MOST_RANKS]);

/* Two ranks run `body` on `user`, whose *kind counts to `kinds`. In each kind a rank's message holds what is expected; all
 * fail but in the last one. */
void on_pairs(void (*body)(a_rank *r), void *user, int *kind, int kinds, const char *const (*expected)[2]);

/* Where the backend has no device, or one that does not take host memory, the exit status of a skipped test; else 0. */
int look_for_device(const char *backend);

#endif
