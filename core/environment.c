/* SPDX-License-Identifier: Apache-2.0 */
#if !defined(__linux__) && !defined(_WIN32)
#undef _POSIX_C_SOURCE /* which would hide issetugid() */
#endif
#include "core/environment.h"

#include <stdlib.h>

#if defined(__linux__)
#include <sys/auxv.h>
#elif !defined(_WIN32)
#include <unistd.h>
#endif

bool fa_is_privileged(void)
{
#if defined(__linux__)
    return getauxval(AT_SECURE) != 0;
#elif defined(_WIN32)
    return false;
#else
    return issetugid() != 0;
#endif
}

const char *fa_environment(const char *name)
{
    return fa_is_privileged() ? NULL : getenv(name);
}
