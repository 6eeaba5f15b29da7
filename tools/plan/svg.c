/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/plan/svg.h"

#include <inttypes.h>

#include "tools/cli.h"

/* Of the paper, and of the picture on it, in which both axes have one scale unless one is very short. */
enum { WIDTH = 460, LEFT = 62, TOP = 84, SIDE = 380, LEAST_SIDE = 24, LEGEND = 44, TICKS = 4 };

static const char *const names[] = {
    [FA_TILE_SKIP] = "skip: never scheduled",
    [FA_TILE_PARTIAL] = "partial: masked",
    [FA_TILE_FULL] = "full: no mask",
};
static const char *const colours[] = {
    [FA_TILE_SKIP] = "#ffffff", [FA_TILE_PARTIAL] = "#fb8f44", [FA_TILE_FULL] = "#54aeff"};
/* Where rows and keys lie on the paper. */
typedef struct scale {
    double x, y; /* of one key, of one row */
    int64_t len_q, len_kv;
} scale;

static scale scale_of(const plan_svg *p)
{
    scale s = {.len_q = 0};
    for (int64_t i = 0; i < p->images; i++) {
        s.len_q += p->image[i].len_q;
        s.len_kv += p->image[i].len_kv;
    }
    const int64_t longest = s.len_q > s.len_kv ? s.len_q : s.len_kv;
    const double one = (double)SIDE / (double)(longest ? longest : 1);
    s.x = s.y = one;
    if (s.len_kv && one * (double)s.len_kv < LEAST_SIDE)
        s.x = LEAST_SIDE / (double)s.len_kv;
    if (s.len_q && one * (double)s.len_q < LEAST_SIDE)
        s.y = LEAST_SIDE / (double)s.len_q;
    return s;
}

/* The first row of a cell. Heads that are packed into the rows of a block share their positions. */
static double row_of(const picture *p, int cell)
{
    const int64_t block = picture_cell_start(cell, p->rows, p->grid_rows);
    const double row = (double)block * p->block_q / p->group;
    return row < (double)p->len_q ? row : (double)p->len_q;
}

static double key_of(const picture *p, int cell)
{
    const int64_t key = picture_cell_start(cell, p->columns, p->grid_columns) * p->block_kv;
    return (double)(key < p->len_kv ? key : p->len_kv);
}

/* Cells of one class as one path, those beside each other as one rectangle of it. */
static void draw_class(FILE *file, const picture *p, const scale *s, double x, double y, fa_tile_class tile)
{
    bool any = false;
    for (int row = 0; row < p->rows; row++) {
        for (int column = 0; column < p->columns; column++) {
            const int first = column;
            while (column < p->columns && p->cell[row][column] == (unsigned char)tile)
                column++;
            if (column == first)
                continue;
            const double left = s->x * key_of(p, first), top = s->y * row_of(p, row);
            fprintf(file, "%sM%.2f %.2fh%.2fv%.2fh%.2fz", any ? "" : "<path d=\"", x + left, y + top,
                    s->x * key_of(p, column) - left, s->y * row_of(p, row + 1) - top,
                    left - s->x * key_of(p, column));
            any = true;
        }
    }
    if (any)
        fprintf(file, "\" fill=\"%s\"/>\n", colours[tile]);
}

static void draw_image(FILE *file, const picture *p, const scale *s, double x, double y)
{
    const double width = s->x * (double)p->len_kv, height = s->y * (double)p->len_q;
    for (int tile = FA_TILE_SKIP; tile <= FA_TILE_FULL; tile++)
        draw_class(file, p, s, x, y, (fa_tile_class)tile);
    fputs("<path d=\"", file);
    for (int row = 1; row < p->rows; row++)
        fprintf(file, "M%.2f %.2fh%.2f", x, y + s->y * row_of(p, row), width);
    for (int column = 1; column < p->columns; column++)
        fprintf(file, "M%.2f %.2fv%.2f", x + s->x * key_of(p, column), y, height);
    fputs("\" stroke=\"#d0d7de\" stroke-width=\"0.5\" fill=\"none\"/>\n", file);
    fprintf(file,
            "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"none\" stroke=\"#57606a\"/>\n",
            x, y, width, height);
}

/* Numbers of keys above the picture, of rows at its left. */
static void draw_axes(FILE *file, const scale *s)
{
    const double width = s->x * (double)s->len_kv, height = s->y * (double)s->len_q;
    fprintf(file, "<g fill=\"#57606a\" font-size=\"11\">\n<text x=\"%d\" y=\"%d\">keys</text>\n", LEFT,
            TOP - 22);
    fprintf(file, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">rows</text>\n", LEFT - 8, TOP - 8);
    for (int i = 0; i <= TICKS; i++) {
        const int64_t key = s->len_kv * i / TICKS, row = s->len_q * i / TICKS;
        if (i == 0 || width > SIDE / 2)
            fprintf(file, "<text x=\"%.2f\" y=\"%d\" text-anchor=\"middle\">%" PRId64 "</text>\n",
                    LEFT + s->x * (double)key, TOP - 8, key);
        if (i == 0 || height > SIDE / 2)
            fprintf(file, "<text x=\"%d\" y=\"%.2f\" text-anchor=\"end\">%" PRId64 "</text>\n", LEFT - 8,
                    TOP + s->y * (double)row + (i ? 4 : 8), row);
    }
    fputs("</g>\n", file);
}

static void draw_legend(FILE *file, double y)
{
    for (int tile = FA_TILE_FULL; tile >= FA_TILE_SKIP; tile--) {
        const int x = LEFT + 122 * (FA_TILE_FULL - tile);
        fprintf(file,
                "<rect x=\"%d\" y=\"%.2f\" width=\"12\" height=\"12\" fill=\"%s\" stroke=\"#57606a\"/>\n", x,
                y, colours[tile]);
        fprintf(file, "<text x=\"%d\" y=\"%.2f\" font-size=\"11\">%s</text>\n", x + 17, y + 10, names[tile]);
    }
}

void plan_svg_write(FILE *file, const void *what)
{
    const plan_svg *p = what;
    const scale s = scale_of(p);
    const double bottom = TOP + s.y * (double)s.len_q;
    double x = LEFT, y = TOP;
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" width=\"%d\" height=\"%.0f\" "
            "role=\"img\"\n     font-family=\"sans-serif\" font-size=\"13\" fill=\"#1b1f24\">\n",
            WIDTH, bottom + LEGEND, WIDTH, bottom + LEGEND);
    fprintf(file, "<title>Tiles of %s: ", p->problem);
    cli_xml_text(file, p->mask);
    fprintf(file, "</title>\n<rect width=\"%d\" height=\"%.0f\" rx=\"10\" fill=\"#f6f8fa\"/>\n", WIDTH,
            bottom + LEGEND);
    fprintf(file, "<text x=\"16\" y=\"24\" font-weight=\"600\">");
    cli_xml_text(file, p->mask);
    fprintf(file, "</text>\n<text x=\"16\" y=\"42\" font-size=\"11\" fill=\"#57606a\">%s", p->problem);
    fprintf(file, ", blocks of %" PRId32 " rows and %" PRId32 " keys</text>\n", p->image[0].block_q,
            p->image[0].block_kv);
    draw_axes(file, &s);
    if (p->images > 1)
        fprintf(file, "<rect x=\"%d\" y=\"%d\" width=\"%.2f\" height=\"%.2f\" fill=\"#eaeef2\"/>\n", LEFT,
                TOP, s.x * (double)s.len_kv, s.y * (double)s.len_q);
    for (int64_t i = 0; i < p->images; i++) {
        draw_image(file, &p->image[i], &s, x, y);
        x += s.x * (double)p->image[i].len_kv;
        y += s.y * (double)p->image[i].len_q;
    }
    draw_legend(file, bottom + 18);
    fputs("</svg>\n", file);
}
