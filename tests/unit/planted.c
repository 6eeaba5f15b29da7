/* SPDX-License-Identifier: Apache-2.0 */
/* A library that nobody should load: it leaves a mark where PLANTED_MARK says. */
#include <fcntl.h>
#include <stdlib.h>

__attribute__((constructor)) static void leave_mark(void)
{
    const char *path = getenv("PLANTED_MARK");
    if (path)
        (void)open(path, O_WRONLY | O_CREAT, 0600);
}
