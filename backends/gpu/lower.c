/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/gpu/lower.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/environment.h"

enum { MAX_DIGITS = 18, MAX_SHOWN = 64 };

/* "a=, b= or c=" */
static void list_keys(const fa_gpu_key *keys, size_t count, char *text, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < count && used < size; i++) {
        const char *joint = i == 0 ? "" : i + 1 < count ? ", " : " or ";
        used += (size_t)snprintf(text + used, size - used, "%s%s", joint, keys[i].name);
    }
}

/* The number behind a key, `digits` long; false where it is none, or not one that the key takes. */
static bool read_number(const fa_gpu_key *key, const char *text, size_t digits, unsigned long long *number)
{
    if (digits == 0 || digits > MAX_DIGITS || strspn(text, "0123456789") != digits)
        return false;
    *number = strtoull(text, NULL, 10);
    return key->flag ? *number <= 1 : *number >= key->least;
}

/* One key=number. */
static bool lower(const char *variable, const fa_gpu_key *keys, size_t count, const char *text, size_t length,
                  char *reason, size_t reason_size)
{
    char expected[160];
    unsigned long long number;
    size_t i = 0, name = 0;
    for (; i < count; i++) {
        name = strlen(keys[i].name);
        if (length >= name && strncmp(text, keys[i].name, name) == 0)
            break;
    }
    if (i < count && read_number(&keys[i], text + name, length - name, &number)) {
        if (keys[i].flag)
            *keys[i].flag = *keys[i].flag && number == 1;
        else if (number < *keys[i].number)
            *keys[i].number = (size_t)number;
        return true;
    }
    if (i == count)
        list_keys(keys, count, expected, sizeof(expected));
    else if (keys[i].flag)
        (void)snprintf(expected, sizeof(expected), "%s0 or %s1", keys[i].name, keys[i].name);
    else
        (void)snprintf(expected, sizeof(expected), "a number of at least %zu", keys[i].least);
    (void)snprintf(reason, reason_size, "%s has \"%.*s\", expected %s%s", variable,
                   (int)(length < MAX_SHOWN ? length : MAX_SHOWN), text, expected,
                   i == count ? " and a number" : "");
    return false;
}

bool fa_gpu_lower(const char *variable, const fa_gpu_key *keys, size_t count, char *reason,
                  size_t reason_size)
{
    const char *rest = fa_environment(variable);
    while (rest && rest[0]) {
        size_t length = strcspn(rest, ",");
        if (!lower(variable, keys, count, rest, length, reason, reason_size))
            return false;
        rest += length + (rest[length] == ',');
    }
    return true;
}
