/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_CORE_ENVIRONMENT_H
#define FA_CORE_ENVIRONMENT_H

#include <stdbool.h>

/*
 * Whether this program runs with more rights than the user who started it (setuid, setgid, file capabilities). That
 * user's environment must not choose which libraries it loads and where it writes.
 */
bool fa_is_privileged(void);

/* A variable of the environment; NULL where it is not set, and in a privileged program. The library reads no other way. */
const char *fa_environment(const char *name);

#endif
