/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/shape.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { KEY_B, KEY_H, KEY_S, KEY_D, KEY_HK, KEY_SK, KEY_DV, KEY_COUNT, KEY_REQUIRED = KEY_HK };

static const char *const keys[KEY_COUNT] = {"B", "H", "S", "D", "HK", "SK", "DV"};

enum { MAX_SHOWN = 40 };

static bool fail(char *error, size_t size, const char *part, size_t length, const char *expected)
{
    (void)snprintf(error, size, "part '%.*s' is wrong, expected %s",
                   (int)(length < MAX_SHOWN ? length : MAX_SHOWN), part, expected);
    return false;
}

static int find_key(const char *part, size_t length)
{
    for (int key = 0; key < KEY_COUNT; key++) {
        if (strlen(keys[key]) == length && memcmp(keys[key], part, length) == 0)
            return key;
    }
    return -1;
}

/* One "<key><number>" of `length` bytes. */
static bool parse_part(const char *part, size_t length, int64_t values[KEY_COUNT], char *error, size_t size)
{
    size_t letters = 0;
    while (letters < length && part[letters] >= 'A' && part[letters] <= 'Z')
        letters++;
    int key = find_key(part, letters);
    if (key < 0)
        return fail(error, size, part, length, "B, H, S, D, HK, SK or DV and a number behind it");
    if (values[key])
        return fail(error, size, part, length, "each of B, H, S, D, HK, SK and DV only once");
    if (letters == length)
        return fail(error, size, part, length, "a number behind the letters");
    int64_t value = 0;
    for (size_t i = letters; i < length; i++) {
        int digit = part[i] - '0';
        if (digit < 0 || digit > 9)
            return fail(error, size, part, length, "a whole number of at least 1");
        if (value > (INT64_MAX - digit) / 10)
            return fail(error, size, part, length, "a number below 2^63");
        value = value * 10 + digit;
    }
    if (value == 0)
        return fail(error, size, part, length, "a whole number of at least 1");
    values[key] = value;
    return true;
}

bool shape_parse(const char *text, shape *out, char *error, size_t error_size)
{
    int64_t values[KEY_COUNT] = {0};
    const char *part = text;

    for (;;) {
        size_t length = strcspn(part, ",");
        if (!parse_part(part, length, values, error, error_size))
            return false;
        if (!part[length])
            break;
        part += length + 1;
    }
    for (int key = 0; key < KEY_REQUIRED; key++) {
        if (!values[key]) {
            (void)snprintf(error, error_size,
                           "part %s is missing, expected B, H, S and D such as B1,H8,S2048,D128", keys[key]);
            return false;
        }
    }
    *out = (shape){
        .batch = values[KEY_B],
        .heads_q = values[KEY_H],
        .len_q = values[KEY_S],
        .dim_qk = values[KEY_D],
        .heads_kv = values[KEY_HK] ? values[KEY_HK] : values[KEY_H],
        .len_kv = values[KEY_SK] ? values[KEY_SK] : values[KEY_S],
        .dim_v = values[KEY_DV] ? values[KEY_DV] : values[KEY_D],
    };
    return true;
}

void shape_print(const shape *s, char *text, size_t size)
{
    const struct {
        const char *key;
        int64_t value, usual;
    } parts[] = {{"HK", s->heads_kv, s->heads_q}, {"SK", s->len_kv, s->len_q}, {"DV", s->dim_v, s->dim_qk}};
    int used = snprintf(text, size, "B%" PRId64 ",H%" PRId64 ",S%" PRId64 ",D%" PRId64, s->batch, s->heads_q,
                        s->len_q, s->dim_qk);
    for (int i = 0; i < 3 && used > 0 && (size_t)used < size; i++) {
        if (parts[i].value != parts[i].usual)
            used += snprintf(text + used, size - (size_t)used, ",%s%" PRId64, parts[i].key, parts[i].value);
    }
}
