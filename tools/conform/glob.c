/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/conform/glob.h"

#include <stddef.h>

/* The set that begins at `set`, behind its [. Returns what follows its ], NULL where there is none. */
static const char *match_set(const char *set, char c, bool *matched)
{
    const bool inverted = *set == '!';
    bool found = false;
    set += inverted;
    /* A ] that comes first is one of the set. */
    for (const char *first = set; *set && (*set != ']' || set == first);) {
        const bool range = set[1] == '-' && set[2] && set[2] != ']';
        const unsigned char low = (unsigned char)set[0], high = range ? (unsigned char)set[2] : low;
        found = found || ((unsigned char)c >= low && (unsigned char)c <= high);
        set += range ? 3 : 1;
    }
    *matched = found != inverted;
    return *set ? set + 1 : NULL;
}

/* One character that is no *. Returns the rest of the pattern, NULL where it does not match. */
static const char *match_one(const char *pattern, char c)
{
    bool matched;
    if (*pattern == '?')
        return pattern + 1;
    const char *rest = *pattern == '[' ? match_set(pattern + 1, c, &matched) : NULL;
    if (rest)
        return matched ? rest : NULL;
    if (*pattern == '\\' && pattern[1])
        pattern++;
    return *pattern == c ? pattern + 1 : NULL;
}

bool glob_match(const char *pattern, const char *text)
{
    const char *star = NULL, *resume = NULL; /* behind the last *, and where it was tried last */
    while (*text) {
        if (*pattern == '*') {
            star = ++pattern;
            resume = text;
            continue;
        }
        const char *rest = *pattern ? match_one(pattern, *text) : NULL;
        if (rest) {
            pattern = rest;
            text++;
        } else if (star) {
            pattern = star;
            text = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}
