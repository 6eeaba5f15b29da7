/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cmd.h"

#include <stdlib.h>
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/cli.h"
#include "tools/grid.h"
#include "tools/output.h"
#include "tools/random_lists.h"

static const char command[] = "bench";

static const char usage[] =
    "[--shape SHAPE | --suite NAME] [options]\n"
    "\n"
    "Times attention, each case after its result was checked against the oracle. Without --shape or --suite\n"
    "it runs the quick suite.\n"
    "\n"
    "Suites, in f32, f16 and bf16 where nothing else is said:\n"
    "  quick      a case of each kind\n"
    "  prefill    as many queries as keys, 512 to 4096\n"
    "  decode     1 to 63 queries against a cache of 1024 to 16384 keys\n"
    "  blocks     level-1 blocks of 64 to 1024 keys; first, the planner's own choice\n"
    "  dims       head dims 1 to 576; f32 unless --dtype says otherwise\n"
    "  tiny       1 to 64 queries and keys; f32 unless --dtype says otherwise\n"
    "  overhead   one query, key and dim, so that what is timed is the call; f32 unless --dtype says "
    "otherwise\n"
    "  gpu        as many queries as keys, 2048 to 16384, 16 heads; one query of 32 heads over 8 in batches of\n"
    "             16 and 1, 4096 and 16384 keys\n"
    "\n"
    "Columns:\n"
    "  call       run: fa_plan_run with a plan made before; host: fa_attention_host, which plans, runs and\n"
    "             releases; calls of less than 5 us are timed several at a time\n"
    "  page       keys of a page, where keys lie in pages; - where they do not\n"
    "  scatter    the seed by which pages were dealt; - in order\n"
    "  blocks     rows x keys of a level-1 block, and /N where row blocks are split into up to N parts\n"
    "  clock      which one the times are by: device, from the start of a run's first kernel to the end of its\n"
    "             last; wall, from the call to its end\n"
    "  GFLOP/s    2 (D + DV) operations per visible pair of query and key: 4 B H S S D, halved when causal\n"
    "  GB/s       q, k, v and o, each moved once, and 4 bytes of the page table for each page\n"
    "  peak       the share of this device's own ceilings, measured at the start: of multiply-adds or of\n"
    "             memory reads, whichever is nearer, which 'bound' names; 'cache' when the data came from\n"
    "             there, and then the share may exceed 100 %. Multiply-adds are f32, or bf16 dot products\n"
    "             for a kernel that is named after an instruction set for those\n"
    "  standard   the time of \"standard attention\" (matrix product, softmax, matrix product, with every\n"
    "             score in memory), run in turn with it on the same device, over the time; openmp alone has it\n"
    "  max error  of the timed configuration's output, against double precision; a sample of rows when it\n"
    "             is long\n"
    "\n"
    "--plot draws rate against length, in the suite blocks against keys of a block, in dims against head "
    "dim.\n"
    "FASTATTN_THREADS sets the number of threads of the openmp backend, FASTATTN_ISA its instruction set.\n"
    "\n"
    "Examples:\n"
    "  fastattn bench\n"
    "  fastattn bench --shape B1,H8,S2048,D128 --causal --dtype f16\n"
    "  fastattn bench --shape B1,H32,S1,D128,HK8,SK16384 --dtype bf16\n"
    "  fastattn bench --shape B1,H8,S2048,D128 --block-q 256 --block-kv 128\n"
    "  fastattn bench --shape B1,H8,S16384,D128 --density 0.25 --list-block 64\n"
    "  fastattn bench --shape B1,H8,S4096,D64 --dtype f16 --grid 64x64 --neighbourhood 13x13\n"
    "  fastattn bench --suite decode --page 16 --scatter 1\n"
    "  fastattn bench --suite prefill --json prefill.json --plot prefill.svg";

enum { JSON, PLOT, OUTPUTS };

typedef struct arguments {
    const char *backend, *kernel, *shape, *dtype, *kv_type, *suite;
    cli_file outputs[OUTPUTS];
    int causal, v_in_k, no_standard, no_peak, verbose, ignore_memory;
    int64_t block_q, block_kv, splits, page, scatter, list_block;
    double min_time, density;
    grid_options grid;
} arguments;

/* What there is to do, and what came of it. */
typedef struct session {
    fa_device_info device;
    bench_peak peak;
    bench_cases cases;
    bench_result *results;
} session;

static const fa_dtype all_dtypes[] = {FA_F32, FA_F16, FA_BF16};
enum { DTYPES = sizeof(all_dtypes) / sizeof(all_dtypes[0]) };

static int parse(arguments *a, int argc, char **argv)
{
    const cli_option options[] = {
        {"shape", 's', &a->shape,
         "<B1,H8,S2048,D128[,HK8][,SK2048][,DV128]> batch, heads, rows, dim; those of k and v"},
        {"suite", 's', &a->suite, "<name> one of the lists above instead of one case"},
        {"dtype", 's', &a->dtype,
         "<f32|f16|bf16> element type of every tensor; with --shape f32, in a suite each of its own"},
        {"kv-type", 's', &a->kv_type, KV_TYPES_HELP "; with --v-in-k and D576,DV512 fp8_ds_mla"},
        {"v-in-k", 'f', &a->v_in_k,
         "v is the first DV dims of k, as in latent attention: one row of memory is both"},
        {"causal", 'f', &a->causal, "mask what lies behind each row; the last row sees every key"},
        {"density", 'd', &a->density,
         "random lists of key blocks, with this part of the blocks for each block of rows; timed in turn with the "
         "same without lists, and how their times compare is printed; 0: no lists"},
        {"list-block", 'i', &a->list_block, "rows and keys of a block of those lists; 64"},
        GRID_OPTIONS(a->grid),
        {"page", 'i', &a->page,
         "keys of a page: k and v are pools of pages, and each sequence has SK keys; 0: no pages"},
        {"scatter", 'i', &a->scatter,
         "<seed> deal the pages of --page at random over the pool; -1, the default: in order"},
        {"backend", 's', &a->backend, "<name> 'openmp', 'openmp:0', an order 'vulkan,openmp', or 'auto'"},
        {"kernel", 's', &a->kernel, "<name> the kernel to time; see 'fastattn devices'"},
        {"block-q", 'i', &a->block_q, "rows of a level-1 block; 0: the planner decides"},
        {"block-kv", 'i', &a->block_kv, "keys of a level-1 block; 0: the planner decides"},
        {"splits", 'i', &a->splits,
         "most parts that each row block's keys are split into; 0: the planner decides"},
        {"min-time", 'd', &a->min_time,
         "<seconds> time each case for at least this long, and five times; 0.5"},
        {"no-standard", 'f', &a->no_standard, "leave out the comparison with standard attention"},
        {"no-peak", 'f', &a->no_peak,
         "leave out the measurement of this device's ceilings, and shares of them"},
        {"json", 's', &a->outputs[JSON].path,
         "<file> also write the results there, an array with an object per case; - for standard output"},
        {"plot", 's', &a->outputs[PLOT].path,
         "<file> also draw the rates there, as SVG; - for standard output"},
        {"ignore-memory", 'f', &a->ignore_memory, "time also the cases that memory seems too short for"},
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
    if (a->grid.size && !a->shape) {
        cli_error(command, "--grid without --shape: a suite has rows of its own");
        return 2;
    }
    if (!(a->min_time > 0 && a->min_time <= 3600)) {
        cli_error(command, "--min-time is %g, expected more than 0 and at most 3600 seconds", a->min_time);
        return 2;
    }
    return 0;
}

static const char *const dtype_names[] = {"f32", "f16", "bf16"};

static bool parse_shape(const arguments *a, int dtype, bench_case *c)
{
    char error[160];
    *c = (bench_case){.dtype = all_dtypes[dtype], .causal = a->causal};
    if (shape_parse(a->shape, &c->size, error, sizeof(error)))
        return true;
    cli_error(command, "--shape is '%.100s': %s", a->shape, error);
    return false;
}

/* What the command line asks for goes to every case, except where it is what a suite is about. */
static bool apply_options(const arguments *a, bench_cases *cases)
{
    fa_tuning tuning;
    paging pages;
    kv_types kv;
    fa_neighbourhood near;
    if (!pages_options(command, a->page, a->scatter, &pages) || !kv_types_option(command, a->kv_type, &kv) ||
        !kv_types_whole(command, &kv) || !cli_int32(command, "block-q", a->block_q, &tuning.block_q) ||
        !cli_int32(command, "block-kv", a->block_kv, &tuning.block_kv) ||
        !cli_int32(command, "splits", a->splits, &tuning.splits))
        return false;
    if (!random_lists_options(command, a->density, a->list_block, 0, 1) ||
        !grid_parse(command, &a->grid, &near))
        return false;
    for (size_t i = 0; i < cases->count; i++) {
        bench_case *c = &cases->item[i];
        c->density = a->density;
        c->list_block = a->list_block;
        c->near = near;
        if (c->axis == BENCH_BY_BLOCK && tuning.block_kv) {
            cli_error(command, "--block-kv with --suite %s, which has its own widths of blocks", a->suite);
            return false;
        }
        c->block_q = tuning.block_q;
        c->block_kv = tuning.block_kv ? tuning.block_kv : c->block_kv;
        c->splits = tuning.splits;
        c->pages = pages;
        c->kv = kv;
        c->v_in_k = a->v_in_k;
    }
    return true;
}

/* A plot without a single case in it is refused before anything is timed. */
static bool can_be_drawn(const arguments *a, const bench_cases *cases)
{
    size_t drawn = 0;
    for (size_t i = 0; i < cases->count; i++)
        drawn += cases->item[i].axis != BENCH_NOT_DRAWN;
    bool wanted = a->outputs[PLOT].path != NULL;
    if (wanted && !drawn)
        cli_error(command,
                  "--plot with --suite %s: what a call costs is no rate, so there is nothing to draw",
                  a->suite);
    return !wanted || drawn;
}

/* EXIT_OK to go on. */
static int list_cases(const arguments *a, session *s)
{
    const char *suite_names[BENCH_SUITES];
    bench_case one;
    for (int i = 0; i < BENCH_SUITES; i++)
        suite_names[i] = bench_suites[i].name;
    int dtype = cli_word(command, "dtype", a->dtype, dtype_names, DTYPES);
    int index = cli_word(command, "suite", a->suite, suite_names, BENCH_SUITES);
    if (dtype < 0 || index < 0 || (a->shape && !parse_shape(a, dtype, &one)))
        return EXIT_USAGE;
    const bench_suite *suite = &bench_suites[index];
    bool ok = !a->shape || bench_cases_add(&s->cases, &one);
    for (int i = 0; ok && !a->shape && i < DTYPES; i++) {
        if (i == dtype || !(a->dtype || suite->f32_only))
            ok = suite->add(&s->cases, all_dtypes[i]);
    }
    s->results = calloc(s->cases.count + 1, sizeof(*s->results));
    if (!ok || !s->results) {
        cli_error(command, "no memory for the list of cases");
        return EXIT_FAILED;
    }
    return apply_options(a, &s->cases) && can_be_drawn(a, &s->cases) ? EXIT_OK : EXIT_USAGE;
}

static void write_json(FILE *file, const void *what)
{
    const session *s = what;
    bench_write_json(file, &s->device, &s->peak, s->results, s->cases.count);
}

static void write_svg(FILE *file, const void *what)
{
    const session *s = what;
    bench_write_svg(file, &s->device, &s->peak, s->results, s->cases.count);
}

/* False when a case failed, or none could be timed. */
static bool run_cases(fa_context *context, fa_device *device, const arguments *a, session *s)
{
    const bench_options options = {.kernel = a->kernel,
                                   .min_time = a->min_time,
                                   .standard = !a->no_standard,
                                   .ignore_memory = a->ignore_memory};
    char message[256];
    size_t timed = 0, failed = 0;
    if (!a->no_peak && !bench_peak_measure(device, &s->device, &s->peak, message, sizeof(message)))
        printf("peak unknown: %s\n", cli_plain(message).text);
    bench_print_header(&s->device, &s->peak);
    for (size_t i = 0; i < s->cases.count; i++) {
        bench_case_run(context, device, &s->peak, &options, &s->cases.item[i], &s->results[i]);
        bench_print_row(&s->results[i]);
        (void)fflush(stdout);
        timed += s->results[i].status == BENCH_TIMED;
        failed += s->results[i].status == BENCH_WRONG || s->results[i].status == BENCH_BROKEN;
    }
    if (failed)
        cli_error(command, "%zu of %zu cases failed", failed, s->cases.count);
    else if (!timed)
        cli_error(command, "no case could be timed on %s:%d", s->device.backend, (int)s->device.index);
    return timed && !failed;
}

static int run_on_device(fa_context *context, arguments *a, session *s)
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
    } else if (output_check(command, a->outputs, OUTPUTS, NULL, 0)) {
        bool ok = run_cases(context, device, a, s);
        ok = output_save(command, &a->outputs[JSON], write_json, s) && ok;
        ok = output_save(command, &a->outputs[PLOT], write_svg, s) && ok;
        code = ok ? EXIT_OK : EXIT_FAILED;
    }
    fa_device_close(device);
    return code;
}

int cmd_bench(int argc, char **argv)
{
    arguments a = {.outputs = {[JSON] = {"json", NULL}, [PLOT] = {"plot", NULL}},
                   .scatter = PAGES_IN_ORDER,
                   .list_block = 64,
                   .min_time = 0.5};
    int parsed = parse(&a, argc, argv);
    if (parsed)
        return parsed == 1 ? EXIT_OK : EXIT_USAGE;

    session s = {.results = NULL};
    int code = list_cases(&a, &s);
    if (code == EXIT_OK) {
        fa_context *context = cli_context(command, a.verbose);
        code = context ? run_on_device(context, &a, &s) : EXIT_FAILED;
        fa_context_destroy(context);
    }
    free(s.cases.item);
    free(s.results);
    return code;
}
