/* SPDX-License-Identifier: Apache-2.0 */
/* The tile classes of a plan as an SVG, for `plan --svg`. It says nothing of the machine. */
#ifndef FASTATTN_TOOLS_PLAN_SVG_H
#define FASTATTN_TOOLS_PLAN_SVG_H

#include <stdio.h>

#include "tools/plan/picture.h"

typedef struct plan_svg {
    const picture *image; /* of each sequence; packed ones lie one behind the other on both axes */
    int64_t images;
    const char *problem, *mask; /* two lines above the picture */
} plan_svg;

/* An output_writer: `what` is a plan_svg. */
void plan_svg_write(FILE *file, const void *what);

#endif
