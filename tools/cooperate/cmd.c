/* SPDX-License-Identifier: Apache-2.0 */
/* `fastattn cooperate`: where a model's cache lies on a machine whose device memory is too small for it. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "tools/cli.h"
#include "tools/cmd.h"
#include "tools/cooperate/measure.h"
#include "tools/kvtype.h"

static const char command[] = "cooperate";

static const char usage[] =
    "--context N --layers N --heads N --dim N [options]\n"
    "\n"
    "Says which layers of a model keep their cache in device memory and which in the host's, the longest context\n"
    "that fits, and what the prompt and a further token take in three ways: with a copy of the host's layers in\n"
    "each step, with their attention computed on the host, and with each layer's keys on both. Everything is\n"
    "modelled from the numbers given: docs/cooperate.md. Bytes are decimal: 1 GB is 1e9.\n"
    "\n"
    "--run then measures a token's step of one layer, of one device, in these ways, and as if home memory held\n"
    "all keys. Home memory has room for --home-keys of each sequence, at most; the away memory holds all.\n"
    "\"stream\" is the split with a third part: some of the away keys are copied to the home device while the\n"
    "away device computes others. Results are checked first. q is f16.\n"
    "\n"
    "Examples:\n"
    "  fastattn cooperate --context 131072 --layers 32 --heads 32 --heads-kv 8 --dim 128 --weights 16\n"
    "  fastattn cooperate --context 262144 --layers 40 --heads 40 --dim 128 --weights 76 \\\n"
    "      --activations 0.5 --activations-token 11520 --devices 8 --device-memory 17.18 --host-memory 512\n"
    "  fastattn cooperate --context 131072 --layers 32 --heads 32 --dim 128 --kv-type q8_0 --json\n"
    "  fastattn cooperate --context 65536 --layers 1 --heads 32 --heads-kv 8 --dim 128 --run --home cuda \\\n"
    "      --away openmp --home-keys 32768";

typedef struct options {
    const char *kv_type, *home, *away;
    int64_t context, layers, heads, heads_kv, dim, dim_v, sequences, kv_bytes, activations_token, devices;
    int64_t home_keys;
    double min_time, weights, activations, device_memory, host_memory, device_bandwidth, host_bandwidth,
        link_bandwidth, link_latency, device_tflops, host_tflops, memory_bandwidth, stream_memory,
        stream_share;
    int64_t prompt;
    int json, run;
} options;

static int parse(options *o, int argc, char **argv)
{
    const cli_option list[] = {
        {"context", 'i', &o->context, "tokens of each sequence"},
        {"layers", 'i', &o->layers, "of the model"},
        {"heads", 'i', &o->heads, "heads of q"},
        {"heads-kv", 'i', &o->heads_kv, "heads of k and v; as many as of q"},
        {"dim", 'i', &o->dim, "elements of a head of q and k"},
        {"dim-v", 'i', &o->dim_v, "elements of a head of v; as many"},
        {"sequences", 'i', &o->sequences, "at a time; 1"},
        {"kv-type", 's', &o->kv_type, "<type[,type]> that of k and v, or of each, as plan has it; f16"},
        {"kv-bytes", 'i', &o->kv_bytes,
         "of one token in one layer, where types do not tell: scales, pruned rows, v in k"},
        {"weights", 'd', &o->weights, "<GB> of the model; 0"},
        {"activations", 'd', &o->activations, "<GB> on each device, whatever the context; 1"},
        {"activations-token", 'i', &o->activations_token, "<bytes> more on each device for each token; 0"},
        {"devices", 'i', &o->devices, "all alike, among which heads and weights are divided; 1"},
        {"device-memory", 'd', &o->device_memory, "<GB> of each device; 24"},
        {"host-memory", 'd', &o->host_memory, "<GB> of the host; 64"},
        {"device-bandwidth", 'd', &o->device_bandwidth, "<GB/s> of a device's memory; 900"},
        {"host-bandwidth", 'd', &o->host_bandwidth, "<GB/s> of the host's memory; 60"},
        {"memory-bandwidth", 'd', &o->memory_bandwidth,
         "<GB/s> that the host's processors and copies together read; 0: no limit"},
        {"link-bandwidth", 'd', &o->link_bandwidth, "<GB/s> between a device and the host; 24"},
        {"link-latency", 'd', &o->link_latency, "<us> of a message; 10"},
        {"device-tflops", 'd', &o->device_tflops, "<TFLOP/s> of a device; 60"},
        {"host-tflops", 'd', &o->host_tflops, "<TFLOP/s> of the host; 1"},
        {"run", 'f', &o->run, "measure one layer's step on two devices of this machine"},
        {"home", 's', &o->home, "<name> the device that has q and the newest keys; auto"},
        {"away", 's', &o->away, "<name> the device that has the oldest keys; openmp"},
        {"home-keys", 'i', &o->home_keys, "of each sequence, at most; as the placement has them, on average"},
        {"stream-memory", 'd', &o->stream_memory,
         "<GB> of home memory for streaming; as a quarter of the keys that are not home"},
        {"stream-share", 'd', &o->stream_share,
         "of the keys that are not home, to be streamed; 0: the run chooses"},
        {"prompt", 'i', &o->prompt, "tokens of which a layer's prefill is measured too; 0: none"},
        {"min-time", 'd', &o->min_time, "<seconds> that each way is run for; 0.5"},
        {"json", 'f', &o->json, "print a JSON object"},
    };
    const struct {
        const char *name;
        const int64_t *value;
    } needed[] = {{"context", &o->context}, {"layers", &o->layers}, {"heads", &o->heads}, {"dim", &o->dim}};
    int parsed = cli_parse(command, usage, list, sizeof(list) / sizeof(list[0]), argc, argv);
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]) && parsed == 0; i++) {
        if (*needed[i].value == 0) {
            cli_error(command, "--%s is missing, expected 1 or more", needed[i].name);
            parsed = 2;
        }
    }
    return parsed;
}

/* Bytes of so many GB. False after an error. */
static bool read_bytes(const char *option, double gb, uint64_t *bytes)
{
    if (gb >= 0 && gb <= 1e9) {
        *bytes = (uint64_t)llround(gb * 1e9);
        return true;
    }
    cli_error(command, "--%s is %g, expected 0 to 1e9 GB", option, gb);
    return false;
}

static bool read_count(const char *option, int64_t value, uint64_t *out)
{
    if (value < 0)
        cli_error(command, "--%s is %" PRId64 ", expected 0 or more", option, value);
    *out = (uint64_t)value;
    return value >= 0;
}

/* The types of the cache, where they tell its bytes. False after an error. */
static bool read_types(const options *o, fa_cooperate_model *model)
{
    kv_types types;
    if (!kv_types_option(command, o->kv_type, &types))
        return false;
    model->k_type = types.given ? types.k.dtype : FA_F16;
    model->v_type = types.given ? types.v.dtype : FA_F16;
    if (!types.given || model->kv_bytes > 0 ||
        (types.k.scaling == KV_UNSCALED && types.v.scaling == KV_UNSCALED))
        return true;
    cli_error(command, "--kv-type is '%.100s', whose scales have bytes of their own, expected --kv-bytes too",
              o->kv_type);
    return false;
}

static bool read_problem(const options *o, fa_cooperate_machine *machine, fa_cooperate_model *model)
{
    *machine = (fa_cooperate_machine){
        .struct_size = sizeof(*machine),
        .devices = o->devices,
        .device_bandwidth = o->device_bandwidth * 1e9,
        .host_bandwidth = o->host_bandwidth * 1e9,
        .link_bandwidth = o->link_bandwidth * 1e9,
        .link_seconds = o->link_latency * 1e-6,
        .memory_bandwidth = o->memory_bandwidth * 1e9,
        .device_flops = o->device_tflops * 1e12,
        .host_flops = o->host_tflops * 1e12,
    };
    *model = (fa_cooperate_model){
        .struct_size = sizeof(*model),
        .layers = o->layers,
        .heads_q = o->heads,
        .heads_kv = o->heads_kv ? o->heads_kv : o->heads,
        .dim_qk = o->dim,
        .dim_v = o->dim_v,
        .sequences = o->sequences,
    };
    return read_bytes("device-memory", o->device_memory, &machine->device_bytes) &&
           read_bytes("host-memory", o->host_memory, &machine->host_bytes) &&
           read_bytes("weights", o->weights, &model->weight_bytes) &&
           read_bytes("activations", o->activations, &model->activation_bytes) &&
           read_count("activations-token", o->activations_token, &model->activation_token_bytes) &&
           read_count("kv-bytes", o->kv_bytes, &model->kv_bytes) && read_types(o, model);
}

/* Of what print_seconds() prints. */
enum { PRINTED = 13 };

/* "1.23 ms" */
static void print_seconds(double seconds)
{
    const bool small = seconds < 0.9995;
    const double value = small ? seconds * 1e3 : seconds;
    printf("%10.*f %-2s", value < 9.995 ? 2 : value < 99.95 ? 1 : 0, value, small ? "ms" : "s");
}

static void print_text(const fa_cooperate_machine *machine, const fa_cooperate_model *model,
                       const fa_cooperate_placement *p)
{
    printf("context    %" PRId64 " tokens; at most %" PRId64 " in device memory alone, %" PRId64
           " with the host's\n",
           p->context, p->context_device, p->context_longest);
    printf("a layer    %.3f GB of K and V on each device\n", (double)p->layer_bytes * 1e-9);
    if (!p->fits) {
        printf("placement  it does not fit\n");
        return;
    }
    printf("placement  %" PRId64 " layers on the device%s, %" PRId64 " on the host, of %" PRId64 "\n",
           p->layers_device, machine->devices > 1 ? "s" : "", p->layers_host, model->layers);
    printf("memory     %.2f of %.2f GB of each device, %.2f of %.2f GB of the host\n",
           (double)p->device_used * 1e-9, (double)machine->device_bytes * 1e-9, (double)p->host_used * 1e-9,
           (double)machine->host_bytes * 1e-9);
    const double devices = machine->devices ? (double)machine->devices : 1;
    printf("split      %.1f %% of each layer's keys on the host, %.2f GB, where both compute\n\n",
           100 * p->split_host,
           1e-9 * p->split_host * (double)model->layers * (double)p->layer_bytes * devices);
    printf("way        prompt         a token\n");
    for (int way = 0; way < FA_COOPERATE_WAYS; way++) {
        printf("%-7s", fa_cooperate_way_name((fa_cooperate_way)way));
        print_seconds(p->prefill[way]);
        print_seconds(p->decode[way]);
        printf("%s\n", way == p->decode_way ? "  fastest" : "");
    }
    if (p->stream_host > 0) {
        printf("stream %*s", PRINTED, "");
        print_seconds(p->decode_stream);
        printf("  split, and %.1f %% of the keys are copied to the device%s meanwhile\n",
               100 * p->stream_host, machine->devices > 1 ? "s" : "");
    }
}

static void print_measured(const measure_result *r, const measure_problem *m)
{
    const fa_cooperate_info *info = &r->info;
    printf("\nmeasured   one layer of one device, %" PRId64 " of %" PRId64 " keys in home memory at most\n",
           m->home_keys, m->context);
    printf("home       %s\n", r->home);
    printf("away       %s\n", r->away);
    for (int way = 0; way < FA_COOPERATE_WAYS; way++) {
        printf("%-7s", fa_cooperate_way_name((fa_cooperate_way)way));
        print_seconds(r->seconds[way]);
        if (way == FA_COOPERATE_SPLIT)
            printf("  %" PRId64 " keys away, in %.3g ms; %" PRId64 " home, in %.3g ms", info->keys_away,
                   1e3 * info->seconds_away, info->keys_home, 1e3 * info->seconds_home);
        printf("\n");
    }
    if (r->stream > 0) {
        const fa_cooperate_info *s = &r->stream_info;
        printf("stream ");
        print_seconds(r->stream);
        printf("  %" PRId64 " keys away, in %.3g ms; %" PRId64 " streamed, in %.3g ms; %" PRId64
               " home, in %.3g ms\n",
               s->keys_away, 1e3 * s->seconds_away, s->keys_streamed, 1e3 * s->seconds_stream, s->keys_home,
               1e3 * s->seconds_home);
    }
    printf("home   ");
    print_seconds(r->all_home);
    printf("  if home memory held all keys\n");
    if (m->prompt > 0) {
        printf("prefill");
        print_seconds(r->prefill.host);
        printf("  a layer of the host, and %.3g ms one of the device, for %" PRId64 " tokens\n",
               1e3 * r->prefill.device, m->prompt);
    }
}

static void print_measured_json(const measure_result *r, const measure_problem *m)
{
    const fa_cooperate_info *info = &r->info;
    printf(",\n \"measured\": {\"home\": ");
    cli_json_string(stdout, r->home);
    printf(", \"away\": ");
    cli_json_string(stdout, r->away);
    printf(",\n  \"context\": %" PRId64 ", \"home_keys\": %" PRId64, m->context, m->home_keys);
    for (int way = 0; way < FA_COOPERATE_WAYS; way++)
        printf(", \"%s\": %.15g", fa_cooperate_way_name((fa_cooperate_way)way), r->seconds[way]);
    printf(", \"all_home\": %.15g,\n  \"keys_away\": %" PRId64 ", \"keys_home\": %" PRId64
           ", \"seconds_away\": %.15g, \"seconds_home\": %.15g,\n  \"measured_away\": %.15g, "
           "\"measured_home\": %.15g, \"modelled_away\": %.15g, \"modelled_home\": %.15g, "
           "\"share_away\": %.15g, \"max_error\": %.15g",
           r->all_home, info->keys_away, info->keys_home, info->seconds_away, info->seconds_home,
           info->measured_away, info->measured_home, info->modelled_away, info->modelled_home,
           info->share_away, r->max_error);
    if (r->stream > 0) {
        info = &r->stream_info;
        printf(",\n  \"stream\": {\"seconds\": %.15g, \"keys_away\": %" PRId64 ", \"keys_streamed\": %" PRId64
               ", \"keys_home\": %" PRId64 ",\n   \"seconds_away\": %.15g, \"seconds_stream\": %.15g, "
               "\"seconds_home\": %.15g, \"modelled_stream\": %.15g, \"measured_stream\": %.15g, "
               "\"share_streamed\": %.15g}",
               r->stream, info->keys_away, info->keys_streamed, info->keys_home, info->seconds_away,
               info->seconds_stream, info->seconds_home, info->modelled_stream, info->measured_stream,
               info->share_streamed);
    }
    if (m->prompt > 0)
        printf(",\n  \"prefill\": {\"tokens\": %" PRId64 ", \"device\": %.15g, \"host\": %.15g}", m->prompt,
               r->prefill.device, r->prefill.host);
    printf("}");
}

static void print_json(const fa_cooperate_placement *p)
{
    const struct {
        const char *name;
        uint64_t value;
    } count[] = {
        {"context", (uint64_t)p->context},
        {"context_device", (uint64_t)p->context_device},
        {"context_longest", (uint64_t)p->context_longest},
        {"layers_device", (uint64_t)p->layers_device},
        {"layers_host", (uint64_t)p->layers_host},
        {"layer_bytes", p->layer_bytes},
        {"device_used", p->device_used},
        {"host_used", p->host_used},
    };
    printf("{\"fits\": %s", p->fits ? "true" : "false");
    for (size_t i = 0; i < sizeof(count) / sizeof(count[0]); i++)
        printf(",\n \"%s\": %" PRIu64, count[i].name, count[i].value);
    printf(",\n \"split_host\": %.15g,\n \"decode_way\": \"%s\"", p->split_host,
           fa_cooperate_way_name((fa_cooperate_way)p->decode_way));
    printf(",\n \"stream_host\": %.15g,\n \"decode_stream\": %.15g", p->stream_host, p->decode_stream);
    for (int way = 0; way < FA_COOPERATE_WAYS; way++)
        printf(",\n \"%s\": {\"prefill\": %.15g, \"decode\": %.15g}",
               fa_cooperate_way_name((fa_cooperate_way)way), p->prefill[way], p->decode[way]);
}

/* One device's share of the heads, and of each layer's keys as many as the placement has layers there. */
static bool describe_run(const options *o, const fa_cooperate_machine *machine,
                         const fa_cooperate_model *model, const fa_cooperate_placement *p, measure_problem *m)
{
    const int64_t devices = machine->devices ? machine->devices : 1;
    *m = (measure_problem){
        .home = o->home,
        .away = o->away,
        .sequences = model->sequences ? model->sequences : 1,
        .heads_q = model->heads_q / devices,
        .heads_kv = model->heads_kv / devices,
        .dim_qk = model->dim_qk,
        .dim_v = model->dim_v ? model->dim_v : model->dim_qk,
        .context = o->context,
        .home_keys = o->home_keys,
        .k_type = model->k_type,
        .v_type = model->v_type,
        .min_time = o->min_time,
        .link_bandwidth = machine->link_bandwidth,
        .link_seconds = machine->link_seconds,
        .host_bandwidth = machine->memory_bandwidth,
        .stream_share = o->stream_share,
        .prompt = o->prompt,
    };
    if (m->home_keys == 0)
        m->home_keys = (int64_t)((double)o->context * (double)p->layers_device / (double)model->layers);
    if (m->home_keys < 1)
        m->home_keys = 1;
    if (o->home_keys < 0 || o->home_keys > o->context) {
        cli_error(command, "--home-keys is %" PRId64 ", expected 1 to --context, %" PRId64, o->home_keys,
                  o->context);
        return false;
    }
    if (o->prompt < 0 || o->prompt > o->context) {
        cli_error(command, "--prompt is %" PRId64 ", expected 0 to --context, %" PRId64, o->prompt,
                  o->context);
        return false;
    }
    if (!read_bytes("stream-memory", o->stream_memory, &m->stream_bytes))
        return false;
    if (model->kv_bytes > 0) {
        cli_error(command, "--kv-bytes is %" PRIu64 ", expected none with --run: it has no scales",
                  model->kv_bytes);
        return false;
    }
    return true;
}

static int show(const options *o, const fa_cooperate_machine *machine, const fa_cooperate_model *model,
                const fa_cooperate_placement *p)
{
    measure_problem m;
    measure_result r;
    if (o->run && !describe_run(o, machine, model, p, &m))
        return EXIT_USAGE;
    if (o->run) {
        fa_context *context = cli_context(command, false);
        const bool measured = context && measure(command, context, &m, &r);
        fa_context_destroy(context);
        if (!measured)
            return EXIT_FAILED;
    }
    if (o->json)
        print_json(p);
    else
        print_text(machine, model, p);
    if (o->run && o->json)
        print_measured_json(&r, &m);
    else if (o->run)
        print_measured(&r, &m);
    if (o->json)
        printf("}\n");
    return p->fits ? EXIT_OK : EXIT_FAILED;
}

int cmd_cooperate(int argc, char **argv)
{
    options o = {
        .activations = 1,
        .device_memory = 24,
        .host_memory = 64,
        .device_bandwidth = 900,
        .host_bandwidth = 60,
        .link_bandwidth = 24,
        .link_latency = 10,
        .device_tflops = 60,
        .host_tflops = 1,
        .min_time = 0.5,
    };
    fa_cooperate_machine machine;
    fa_cooperate_model model;
    fa_cooperate_placement placement = {.struct_size = sizeof(placement)};
    int parsed = parse(&o, argc, argv);
    if (parsed)
        return parsed == 1 ? EXIT_OK : EXIT_USAGE;
    if (!read_problem(&o, &machine, &model))
        return EXIT_USAGE;
    if (fa_cooperate_place(&machine, &model, o.context, &placement) != FA_OK) {
        cli_error(command, "%s", fa_last_error());
        return EXIT_USAGE;
    }
    return show(&o, &machine, &model, &placement);
}
