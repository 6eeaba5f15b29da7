/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvtype.h"

#include <stdio.h>
#include <string.h>

#include "tools/cli.h"

static const fa_dtype all[] = {FA_F32,  FA_F16,  FA_BF16, FA_E4M3, FA_E5M2,  FA_Q8_0,
                               FA_Q4_0, FA_Q4_1, FA_Q5_0, FA_Q5_1, FA_IQ4_NL};
enum { ALL = sizeof(all) / sizeof(all[0]) };

static bool find(const char *command, const char *text, fa_dtype *out)
{
    const char *names[ALL];
    for (int i = 0; i < ALL; i++)
        names[i] = fa_dtype_name(all[i]);
    const int index = cli_word(command, "kv-type", text, names, ALL);
    if (index >= 0)
        *out = all[index];
    return index >= 0;
}

bool kv_types_option(const char *command, const char *text, kv_types *out)
{
    char of_k[32];
    *out = (kv_types){.given = text != NULL};
    if (!text)
        return true;
    const char *comma = strchr(text, ',');
    const size_t length = comma ? (size_t)(comma - text) : strlen(text);
    (void)snprintf(of_k, sizeof(of_k), "%.*s", (int)(length < sizeof(of_k) ? length : sizeof(of_k)), text);
    return find(command, of_k, &out->k) && find(command, comma ? comma + 1 : of_k, &out->v);
}

void kv_types_describe(const kv_types *types, fa_attention_desc *d)
{
    if (!types->given)
        return;
    d->k.dtype = types->k;
    d->v.dtype = types->v;
}

void kv_types_print(const kv_types *types, fa_dtype dtype, char *text, size_t size)
{
    if (!types->given)
        (void)snprintf(text, size, "%s", fa_dtype_name(dtype));
    else if (types->k == types->v)
        (void)snprintf(text, size, "%s:%s", fa_dtype_name(dtype), fa_dtype_name(types->k));
    else
        (void)snprintf(text, size, "%s:%s,%s", fa_dtype_name(dtype), fa_dtype_name(types->k),
                       fa_dtype_name(types->v));
}
