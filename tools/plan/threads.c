/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/plan/threads.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/context.h"
#include "tools/cli.h"

static const char variable[] = "FASTATTN_THREADS";

/* Digits at `*at`, which moves behind them; 0 where there are none or the number is too high. */
static int read_count(const char **at)
{
    int value = 0;
    size_t digits = strspn(*at, "0123456789");
    for (size_t i = 0; i < digits && value <= PLAN_MAX_THREADS; i++)
        value = 10 * value + ((*at)[i] - '0');
    *at += digits;
    return value <= PLAN_MAX_THREADS ? value : 0;
}

bool plan_threads_parse(const char *text, plan_threads *list, char *error, size_t error_size)
{
    list->counts = 0;
    for (const char *part = text;;) {
        const size_t length = strcspn(part, ",");
        const char *at = part;
        int first = read_count(&at), last = first;
        if (*at == '-') {
            at++;
            last = read_count(&at);
        }
        if (at != part + length || first < 1 || last < first) {
            (void)snprintf(error, error_size,
                           "part '%.*s' is wrong, expected a number or a range of 1 to %d, such as 4 or 1-64",
                           (int)(length < 40 ? length : 40), part, PLAN_MAX_THREADS);
            return false;
        }
        if (last - first >= PLAN_MAX_THREADS - list->counts) {
            (void)snprintf(error, error_size, "expected at most %d numbers", PLAN_MAX_THREADS);
            return false;
        }
        for (int count = first; count <= last; count++)
            list->count[list->counts++] = count;
        if (!part[length])
            return true;
        part += length + 1;
    }
}

typedef struct outcome {
    fa_device_info device;
    fa_plan_info plan;
} outcome;

/* Plans on a device of so many units. */
static bool plan_on(fa_context *context, const char *command, const char *backend,
                    const fa_attention_desc *desc, int threads, outcome *out)
{
    fa_context_options options = context->options;
    fa_context *own = NULL;
    fa_device *device = NULL;
    fa_plan *plan = NULL;
    *out = (outcome){.device.struct_size = sizeof(out->device), .plan.struct_size = sizeof(out->plan)};
    options.struct_size = sizeof(options);
    options.threads = threads;
    bool ok = fa_context_create(&options, &own) == FA_OK &&
              fa_device_open(own, backend, desc, &device) == FA_OK &&
              fa_device_get_info(device, &out->device) == FA_OK &&
              fa_plan_create(device, desc, &plan) == FA_OK && fa_plan_get_info(plan, &out->plan) == FA_OK;
    if (!ok) {
        cli_error(command, "%s", fa_last_error());
    } else if (out->device.units != (uint32_t)threads) {
        cli_error(command,
                  "--threads: %s:%" PRId32 " has %" PRIu32
                  " units whatever a context's threads are, expected a backend that goes by them",
                  out->device.backend, out->device.index, out->device.units);
        ok = false;
    }
    fa_plan_destroy(plan);
    fa_device_close(device);
    fa_context_destroy(own);
    return ok;
}

static void print_head(const char *problem, const fa_device_info *device, bool json)
{
    if (json) {
        printf("{\"backend\": ");
        cli_json_string(stdout, device->backend);
        printf(", \"index\": %" PRId32 ", \"device\": ", device->index);
        cli_json_string(stdout, device->name);
        printf(", \"schedules\": [");
        return;
    }
    printf("%s on %s:%" PRId32 " (%s), modelled for %s set to each number\n\n", problem, device->backend,
           device->index, cli_plain(device->name).text, variable);
    printf("%7s  %-16s %-11s %8s %6s %7s %9s %11s %8s\n", "threads", "kernel", "blocks", "items", "splits",
           "workers", "imbalance", "ms", "speed-up");
}

static void print_outcome(const outcome *o, int threads, double one, bool first, bool json)
{
    const fa_plan_info *p = &o->plan;
    double speedup = p->seconds > 0 ? one / p->seconds : 1.0;
    if (json) {
        printf("%s\n {\"threads\": %d, \"kernel\": ", first ? "" : ",", threads);
        cli_json_string(stdout, p->kernel);
        printf(", \"block_q\": %" PRId32 ", \"block_kv\": %" PRId32 ", \"items\": %" PRId64
               ", \"merge_items\": %" PRId64 ", \"splits\": %" PRId32 ", \"workers\": %" PRIu32
               ", \"imbalance\": %.15g, \"seconds\": %.15g, \"speedup\": %.15g}",
               p->block_q, p->block_kv, p->items, p->merge_items, p->splits, p->workers, p->imbalance,
               p->seconds, speedup);
        return;
    }
    char blocks[32];
    (void)snprintf(blocks, sizeof(blocks), "%" PRId32 "x%" PRId32, p->block_q, p->block_kv);
    printf("%7d  %-16s %-11s %8" PRId64 " %6" PRId32 " %7" PRIu32 " %9.3f %11.4f %7.2fx\n", threads,
           p->kernel, blocks, p->items, p->splits, p->workers, p->imbalance, 1e3 * p->seconds, speedup);
}

bool plan_threads_show(fa_context *context, const char *command, const char *backend, const char *problem,
                       const fa_attention_desc *desc, const plan_threads *list, bool json)
{
    outcome o;
    if (!plan_on(context, command, backend, desc, 1, &o))
        return false;
    double one = o.plan.seconds;
    for (int i = 0; i < list->counts; i++) {
        if (!plan_on(context, command, backend, desc, list->count[i], &o))
            return false;
        if (i == 0)
            print_head(problem, &o.device, json);
        print_outcome(&o, list->count[i], one, i == 0, json);
    }
    if (json)
        printf("\n]}\n");
    return true;
}
