/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/grid.h"

#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"

/* How many numbers "64x64" has, each of which is kept; 0 where it is something else. */
static int parse_numbers(const char *text, int32_t to[3])
{
    for (int n = 0; n < 3; n++) {
        char *end;
        if (*text < '0' || *text > '9')
            return 0;
        const unsigned long long value = strtoull(text, &end, 10);
        if (value > INT32_MAX)
            return 0;
        to[n] = (int32_t)value;
        if (*end == '\0')
            return n + 1;
        if (*end != 'x')
            return 0;
        text = end + 1;
    }
    return 0;
}

bool grid_parse(const char *command, const grid_options *given, fa_neighbourhood *out)
{
    *out = (fa_neighbourhood){.struct_size = sizeof(*out)};
    const struct {
        const char *name, *text;
        int32_t *to;
    } field[] = {{"grid", given->size, out->size},
                 {"neighbourhood", given->kernel, out->kernel},
                 {"grid-stride", given->stride, out->stride},
                 {"grid-dilation", given->dilation, out->dilation},
                 {"grid-causal", given->causal, out->causal},
                 {"grid-tile", given->tile, out->tile}};
    for (size_t i = 0; i < sizeof(field) / sizeof(field[0]); i++) {
        if (!field[i].text)
            continue;
        if (!given->size) {
            cli_error(command, "--%s is given without --grid", field[i].name);
            return false;
        }
        const int axes = parse_numbers(field[i].text, field[i].to);
        if (i == 0)
            out->axes = axes;
        if (axes == 0 || axes != out->axes) {
            cli_error(command, "--%s is '%.100s', expected %s", field[i].name, field[i].text,
                      i == 0 ? "1 to 3 numbers such as 64x64"
                             : "as many numbers as --grid has, such as 13x13");
            return false;
        }
    }
    if (given->size && !given->kernel)
        cli_error(command, "--grid is given without --neighbourhood");
    return !given->size || given->kernel;
}
