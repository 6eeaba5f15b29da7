/* SPDX-License-Identifier: Apache-2.0 */
/* Text that comes from outside: file names, names in files, what drivers say. */
#ifndef FASTATTN_TOOLS_IO_TEXT_H
#define FASTATTN_TOOLS_IO_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* What io_utf8 says of a byte that begins no character. */
#define IO_NO_CHARACTER UINT32_MAX

/* The character at `text`, which is not at its end. Returns how many bytes it takes; 1 for IO_NO_CHARACTER. */
size_t io_utf8(const char *text, uint32_t *code);

/* Whether a terminal may get the character as it is. It may not get control characters, which can be commands to
 * it, nor characters that reverse, hide or break what stands around them. */
bool io_is_plain(uint32_t code);

/* Copies text with everything that is not plain as \x1b, \u202e or \U000e0041. What does not fit is cut off at a
 * character and ends in "...". Returns `out`, which is always terminated; `size` is at least 4. */
char *io_plain(char *out, size_t size, const char *text);

/* Prints text in the same form, all of it. */
void io_put_plain(FILE *file, const char *text);

#endif
