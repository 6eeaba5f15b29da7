/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rate against length as an SVG. Cases that differ in length and type only share a panel; each type is a
 * line, dashed for "standard attention", and the measured ceiling of the machine is a line across.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "bench.h"

enum { PANEL_WIDTH = 520, PANEL_HEIGHT = 330, HEADER = 70, COLUMNS = 2 };
enum { LEFT = 62, RIGHT = 20, TOP = 44, BOTTOM = 46, LABEL_ROOM = 30 };

/* What a panel's x axis is. Decoding is drawn in bytes per second, the others in operations per second. */
typedef enum panel_kind { PANEL_SQUARE, PANEL_DECODE, PANEL_SHORT } panel_kind;

typedef struct point {
    double x, y, standard;
} point;

typedef struct panel {
    const bench_result *first; /* stands for what all its cases share */
    double x0, y0;             /* of the plotting area                */
    double low, high;          /* log2 of the lengths                 */
    double top;                /* the largest rate on the y axis      */
    double unit;
    const char *unit_name;
} panel;

static const char *const colours[] = {[FA_F32] = "#0072b2", [FA_F16] = "#d55e00", [FA_BF16] = "#009e73"};
static const fa_dtype dtypes[] = {FA_F32, FA_F16, FA_BF16};
enum { DTYPES = sizeof(dtypes) / sizeof(dtypes[0]) };

static panel_kind kind_of(const bench_case *c)
{
    if (c->size.len_q == 1)
        return PANEL_DECODE;
    return c->size.len_q == c->size.len_kv ? PANEL_SQUARE : PANEL_SHORT;
}

static bool same_panel(const bench_result *a, const bench_result *b)
{
    const shape *s = &a->problem.size, *t = &b->problem.size;
    panel_kind kind = kind_of(&a->problem);
    return kind == kind_of(&b->problem) && s->batch == t->batch && s->heads_q == t->heads_q &&
           s->heads_kv == t->heads_kv && s->dim_qk == t->dim_qk && s->dim_v == t->dim_v &&
           a->problem.causal == b->problem.causal && (kind != PANEL_SHORT || s->len_kv == t->len_kv);
}

static double length_of(const bench_result *r)
{
    return (double)(kind_of(&r->problem) == PANEL_SHORT ? r->problem.size.len_q : r->problem.size.len_kv);
}

static double rate_of(const bench_result *r)
{
    return kind_of(&r->problem) == PANEL_DECODE ? r->bytes_rate : r->flops_rate;
}

static double ceiling_of(const panel *p, const bench_peak *peak)
{
    if (!peak->known)
        return 0.0;
    return kind_of(&p->first->problem) == PANEL_DECODE ? peak->bytes : peak->flops;
}

/* Text from outside the program, as XML takes it. */
static void put_text(FILE *file, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '<': fputs("&lt;", file); break;
        case '>': fputs("&gt;", file); break;
        case '&': fputs("&amp;", file); break;
        case '"': fputs("&quot;", file); break;
        default: fputc((unsigned char)*text < 0x20 || (unsigned char)*text > 0x7e ? '?' : *text, file);
        }
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

static void set_scales(panel *p, const bench_peak *peak, const bench_result *results, size_t count)
{
    double top = ceiling_of(p, peak);
    p->low = INFINITY;
    p->high = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        const bench_result *r = &results[i];
        if (r->status != BENCH_TIMED || !same_panel(p->first, r))
            continue;
        p->low = fmin(p->low, log2(length_of(r)));
        p->high = fmax(p->high, log2(length_of(r)));
        top = fmax(top, rate_of(r));
        if (r->ratio_standard > 0)
            top = fmax(top, rate_of(r) / r->ratio_standard);
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

/* The lengths below the axis, as many as there is room for. `points` are sorted. */
static void draw_lengths(FILE *file, const panel *p, const point *points, size_t count)
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
    static const char *const names[] = {
        [PANEL_SQUARE] = "length", [PANEL_DECODE] = "keys in the cache", [PANEL_SHORT] = "queries"};
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
            p->x0 + 0.5 * (PANEL_WIDTH - LEFT - RIGHT), y + 32, names[kind_of(&p->first->problem)]);
}

static void draw_frame(FILE *file, const panel *p, const bench_peak *peak)
{
    const bench_case *c = &p->first->problem;
    const double right = p->x0 + PANEL_WIDTH - LEFT - RIGHT, step = nice_step(p->top / p->unit) * p->unit;
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" font-weight=\"bold\">", p->x0, p->y0 - 24);
    static const char *const titles[] = {
        [PANEL_SQUARE] = "Prefill", [PANEL_DECODE] = "Decode", [PANEL_SHORT] = "Short queries"};
    fprintf(file, "%s, %s, batch %" PRId64 ", heads %" PRId64 "/%" PRId64 ", dim %" PRId64,
            titles[kind_of(c)], c->causal ? "causal" : "full", c->size.batch, c->size.heads_q,
            c->size.heads_kv, c->size.dim_qk);
    if (c->size.dim_v != c->size.dim_qk)
        fprintf(file, "/%" PRId64, c->size.dim_v);
    if (kind_of(c) == PANEL_SHORT)
        fprintf(file, ", %" PRId64 " keys", c->size.len_kv);
    fprintf(file, "</text>\n<text x=\"%.1f\" y=\"%.1f\">%s</text>\n", p->x0 - LEFT + 12, p->y0 - 8,
            p->unit_name);
    for (int i = 0; i * step <= p->top; i++) {
        double y = y_of(p, i * step);
        fprintf(file, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", p->x0, y,
                right, y);
        fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", p->x0 - 6, y + 4,
                i * step / p->unit);
    }
    double ceiling = ceiling_of(p, peak);
    if (ceiling > 0) {
        double y = y_of(p, ceiling);
        fprintf(
            file,
            "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#333\" stroke-width=\"1.5\"/>\n",
            p->x0, y, right, y);
        fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s: %.4g %s</text>\n", right, y + 14,
                kind_of(c) == PANEL_DECODE ? "memory reads" : "f32 multiply-add", ceiling / p->unit,
                p->unit_name);
    }
}

static void draw_line(FILE *file, const panel *p, const point *points, size_t count, fa_dtype dtype,
                      bool standard)
{
    size_t known = 0;
    for (size_t i = 0; i < count; i++)
        known += isfinite(standard ? points[i].standard : points[i].y) != 0;
    if (!known)
        return;
    fprintf(file, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"%s\"%s points=\"", colours[dtype],
            standard ? "1" : "2", standard ? " stroke-dasharray=\"4 3\"" : "");
    for (size_t i = 0; i < count; i++) {
        double rate = standard ? points[i].standard : points[i].y;
        if (isfinite(rate))
            fprintf(file, "%.1f,%.1f ", x_of(p, points[i].x), y_of(p, rate));
    }
    fputs("\"/>\n", file);
    for (size_t i = 0; !standard && i < count; i++) {
        fprintf(file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x_of(p, points[i].x),
                y_of(p, points[i].y), colours[dtype]);
    }
}

/* The panel's points of one type, or of all types, by length. */
static size_t collect(const panel *p, const bench_result *results, size_t count, const fa_dtype *dtype,
                      point *points)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        const bench_result *r = &results[i];
        if (r->status != BENCH_TIMED || !same_panel(p->first, r) || (dtype && r->problem.dtype != *dtype))
            continue;
        points[found++] = (point){length_of(r), rate_of(r), rate_of(r) / r->ratio_standard};
    }
    qsort(points, found, sizeof(*points), compare_points);
    return found;
}

static void draw_panel(FILE *file, panel *p, const bench_peak *peak, const bench_result *results,
                       size_t count, point *points)
{
    set_scales(p, peak, results, count);
    draw_frame(file, p, peak);
    size_t found = collect(p, results, count, NULL, points);
    draw_lengths(file, p, points, found);
    for (int i = 0; i < DTYPES; i++) {
        found = collect(p, results, count, &dtypes[i], points);
        if (!found)
            continue;
        draw_line(file, p, points, found, dtypes[i], false);
        draw_line(file, p, points, found, dtypes[i], true);
    }
}

static void draw_header(FILE *file, const fa_device_info *device)
{
    fprintf(file,
            "<text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"bold\">fastattn %s, %s: ", fa_version(),
            device->backend);
    put_text(file, device->name);
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
        if (results[i].status == BENCH_TIMED && at == panels)
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
