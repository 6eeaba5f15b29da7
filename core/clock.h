/* SPDX-License-Identifier: Apache-2.0 */
/* Time that is measured and waited by: seconds that only grow. */
#ifndef FA_CORE_CLOCK_H
#define FA_CORE_CLOCK_H

#include <pthread.h>

double fa_clock(void);
void fa_sleep_until(double when);

/* A condition to wait for until a time of fa_clock(). The wait may end early. */
int fa_cond_init(pthread_cond_t *condition);
void fa_cond_wait_until(pthread_cond_t *condition, pthread_mutex_t *lock, double when);

#endif
