/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cmd.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli.h"
#include "tools/conform/conform.h"
#include "tools/conform/glob.h"
#include "tools/output.h"

static const char command[] = "conform";

static const char usage[] =
    "[options]\n"
    "\n"
    "Runs the conformance suite: every case on every kernel of a device, each forced in turn, compared\n"
    "with the double-precision oracle. The last line is 'N passed, N failed, N skipped'.\n"
    "\n"
    "Examples:\n"
    "  fastattn conform                                          the default device, all of it\n"
    "  fastattn conform --backend openmp --filter '*:causal-br/*'  one group of cases on every kernel\n"
    "  fastattn conform --kernel avx2-tile --seed 7              one kernel, other data and other random cases\n"
    "  fastattn conform --list --filter '*:random/*'             the names alone\n"
    "  fastattn conform --kv-type q8_0,i8:token --page 16        the cases that can have such a cache\n"
    "  fastattn conform --junit conform.xml --json conform.json  reports for machines\n"
    "\n"
    "A case is named KERNEL:GROUP/TYPES/LENGTHS/HEADS/DIMS; the same seed gives the same case the same data. With\n"
    "--kv-type or --page, those that can have such a cache run with it, others not, and names end with it:\n"
    "/kv-type=q8_0/page=16. Dims must be multiples of a type's block, and N of channelN must divide the page. The\n"
    "null backend computes nothing: there, calls, guards and inputs are checked, results are not.";

typedef struct conform_options {
    const char *backend, *filter, *kernel, *kv_type;
    cli_file reports[2]; /* JSON, JUnit XML */
    int64_t seed, page, scatter;
    conform_cache cache;
    int list, verbose, ignore_memory;
} conform_options;

static int parse(conform_options *o, int argc, char **argv)
{
    const cli_option options[] = {
        {"backend", 's', &o->backend, "<name> 'openmp', 'openmp:0', an order 'vulkan,openmp', or 'auto'"},
        {"filter", 's', &o->filter, "<glob> only what matches KERNEL:CASE; * matches / as well"},
        {"kernel", 's', &o->kernel, "<name> only this kernel; see 'fastattn devices'"},
        {"seed", 'i', &o->seed, "of the data and the random cases; 1"},
        {"kv-type", 's', &o->kv_type, KV_TYPES_HELP},
        {"page", 'i', &o->page, "keys of a page: k and v are pools of pages; 0: no pages but those of cases"},
        {"scatter", 'i', &o->scatter,
         "<seed> deal the pages of --page at random over the pool; -1, the default: in order"},
        {"list", 'f', &o->list, "print the names, run nothing"},
        {"json", 's', &o->reports[0].path, "<file> write a report as JSON; - for standard output"},
        {"junit", 's', &o->reports[1].path, "<file> write a report as JUnit XML; - for standard output"},
        {"ignore-memory", 'f', &o->ignore_memory, "run also the cases that memory seems too short for"},
        {"verbose", 'f', &o->verbose, "print every result, and the library's log on stderr"},
    };
    int parsed = cli_parse(command, usage, options, sizeof(options) / sizeof(options[0]), argc, argv);
    if (parsed == 0 && o->seed < 0) {
        cli_error(command, "--seed is %lld, expected 0 or more", (long long)o->seed);
        return 2;
    }
    if (parsed == 0 && !conform_cache_options(command, o->kv_type, o->page, o->scatter, &o->cache))
        return 2;
    return parsed;
}

/* A name as it is printed, "KERNEL:CASE". */
typedef struct full_name {
    char text[256];
} full_name;

static full_name name_of(const conform_kernel *kernel, const conform_case *c)
{
    full_name name;
    (void)snprintf(name.text, sizeof(name.text), "%s:%s", kernel->name, c->name);
    return name;
}

static bool chosen(const conform_options *o, const conform_kernel *kernel, const conform_case *c)
{
    full_name name = name_of(kernel, c);
    if (o->kernel && strcmp(o->kernel, kernel->name) != 0)
        return false;
    return !o->filter || glob_match(o->filter, name.text);
}

static void show_progress(size_t done, size_t total, const char *name)
{
    (void)fprintf(stderr, "\r\033[K[%zu/%zu] %.100s", done, total, name);
    (void)fflush(stderr);
}

static bool run_one(conform_suite *suite, const conform_options *o, conform_kernel *kernel,
                    const conform_case *c, bool progress)
{
    char message[1024] = "";
    check_result result;
    conform_outcome outcome = {.kernel = kernel->name, .name = c->name, .message = message};
    outcome.status = conform_run(suite, c, kernel, &result, message, sizeof(message));
    outcome.error = result.error;
    outcome.bound = result.bound;
    if (progress && (outcome.status == CONFORM_FAILED || o->verbose))
        (void)fputs("\r\033[K", stderr);
    if (outcome.status == CONFORM_FAILED)
        conform_print_failure(suite, &outcome);
    else if (o->verbose && outcome.status == CONFORM_PASSED)
        printf("passed %s:%s: error %.3g, bound %.3g\n", kernel->name, c->name, outcome.error, outcome.bound);
    return conform_record(suite, &outcome);
}

/* Cases outside, kernels inside: the expected result is computed once for all kernels. */
static bool run_all(conform_suite *suite, const conform_options *o, const conform_list *list, size_t total)
{
    bool progress = isatty(STDERR_FILENO) && isatty(STDOUT_FILENO);
    bool ok = true;
    size_t done = 0;
    for (size_t i = 0; ok && i < list->count; i++) {
        for (int n = 0; ok && n < suite->kernels; n++) {
            conform_kernel *kernel = &suite->kernel[n];
            const conform_case *c = &list->cases[i];
            if (!chosen(o, kernel, c))
                continue;
            if (progress)
                show_progress(++done, total, name_of(kernel, c).text);
            ok = run_one(suite, o, kernel, c, progress);
        }
    }
    if (progress)
        (void)fputs("\r\033[K", stderr);
    if (!ok)
        cli_error(command, "out of memory");
    return ok;
}

static size_t count_chosen(const conform_suite *suite, const conform_options *o, const conform_list *list)
{
    size_t count = 0;
    for (size_t i = 0; i < list->count; i++) {
        for (int n = 0; n < suite->kernels; n++) {
            count += chosen(o, &suite->kernel[n], &list->cases[i]);
            if (o->list && chosen(o, &suite->kernel[n], &list->cases[i]))
                printf("%s\n", name_of(&suite->kernel[n], &list->cases[i]).text);
        }
    }
    return count;
}

static bool write_reports(const conform_suite *suite, const conform_options *o)
{
    bool json = output_save(command, &o->reports[0], conform_write_json, suite);
    return output_save(command, &o->reports[1], conform_write_junit, suite) && json;
}

static int run_suite(conform_suite *suite, const conform_options *o, const conform_list *list)
{
    size_t total = count_chosen(suite, o, list);
    if (total == 0) {
        char cache[96];
        conform_cache_print(&suite->cache, cache, sizeof(cache));
        cli_error(
            command,
            "no case%s%s matches --filter '%s' on %s, expected %s; the names: fastattn conform --backend %s --list",
            cache[0] ? " that can have" : "", cache, o->filter ? o->filter : "*",
            o->kernel ? o->kernel : suite->info.kernels,
            cache[0]
                ? "cases whose dims are multiples of the type's block, and N of channelN to divide the page"
                : "a glob such as '*:causal-br/*'",
            suite->info.backend);
        return EXIT_USAGE;
    }
    if (o->list)
        return EXIT_OK;
    printf("%s:%d (%s), seed %llu: %zu cases on %s\n", suite->info.backend, (int)suite->info.index,
           cli_plain(suite->info.name).text, (unsigned long long)suite->seed, total,
           o->kernel ? o->kernel : suite->info.kernels);
    if (!suite->computes)
        printf("This backend computes nothing: calls, guards and inputs are checked, results are not.\n");
    bool ok = run_all(suite, o, list, total);
    conform_print_skips(suite);
    ok = write_reports(suite, o) && ok;
    if (ok && suite->count[CONFORM_PASSED] + suite->count[CONFORM_FAILED] == 0) {
        cli_error(command, "every case was skipped, so that nothing was shown");
        ok = false;
    }
    printf("%zu passed, %zu failed, %zu skipped\n", suite->count[CONFORM_PASSED],
           suite->count[CONFORM_FAILED], suite->count[CONFORM_SKIPPED]);
    return ok && suite->count[CONFORM_FAILED] == 0 ? EXIT_OK : EXIT_FAILED;
}

static bool open_device(conform_suite *suite)
{
    suite->info.struct_size = sizeof(suite->info);
    if (fa_device_open(suite->context, suite->backend, NULL, &suite->device) != FA_OK ||
        fa_device_get_info(suite->device, &suite->info) != FA_OK) {
        cli_error(command, "%s", fa_last_error());
        return false;
    }
    suite->computes = strcmp(suite->info.backend, "null") != 0;
    conform_suite_kernels(suite);
    return true;
}

static bool has_kernel(const conform_suite *suite, const char *name)
{
    for (int n = 0; name && n < suite->kernels; n++) {
        if (strcmp(suite->kernel[n].name, name) == 0)
            return true;
    }
    if (name)
        cli_error(command, "--kernel is '%s', expected one of %s", name, suite->info.kernels);
    return !name;
}

int cmd_conform(int argc, char **argv)
{
    conform_options o = {.reports = {{"json", NULL}, {"junit", NULL}}, .seed = 1, .scatter = PAGES_IN_ORDER};
    int parsed = parse(&o, argc, argv);
    if (parsed)
        return parsed == 1 ? EXIT_OK : EXIT_USAGE;
    if (!o.list && !output_check(command, o.reports, 2, NULL, 0))
        return EXIT_FAILED;
    conform_suite suite = {
        .backend = o.backend, .seed = (uint64_t)o.seed, .cache = o.cache, .ignore_memory = o.ignore_memory};
    conform_list list = {0};
    int code = EXIT_FAILED;
    suite.context = cli_context(command, o.verbose);
    if (suite.context && open_device(&suite)) {
        if (!has_kernel(&suite, o.kernel)) {
            code = EXIT_USAGE;
        } else if (!conform_list_make(suite.seed, &list)) {
            cli_error(command, "out of memory");
        } else {
            conform_list_take(&suite.cache, &list);
            code = run_suite(&suite, &o, &list);
        }
    }
    conform_suite_forget(&suite);
    for (size_t i = 0; i < suite.outcome_count; i++)
        free(suite.outcomes[i].message);
    free(suite.outcomes);
    conform_list_free(&list);
    fa_device_close(suite.device);
    fa_context_destroy(suite.context);
    return code;
}
