/* SPDX-License-Identifier: Apache-2.0 */
/* Results as a table for people and as JSON for machines. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/cli.h"

const char *bench_bound_name(bench_bound bound)
{
    switch (bound) {
    case BENCH_COMPUTE: return "compute";
    case BENCH_MEMORY: return "memory";
    case BENCH_CACHE: return "cache";
    case BENCH_NO_BOUND: break;
    }
    return "-";
}

static double mebibytes(size_t bytes)
{
    return (double)bytes / 1048576.0;
}

static void print_ceilings(const bench_peak *peak)
{
    printf("peak, measured now, %s: %d\n", peak->units_name, peak->units);
    printf("  f32 multiply-adds (%s): %.1f GFLOP/s\n", peak->isa, 1e-9 * peak->flops);
    for (int i = 0; i < peak->dots; i++)
        printf("  bf16 dot products (%s): %.1f GFLOP/s\n", peak->dot[i].isa, 1e-9 * peak->dot[i].flops);
    printf("  memory reads: %.1f GB/s (%.0f MiB buffer, last-level cache ", 1e-9 * peak->bytes,
           mebibytes(peak->buffer_bytes));
    if (peak->cache_bytes)
        printf("%.0f MiB)\n", mebibytes(peak->cache_bytes));
    else
        printf("unknown)\n");
    if (peak->cache_bytes && peak->buffer_bytes < 2 * peak->cache_bytes)
        printf("note: memory is too short for a buffer much larger than the cache, so the read rate is "
               "partly the cache's\n");
#if defined(__GNUC__) && !defined(__OPTIMIZE__)
    printf("note: this command was built without optimisation; the peaks are too low\n");
#endif
}

void bench_print_header(const fa_device_info *device, const bench_peak *peak)
{
    printf("fastattn %s on %s:%d, %s\n", fa_version(), device->backend, (int)device->index,
           cli_plain(device->name).text);
    if (peak->known)
        print_ceilings(peak);
    printf("%-10s %-26s %-6s %-4s %5s %7s %-16s %-11s %10s %10s %-6s %9s %8s %6s %-7s %9s %9s\n", "dtype",
           "shape", "mask", "call", "page", "scatter", "kernel", "blocks", "ms median", "ms min", "clock",
           "GFLOP/s", "GB/s", "peak", "bound", "standard", "max error");
}

static const char *clock_name(const bench_result *r)
{
    return r->by_device ? "device" : "wall";
}

static const char *call_name(bench_call call)
{
    return call == BENCH_HOST ? "host" : "run";
}

static bool is_scattered(const paging *p)
{
    return p->keys && p->seed != PAGES_IN_ORDER;
}

/* Enough digits for a call of a microsecond. */
static void print_ms(double ms)
{
    printf("%10.*f ", ms < 1 ? 6 : ms < 100 ? 4 : 2, ms);
}

void bench_print_row(const bench_result *r)
{
    char sizes[160], fraction[16] = "-", ratio[24] = "-", blocks[48], page[16] = "-", scatter[24] = "-",
                     types[80];
    const paging *p = &r->problem.pages;
    if (p->keys)
        (void)snprintf(page, sizeof(page), "%" PRId32, p->keys);
    if (is_scattered(p))
        (void)snprintf(scatter, sizeof(scatter), "%" PRId64, p->seed);
    shape_print(&r->problem.size, sizes, sizeof(sizes));
    kv_types_print(&r->problem.kv, r->problem.dtype, types, sizeof(types));
    if (r->problem.v_in_k)
        (void)snprintf(sizes + strlen(sizes), sizeof(sizes) - strlen(sizes), " in K");
    printf("%-10s %-26s %-6s %-4s %5s %7s ", types, sizes, r->problem.causal ? "causal" : "full",
           call_name(r->problem.call), page, scatter);
    if (r->status != BENCH_TIMED) {
        printf("%s: %s\n", r->status == BENCH_UNSERVED ? "not served" : "FAILED", cli_plain(r->message).text);
        return;
    }
    if (!isnan(r->peak_fraction))
        (void)snprintf(fraction, sizeof(fraction), "%.0f %%", 100.0 * r->peak_fraction);
    if (!isnan(r->ratio_standard))
        (void)snprintf(ratio, sizeof(ratio), "%.2fx", r->ratio_standard);
    int used = snprintf(blocks, sizeof(blocks), "%" PRId32 "x%" PRId32, r->block_q, r->block_kv);
    if (r->splits > 1)
        (void)snprintf(blocks + used, sizeof(blocks) - (size_t)used, "/%" PRId32, r->splits);
    printf("%-16s %-11s ", r->kernel, blocks);
    print_ms(r->ms_median);
    print_ms(r->ms_min);
    printf("%-6s %9.1f %8.2f %6s %-7s %9s %9.1e\n", clock_name(r), 1e-9 * r->flops_rate, 1e-9 * r->bytes_rate,
           fraction, bench_bound_name(r->bound), ratio, r->max_error);
    if (!isnan(r->ratio_dense) && r->problem.near.axes > 0)
        printf("      what rows see are %.3f of the pairs: %.3f of the time of all keys\n", r->part,
               r->ratio_dense);
    else if (!isnan(r->ratio_dense))
        printf("      lists of blocks of %" PRId64
               " have %.3f of the pairs: %.3f of the time without lists, expected at "
               "most %.3f\n",
               r->problem.list_block, r->part, r->ratio_dense, r->part + 0.05);
    if (r->message[0])
        printf("      no ratio: %s\n", cli_plain(r->message).text);
}

static void json_name(FILE *file, const char *name)
{
    fprintf(file, ",\n    \"%s\": ", name);
}

static void json_integer(FILE *file, const char *name, int64_t value)
{
    json_name(file, name);
    fprintf(file, "%" PRId64, value);
}

/* JSON has no NaN and no infinity. */
static void json_number(FILE *file, const char *name, double value)
{
    json_name(file, name);
    if (isfinite(value))
        fprintf(file, "%.9g", value);
    else
        fputs("null", file);
}

static void json_optional(FILE *file, const char *name, int64_t value, bool given)
{
    if (given)
        json_integer(file, name, value);
    else
        json_number(file, name, NAN);
}

static void json_string(FILE *file, const char *name, const char *value)
{
    json_name(file, name);
    cli_json_string(file, value);
}

/* The ceilings that hold for this case, then all that there are. */
static void json_peaks(FILE *file, const bench_peak *peak, const char *kernel)
{
    const bench_ceiling ceiling = bench_peak_ceiling(peak, kernel);
    json_number(file, "peak_tflops", peak->known ? 1e-12 * ceiling.flops : NAN);
    json_number(file, "peak_gbps", peak->known ? 1e-9 * peak->bytes : NAN);
    json_name(file, "peak_isa");
    if (peak->known)
        cli_json_string(file, ceiling.isa);
    else
        fputs("null", file);
    json_number(file, "peak_f32_tflops", peak->known ? 1e-12 * peak->flops : NAN);
    json_name(file, "peak_bf16_tflops");
    fputs("{", file);
    for (int i = 0; peak->known && i < peak->dots; i++) {
        fputs(i ? ", " : "", file);
        cli_json_string(file, peak->dot[i].isa);
        fprintf(file, ": %.9g", 1e-12 * peak->dot[i].flops);
    }
    fputs("}", file);
}

static void json_result(FILE *file, const fa_device_info *device, const bench_peak *peak,
                        const bench_result *r)
{
    const shape *s = &r->problem.size;
    fputs("  {\n    \"backend\": ", file);
    cli_json_string(file, device->backend);
    json_string(file, "device", device->name);
    json_string(file, "dtype", fa_dtype_name(r->problem.dtype));
    const kv_type both = {.dtype = r->problem.dtype}, *k = r->problem.kv.given ? &r->problem.kv.k : &both,
                  *v = r->problem.kv.given ? &r->problem.kv.v : &both;
    char type_k[32], type_v[32];
    kv_type_print(k, type_k, sizeof(type_k));
    kv_type_print(v, type_v, sizeof(type_v));
    json_string(file, "dtype_k", type_k);
    json_string(file, "dtype_v", type_v);
    json_integer(file, "batch", s->batch);
    json_integer(file, "heads_q", s->heads_q);
    json_integer(file, "heads_kv", s->heads_kv);
    json_integer(file, "len_q", s->len_q);
    json_integer(file, "len_kv", s->len_kv);
    json_integer(file, "dim", s->dim_qk);
    json_integer(file, "dim_v", s->dim_v);
    json_name(file, "causal");
    fputs(r->problem.causal ? "true" : "false", file);
    json_name(file, "v_in_k");
    fputs(r->problem.v_in_k ? "true" : "false", file);
    json_string(file, "call", call_name(r->problem.call));
    json_optional(file, "page", r->problem.pages.keys, r->problem.pages.keys > 0);
    json_optional(file, "scatter", r->problem.pages.seed, is_scattered(&r->problem.pages));
    json_string(file, "kernel", r->kernel);
    json_integer(file, "block_q", r->block_q);
    json_integer(file, "block_kv", r->block_kv);
    json_integer(file, "splits", r->splits);
    json_number(file, "ms_median", r->ms_median);
    json_number(file, "ms_min", r->ms_min);
    json_string(file, "clock", clock_name(r));
    json_number(file, "ms_wall", r->ms_wall);
    json_integer(file, "runs", r->runs);
    json_number(file, "tflops", 1e-12 * r->flops_rate);
    json_number(file, "gbps", 1e-9 * r->bytes_rate);
    json_number(file, "peak_fraction", r->peak_fraction);
    if (r->bound == BENCH_NO_BOUND)
        json_number(file, "bound", NAN);
    else
        json_string(file, "bound", bench_bound_name(r->bound));
    json_number(file, "ratio_standard", r->ratio_standard);
    json_number(file, "max_error", r->max_error);
    json_peaks(file, peak, r->kernel);
    fputs("\n  }", file);
}

void bench_write_json(FILE *file, const fa_device_info *device, const bench_peak *peak,
                      const bench_result *results, size_t count)
{
    fputs("[", file);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? ",\n" : "\n", file);
        json_result(file, device, peak, &results[i]);
    }
    fputs("\n]\n", file);
}
