/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rate against length, or what else a suite varies, as an SVG. Cases that differ in that and type only share a
 * panel; each type is a line, dashed for "standard attention", and the measured ceilings of the machine are lines
 * across, where they are near enough to be on the paper.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/cli.h"

enum { PANEL_WIDTH = 520, PANEL_HEIGHT = 330, HEADER = 70, COLUMNS = 2 };
enum { LEFT = 62, RIGHT = 20, TOP = 44, BOTTOM = 46, LABEL_ROOM = 30 };

/* A ceiling further above the highest rate than this is named, not drawn: the rates would be a flat line. */
#define CEILING_ROOM 4.0

/* What a panel's x axis is. Decoding is drawn in bytes per second, the others in operations per second. */
typedef enum panel_kind { PANEL_SQUARE, PANEL_DECODE, PANEL_SHORT, PANEL_BLOCK, PANEL_DIM } panel_kind;

static const char *const titles[] = {
    [PANEL_SQUARE] = "Prefill",     [PANEL_DECODE] = "Decode", [PANEL_SHORT] = "Short queries",
    [PANEL_BLOCK] = "Block widths", [PANEL_DIM] = "Head dims",
};
static const char *const axes[] = {
    [PANEL_SQUARE] = "length", [PANEL_DECODE] = "keys in the cache",
    [PANEL_SHORT] = "queries", [PANEL_BLOCK] = "keys of a block (ring: the planner's choice)",
    [PANEL_DIM] = "head dim",
};

typedef struct point {
    double x, y, standard;
    bool ring;
} point;

/* Of memory reads, or of multiply-adds: f32 first, then those of the kernels that were timed. */
typedef struct ceiling {
    double rate;
    const char *label, *isa, *colour;
} ceiling;

enum { MAX_CEILINGS = 1 + BENCH_MAX_DOTS };

typedef struct panel {
    const bench_result *first; /* stands for what all its cases share */
    double x0, y0;             /* of the plotting area                */
    double low, high;          /* log2 of the lengths                 */
    double top;                /* the largest rate on the y axis      */
    ceiling ceiling[MAX_CEILINGS];
    int ceilings;
    double unit;
    const char *unit_name;
} panel;

static const char *const colours[] = {[FA_F32] = "#0072b2", [FA_F16] = "#d55e00", [FA_BF16] = "#009e73"};
static const fa_dtype dtypes[] = {FA_F32, FA_F16, FA_BF16};
enum { DTYPES = sizeof(dtypes) / sizeof(dtypes[0]) };

static panel_kind kind_of(const bench_case *c)
{
    if (c->axis != BENCH_BY_LENGTH)
        return c->axis == BENCH_BY_BLOCK ? PANEL_BLOCK : PANEL_DIM;
    if (c->size.len_q == c->size.len_kv)
        return PANEL_SQUARE;
    return c->size.len_q == 1 ? PANEL_DECODE : PANEL_SHORT;
}

static bool is_drawn(const bench_result *r)
{
    return r->status == BENCH_TIMED && r->problem.axis != BENCH_NOT_DRAWN;
}

static bool same_panel(const bench_result *a, const bench_result *b)
{
    const shape *s = &a->problem.size, *t = &b->problem.size;
    panel_kind kind = kind_of(&a->problem);
    bool fixed = kind == PANEL_BLOCK || kind == PANEL_DIM;
    return kind == kind_of(&b->problem) && s->batch == t->batch && s->heads_q == t->heads_q &&
           s->heads_kv == t->heads_kv && a->problem.causal == b->problem.causal &&
           (kind == PANEL_DIM || (s->dim_qk == t->dim_qk && s->dim_v == t->dim_v)) &&
           (!fixed || s->len_q == t->len_q) && (!(fixed || kind == PANEL_SHORT) || s->len_kv == t->len_kv);
}

static double x_value(const bench_result *r)
{
    switch (kind_of(&r->problem)) {
    case PANEL_SHORT: return (double)r->problem.size.len_q;
    case PANEL_BLOCK: return (double)r->block_kv;
    case PANEL_DIM: return (double)r->problem.size.dim_qk;
    default: return (double)r->problem.size.len_kv;
    }
}

static double rate_of(const bench_result *r)
{
    return kind_of(&r->problem) == PANEL_DECODE ? r->bytes_rate : r->flops_rate;
}

static void list_ceilings(panel *p, const bench_peak *peak, const bench_result *results, size_t count)
{
    bool reads = kind_of(&p->first->problem) == PANEL_DECODE;
    p->ceilings = 0;
    if (!peak->known)
        return;
    p->ceiling[p->ceilings++] = reads ? (ceiling){peak->bytes, "memory reads", "", "#555"}
                                      : (ceiling){peak->flops, "f32 multiply-add", peak->isa, "#555"};
    for (size_t i = 0; i < count && !reads; i++) {
        if (!is_drawn(&results[i]) || !same_panel(p->first, &results[i]))
            continue;
        const bench_ceiling found = bench_peak_ceiling(peak, results[i].kernel);
        int at = 0;
        while (at < p->ceilings && strcmp(p->ceiling[at].isa, found.isa) != 0)
            at++;
        if (at == p->ceilings && at < MAX_CEILINGS)
            p->ceiling[p->ceilings++] =
                (ceiling){found.flops, "bf16 dot products", found.isa, colours[results[i].problem.dtype]};
    }
}

static double x_of(const panel *p, double length)
{
    double width = PANEL_WIDTH - LEFT - RIGHT;
    return p->high > p->low ? p->x0 + width * (log2(length) - p->low) / (p->high - p->low)
                            : p->x0 + 0.5 * width;
}

static double y_of(const panel *p, double rate)
{
    double height = PANEL_HEIGHT - TOP - BOTTOM;
    return p->y0 + height * (1.0 - rate / p->top);
}

/* 1, 2 or 5 times a power of ten: at least four steps, at most ten, up to `top`. */
static double nice_step(double top)
{
    double step = pow(10.0, floor(log10(top)));
    if (top / step < 2.0)
        return 0.2 * step;
    return top / step < 5.0 ? 0.5 * step : step;
}

static void set_scales(panel *p, const bench_result *results, size_t count)
{
    double rates = 0.0, top = 0.0;
    p->low = INFINITY;
    p->high = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        const bench_result *r = &results[i];
        if (!is_drawn(r) || !same_panel(p->first, r))
            continue;
        p->low = fmin(p->low, log2(x_value(r)));
        p->high = fmax(p->high, log2(x_value(r)));
        rates = fmax(rates, rate_of(r));
        if (r->ratio_standard > 0)
            rates = fmax(rates, rate_of(r) / r->ratio_standard);
    }
    top = rates;
    for (int i = 0; i < p->ceilings; i++) {
        if (p->ceiling[i].rate <= CEILING_ROOM * rates)
            top = fmax(top, p->ceiling[i].rate);
    }
    bool bytes = kind_of(&p->first->problem) == PANEL_DECODE, tera = top >= 2e12;
    p->top = isfinite(top) && top > 0 ? 1.08 * top : 1.0;
    p->unit = tera ? 1e12 : 1e9;
    p->unit_name = bytes ? (tera ? "TB/s" : "GB/s") : (tera ? "TFLOP/s" : "GFLOP/s");
}

static int compare_points(const void *a, const void *b)
{
    const point *p = a, *q = b;
    return (p->x > q->x) - (p->x < q->x);
}

/* The numbers below the axis, as many as there is room for. `points` are sorted. */
static void draw_x_axis(FILE *file, const panel *p, const point *points, size_t count)
{
    double y = p->y0 + PANEL_HEIGHT - TOP - BOTTOM, last = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        double x = x_of(p, points[i].x);
        if (x - last < LABEL_ROOM)
            continue;
        last = x;
        fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.0f</text>\n", x, y + 15,
                points[i].x);
    }
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
            p->x0 + 0.5 * (PANEL_WIDTH - LEFT - RIGHT), y + 32, axes[kind_of(&p->first->problem)]);
}

static void draw_title(FILE *file, const panel *p)
{
    const bench_case *c = &p->first->problem;
    const panel_kind kind = kind_of(c);
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" font-weight=\"bold\">", p->x0, p->y0 - 24);
    fprintf(file, "%s, %s, batch %" PRId64 ", heads %" PRId64 "/%" PRId64, titles[kind],
            c->causal ? "causal" : "full", c->size.batch, c->size.heads_q, c->size.heads_kv);
    if (kind != PANEL_DIM)
        fprintf(file, ", dim %" PRId64, c->size.dim_qk);
    if (kind != PANEL_DIM && c->size.dim_v != c->size.dim_qk)
        fprintf(file, "/%" PRId64, c->size.dim_v);
    if (kind == PANEL_BLOCK || kind == PANEL_DIM)
        fprintf(file, ", %" PRId64 " x %" PRId64, c->size.len_q, c->size.len_kv);
    if (kind == PANEL_SHORT)
        fprintf(file, ", %" PRId64 " keys", c->size.len_kv);
    fputs("</text>\n", file);
}

static void draw_frame(FILE *file, const panel *p)
{
    const double right = p->x0 + PANEL_WIDTH - LEFT - RIGHT, step = nice_step(p->top / p->unit) * p->unit;
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n", p->x0 - LEFT + 12, p->y0 - 8, p->unit_name);
    for (int i = 0; i * step <= p->top; i++) {
        double y = y_of(p, i * step);
        fprintf(file, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", p->x0, y,
                right, y);
        fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", p->x0 - 6, y + 4,
                i * step / p->unit);
    }
}

/* The first at the right, the others at the left, so that names of near ones do not run into each other. What is
 * too high stands above the frame. */
static void draw_ceilings(FILE *file, const panel *p)
{
    const double left = p->x0 + LEFT, right = p->x0 + PANEL_WIDTH - LEFT - RIGHT;
    for (int i = 0; i < p->ceilings; i++) {
        const ceiling *c = &p->ceiling[i];
        bool above = c->rate > p->top;
        double y = above ? p->y0 - 8 : y_of(p, c->rate);
        if (!above)
            fprintf(file,
                    "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
                    "stroke-dasharray=\"2 2\"/>\n",
                    p->x0, y, right, y, c->colour);
        fprintf(file,
                "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"%s\">%s%s%s%s: %.4g %s%s</text>\n",
                i == 0 ? right : left + 80 * (i - 1), above ? y : y + 14, i == 0 ? "end" : "start", c->colour,
                c->label, c->isa[0] ? " (" : "", c->isa, c->isa[0] ? ")" : "", c->rate / p->unit,
                p->unit_name, above ? ", above" : "");
    }
}

/* What a line goes through; NAN for what it leaves out. */
static double line_rate(const point *at, bool standard)
{
    return at->ring ? NAN : standard ? at->standard : at->y;
}

static void draw_line(FILE *file, const panel *p, const point *points, size_t count, fa_dtype dtype,
                      bool standard)
{
    size_t known = 0;
    for (size_t i = 0; i < count; i++)
        known += isfinite(line_rate(&points[i], standard)) != 0;
    if (!known)
        return;
    fprintf(file, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"%s\"%s points=\"", colours[dtype],
            standard ? "1" : "2", standard ? " stroke-dasharray=\"4 3\"" : "");
    for (size_t i = 0; i < count; i++) {
        double rate = line_rate(&points[i], standard);
        if (isfinite(rate))
            fprintf(file, "%.1f,%.1f ", x_of(p, points[i].x), y_of(p, rate));
    }
    fputs("\"/>\n", file);
}

static void draw_points(FILE *file, const panel *p, const point *points, size_t count, fa_dtype dtype)
{
    const char *colour = colours[dtype];
    for (size_t i = 0; i < count; i++) {
        bool ring = points[i].ring;
        fprintf(file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" fill=\"%s\" stroke=\"%s\"/>\n",
                x_of(p, points[i].x), y_of(p, points[i].y), ring ? 6 : 3, ring ? "none" : colour, colour);
    }
}

/* The panel's points of one type, or of all types, from left to right. */
static size_t collect(const panel *p, const bench_result *results, size_t count, const fa_dtype *dtype,
                      point *points)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        const bench_result *r = &results[i];
        if (!is_drawn(r) || !same_panel(p->first, r) || (dtype && r->problem.dtype != *dtype))
            continue;
        bool ring = kind_of(&r->problem) == PANEL_BLOCK && !r->problem.block_kv;
        points[found++] = (point){x_value(r), rate_of(r), rate_of(r) / r->ratio_standard, ring};
    }
    qsort(points, found, sizeof(*points), compare_points);
    return found;
}

static void draw_panel(FILE *file, panel *p, const bench_peak *peak, const bench_result *results,
                       size_t count, point *points)
{
    list_ceilings(p, peak, results, count);
    set_scales(p, results, count);
    draw_title(file, p);
    draw_frame(file, p);
    draw_ceilings(file, p);
    size_t found = collect(p, results, count, NULL, points);
    draw_x_axis(file, p, points, found);
    for (int i = 0; i < DTYPES; i++) {
        found = collect(p, results, count, &dtypes[i], points);
        if (!found)
            continue;
        draw_line(file, p, points, found, dtypes[i], false);
        draw_line(file, p, points, found, dtypes[i], true);
        draw_points(file, p, points, found, dtypes[i]);
    }
}

static void draw_header(FILE *file, const fa_device_info *device)
{
    fprintf(file,
            "<text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"bold\">fastattn %s, %s: ", fa_version(),
            device->backend);
    cli_xml_text(file, device->name);
    fputs("</text>\n", file);
    for (int i = 0; i < DTYPES; i++) {
        fprintf(file, "<line x1=\"%d\" y1=\"44\" x2=\"%d\" y2=\"44\" stroke=\"%s\" stroke-width=\"2\"/>\n",
                12 + 80 * i, 36 + 80 * i, colours[dtypes[i]]);
        fprintf(file, "<text x=\"%d\" y=\"48\">%s</text>\n", 42 + 80 * i, fa_dtype_name(dtypes[i]));
    }
    fputs("<line x1=\"252\" y1=\"44\" x2=\"276\" y2=\"44\" stroke=\"#555\" stroke-dasharray=\"4 3\"/>\n"
          "<text x=\"282\" y=\"48\">standard attention, same run</text>\n",
          file);
}

void bench_write_svg(FILE *file, const fa_device_info *device, const bench_peak *peak,
                     const bench_result *results, size_t count)
{
    const bench_result **first = calloc(count + 1, sizeof(*first));
    point *points = calloc(count + 1, sizeof(*points));
    int panels = 0;
    for (size_t i = 0; first && i < count; i++) {
        int at = 0;
        while (at < panels && !same_panel(first[at], &results[i]))
            at++;
        if (is_drawn(&results[i]) && at == panels)
            first[panels++] = &results[i];
    }
    int columns = panels > 1 ? COLUMNS : 1, width = columns * PANEL_WIDTH;
    int height = HEADER + (panels + columns - 1) / columns * PANEL_HEIGHT;
    fprintf(
        file,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
        "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n",
        width, height, width, height, width, height);
    draw_header(file, device);
    for (int i = 0; points && i < panels; i++) {
        panel p = {
            .first = first[i],
            .x0 = i % columns * PANEL_WIDTH + LEFT,
            .y0 = HEADER + i / columns * PANEL_HEIGHT + TOP,
        };
        draw_panel(file, &p, peak, results, count, points);
    }
    if (!panels)
        fprintf(file, "<text x=\"12\" y=\"64\">no case was timed</text>\n");
    fputs("</svg>\n", file);
    free(first);
    free(points);
}
