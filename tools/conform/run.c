/* SPDX-License-Identifier: Apache-2.0 */
/* One case on one kernel: its data, what the result should be, and its plan. */
#include <string.h>

#include "tools/cli.h"
#include "tools/conform/conform.h"

/* About what a case takes: each input with a copy to compare with, in a buffer, and to read back; each output twice, in
 * a buffer, and as the oracle and naive results; the work of the oracle. */
static double bytes_of(const conform_case *c, const conform_sizes *sizes)
{
    double rows = (double)c->batch * c->heads_q * sizes->len_q,
           keys = (double)c->batch * c->heads_kv * sizes->len_kv;
    double scores =
        (c->bias_axes == CONFORM_NO_AXES ? 0.0 : 4.0) + (c->keep_axes == CONFORM_NO_AXES ? 0.0 : 1.0);
    double inputs = sizeof(float) * (rows * c->dim_qk + keys * (c->dim_qk + c->dim_v)) +
                    scores * (double)c->batch * c->heads_q * sizes->len_q * sizes->len_kv;
    return 4 * inputs + rows * c->dim_v * (3 * sizeof(float) + 2 * sizeof(double)) + keys * 3 * sizeof(float);
}

/* Whether memory holds the case. The system is asked only where that can matter. */
static bool fits(const conform_suite *suite, const conform_case *c, const conform_sizes *sizes, char *message,
                 size_t size)
{
    const double careful = 128 << 20;
    double bytes = bytes_of(c, sizes);
    return suite->ignore_memory || bytes < careful || cli_memory_fits(bytes, message, size);
}

void conform_suite_forget(conform_suite *suite)
{
    check_reference_destroy(suite->reference);
    conform_data_free(&suite->data);
    suite->reference = NULL;
    suite->current = NULL;
}

/* The case's data, made anew only when the last kernel's cannot be used: they follow from lengths, whatever blocks are. */
static bool take_data(conform_suite *suite, const conform_case *c, const conform_sizes *sizes)
{
    const bool same =
        suite->current == c && suite->sizes.len_q == sizes->len_q && suite->sizes.len_kv == sizes->len_kv;
    if (!same) {
        conform_suite_forget(suite);
        if (!conform_data_make(c, sizes, suite->seed, &suite->data)) {
            conform_data_free(&suite->data);
            return false;
        }
    }
    suite->data.tuning.block_q = sizes->block_q;
    suite->data.tuning.block_kv = sizes->block_kv;
    suite->current = c;
    suite->sizes = *sizes;
    return true;
}

/* A reference, or the one there is for results by other means. */
static fa_status make_reference(conform_suite *suite, const check_means *means)
{
    const conform_data *data = &suite->data;
    if (!suite->reference)
        return check_reference_create(suite->context, &data->desc, &data->inputs, means, &suite->reference);
    return check_reference_by(suite->reference, suite->context, &data->desc, &data->inputs, means);
}

/* What the result should be, made once for all kernels; how far off it may be, for all of the same means. False, with the
 * reason. */
static bool take_reference(conform_suite *suite, check_means means, char *message, size_t size)
{
    const bool made = suite->reference, same = suite->means.weights == means.weights;
    if (suite->computes && !(made && same)) {
        fa_status status = make_reference(suite, &means);
        suite->means = means;
        if (status != FA_OK)
            (void)snprintf(message, size, "%s from the oracle: %s", fa_status_name(status), fa_last_error());
        if (status != FA_OK ||
            (!made && !conform_oracles_agree(&suite->data, suite->reference, message, size))) {
            check_reference_destroy(suite->reference);
            suite->reference = NULL;
            return false;
        }
    }
    if (suite->current->hazard >= CONFORM_HIDDEN)
        conform_poison(&suite->data, suite->current->hazard);
    return true;
}

static bool is_baseline(const char *kernel)
{
    const char *const suffix = "standard";
    size_t length = strlen(kernel), tail = strlen(suffix);
    return length >= tail && strcmp(kernel + length - tail, suffix) == 0;
}

/* A kernel may decline a case, but what it declines, another kernel of the OpenMP backend must serve. */
static conform_status declined(conform_suite *suite, const char *reason, char *message, size_t size)
{
    fa_attention_desc desc = suite->data.desc;
    fa_tuning tuning = suite->data.tuning;
    tuning.kernel = NULL;
    desc.tuning = &tuning;
    /* Others are not asked: to answer, a GPU's backend compiles. */
    if (strcmp(suite->info.backend, "openmp") != 0 ||
        fa_device_supports(suite->device, &desc, NULL, 0) == FA_OK) {
        (void)snprintf(message, size, "%s", reason);
        return CONFORM_SKIPPED;
    }
    (void)snprintf(message, size, "no kernel of the backend serves this: %s", fa_last_error());
    return CONFORM_FAILED;
}

/* The planner's answers must hold together. */
static bool check_plan(const fa_plan_info *info, const conform_kernel *kernel, const conform_sizes *sizes,
                       char *message, size_t size)
{
    int32_t excess_q = info->block_q - sizes->block_q, excess_kv = info->block_kv - sizes->block_kv;
    bool rounded = info->block_q % info->tile_q == 0 && info->block_kv % info->tile_kv == 0;
    bool forced_q = sizes->block_q == 0 || (excess_q >= 0 && excess_q < info->tile_q);
    bool forced_kv = sizes->block_kv == 0 || (excess_kv >= 0 && excess_kv < info->tile_kv);
    if (strcmp(info->kernel, kernel->name) != 0)
        (void)snprintf(message, size, "the plan's kernel is %s although %s was forced", info->kernel,
                       kernel->name);
    else if (!is_baseline(kernel->name) && !(rounded && forced_q && forced_kv))
        (void)snprintf(message, size, "the plan has blocks of %d x %d in tiles of %d x %d, asked for %d x %d",
                       info->block_q, info->block_kv, info->tile_q, info->tile_kv, sizes->block_q,
                       sizes->block_kv);
    else
        return true;
    return false;
}

static conform_status run_plan(conform_suite *suite, const conform_case *c, const conform_kernel *kernel,
                               const fa_plan *plan, check_result *result, char *message, size_t size)
{
    fa_plan_info info = {.struct_size = sizeof(info)};
    fa_status status = fa_plan_get_info(plan, &info);
    if (status != FA_OK) {
        (void)snprintf(message, size, "%s from fa_plan_get_info: %s", fa_status_name(status),
                       fa_last_error());
        return CONFORM_FAILED;
    }
    const check_means means = {info.weights, c->test == CONFORM_MERGE ? CONFORM_PARTS : 0};
    if (!check_plan(&info, kernel, &suite->sizes, message, size) ||
        !take_reference(suite, means, message, size))
        return CONFORM_FAILED;
    const conform_trial r = {suite, c, plan, result, message, size};
    return conform_judge(&r) ? CONFORM_PASSED : CONFORM_FAILED;
}

/* The name of a random case says nothing. */
static void add_description(const conform_case *c, char *message, size_t size)
{
    size_t used = strlen(message);
    char text[384];
    if (strncmp(c->name, "random/", strlen("random/")) != 0)
        return;
    conform_describe(c, text, sizeof(text));
    (void)snprintf(message + used, size - used, " (%s)", text);
}

conform_status conform_run(conform_suite *suite, const conform_case *c, conform_kernel *kernel,
                           check_result *result, char *message, size_t size)
{
    char reason[512];
    fa_plan *plan;
    *result = (check_result){0};
    if (!conform_measure_kernel(suite->device, c, kernel, message, size))
        return CONFORM_FAILED;
    conform_sizes sizes = conform_resolve(c, kernel);
    if (!fits(suite, c, &sizes, message, size))
        return CONFORM_SKIPPED;
    if (!take_data(suite, c, &sizes)) {
        (void)snprintf(message, size, "out of memory");
        return CONFORM_FAILED;
    }
    suite->data.tuning.kernel = kernel->name;
    fa_status supported = fa_device_supports(suite->device, &suite->data.desc, reason, sizeof(reason));
    fa_status planned = fa_plan_create(suite->device, &suite->data.desc, &plan);
    conform_status outcome = CONFORM_FAILED;
    if (supported != planned)
        (void)snprintf(message, size, "fa_device_supports says %s (%s), fa_plan_create %s (%s)",
                       fa_status_name(supported), reason, fa_status_name(planned),
                       planned ? fa_last_error() : "");
    else if (supported == FA_UNSUPPORTED)
        outcome = declined(suite, reason, message, size);
    else if (supported != FA_OK)
        (void)snprintf(message, size, "%s: %s", fa_status_name(supported), reason);
    else
        outcome = run_plan(suite, c, kernel, plan, result, message, size);
    fa_plan_destroy(plan);
    if (outcome == CONFORM_FAILED)
        add_description(c, message, size);
    return outcome;
}
