/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cmd.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/run/run.h"

static const char usage[] =
    "--q Q.npy --k K.npy --v V.npy [options] --out O.npy\n"
    "       fastattn run --file T.safetensors [options] --out O.npy\n"
    "\n"
    "Computes the attention of tensors in files. Axes are (batch, head, row, dim); a file with three has\n"
    "batch 1, one with two also one head. npy files hold f32 or f16, safetensors files also bf16; f64 is\n"
    "rounded to f32, which a note says. Outputs appear whole or not at all, and not when --check or --expect\n"
    "fails. They replace no input. Before anything is read, what is needed is compared with the memory that\n"
    "this process can still take.\n"
    "\n"
    "Examples:\n"
    "  fastattn run --q q.npy --k k.npy --v v.npy --out o.npy --check\n"
    "  fastattn run --q q.npy --k k.npy --v v.npy --causal bottom-right --out o.npy --lse lse.npy\n"
    "  fastattn run --q q.npy --k pool-k.npy --v pool-v.npy --page-table t.npy --lens-kv n.npy --out o.npy\n"
    "  fastattn run --q q.npy --k k.npy --v v.npy --kv-type q8_0,q4_0 --out o.npy --check\n"
    "  fastattn run --file layer0.safetensors --expect-name o --check";

static int parse(run_options *o, int argc, char **argv)
{
    const cli_option options[] = {
        {"q", 's', &o->q,
         "<file.npy> queries; - or a pipe, as <(...) makes one, for this and all other inputs"},
        {"k", 's', &o->k, "<file.npy> keys"},
        {"v", 's', &o->v, "<file.npy> values"},
        {"v-in-k", 'i', &o->v_in_k,
         "<dims> v is so many first dims of k, as in latent attention; without --v"},
        {"bias", 's', &o->bias,
         "<file.npy> added to the scaled scores; trailing axes of (batch, head, row, key)"},
        {"keep", 's', &o->keep, "<file.npy> u8 or bool: a key is visible where not 0; axes as --bias"},
        {"page-table", 's', &o->page_table,
         "<file.npy> the pages of each batch entry, whole numbers: k and v are pools, axis 0 the page"},
        {"kv-type", 's', &o->kv_type,
         "<type[,type]> of k and v, or of each, as in a cache: f32 f16 bf16 e4m3 e5m2 q8_0 q4_0 q4_1 q5_0 q5_1\n"
         "iq4_nl fp8_ds_mla, i8 i4 i2 u8 u4 u2 u1 u2u1 e2m1. Behind a colon, how many elements share a scale: tensor\n"
         "head token groupN channelN. bitmap_f16:0.5 keeps half of a row's elements, bitmap_f16:64 so many. Files of\n"
         "f32, f16 or bf16 are converted; those of u8 hold the bytes of each row, but of bitmap_f16"},
        {"k-scale", 's', &o->scales[RUN_K_SCALE],
         "<file.npy> scales of k of u8: each axis 1 or that of k, keys and dims also a divisor of it"},
        {"v-scale", 's', &o->scales[RUN_V_SCALE], "<file.npy> likewise of v"},
        {"k-zero", 's', &o->scales[RUN_K_ZERO], "<file.npy> zeros beside --k-scale"},
        {"v-zero", 's', &o->scales[RUN_V_ZERO], "<file.npy> zeros beside --v-scale"},
        {"file", 's', &o->file, "<file.safetensors> where tensors named below are"},
        {"q-name", 's', &o->q_name, "<tensor> queries in --file; q"},
        {"k-name", 's', &o->k_name, "<tensor> keys in --file; k"},
        {"v-name", 's', &o->v_name, "<tensor> values in --file; v"},
        {"bias-name", 's', &o->bias_name, "<tensor> as --bias, in --file; none"},
        {"keep-name", 's', &o->keep_name, "<tensor> as --keep, in --file; none"},
        {"page-table-name", 's', &o->page_table_name, "<tensor> as --page-table, in --file; none"},
        {"k-scale-name", 's', &o->scale_names[RUN_K_SCALE], "<tensor> as --k-scale, in --file; none"},
        {"v-scale-name", 's', &o->scale_names[RUN_V_SCALE], "<tensor> as --v-scale, in --file; none"},
        {"k-zero-name", 's', &o->scale_names[RUN_K_ZERO], "<tensor> as --k-zero, in --file; none"},
        {"v-zero-name", 's', &o->scale_names[RUN_V_ZERO], "<tensor> as --v-zero, in --file; none"},
        {"layout", 's', &o->layout,
         "<bhsd|bshd> order of the files' axes: heads before rows, or behind; bhsd"},
        {"causal", 's', &o->causal,
         "<top-left|bottom-right> which corner the diagonal starts from or ends in"},
        {"align", 's', &o->align,
         "<top-left|bottom-right> where windows and ALiBi count from without --causal; bottom-right"},
        {"window-left", 'i', &o->window_left, "keys visible up to and with the row's own; 0: all"},
        {"window-right", 'i', &o->window_right, "keys visible from the row's own on; 0: all"},
        {"prefix", 'i', &o->prefix, "keys at the start that every row sees"},
        {"lens-q", 's', &o->lens_q,
         "<file.npy> rows in use of each batch entry, whole numbers; those behind are 0 in the outputs"},
        {"lens-kv", 's', &o->lens_kv, "<file.npy> keys in use of each batch entry"},
        {"first-kv", 's', &o->first_kv,
         "<file.npy> first key in use of each batch entry, as in caches padded on the left"},
        {"scale", 'd', &o->scale, "of the scores, 0 too; 1/sqrt(dim)"},
        {"softcap", 'd', &o->softcap, "scores become X * tanh(score / X); none"},
        {"alibi", 's', &o->alibi, "<file.npy> one slope per query head, or per batch entry and query head"},
        {"bias-factors", 's', &o->bias_factors, "<file.npy> one factor of the bias per query head"},
        {"sinks", 's', &o->sinks, "<file.npy> one logit per query head that takes weight and gives no value"},
        {"out", 's', &o->outputs[0].path,
         "<file.npy> the output, - for standard output; may be left out with --check or --expect"},
        {"lse", 's', &o->outputs[1].path,
         "<file.npy> also the logarithm of each row's softmax denominator, f32"},
        {"out-dtype", 's', &o->out_dtype, "<f32|f16> type of the output; that of q, f32 for bf16"},
        {"backend", 's', &o->backend, "<name> 'openmp', 'openmp:0', an order 'vulkan,openmp', or 'auto'"},
        {"kernel", 's', &o->kernel, "<name> the kernel to run; see 'fastattn devices'"},
        {"splits", 'i', &o->splits,
         "most parts that each row block's keys are split into; 0: the planner decides"},
        {"check", 'f', &o->check, "compare with the double-precision oracle; slow for long sequences"},
        {"expect", 's', &o->expect,
         "<file.npy|tensor> compare with an output computed elsewhere; a tensor is in --file"},
        {"expect-name", 's', &o->expect_name, "<tensor> the same, always a tensor in --file"},
        {"tolerance", 'd', &o->tolerance, "largest difference --expect allows; derived from naive errors"},
        {"ignore-memory", 'f', &o->ignore_memory, "go on where memory seems too short"},
        {"verbose", 'f', &o->verbose, "print the library's log on stderr"},
    };
    return cli_parse(RUN_COMMAND, usage, options, sizeof(options) / sizeof(options[0]), argc, argv);
}

static bool ends_in(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* Standard input can be read once. */
static bool check_stream(const run_options *o)
{
    const struct {
        const char *option, *path;
    } inputs[] = {
        {"file", o->file},
        {"q", o->q},
        {"k", o->k},
        {"v", o->v},
        {"bias", o->bias},
        {"keep", o->keep},
        {"expect", o->expect},
        {"alibi", o->alibi},
        {"bias-factors", o->bias_factors},
        {"sinks", o->sinks},
        {"lens-q", o->lens_q},
        {"lens-kv", o->lens_kv},
        {"first-kv", o->first_kv},
        {"page-table", o->page_table},
        {"k-scale", o->scales[RUN_K_SCALE]},
        {"v-scale", o->scales[RUN_V_SCALE]},
        {"k-zero", o->scales[RUN_K_ZERO]},
        {"v-zero", o->scales[RUN_V_ZERO]},
    };
    const char *first = NULL;
    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++) {
        if (!inputs[i].path || strcmp(inputs[i].path, "-") != 0)
            continue;
        if (first) {
            cli_error(RUN_COMMAND, "--%s is '-' and so is --%s, expected standard input once",
                      inputs[i].option, first);
            return false;
        }
        first = inputs[i].option;
    }
    return true;
}

/* Each tensor comes from one place, and q, k and v come from somewhere. */
static bool check_sources(run_options *o)
{
    const struct {
        const char *option;
        const char *const *path;
        const char **name;
        const char *usual; /* NULL: optional */
    } sources[] = {
        {"q", &o->q, &o->q_name, "q"},
        {"k", &o->k, &o->k_name, "k"},
        {"v", &o->v, &o->v_name, "v"},
        {"bias", &o->bias, &o->bias_name, NULL},
        {"keep", &o->keep, &o->keep_name, NULL},
        {"expect", &o->expect, &o->expect_name, NULL},
        {"page-table", &o->page_table, &o->page_table_name, NULL},
        {"k-scale", &o->scales[RUN_K_SCALE], &o->scale_names[RUN_K_SCALE], NULL},
        {"v-scale", &o->scales[RUN_V_SCALE], &o->scale_names[RUN_V_SCALE], NULL},
        {"k-zero", &o->scales[RUN_K_ZERO], &o->scale_names[RUN_K_ZERO], NULL},
        {"v-zero", &o->scales[RUN_V_ZERO], &o->scale_names[RUN_V_ZERO], NULL},
    };
    if (o->file && o->expect && !o->expect_name && !ends_in(o->expect, ".npy")) {
        o->expect_name = o->expect;
        o->expect = NULL;
    }
    for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
        const char *path = *sources[i].path, *name = *sources[i].name;
        const bool in_k = o->v_in_k != 0 && sources[i].path == &o->v;
        if (in_k && (path || name))
            cli_error(RUN_COMMAND, "--v%s is '%s' and --v-in-k is %lld, expected one of the two",
                      path ? "" : "-name", path ? path : name, (long long)o->v_in_k);
        else if (in_k)
            continue;
        else if (path && name)
            cli_error(RUN_COMMAND, "--%s '%s' and --%s-name '%s' are both given, expected one",
                      sources[i].option, path, sources[i].option, name);
        else if (name && !o->file)
            cli_error(RUN_COMMAND, "--%s-name is '%s', expected --file beside it", sources[i].option, name);
        else if (sources[i].usual && !path && !o->file)
            cli_error(RUN_COMMAND, "--%s is missing, expected a .npy file (or --file)", sources[i].option);
        else {
            if (sources[i].usual && !path && !name)
                *sources[i].name = sources[i].usual;
            continue;
        }
        return false;
    }
    return true;
}

static bool check_numbers(const run_options *o)
{
    const double limit = (double)FLT_MAX;
    int32_t splits;
    if (fabs(o->scale) > limit) {
        cli_error(RUN_COMMAND, "--scale is %g, expected a number that f32 can hold", o->scale);
        return false;
    }
    if (o->softcap <= 0 || o->softcap > limit) {
        cli_error(RUN_COMMAND, "--softcap is %g, expected a number above 0 that f32 can hold", o->softcap);
        return false;
    }
    if (o->tolerance < 0) {
        cli_error(RUN_COMMAND, "--tolerance is %g, expected at least 0", o->tolerance);
        return false;
    }
    if (!isnan(o->tolerance) && !o->expect && !o->expect_name) {
        cli_error(RUN_COMMAND, "--tolerance is %g, expected --expect beside it", o->tolerance);
        return false;
    }
    return cli_int32(RUN_COMMAND, "splits", o->splits, &splits);
}

static bool check_options(run_options *o)
{
    static const char *const layouts[] = {"bhsd", "bshd"}, *const dtypes[] = {"f32", "f16"};
    fa_mask_kind mask;
    fa_alignment alignment;
    if (!check_sources(o) || !check_stream(o) || !check_numbers(o) ||
        !kv_types_option(RUN_COMMAND, o->kv_type, &o->kv) || !cli_mask(RUN_COMMAND, o->causal, &mask) ||
        !cli_alignment(RUN_COMMAND, o->align, &alignment) ||
        cli_word(RUN_COMMAND, "layout", o->layout, layouts, 2) < 0 ||
        cli_word(RUN_COMMAND, "out-dtype", o->out_dtype, dtypes, 2) < 0)
        return false;
    if (o->v_in_k != 0 && o->kv.k.dtype != o->kv.v.dtype) {
        cli_error(RUN_COMMAND, "--kv-type is '%.40s', expected one type with --v-in-k", o->kv_type);
        return false;
    }
    if (o->v_in_k != 0 && (o->kv.k.scaling != KV_UNSCALED || o->kv.v.scaling != KV_UNSCALED)) {
        cli_error(RUN_COMMAND, "--kv-type is '%.40s', expected no scales with --v-in-k, but files of them",
                  o->kv_type);
        return false;
    }
    if (!o->outputs[0].path && !o->check && !o->expect && !o->expect_name) {
        cli_error(RUN_COMMAND, "--out is missing, expected a .npy file to write (or --check, or --expect)");
        return false;
    }
    return true;
}

/* From an open device to outputs in memory, compared with what they should be. */
static bool compute_on(const run_options *o, fa_context *context, fa_device *device, run_problem *p)
{
    fa_device_info about = {.struct_size = sizeof(about)};
    fa_plan_info info = {.struct_size = sizeof(info)};
    fa_plan *plan = NULL;
    bool ok = fa_device_get_info(device, &about) == FA_OK &&
              fa_plan_create(device, &p->desc, &plan) == FA_OK && fa_plan_get_info(plan, &info) == FA_OK;
    if (!ok)
        cli_error(RUN_COMMAND, "%s", fa_last_error());
    ok = ok && (o->ignore_memory || run_fits(o, p, &about, plan)) && run_load(p) && run_allocate(p) &&
         run_execute(device, plan, &info, p);
    fa_plan_destroy(plan);
    const check_means means = {.weights = info.weights};
    if (ok && o->check)
        ok = run_check(context, p, &means);
    if (ok && p->has_expect)
        ok = run_expect(context, p, &means, o->tolerance);
    return ok;
}

static bool compute(run_options *o, fa_context *context, run_problem *p)
{
    fa_device *device;

    if (!run_outputs_possible(o) || !run_describe(o, p) || !run_expect_fits(p))
        return false;
    if (fa_device_open(context, o->backend, &p->desc, &device) != FA_OK) {
        cli_error(RUN_COMMAND, "%s", fa_last_error());
        return false;
    }
    bool ok = compute_on(o, context, device, p);
    fa_device_close(device);
    return ok && run_write(o, p);
}

int cmd_run(int argc, char **argv)
{
    run_options o = {.outputs = {{"out", NULL}, {"lse", NULL}},
                     .scale = (double)NAN,
                     .softcap = (double)NAN,
                     .tolerance = (double)NAN};
    run_problem problem = {0};

    int parsed = parse(&o, argc, argv);
    if (parsed)
        return parsed == 1 ? EXIT_OK : EXIT_USAGE;
    if (!check_options(&o))
        return EXIT_USAGE;
    fa_context *context = cli_context(RUN_COMMAND, o.verbose);
    bool ok = context && compute(&o, context, &problem);
    run_free(&problem);
    fa_context_destroy(context);
    return ok ? EXIT_OK : EXIT_FAILED;
}
