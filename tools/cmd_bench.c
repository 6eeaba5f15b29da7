/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd.h"

#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "cli.h"
#include "io/internal.h"

static const char command[] = "bench";

static const char usage[] =
    "[--shape SHAPE | --suite prefill|decode|quick] [options]\n"
    "\n"
    "Times attention, each case after its result was checked against the oracle. Without --shape or --suite "
    "it\n"
    "runs the quick suite.\n"
    "\n"
    "  GFLOP/s    2 (D + DV) operations per visible pair of query and key: 4 B H S S D, halved when causal\n"
    "  GB/s       q, k, v and o, each moved once\n"
    "  peak       the share of this machine's own ceilings, measured at the start: of f32 multiply-adds or "
    "of\n"
    "             memory reads, whichever is nearer, which 'bound' names; 'cache' when the data came from "
    "there,\n"
    "             and then the share may exceed 100 %\n"
    "  standard   the time of \"standard attention\" (matrix product, softmax, matrix product, with every "
    "score in\n"
    "             memory), run in turn with it on the same device, over the time\n"
    "  max error  of the timed configuration's output, against double precision; a sample of rows when it is "
    "long\n"
    "\n"
    "FASTATTN_THREADS sets the number of threads of the openmp backend, FASTATTN_ISA its instruction set.\n"
    "\n"
    "Examples:\n"
    "  fastattn bench\n"
    "  fastattn bench --shape B1,H8,S2048,D128 --causal --dtype f16\n"
    "  fastattn bench --shape B1,H32,S1,D128,HK8,SK16384 --dtype bf16\n"
    "  fastattn bench --suite prefill --json prefill.json --plot prefill.svg";

typedef struct arguments {
    const char *backend, *kernel, *shape, *dtype, *suite, *json, *plot;
    int causal, no_standard, verbose;
    double min_time;
} arguments;

/* What there is to do, and what came of it. */
typedef struct session {
    fa_device_info device;
    bench_peak peak;
    bench_case *cases;
    bench_result *results;
    size_t count, room;
} session;

static const fa_dtype all_dtypes[] = {FA_F32, FA_F16, FA_BF16};
enum { DTYPES = sizeof(all_dtypes) / sizeof(all_dtypes[0]) };

static int parse(arguments *a, int argc, char **argv)
{
    const cli_option options[] = {
        {"shape", 's', &a->shape,
         "<B1,H8,S2048,D128[,HK8][,SK2048][,DV128]> batch, heads, rows, dim; those of k and v"},
        {"suite", 's', &a->suite, "<prefill|decode|quick> a list of cases instead of one"},
        {"dtype", 's', &a->dtype,
         "<f32|f16|bf16> element type of every tensor; with --shape f32, in a suite each"},
        {"causal", 'f', &a->causal, "mask what lies behind each row; the last row sees every key"},
        {"backend", 's', &a->backend, "<name> 'openmp', 'openmp:0', an order 'vulkan,openmp', or 'auto'"},
        {"kernel", 's', &a->kernel, "<row> the kernel row to time; see 'fastattn devices'"},
        {"min-time", 'd', &a->min_time,
         "<seconds> time each case for at least this long, and five times; 0.5"},
        {"no-standard", 'f', &a->no_standard, "leave out the comparison with standard attention"},
        {"json", 's', &a->json, "<file> also write the results there, an array with an object per case"},
        {"plot", 's', &a->plot, "<file> also draw rate against length there, as SVG"},
        {"verbose", 'f', &a->verbose, "print the library's log on stderr"},
    };
    int parsed = cli_parse(command, usage, options, sizeof(options) / sizeof(options[0]), argc, argv);
    if (parsed)
        return parsed;
    if (a->shape && a->suite) {
        cli_error(command, "--shape is '%.100s' and --suite is '%.100s', expected one of the two", a->shape,
                  a->suite);
        return 2;
    }
    if (a->causal && !a->shape) {
        cli_error(command, "--causal without --shape: a suite has its own masks");
        return 2;
    }
    if (!(a->min_time > 0 && a->min_time <= 3600)) {
        cli_error(command, "--min-time is %g, expected more than 0 and at most 3600 seconds", a->min_time);
        return 2;
    }
    return 0;
}

static bool add_case(session *s, const bench_case *c)
{
    if (s->count == s->room) {
        size_t room = s->room ? 2 * s->room : 64;
        bench_case *grown = realloc(s->cases, room * sizeof(*grown));
        if (!grown)
            return false;
        s->cases = grown;
        s->room = room;
    }
    s->cases[s->count++] = *c;
    return true;
}

static bench_case square_case(int64_t length, int64_t dim, fa_dtype dtype, bool causal)
{
    return (bench_case){
        .size = {.batch = 1,
                 .heads_q = 8,
                 .len_q = length,
                 .dim_qk = dim,
                 .heads_kv = 8,
                 .len_kv = length,
                 .dim_v = dim},
        .dtype = dtype,
        .causal = causal,
    };
}

/* New tokens of one sequence against its cache, with the grouped heads of an 8-billion-parameter Llama 3. */
static bench_case cache_case(int64_t rows, int64_t keys, fa_dtype dtype)
{
    return (bench_case){
        .size = {.batch = 1,
                 .heads_q = 32,
                 .len_q = rows,
                 .dim_qk = 128,
                 .heads_kv = 8,
                 .len_kv = keys,
                 .dim_v = 128},
        .dtype = dtype,
    };
}

static bool add_prefill(session *s, fa_dtype dtype)
{
    bool ok = true;
    for (int64_t dim = 64; dim <= 128; dim *= 2) {
        for (int causal = 0; causal <= 1; causal++) {
            for (int64_t length = 512; ok && length <= 4096; length *= 2) {
                bench_case c = square_case(length, dim, dtype, causal);
                ok = add_case(s, &c);
            }
        }
    }
    return ok;
}

static bool add_decode(session *s, fa_dtype dtype)
{
    /* Around powers of two, where a kernel that has one path for few rows and one for many has its seam. */
    static const int64_t rows[] = {2, 3, 4, 7, 8, 12, 15, 16, 24, 31, 32, 48, 63};
    const int64_t long_cache = 4096;
    bool ok = true;
    for (int64_t keys = 1024; ok && keys <= 16384; keys *= 2) {
        bench_case c = cache_case(1, keys, dtype);
        ok = add_case(s, &c);
    }
    for (size_t i = 0; ok && i < sizeof(rows) / sizeof(rows[0]); i++) {
        bench_case c = cache_case(rows[i], long_cache, dtype);
        ok = add_case(s, &c);
    }
    return ok;
}

static bool add_quick(session *s, fa_dtype dtype)
{
    const bench_case cases[] = {
        square_case(512, 64, dtype, false),
        square_case(1024, 128, dtype, false),
        square_case(1024, 128, dtype, true),
        cache_case(1, 4096, dtype),
    };
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof(cases) / sizeof(cases[0]); i++)
        ok = add_case(s, &cases[i]);
    return ok;
}

/* EXIT_OK to go on. */
static int list_cases(const arguments *a, session *s)
{
    static const char *const dtype_names[] = {"f32", "f16", "bf16"};
    static const char *const suite_names[] = {"quick", "prefill", "decode"};
    static bool (*const suites[])(session *, fa_dtype) = {add_quick, add_prefill, add_decode};
    bool ok = true;
    int dtype = cli_word(command, "dtype", a->dtype, dtype_names, DTYPES);
    int suite = cli_word(command, "suite", a->suite, suite_names, sizeof(suites) / sizeof(suites[0]));
    if (dtype < 0 || suite < 0)
        return EXIT_USAGE;
    if (a->shape) {
        bench_case c = {.dtype = all_dtypes[dtype], .causal = a->causal};
        char error[160];
        if (!shape_parse(a->shape, &c.size, error, sizeof(error))) {
            cli_error(command, "--shape is '%.100s': %s", a->shape, error);
            return EXIT_USAGE;
        }
        ok = add_case(s, &c);
    }
    for (int i = 0; ok && !a->shape && i < DTYPES; i++) {
        if (!a->dtype || i == dtype)
            ok = suites[suite](s, all_dtypes[i]);
    }
    s->results = calloc(s->count + 1, sizeof(*s->results));
    if (ok && s->results)
        return EXIT_OK;
    cli_error(command, "no memory for the list of cases");
    return EXIT_FAILED;
}

typedef void writer(FILE *, const fa_device_info *, const bench_peak *, const bench_result *, size_t);

/* Tells a place where no file can be made before minutes were spent on what would go there. */
static bool possible(const char *option, const char *path)
{
    io_error error;
    io_atomic target;
    bool ok = !path || io_atomic_begin(&target, path, &error);
    if (path)
        (void)io_atomic_end(&target, false, NULL);
    if (!ok)
        cli_error(command, "--%s: %s", option, error.text);
    return ok;
}

/* Made in memory, then put in place whole. */
static bool save(const session *s, const char *option, const char *path, writer *write)
{
    char *text = NULL;
    size_t size = 0;
    io_error error = {"out of memory"};
    FILE *file = open_memstream(&text, &size);
    bool ok = file != NULL;
    if (ok) {
        write(file, &s->device, &s->peak, s->results, s->count);
        ok = !ferror(file);
        ok = fclose(file) == 0 && ok;
    }
    if (ok) {
        io_atomic target;
        ok = io_atomic_begin(&target, path, &error) && io_atomic_write(&target, text, size, &error);
        ok = io_atomic_end(&target, ok, &error);
    }
    free(text);
    if (!ok)
        cli_error(command, "--%s: %s", option, error.text);
    return ok;
}

/* False when a case failed, or none could be timed. */
static bool run_cases(fa_context *context, fa_device *device, const arguments *a, session *s)
{
    const bench_options options = {.kernel = a->kernel, .min_time = a->min_time, .standard = !a->no_standard};
    char message[256];
    size_t timed = 0, failed = 0;
    if (!bench_peak_measure(&s->device, &s->peak, message, sizeof(message)))
        printf("peak unknown: %s\n", message);
    bench_print_header(&s->device, &s->peak);
    for (size_t i = 0; i < s->count; i++) {
        bench_case_run(context, device, &s->peak, &options, &s->cases[i], &s->results[i]);
        bench_print_row(&s->results[i]);
        (void)fflush(stdout);
        timed += s->results[i].status == BENCH_TIMED;
        failed += s->results[i].status == BENCH_WRONG || s->results[i].status == BENCH_BROKEN;
    }
    if (failed)
        cli_error(command, "%zu of %zu cases failed", failed, s->count);
    else if (!timed)
        cli_error(command, "no case could be timed on %s:%d", s->device.backend, (int)s->device.index);
    return timed && !failed;
}

static int run_on_device(fa_context *context, const arguments *a, session *s)
{
    fa_device *device;
    if (fa_device_open(context, a->backend, NULL, &device) != FA_OK) {
        cli_error(command, "%s", fa_last_error());
        return EXIT_FAILED;
    }
    int code = EXIT_FAILED;
    s->device.struct_size = sizeof(s->device);
    if (fa_device_get_info(device, &s->device) != FA_OK) {
        cli_error(command, "%s", fa_last_error());
    } else if (!strcmp(s->device.backend, "null")) {
        cli_error(command,
                  "the null backend computes nothing, so there is nothing to time; choose another with "
                  "--backend or FASTATTN_BACKEND");
    } else if (possible("json", a->json) && possible("plot", a->plot)) {
        bool ok = run_cases(context, device, a, s);
        ok = (!a->json || save(s, "json", a->json, bench_write_json)) && ok;
        ok = (!a->plot || save(s, "plot", a->plot, bench_write_svg)) && ok;
        code = ok ? EXIT_OK : EXIT_FAILED;
    }
    fa_device_close(device);
    return code;
}

int cmd_bench(int argc, char **argv)
{
    arguments a = {.min_time = 0.5};
    int parsed = parse(&a, argc, argv);
    if (parsed)
        return parsed == 1 ? EXIT_OK : EXIT_USAGE;

    session s = {.count = 0};
    int code = list_cases(&a, &s);
    if (code == EXIT_OK) {
        fa_context *context = cli_context(command, a.verbose);
        code = context ? run_on_device(context, &a, &s) : EXIT_FAILED;
        fa_context_destroy(context);
    }
    free(s.cases);
    free(s.results);
    return code;
}
