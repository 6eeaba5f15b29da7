/* SPDX-License-Identifier: Apache-2.0 */
#include "core/clock.h"

#include <time.h>

#include "core/portable/lang.h"

/* Not every system lets a condition wait by the clock that only grows. */
#if defined(__linux__)
#define CONDITION_CLOCK CLOCK_MONOTONIC
#else
#define CONDITION_CLOCK CLOCK_REALTIME
#endif

/* No wait is longer: any number of seconds is one that there can be. */
static const double longest = 3600;

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct timespec timespec_of(double seconds)
{
    const time_t whole = (time_t)seconds;
    return (struct timespec){.tv_sec = whole, .tv_nsec = (long)(1e9 * (seconds - (double)whole))};
}

double fa_clock(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

void fa_sleep_until(double when)
{
    for (double left = when - fa_clock(); left > 0; left = when - fa_clock()) {
        const struct timespec t = timespec_of(FA_MIN(left, longest));
        (void)nanosleep(&t, NULL);
    }
}

int fa_cond_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    int error = pthread_condattr_init(&attributes);
    if (error != 0)
        return error;
#if defined(__linux__)
    error = pthread_condattr_setclock(&attributes, CONDITION_CLOCK);
#endif
    if (error == 0)
        error = pthread_cond_init(condition, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    return error;
}

void fa_cond_wait_until(pthread_cond_t *condition, pthread_mutex_t *lock, double when)
{
    const double left = when - fa_clock();
    const struct timespec t = timespec_of(seconds_of(CONDITION_CLOCK) + FA_MIN(FA_MAX(left, 0), longest));
    (void)pthread_cond_timedwait(condition, lock, &t);
}
