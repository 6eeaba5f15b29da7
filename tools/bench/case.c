/* SPDX-License-Identifier: Apache-2.0 */
/* One case: its data, its plans, and the clock. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <fastattn/reference.h>

#include "tools/bench/bench.h"
#include "tools/cli.h"
#include "tools/random_lists.h"

/* A sample is one run, or as many as take this long, so that reading the clock does not count. */
#define MIN_SAMPLE 5e-6
/* A GPU that was idle may be this long in raising its clock. */
#define WARM_SECONDS 0.5
enum { MIN_SAMPLES = 5, MAX_SAMPLES = 200000, MAX_REPEAT = 1024 };

/* Everything that one case holds; released together, in whatever state. */
typedef struct setup {
    fa_context *context;
    fa_device *device;
    fa_queue *queue;
    fa_attention_desc desc;
    bench_data data;
    fa_buffer *q, *k, *v, *o, *page_table, *scale[BENCH_SCALES];
    size_t q_bytes, k_bytes, v_bytes, o_bytes, table_bytes, scale_bytes[BENCH_SCALES];
    int64_t *lens_kv; /* NULL without pages */
    random_lists lists;
    bool ignore_memory;
    bench_result *result;
} setup;

/* One kernel on that data, and the seconds that its runs took. */
typedef struct runner {
    fa_plan *plan;
    fa_plan_info info;
    fa_buffer *workspace;
    fa_attention_args args;
    fa_attention_desc desc; /* for calls without a plan; points to `tuning` */
    fa_tuning tuning;
    double bytes; /* of each operand once */
    bool host, by_device;
    int repeat;      /* runs of a sample */
    double *seconds; /* of a run, by sample: by the device's clock, else as `walls` */
    double *walls;
    size_t samples, room;
    double total; /* of `walls`, all runs */
} runner;

double bench_flops(const bench_case *c)
{
    const shape *s = &c->size;
    double rows = (double)s->len_q, keys = (double)s->len_kv, pairs = rows * keys;
    /* The area on the visible side of the diagonal, which ends in the last row's last key. */
    if (c->causal)
        pairs = rows < keys ? rows * keys - 0.5 * rows * rows : 0.5 * keys * keys;
    return 2.0 * (double)(s->batch * s->heads_q) * pairs * (double)(s->dim_qk + s->dim_v);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, size_t count)
{
    if (!count)
        return NAN;
    qsort(values, count, sizeof(*values), compare_doubles);
    return 0.5 * (values[(count - 1) / 2] + values[count / 2]);
}

static bool find_standard_kernel(const char *kernels, const char *kernel, char *name, size_t size)
{
    static const char suffix[] = "standard";
    const size_t suffix_length = sizeof(suffix) - 1;
    bool found = false;
    for (const char *at = kernels; *at;) {
        at += strspn(at, ", ");
        size_t length = strcspn(at, ", ");
        /* The prefix ends in '-', or is empty in a backend that has a single baseline. */
        if (length >= suffix_length && length < size &&
            !memcmp(at + length - suffix_length, suffix, suffix_length)) {
            size_t prefix = length - suffix_length;
            if (!strncmp(at, kernel, prefix) && (prefix > 0 || !found)) {
                memcpy(name, at, length);
                name[length] = '\0';
                found = true;
            }
        }
        at += length;
    }
    return found;
}

bool bench_standard_kernel(const char *kernels, const char *kernel, char *name, size_t size)
{
    /* What only multiplies bf16 numbers goes with the instruction set that does everything else there. */
    static const char *const bases[][2] = {{"avx512bf16-", "avx512-"}, {"amx-", "avx512-"}};
    static const char suffix[] = "standard";
    const size_t suffix_length = sizeof(suffix) - 1, length = strlen(kernel);
    if (length >= suffix_length && !strcmp(kernel + length - suffix_length, suffix))
        return false;
    bool found = find_standard_kernel(kernels, kernel, name, size);
    for (size_t i = 0; !found && i < sizeof(bases) / sizeof(bases[0]); i++) {
        if (!strncmp(kernel, bases[i][0], strlen(bases[i][0])))
            found = find_standard_kernel(kernels, bases[i][1], name, size);
    }
    return found;
}

bench_ceiling bench_peak_ceiling(const bench_peak *peak, const char *kernel)
{
    for (int i = 0; i < peak->dots; i++) {
        if (bench_isa_listed(kernel, peak->dot[i].isa))
            return peak->dot[i];
    }
    return (bench_ceiling){peak->isa, peak->flops};
}

double bench_peak_fraction(const bench_peak *peak, const char *kernel, double flops_rate, double bytes_rate,
                           bench_bound *bound)
{
    double flops = bench_peak_ceiling(peak, kernel).flops;
    *bound = BENCH_NO_BOUND;
    if (!peak->known || !(flops > 0) || !(peak->bytes > 0))
        return NAN;
    double compute = flops_rate / flops, memory = bytes_rate / peak->bytes;
    *bound = compute >= memory ? BENCH_COMPUTE : memory <= 1.0 ? BENCH_MEMORY : BENCH_CACHE;
    return fmax(compute, memory);
}

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The reason why the case ends here. False, so that a step can end in `return stop(...)`. */
static bool stop(bench_result *result, bench_status status, const char *what, const char *why)
{
    result->status = status;
    (void)snprintf(result->message, sizeof(result->message), "%s: %s", what, why);
    return false;
}

static bool passed(bench_result *result, const char *what, fa_status status)
{
    if (status == FA_OK)
        return true;
    bench_status kind =
        status == FA_UNSUPPORTED || status == FA_OUT_OF_MEMORY ? BENCH_UNSERVED : BENCH_BROKEN;
    char why[400];
    (void)snprintf(why, sizeof(why), "%s: %s", fa_status_name(status), fa_last_error());
    return stop(result, kind, what, why);
}

static bool describe(setup *s)
{
    const bench_case *c = &s->result->problem;
    const shape *size = &c->size;
    s->desc = (fa_attention_desc){
        .struct_size = sizeof(s->desc),
        .q = fa_tensor_make(c->dtype, size->batch, size->heads_q, size->len_q, size->dim_qk),
        .k = fa_tensor_make(c->dtype, size->batch, size->heads_kv, size->len_kv, size->dim_qk),
        .v = fa_tensor_make(c->dtype, size->batch, size->heads_kv, size->len_kv, size->dim_v),
        .o = fa_tensor_make(c->dtype, size->batch, size->heads_q, size->len_q, size->dim_v),
        .mask = c->causal ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE,
    };
    kv_types_describe(&c->kv, &s->desc);
    char why[160];
    if (!pages_describe(&c->pages, size, &s->desc, &s->lens_kv))
        return stop(s->result, BENCH_UNSERVED, "lengths", "out of memory");
    if (!random_lists_make(c->density, c->list_block, 1, &s->desc, &s->lists))
        return stop(s->result, BENCH_UNSERVED, "lists", "out of memory");
    if (c->near.axes > 0)
        s->desc.neighbourhood = &c->near;
    if (c->v_in_k)
        kv_types_share(&s->desc);
    return kv_types_scale(&c->kv, &s->desc, why, sizeof(why)) ||
           stop(s->result, BENCH_UNSERVED, "scales", why);
}

static bool upload(setup *s, const void *data, size_t bytes, fa_buffer **buffer)
{
    return passed(s->result, "buffer", fa_buffer_create(s->device, bytes, buffer)) &&
           passed(s->result, "buffer", fa_buffer_write(s->queue, *buffer, 0, data, bytes));
}

static bool make_tensor(setup *s, const fa_tensor *tensor, size_t bytes, uint64_t seed,
                        const bench_scaling *scaling, void **data, fa_buffer **buffer)
{
    *data = malloc(bytes ? bytes : 1);
    if (!*data)
        return stop(s->result, BENCH_UNSERVED, "data", "out of memory");
    if (seed)
        bench_fill(*data, tensor, bytes, seed, scaling);
    else
        memset(*data, 0, bytes);
    return upload(s, *data, bytes, buffer);
}

/* Every page of the pool once: in order, or in one of all orders. */
static void deal(const paging *p, int32_t *table, int64_t count)
{
    uint64_t seed = (uint64_t)p->seed;
    for (int64_t i = 0; i < count; i++) {
        table[i] = (int32_t)i;
        if (p->seed == PAGES_IN_ORDER)
            continue;
        const uint64_t at = bench_random(&seed) % ((uint64_t)i + 1);
        table[i] = table[at];
        table[at] = (int32_t)i;
    }
}

static bool make_table(setup *s)
{
    if (s->table_bytes == 0)
        return true;
    s->data.page_table = malloc(s->table_bytes);
    if (!s->data.page_table)
        return stop(s->result, BENCH_UNSERVED, "data", "out of memory");
    deal(&s->result->problem.pages, s->data.page_table, (int64_t)(s->table_bytes / sizeof(int32_t)));
    return upload(s, s->data.page_table, s->table_bytes, &s->page_table);
}

/* All scales of k, and all of v, are the same, and so are zeros. */
static bool make_scales(setup *s, const bench_scaling *of_k, const bench_scaling *of_v)
{
    const float value[BENCH_SCALES] = {of_k->scale, of_v->scale, of_k->zero, of_v->zero};
    for (int n = 0; n < BENCH_SCALES; n++) {
        const size_t bytes = s->scale_bytes[n];
        if (bytes == 0)
            continue;
        s->data.scale[n] = malloc(bytes);
        if (!s->data.scale[n])
            return stop(s->result, BENCH_UNSERVED, "data", "out of memory");
        bench_repeat(s->data.scale[n], bench_scale(&s->desc, n)->dtype, bytes, value[n]);
        if (!upload(s, s->data.scale[n], bytes, &s->scale[n]))
            return false;
    }
    return true;
}

/* Whether there is memory for so much more. What is to come of a case is small beside its data and its workspaces. */
static bool fits(setup *s, const char *what, double bytes)
{
    char why[384];
    if (s->ignore_memory || cli_memory_fits(bytes, why, sizeof(why)))
        return true;
    return stop(s->result, BENCH_UNSERVED, what, why);
}

static bool make_data(setup *s)
{
    const fa_attention_desc *d = &s->desc;
    if (!passed(s->result, "q", fa_tensor_span(&d->q, &s->q_bytes)) ||
        !passed(s->result, "k", fa_tensor_span(&d->k, &s->k_bytes)) ||
        (!d->v_in_k && !passed(s->result, "v", fa_tensor_span(&d->v, &s->v_bytes))) ||
        !passed(s->result, "o", fa_tensor_span(&d->o, &s->o_bytes)) ||
        !passed(s->result, "page table", fa_tensor_span(&d->page_table, &s->table_bytes)))
        return false;
    const bench_scaling of_k = bench_scaling_of(d->k.dtype, &d->k_scale, &d->k_zero),
                        of_v = bench_scaling_of(d->v.dtype, &d->v_scale, &d->v_zero);
    /* Each tensor lies here and in its buffer. */
    double bytes = 2.0 * ((double)s->q_bytes + (double)s->k_bytes + (double)s->v_bytes + (double)s->o_bytes +
                          (double)s->table_bytes);
    for (int n = 0; n < BENCH_SCALES; n++) {
        if (!passed(s->result, "scales", fa_tensor_span(bench_scale(d, n), &s->scale_bytes[n])))
            return false;
        bytes += 2.0 * (double)s->scale_bytes[n];
    }
    if (!fits(s, "data", bytes))
        return false;
    return make_tensor(s, &d->q, s->q_bytes, 1, NULL, &s->data.q, &s->q) &&
           make_tensor(s, &d->k, s->k_bytes, 2, &of_k, &s->data.k, &s->k) &&
           (d->v_in_k || make_tensor(s, &d->v, s->v_bytes, 3, &of_v, &s->data.v, &s->v)) &&
           make_tensor(s, &d->o, s->o_bytes, 0, NULL, &s->data.o, &s->o) && make_scales(s, &of_k, &of_v) &&
           make_table(s);
}

static void release_data(setup *s)
{
    fa_buffer_destroy(s->q);
    fa_buffer_destroy(s->k);
    fa_buffer_destroy(s->v);
    fa_buffer_destroy(s->o);
    fa_buffer_destroy(s->page_table);
    for (int n = 0; n < BENCH_SCALES; n++) {
        fa_buffer_destroy(s->scale[n]);
        free(s->data.scale[n]);
    }
    free(s->data.q);
    free(s->data.k);
    free(s->data.v);
    free(s->data.o);
    free(s->data.page_table);
    free(s->lens_kv);
    random_lists_free(&s->lists);
}

static bool runner_create(setup *s, const fa_tuning *tuning, bench_call call, runner *r)
{
    *r = (runner){.info.struct_size = sizeof(r->info), .desc = s->desc, .tuning = *tuning};
    r->host = call == BENCH_HOST;
    r->repeat = 1;
    r->desc.tuning = &r->tuning;
    if (!passed(s->result, "plan", fa_plan_create(s->device, &r->desc, &r->plan)) ||
        !passed(s->result, "plan", fa_plan_get_info(r->plan, &r->info)))
        return false;
    r->bytes = r->info.bytes_compulsory + (double)s->table_bytes;
    size_t bytes = fa_plan_workspace(r->plan);
    char what[96];
    (void)snprintf(what, sizeof(what), "workspace of %s", r->info.kernel);
    if (!fits(s, what, (double)bytes))
        return false;
    if (bytes && !passed(s->result, "workspace", fa_buffer_create(s->device, bytes, &r->workspace)))
        return false;
    r->args = (fa_attention_args){
        .struct_size = sizeof(r->args),
        .q = s->q,
        .k = s->k,
        .v = s->v,
        .o = s->o,
        .page_table = s->page_table,
        .k_scale = s->scale[BENCH_K_SCALE],
        .v_scale = s->scale[BENCH_V_SCALE],
        .k_zero = s->scale[BENCH_K_ZERO],
        .v_zero = s->scale[BENCH_V_ZERO],
        .workspace = r->workspace,
    };
    return true;
}

static void runner_destroy(runner *r)
{
    fa_plan_destroy(r->plan);
    fa_buffer_destroy(r->workspace);
    free(r->seconds);
    free(r->walls);
    *r = (runner){.plan = NULL};
}

static bool run(setup *s, const runner *r)
{
    const bench_data *d = &s->data;
    if (r->host)
        return passed(s->result, "fa_attention_host",
                      fa_attention_host(s->device, &r->desc, d->q, d->k, d->v, NULL, NULL, d->o, NULL));
    return passed(s->result, "run", fa_plan_run(r->plan, s->queue, &r->args)) &&
           passed(s->result, "run", fa_queue_wait(s->queue));
}

/* Whether the device times its runs shows at the first. Where it does, a sample is one run. */
static bool run_sample(setup *s, runner *r, double *wall, double *device)
{
    double start = now();
    for (int i = 0; i < r->repeat; i++) {
        if (!run(s, r))
            return false;
    }
    *wall = now() - start;
    if (!r->by_device)
        return true;
    fa_status status = fa_queue_seconds(s->queue, device);
    r->by_device = status == FA_OK;
    return status == FA_UNSUPPORTED || passed(s->result, "time", status);
}

static bool grow(runner *r)
{
    size_t room = r->room ? 2 * r->room : 64;
    double *seconds = realloc(r->seconds, room * sizeof(*seconds));
    if (seconds)
        r->seconds = seconds;
    double *walls = realloc(r->walls, room * sizeof(*walls));
    if (walls)
        r->walls = walls;
    if (seconds && walls)
        r->room = room;
    return seconds && walls;
}

static bool run_timed(setup *s, runner *r)
{
    if (r->samples == r->room && !grow(r))
        return stop(s->result, BENCH_BROKEN, "times", "out of memory");
    double wall, device = 0.0;
    if (!run_sample(s, r, &wall, &device))
        return false;
    r->seconds[r->samples] = (r->by_device ? device : wall) / r->repeat;
    r->walls[r->samples++] = wall / r->repeat;
    r->total += wall;
    return true;
}

/*
 * Finds how many runs make a sample, after one that finds the caches and the threads cold. A device with a clock of its own
 * works for a while first, though no longer than ten times min_time.
 */
static bool warm_up(setup *s, runner *r, double min_time)
{
    const double most = fmin(WARM_SECONDS, 10 * min_time);
    double wall, device = 0.0, spent = 0.0;
    r->by_device = !r->host;
    if (!run_sample(s, r, &wall, &device))
        return false;
    for (;;) {
        if (!run_sample(s, r, &wall, &device))
            return false;
        spent += wall;
        if (r->by_device && spent < most)
            continue;
        if (r->by_device || wall >= MIN_SAMPLE || r->repeat >= MAX_REPEAT)
            return true;
        r->repeat *= 2;
    }
}

/* NaN in what was there before tells an element that the run does not write. */
static bool check(setup *s, const runner *r, double *max_error)
{
    memset(s->data.o, 0xff, s->o_bytes);
    char why[400];
    if (!passed(s->result, "buffer", fa_buffer_write(s->queue, s->o, 0, s->data.o, s->o_bytes)) || !run(s, r))
        return false;
    if (!r->host && !passed(s->result, "buffer", fa_buffer_read(s->queue, s->o, 0, s->data.o, s->o_bytes)))
        return false;
    const check_means means = {.weights = r->info.weights};
    if (bench_verify(s->context, &s->result->problem, &s->desc, &s->data, &means, max_error, why,
                     sizeof(why)))
        return true;
    char what[96];
    (void)snprintf(what, sizeof(what), "wrong result of %s", r->info.kernel);
    return stop(s->result, BENCH_WRONG, what, why);
}

/*
 * Ours and the standard in turn, so that whatever else the machine does meets both alike. In each round ours
 * runs as long as the standard did, though for a slow standard no longer than its share of min_time.
 */
static bool measure(setup *s, runner *ours, runner *standard, double min_time)
{
    if (!warm_up(s, ours, min_time) || (standard && !warm_up(s, standard, min_time)))
        return false;
    while (ours->samples < MIN_SAMPLES || (ours->total < min_time && ours->samples < MAX_SAMPLES)) {
        double round = 0.0;
        if (standard) {
            double before = standard->total;
            if (!run_timed(s, standard))
                return false;
            round = fmin(standard->total - before, min_time / MIN_SAMPLES);
        }
        double before = ours->total;
        do {
            if (!run_timed(s, ours))
                return false;
        } while (ours->total - before < round && ours->samples < MAX_SAMPLES);
    }
    while (standard && standard->samples < MIN_SAMPLES) {
        if (!run_timed(s, standard) || !run_timed(s, ours))
            return false;
    }
    return true;
}

/* Whether it is compared with the same of all keys. */
static bool is_sparse(const bench_case *c)
{
    return c->density > 0 || c->near.axes > 0;
}

static void conclude(bench_result *result, const bench_peak *peak, runner *ours, runner *standard)
{
    double median = bench_median(ours->seconds, ours->samples);
    result->runs = (int)ours->samples * ours->repeat;
    result->ms_median = 1e3 * median;
    result->ms_min = 1e3 * ours->seconds[0];
    result->ms_wall = 1e3 * bench_median(ours->walls, ours->samples);
    result->by_device = ours->by_device;
    const bool listed = is_sparse(&result->problem);
    result->flops_rate = (listed ? ours->info.flops : bench_flops(&result->problem)) / median;
    result->bytes_rate = ours->bytes / median;
    result->peak_fraction =
        bench_peak_fraction(peak, result->kernel, result->flops_rate, result->bytes_rate, &result->bound);
    if (standard && listed) {
        result->ratio_dense = median / bench_median(standard->seconds, standard->samples);
        result->part = ours->info.flops / standard->info.flops;
    } else if (standard)
        result->ratio_standard = bench_median(standard->seconds, standard->samples) / median;
    result->status = BENCH_TIMED;
}

/*
 * The baseline: a kernel that serves this case, within memory, with a right result. There need not be one,
 * which leaves standard->plan NULL; false is for one that computes something wrong.
 */
static bool find_standard(setup *s, const runner *ours, runner *standard)
{
    fa_device_info info = {.struct_size = sizeof(info)};
    char name[64];
    double error;
    if (!passed(s->result, "device", fa_device_get_info(s->device, &info)))
        return false;
    if (!bench_standard_kernel(info.kernels, ours->info.kernel, name, sizeof(name)))
        return true;
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .kernel = name};
    if (runner_create(s, &tuning, BENCH_RUN, standard) && check(s, standard, &error))
        return true;
    runner_destroy(standard);
    return s->result->status == BENCH_UNSERVED;
}

/* The same of all keys, with blocks of the planner's choice: what lists and neighbourhoods are compared with. */
static bool find_dense(setup *s, const char *kernel, runner *dense)
{
    const fa_attention_desc sparse = s->desc;
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .kernel = kernel};
    double error;
    s->desc.lists = NULL;
    s->desc.neighbourhood = NULL;
    const bool ok = runner_create(s, &tuning, BENCH_RUN, dense) && check(s, dense, &error);
    s->desc.lists = sparse.lists;
    s->desc.neighbourhood = sparse.neighbourhood;
    return ok;
}

static void run_case(setup *s, const bench_peak *peak, const bench_options *options)
{
    runner ours = {.plan = NULL}, standard = {.plan = NULL};
    bench_result *result = s->result;
    const bench_case *c = &result->problem;
    const fa_tuning tuning = {
        .struct_size = sizeof(tuning),
        .kernel = options->kernel,
        .block_q = c->block_q,
        .block_kv = c->block_kv,
        .splits = c->splits,
    };
    if (make_data(s) && runner_create(s, &tuning, c->call, &ours)) {
        memcpy(result->kernel, ours.info.kernel, sizeof(result->kernel));
        result->block_q = ours.info.block_q;
        result->block_kv = ours.info.block_kv;
        result->splits = ours.info.splits;
        /* The baseline is run with a plan, which would be no measure of a call that makes one. */
        bool compare = (options->standard || is_sparse(c)) && c->call == BENCH_RUN;
        bool right = check(s, &ours, &result->max_error);
        if (right && compare)
            right =
                is_sparse(c) ? find_dense(s, options->kernel, &standard) : find_standard(s, &ours, &standard);
        runner *baseline = standard.plan ? &standard : NULL;
        if (right && measure(s, &ours, baseline, options->min_time))
            conclude(result, peak, &ours, baseline);
    }
    runner_destroy(&standard);
    runner_destroy(&ours);
}

static bool may_run(const bench_case *c, bench_result *result)
{
    return c->call == BENCH_RUN || !c->pages.keys ||
           stop(result, BENCH_UNSERVED, "fa_attention_host", "it takes no page table");
}

void bench_case_run(fa_context *context, fa_device *device, const bench_peak *peak,
                    const bench_options *options, const bench_case *c, bench_result *result)
{
    *result = (bench_result){
        .problem = *c,
        .status = BENCH_BROKEN,
        .ms_median = NAN,
        .ms_min = NAN,
        .ms_wall = NAN,
        .flops_rate = NAN,
        .bytes_rate = NAN,
        .peak_fraction = NAN,
        .ratio_standard = NAN,
        .ratio_dense = NAN,
        .part = NAN,
        .max_error = NAN,
    };
    setup s = {
        .context = context, .device = device, .ignore_memory = options->ignore_memory, .result = result};
    if (may_run(c, result) && describe(&s) && passed(result, "queue", fa_queue_create(device, &s.queue)))
        run_case(&s, peak, options);
    release_data(&s);
    fa_queue_destroy(s.queue);
}
