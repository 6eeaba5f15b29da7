/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/conform/conform.h"

static const char *const status_names[] = {"passed", "failed", "skipped"};

bool conform_record(conform_suite *suite, const conform_outcome *outcome)
{
    if (suite->outcome_count == suite->outcome_room) {
        size_t room = suite->outcome_room ? 2 * suite->outcome_room : 1024;
        conform_outcome *grown = realloc(suite->outcomes, room * sizeof(*grown));
        if (!grown)
            return false;
        suite->outcomes = grown;
        suite->outcome_room = room;
    }
    conform_outcome *kept = &suite->outcomes[suite->outcome_count];
    *kept = *outcome;
    kept->message = outcome->message[0] ? strdup(outcome->message) : NULL;
    if (outcome->message[0] && !kept->message)
        return false;
    suite->outcome_count++;
    suite->count[outcome->status]++;
    return true;
}

static const char *message_of(const conform_outcome *outcome)
{
    return outcome->message ? outcome->message : "";
}

void conform_print_failure(const conform_suite *suite, const conform_outcome *outcome)
{
    char cache[96];
    conform_cache_print(&suite->cache, cache, sizeof(cache));
    printf("FAILED %s:%s: %s; reproduce: fastattn conform --backend %s --seed %llu%s --filter '%s:%s'\n",
           outcome->kernel, outcome->name, cli_plain(message_of(outcome)).text,
           cli_plain(suite->backend ? suite->backend : suite->info.backend).text,
           (unsigned long long)suite->seed, cache, outcome->kernel, outcome->name);
    (void)fflush(stdout);
}

static bool same_skip(const conform_outcome *a, const conform_outcome *b)
{
    return a->status == b->status && strcmp(a->kernel, b->kernel) == 0 &&
           strcmp(message_of(a), message_of(b)) == 0;
}

/* The reasons why one kernel declined cases, each once, as many as a reader wants to see. */
static void print_skips_of(const conform_suite *suite, const char *kernel)
{
    enum { SHOWN = 4 };
    size_t reasons = 0;
    for (size_t i = 0; i < suite->outcome_count; i++) {
        const conform_outcome *first = &suite->outcomes[i];
        if (first->status != CONFORM_SKIPPED || strcmp(first->kernel, kernel) != 0)
            continue;
        size_t earlier = 0, alike = 1;
        for (size_t j = 0; j < suite->outcome_count; j++) {
            if (j != i && same_skip(first, &suite->outcomes[j])) {
                earlier += j < i;
                alike++;
            }
        }
        if (earlier == 0 && reasons++ < SHOWN)
            printf("skipped %zu of %s: %s\n", alike, kernel, cli_plain(message_of(first)).text);
    }
    if (reasons > SHOWN)
        printf("skipped others of %s for %zu more reasons: see --json\n", kernel, reasons - SHOWN);
}

void conform_print_skips(const conform_suite *suite)
{
    for (int n = 0; n < suite->kernels; n++)
        print_skips_of(suite, suite->kernel[n].name);
}

/* JSON has no NaN and no infinity. */
static void write_number(FILE *file, const char *name, double value)
{
    if (isfinite(value))
        (void)fprintf(file, ", \"%s\": %.9g", name, value);
    else
        (void)fprintf(file, ", \"%s\": null", name);
}

void conform_write_json(FILE *file, const void *what)
{
    const conform_suite *suite = what;
    (void)fprintf(file, "{\"backend\": ");
    cli_json_string(file, suite->info.backend);
    (void)fprintf(file, ", \"device\": ");
    cli_json_string(file, suite->info.name);
    (void)fprintf(file,
                  ", \"seed\": %llu, \"compared\": %s, \"passed\": %zu, \"failed\": %zu, \"skipped\": %zu",
                  (unsigned long long)suite->seed, suite->computes ? "true" : "false",
                  suite->count[CONFORM_PASSED], suite->count[CONFORM_FAILED], suite->count[CONFORM_SKIPPED]);
    (void)fprintf(file, ",\n \"cases\": [");
    for (size_t i = 0; i < suite->outcome_count; i++) {
        const conform_outcome *o = &suite->outcomes[i];
        (void)fprintf(file, "%s\n  {\"kernel\": ", i ? "," : "");
        cli_json_string(file, o->kernel);
        (void)fprintf(file, ", \"case\": ");
        cli_json_string(file, o->name);
        (void)fprintf(file, ", \"status\": \"%s\"", status_names[o->status]);
        write_number(file, "error", o->error);
        write_number(file, "bound", o->bound);
        (void)fprintf(file, ", \"message\": ");
        cli_json_string(file, message_of(o));
        (void)fputc('}', file);
    }
    (void)fprintf(file, "\n]}\n");
}

void conform_write_junit(FILE *file, const void *what)
{
    const conform_suite *suite = what;
    (void)fprintf(file,
                  "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"conform-");
    cli_xml_text(file, suite->info.backend);
    (void)fprintf(file, "\" tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"%zu\">\n",
                  suite->outcome_count, suite->count[CONFORM_FAILED], suite->count[CONFORM_SKIPPED]);
    for (size_t i = 0; i < suite->outcome_count; i++) {
        const conform_outcome *o = &suite->outcomes[i];
        (void)fprintf(file, "<testcase classname=\"");
        cli_xml_text(file, o->kernel);
        (void)fprintf(file, "\" name=\"");
        cli_xml_text(file, o->name);
        if (o->status == CONFORM_PASSED) {
            (void)fprintf(file, "\"/>\n");
            continue;
        }
        (void)fprintf(file, "\"><%s message=\"", o->status == CONFORM_FAILED ? "failure" : "skipped");
        cli_xml_text(file, message_of(o));
        (void)fprintf(file, "\"/></testcase>\n");
    }
    (void)fprintf(file, "</testsuite>\n</testsuites>\n");
}
