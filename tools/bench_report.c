/* SPDX-License-Identifier: Apache-2.0 */
/* Results as a table for people and as JSON for machines. */
#include <inttypes.h>
#include <math.h>

#include "bench.h"
#include "cli.h"

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

void bench_print_header(const fa_device_info *device, const bench_peak *peak)
{
    printf("fastattn %s on %s:%d, %s\n", fa_version(), device->backend, (int)device->index, device->name);
    if (peak->known) {
        printf("peak, measured now: %.1f GFLOP/s f32 multiply-add (%s, threads: %d), %.1f GB/s read ",
               1e-9 * peak->flops, peak->isa, peak->threads, 1e-9 * peak->bytes);
        printf("(%.0f MiB buffer, last-level cache ", mebibytes(peak->buffer_bytes));
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
    printf("%-5s %-26s %-6s %-16s %10s %10s %9s %8s %6s %-7s %9s %9s\n", "dtype", "shape", "mask", "kernel",
           "ms median", "ms min", "GFLOP/s", "GB/s", "peak", "bound", "standard", "max error");
}

void bench_print_row(const bench_result *r)
{
    char sizes[160], fraction[16] = "-", ratio[24] = "-";
    shape_print(&r->problem.size, sizes, sizeof(sizes));
    printf("%-5s %-26s %-6s ", fa_dtype_name(r->problem.dtype), sizes, r->problem.causal ? "causal" : "full");
    if (r->status != BENCH_TIMED) {
        printf("%s: %s\n", r->status == BENCH_UNSERVED ? "not served" : "FAILED", r->message);
        return;
    }
    if (!isnan(r->peak_fraction))
        (void)snprintf(fraction, sizeof(fraction), "%.0f %%", 100.0 * r->peak_fraction);
    if (!isnan(r->ratio_standard))
        (void)snprintf(ratio, sizeof(ratio), "%.2fx", r->ratio_standard);
    printf("%-16s %10.4f %10.4f %9.1f %8.2f %6s %-7s %9s %9.1e\n", r->kernel, r->ms_median, r->ms_min,
           1e-9 * r->flops_rate, 1e-9 * r->bytes_rate, fraction, bench_bound_name(r->bound), ratio,
           r->max_error);
    if (r->message[0])
        printf("      no ratio: %s\n", r->message);
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

static void json_string(FILE *file, const char *name, const char *value)
{
    json_name(file, name);
    cli_json_string(file, value);
}

static void json_result(FILE *file, const fa_device_info *device, const bench_peak *peak,
                        const bench_result *r)
{
    const shape *s = &r->problem.size;
    fputs("  {\n    \"backend\": ", file);
    cli_json_string(file, device->backend);
    json_string(file, "device", device->name);
    json_string(file, "dtype", fa_dtype_name(r->problem.dtype));
    json_integer(file, "batch", s->batch);
    json_integer(file, "heads_q", s->heads_q);
    json_integer(file, "heads_kv", s->heads_kv);
    json_integer(file, "len_q", s->len_q);
    json_integer(file, "len_kv", s->len_kv);
    json_integer(file, "dim", s->dim_qk);
    json_integer(file, "dim_v", s->dim_v);
    json_name(file, "causal");
    fputs(r->problem.causal ? "true" : "false", file);
    json_string(file, "kernel", r->kernel);
    json_number(file, "ms_median", r->ms_median);
    json_number(file, "ms_min", r->ms_min);
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
    json_number(file, "peak_tflops", peak->known ? 1e-12 * peak->flops : NAN);
    json_number(file, "peak_gbps", peak->known ? 1e-9 * peak->bytes : NAN);
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
