/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_TOOLS_CONFORM_GLOB_H
#define FASTATTN_TOOLS_CONFORM_GLOB_H

#include <stdbool.h>

/* Whether all of `text` is what `pattern` says: * any text, also / and none; ? any character; [ab], [a-c] and [!ab] one
 * character of a set, or none of it; \ takes the next character as it is. A [ that nothing closes is itself. */
bool glob_match(const char *pattern, const char *text);

#endif
