/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cmd.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/grid.h"
#include "tools/kvtype.h"
#include "tools/output.h"
#include "tools/pages.h"
#include "tools/plan/picture.h"
#include "tools/plan/ranks.h"
#include "tools/plan/svg.h"
#include "tools/plan/threads.h"
#include "tools/random_lists.h"
#include "tools/shape.h"

static const char command[] = "plan";

static const char usage[] =
    "--shape SHAPE [options]\n"
    "\n"
    "Shows what the planner decides for a problem, and what it expects that to cost; computes nothing.\n"
    "\n"
    "--threads shows how the work is shared out, as if FASTATTN_THREADS were set to each number: 'imbalance' "
    "is\n"
    "the work of the busiest thread over the mean of all, 'workers' are the threads that get any. The model "
    "gives\n"
    "every thread the same share of memory bandwidth, however many there are.\n"
    "\n"
    "--ranks simulates one layer, attention and output projection, on numbers of ranks that need not be there: its\n"
    "heads divided among them, and its keys (a step of decoding) or its tokens (a prompt, of as many rows as keys).\n"
    "Of more than 16 numbers it prints the powers of two and the last, and below them where doubling the ranks no\n"
    "longer makes the layer 1.25 times as fast, and why. docs/ranks.md has the model.\n"
    "\n"
    "Examples:\n"
    "  fastattn plan --shape B1,H8,S2048,D128 --causal bottom-right\n"
    "  fastattn plan --shape B1,H32,S1,D128,HK8,SK8192 --dtype f16     decoding with grouped heads\n"
    "  fastattn plan --shape B8,H32,S1,D128,HK8,SK8192 --page 16       keys in pages\n"
    "  fastattn plan --shape B1,H1,S4096,D64 --window-left 512 --block-q 128 --block-kv 128\n"
    "  fastattn plan --shape B1,H1,S2048,D64 --packed 300,1200,548 --causal top-left --svg tiles.svg\n"
    "  fastattn plan --shape B1,H8,S2048,D128 --density 0.25 --list-block 64 --head 3   lists of key blocks\n"
    "  fastattn plan --shape B1,H8,S4096,D64 --grid 64x64 --neighbourhood 13x13   NATTEN\n"
    "  fastattn plan --shape B1,H8,S2048,D128 --threads 1,2,4,8-64     a line for each number of threads\n"
    "  fastattn plan --shape B1,H32,S1,D128,HK8,SK1048576 --dtype f16 --ranks 2-1024 --link 10,50";

typedef struct plan_options {
    const char *shape, *dtype, *kv_type, *causal, *align, *backend, *kernel, *threads, *ranks, *link, *packed;
    cli_file svg;
    int64_t window_left, window_right, prefix, page, scatter, block_q, block_kv, splits, width;
    int64_t list_block, list_seed, head;
    double density;
    grid_options grid;
    int json, verbose, v_in_k;
} plan_options;

static int parse(plan_options *o, int argc, char **argv)
{
    const cli_option options[] = {
        {"shape", 's', &o->shape,
         "<B1,H8,S2048,D128[,HK8][,SK2048][,DV128]> batch, heads, rows, dim; those of k and v"},
        {"dtype", 's', &o->dtype, "<f32|f16|bf16> element type of every tensor; f32"},
        {"kv-type", 's', &o->kv_type, KV_TYPES_HELP "; with --v-in-k fp8_ds_mla"},
        {"v-in-k", 'f', &o->v_in_k, "v is the first DV dims of k, as in latent attention"},
        {"causal", 's', &o->causal,
         "<top-left|bottom-right> which corner the diagonal starts from or ends in"},
        {"align", 's', &o->align,
         "<top-left|bottom-right> where windows count from without --causal; bottom-right"},
        {"window-left", 'i', &o->window_left, "keys visible up to and with the row's own; 0: all"},
        {"window-right", 'i', &o->window_right, "keys visible from the row's own on; 0: all"},
        {"prefix", 'i', &o->prefix, "keys at the start that every row sees"},
        {"packed", 's', &o->packed,
         "<700,300,1048> lengths of sequences, of rows and keys alike, packed one behind the other"},
        {"density", 'd', &o->density,
         "random lists of key blocks for each head of k and v, with this part of the blocks; 0: no lists"},
        {"list-block", 'i', &o->list_block, "rows and keys of a block of those lists; 64"},
        {"list-seed", 'i', &o->list_seed, "what those lists are drawn by; 1"},
        GRID_OPTIONS(o->grid),
        {"head", 'i', &o->head, "the head of k and v that the picture is of; 0"},
        {"page", 'i', &o->page,
         "keys of a page: k and v are pools of pages, and each sequence has SK keys; 0: no pages"},
        {"scatter", 'i', &o->scatter, "<seed> as bench has it; a plan does not depend on where pages lie"},
        {"backend", 's', &o->backend, "<name> 'openmp', 'openmp:0', an order 'vulkan,openmp', or 'auto'"},
        {"kernel", 's', &o->kernel, "<name> the kernel to plan for; see 'fastattn devices'"},
        {"block-q", 'i', &o->block_q, "rows of a level-1 block; 0: the planner decides"},
        {"block-kv", 'i', &o->block_kv, "keys of a level-1 block; 0: the planner decides"},
        {"splits", 'i', &o->splits,
         "most parts that each row block's keys are split into; 0: the planner decides"},
        {"threads", 's', &o->threads, "<1,2,4-8> print a table for these numbers of threads instead"},
        {"ranks", 's', &o->ranks, "<2-1024> print tables for these numbers of ranks instead"},
        {"link", 's', &o->link,
         "<us,GB/s> with --ranks: latency of a message, and what a rank sends in a second; 10,50"},
        {"width", 'i', &o->width,
         "with --ranks: elements of a row of the layer's output; 0: heads times dim"},
        {"json", 'f', &o->json, "print a JSON object"},
        {"svg", 's', &o->svg.path, "<path> write the picture to this file, of all sequences that are packed"},
        {"verbose", 'f', &o->verbose, "print the library's log on stderr"},
    };
    int parsed = cli_parse(command, usage, options, sizeof(options) / sizeof(options[0]), argc, argv);
    if (parsed == 0 && !o->shape) {
        cli_error(command, "--shape is missing, expected a shape such as B1,H8,S2048,D128");
        return 2;
    }
    if (parsed == 0 && o->svg.path && (o->threads || o->ranks)) {
        cli_error(command, "--svg does not go with --%s", o->threads ? "threads" : "ranks");
        return 2;
    }
    if (parsed == 0 && !o->ranks && (o->link || o->width != 0)) {
        cli_error(command, "--%s is given without --ranks", o->link ? "link" : "width");
        return 2;
    }
    return parsed;
}

enum { MAX_PACKED = 64 };

/* A description that points into the rest. */
typedef struct problem {
    shape size;
    paging pages;
    kv_types kv;
    fa_tuning tuning;
    int64_t *lens_kv;
    int64_t cu_rows[MAX_PACKED + 1];
    random_lists lists;
    fa_neighbourhood near;
    int64_t head; /* of k and v, in pictures */
    fa_attention_desc desc;
} problem;

/* Lengths such as "700,300,1048". False after an error. */
static bool read_packed(const char *text, problem *p)
{
    const char *at = text;
    for (bool more = text != NULL; more; at++) {
        char *end = NULL;
        const long long length = *at >= '0' && *at <= '9' ? strtoll(at, &end, 10) : -1;
        if (length < 0 || length > FA_MAX_LENGTH || (*end && *end != ',') ||
            p->desc.sequences == MAX_PACKED) {
            cli_error(command, "--packed is '%.100s', expected 1 to %d lengths such as 700,300,1048", text,
                      MAX_PACKED);
            return false;
        }
        p->cu_rows[p->desc.sequences + 1] = p->cu_rows[p->desc.sequences] + length;
        p->desc.sequences++;
        at = end;
        more = *end == ',';
    }
    if (text)
        p->desc.cu_rows_q = p->desc.cu_rows_kv = p->cu_rows;
    return true;
}

/* EXIT_OK to go on. */
static int make_problem(const plan_options *o, problem *p)
{
    shape *s = &p->size;
    fa_attention_desc *d = &p->desc;
    fa_tuning *tuning = &p->tuning;
    static const char *const dtypes[] = {"f32", "f16", "bf16"};
    char error[160];
    int dtype = cli_word(command, "dtype", o->dtype, dtypes, 3);
    if (dtype < 0 || !kv_types_option(command, o->kv_type, &p->kv) || !kv_types_whole(command, &p->kv) ||
        !cli_mask(command, o->causal, &d->mask) || !cli_alignment(command, o->align, &d->alignment) ||
        !pages_options(command, o->page, o->scatter, &p->pages) || !read_packed(o->packed, p))
        return EXIT_USAGE;
    if (o->packed && o->page) {
        cli_error(command, "--packed does not go with --page");
        return EXIT_USAGE;
    }
    if (!shape_parse(o->shape, s, error, sizeof(error))) {
        cli_error(command, "--shape is '%.100s': %s", o->shape, error);
        return EXIT_USAGE;
    }
    if (!cli_int32(command, "block-q", o->block_q, &tuning->block_q) ||
        !cli_int32(command, "block-kv", o->block_kv, &tuning->block_kv) ||
        !cli_int32(command, "splits", o->splits, &tuning->splits))
        return EXIT_USAGE;
    p->head = o->head;
    tuning->struct_size = sizeof(*tuning);
    tuning->kernel = o->kernel;
    d->struct_size = sizeof(*d);
    d->q = fa_tensor_make((fa_dtype)dtype, s->batch, s->heads_q, s->len_q, s->dim_qk);
    d->k = fa_tensor_make((fa_dtype)dtype, s->batch, s->heads_kv, s->len_kv, s->dim_qk);
    d->v = fa_tensor_make((fa_dtype)dtype, s->batch, s->heads_kv, s->len_kv, s->dim_v);
    d->o = fa_tensor_make((fa_dtype)dtype, s->batch, s->heads_q, s->len_q, s->dim_v);
    kv_types_describe(&p->kv, d);
    d->window_left = o->window_left;
    d->window_right = o->window_right;
    d->prefix = o->prefix;
    d->tuning = tuning;
    if (!pages_describe(&p->pages, s, d, &p->lens_kv)) {
        cli_error(command, "no memory for the lengths of %" PRId64 " sequences", s->batch);
        return EXIT_FAILED;
    }
    if (!random_lists_options(command, o->density, o->list_block, o->head, s->heads_kv) ||
        !grid_parse(command, &o->grid, &p->near))
        return EXIT_USAGE;
    d->neighbourhood = p->near.axes > 0 ? &p->near : NULL;
    if (!random_lists_make(o->density, o->list_block, (uint64_t)o->list_seed, d, &p->lists)) {
        cli_error(command, "no memory for lists of blocks of %" PRId64, o->list_block);
        return EXIT_FAILED;
    }
    if (o->v_in_k)
        kv_types_share(d);
    if (kv_types_scale(&p->kv, d, error, sizeof(error)))
        return EXIT_OK;
    cli_error(command, "%s", error);
    return EXIT_USAGE;
}

typedef struct cost {
    const char *name, *label, *unit;
    double value;
} cost;

enum { COSTS = 9 };

static void list_costs(const fa_plan_info *info, cost costs[COSTS])
{
    const cost made[COSTS] = {
        {"pairs", "visible pairs", "", (double)info->pairs},
        {"flops", "arithmetic", "FLOP", info->flops},
        {"bytes_moved", "moved", "B", info->bytes_moved},
        {"bytes_compulsory", "compulsory", "B", info->bytes_compulsory},
        {"bytes_lower_bound", "I/O lower bound", "B", info->bytes_lower_bound},
        {"syncs", "synchronisations", "", info->syncs},
        {"rescales", "rescales of a row", "", info->rescales},
        {"seconds", "modelled time", "s", info->seconds},
        {"workspace", "workspace", "B", (double)info->workspace},
    };
    for (int i = 0; i < COSTS; i++)
        costs[i] = made[i];
}

/* Three digits and an SI prefix. */
static void print_cost(const cost *c)
{
    static const char *const prefixes[] = {"n", "u", "m", "", "k", "M", "G", "T", "P", "E"};
    const int plain = 3, largest = 9;
    double value = c->value;
    int prefix = plain;
    for (; fabs(value) >= 999.5 && prefix < largest; prefix++)
        value /= 1000;
    for (; c->unit[0] == 's' && value != 0 && fabs(value) < 0.9995 && prefix > 0; prefix--)
        value *= 1000;
    int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    if (prefix == plain && c->unit[0] != 's')
        decimals = 0;
    const char *space = prefixes[prefix][0] || c->unit[0] ? " " : "";
    printf("  %-18s %.*f%s%s%s\n", c->label, decimals, value, space, prefixes[prefix], c->unit);
}

/* "B1,H8,S2048,D128 f32:q8_0, v in k, pages of 16 keys" */
static void name_problem(const problem *p, char *text, size_t size)
{
    char types[80];
    shape_print(&p->size, text, size);
    kv_types_print(&p->kv, p->desc.q.dtype, types, sizeof(types));
    size_t used = strlen(text);
    used += (size_t)snprintf(text + used, size - used, " %s%s", types, p->desc.v_in_k ? ", v in k" : "");
    if (p->pages.keys)
        (void)snprintf(text + used, size - used, ", pages of %" PRId32 " keys", p->pages.keys);
    if (p->desc.sequences)
        (void)snprintf(text + used, size - used, ", %" PRId64 " packed sequences", p->desc.sequences);
}

/* "causal bottom-right, window-left 512", as the options were given. */
static void name_mask(const plan_options *o, char *text, size_t size)
{
    const struct {
        const char *name, *word;
        int64_t number;
    } given[] = {{"causal", o->causal, 0},
                 {"align", o->align, 0},
                 {"window-left", NULL, o->window_left},
                 {"window-right", NULL, o->window_right},
                 {"prefix", NULL, o->prefix},
                 {"packed", o->packed, 0},
                 {"lists of blocks of", NULL, o->density != 0 ? o->list_block : 0},
                 {"neighbourhood", o->grid.kernel, 0},
                 {"of a grid", o->grid.size, 0}};
    size_t used = 0;
    (void)snprintf(text, size, "no mask");
    for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
        char number[24];
        (void)snprintf(number, sizeof(number), "%" PRId64, given[i].number);
        if (used < size && (given[i].word || given[i].number))
            used += (size_t)snprintf(text + used, size - used, "%s%s %s", used ? ", " : "", given[i].name,
                                     given[i].word ? given[i].word : number);
    }
}

/* The picture of a sequence: the one of a dense batch stands for all. */
static fa_status draw(const fa_plan *plan, const fa_plan_info *info, const problem *p, int64_t sequence,
                      picture *image)
{
    const int64_t packed = p->cu_rows[sequence + 1] - p->cu_rows[sequence];
    const bool dense = p->desc.sequences == 0;
    return picture_make(plan, info, sequence, p->head, dense ? p->size.len_q : packed,
                        dense ? p->size.len_kv : packed, image);
}

/* False after an error. */
static bool save_svg(const plan_options *o, const problem *p, const fa_plan *plan, const fa_plan_info *info)
{
    const int64_t count = p->desc.sequences ? p->desc.sequences : 1;
    char problem_text[192], mask[192];
    picture *images = o->svg.path ? calloc((size_t)count, sizeof(*images)) : NULL;
    fa_status status = FA_OK;
    if (!o->svg.path)
        return true;
    for (int64_t i = 0; images && i < count && status == FA_OK; i++)
        status = draw(plan, info, p, i, &images[i]);
    name_problem(p, problem_text, sizeof(problem_text));
    name_mask(o, mask, sizeof(mask));
    const plan_svg svg = {images, count, problem_text, mask};
    bool ok = images && status == FA_OK;
    if (!ok)
        cli_error(command, "--svg: %s", images ? fa_last_error() : "no memory for the picture");
    ok = ok && output_save(command, &o->svg, plan_svg_write, &svg);
    free(images);
    return ok;
}

static void print_text(const problem *p, const fa_device_info *device, const fa_plan_info *info,
                       const picture *image)
{
    cost costs[COSTS];
    char text[192];
    name_problem(p, text, sizeof(text));
    printf("%s on %s:%" PRId32 " (%s)\n\n", text, device->backend, device->index,
           cli_plain(device->name).text);
    printf("kernel     %s, softmax weights %s\n", info->kernel, fa_dtype_name(info->weights));
    printf("level 1    blocks of %" PRId32 " rows x %" PRId32 " keys, %" PRId32
           " query head%s packed into the rows\n",
           info->block_q, info->block_kv, info->group, info->group == 1 ? "" : "s");
    printf("level 2    tiles of %" PRId32 " rows x %" PRId32 " keys x %" PRId32 " dims\n", info->tile_q,
           info->tile_kv, info->tile_d);
    printf("work list  %" PRId64 " items, %" PRId64 " merges; row blocks in at most %" PRId32 " parts\n",
           info->items, info->merge_items, info->splits);
    printf("balance    busiest of %" PRIu32 " units %.3f times the mean; %" PRIu32 " of them used\n",
           device->units, info->imbalance, info->workers);
    printf("blocks     %" PRId64 " full, %" PRId64 " partial, %" PRId64 " skipped; %" PRId64
           " sequence%s, %" PRId64 " head%s of k and v\n",
           info->blocks_full, info->blocks_partial, info->blocks_skipped, info->sequences,
           info->sequences == 1 ? "" : "s", info->heads_kv, info->heads_kv == 1 ? "" : "s");
    printf("costs\n");
    list_costs(info, costs);
    for (int i = 0; i < COSTS; i++)
        print_cost(&costs[i]);
    printf("\n");
    picture_print(image);
}

static void print_json(const problem *p, const fa_device_info *device, const fa_plan_info *info,
                       const picture *image)
{
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {
        {"block_q", info->block_q},
        {"block_kv", info->block_kv},
        {"tile_q", info->tile_q},
        {"tile_kv", info->tile_kv},
        {"tile_d", info->tile_d},
        {"splits", info->splits},
        {"group", info->group},
        {"sequences", info->sequences},
        {"heads_kv", info->heads_kv},
        {"workers", info->workers},
        {"items", info->items},
        {"merge_items", info->merge_items},
        {"blocks_full", info->blocks_full},
        {"blocks_partial", info->blocks_partial},
        {"blocks_skipped", info->blocks_skipped},
    };
    cost costs[COSTS];
    char text[192];
    name_problem(p, text, sizeof(text));
    printf("{\"problem\": \"%s\", \"backend\": ", text);
    cli_json_string(stdout, device->backend);
    printf(", \"index\": %" PRId32 ", \"device\": ", device->index);
    cli_json_string(stdout, device->name);
    printf(", \"kernel\": ");
    cli_json_string(stdout, info->kernel);
    printf(", \"weights\": \"%s\"", fa_dtype_name(info->weights));
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        printf(",\n \"%s\": %" PRId64, counts[i].name, counts[i].value);
    list_costs(info, costs);
    for (int i = 0; i < COSTS; i++)
        printf(",\n \"%s\": %.15g", costs[i].name, costs[i].value);
    printf(",\n \"imbalance\": %.15g,\n \"tiles\": ", info->imbalance);
    picture_print_json(image);
    printf("}\n");
}

/* Plans on an open device. */
static bool show(fa_device *device, const plan_options *o, const problem *p)
{
    fa_device_info info = {.struct_size = sizeof(info)};
    fa_plan_info plan_info = {.struct_size = sizeof(plan_info)};
    picture image;
    fa_plan *plan;

    fa_status status = fa_plan_create(device, &p->desc, &plan);
    if (status == FA_OK)
        status = fa_device_get_info(device, &info);
    if (status == FA_OK)
        status = fa_plan_get_info(plan, &plan_info);
    if (status == FA_OK)
        status = draw(plan, &plan_info, p, 0, &image);
    if (status != FA_OK)
        cli_error(command, "%s", fa_last_error());
    else if (o->json)
        print_json(p, &info, &plan_info, &image);
    else
        print_text(p, &info, &plan_info, &image);
    const bool ok = status == FA_OK && save_svg(o, p, plan, &plan_info);
    fa_plan_destroy(plan);
    return ok;
}

static bool plan_once(fa_context *context, const plan_options *o, const problem *p)
{
    fa_device *device = NULL;
    bool ok = fa_device_open(context, o->backend, &p->desc, &device) == FA_OK;
    if (!ok)
        cli_error(command, "%s", fa_last_error());
    ok = ok && show(device, o, p);
    fa_device_close(device);
    return ok;
}

static bool plan_each(fa_context *context, const plan_options *o, const problem *p,
                      const plan_threads *threads)
{
    char text[192];
    name_problem(p, text, sizeof(text));
    return plan_threads_show(context, command, o->backend, text, &p->desc, threads, o->json);
}

/* What --ranks was given. */
typedef struct ranks_options {
    plan_threads list;
    plan_link link;
} ranks_options;

/* EXIT_OK to go on. */
static int read_ranks(const plan_options *o, const problem *p, ranks_options *r)
{
    char error[160];
    const struct {
        const char *name;
        bool given;
    } none[] = {{"threads", o->threads != NULL}, {"page", o->page != 0},
                {"window-left", o->window_left}, {"window-right", o->window_right},
                {"prefix", o->prefix},           {"packed", o->packed != NULL},
                {"v-in-k", o->v_in_k},           {"align", o->align},
                {"density", o->density != 0},    {"grid", o->grid.size != NULL}};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        if (none[i].given) {
            cli_error(command, "--%s does not go with --ranks", none[i].name);
            return EXIT_USAGE;
        }
    }
    if (p->desc.mask == FA_MASK_CAUSAL_TOP_LEFT && p->size.len_q != p->size.len_kv) {
        cli_error(command, "--causal is 'top-left': with --ranks it goes with as many rows as keys");
        return EXIT_USAGE;
    }
    if (p->desc.k_scale.shape[0] != 0 || p->desc.v_scale.shape[0] != 0 || p->desc.k.dtype == FA_BITMAP_F16 ||
        p->desc.v.dtype == FA_BITMAP_F16) {
        cli_error(command,
                  "--kv-type is '%.100s': --ranks takes formats without scales of their own, and whole rows",
                  o->kv_type);
        return EXIT_USAGE;
    }
    if (o->width < 0 || o->width > INT32_MAX) {
        cli_error(command, "--width is %" PRId64 ", expected 0 to %d", o->width, INT32_MAX);
        return EXIT_USAGE;
    }
    if (!plan_threads_parse(o->ranks, &r->list, error, sizeof(error))) {
        cli_error(command, "--ranks is '%.100s': %s", o->ranks, error);
        return EXIT_USAGE;
    }
    if (!plan_link_parse(o->link ? o->link : "10,50", &r->link, error, sizeof(error))) {
        cli_error(command, "--link is '%.100s': %s", o->link, error);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

static int plan_ranks(const plan_options *o, const problem *p)
{
    static ranks_options r;
    char text[192];
    fa_device *device = NULL;
    const int code = read_ranks(o, p, &r);
    if (code != EXIT_OK)
        return code;
    fa_context *context = cli_context(command, o->verbose);
    if (!context)
        return EXIT_FAILED;
    name_problem(p, text, sizeof(text));
    bool ok = fa_device_open(context, o->backend, &p->desc, &device) == FA_OK;
    if (!ok)
        cli_error(command, "%s", fa_last_error());
    else
        ok = plan_ranks_show(device, command, text, &p->desc, &r.list, &r.link, o->width, o->json);
    fa_device_close(device);
    fa_context_destroy(context);
    return ok ? EXIT_OK : EXIT_FAILED;
}

static int make_plans(const plan_options *o, const problem *p, const plan_threads *threads)
{
    fa_context *context = cli_context(command, o->verbose);
    if (!context)
        return EXIT_FAILED;
    bool ok = o->threads ? plan_each(context, o, p, threads) : plan_once(context, o, p);
    fa_context_destroy(context);
    return ok ? EXIT_OK : EXIT_FAILED;
}

int cmd_plan(int argc, char **argv)
{
    plan_options o = {.scatter = PAGES_IN_ORDER, .svg = {"svg", NULL}, .list_block = 64, .list_seed = 1};
    problem p = {.lens_kv = NULL};
    plan_threads threads;
    char error[160];

    int parsed = parse(&o, argc, argv);
    if (parsed)
        return parsed == 1 ? EXIT_OK : EXIT_USAGE;
    int code = make_problem(&o, &p);
    if (code == EXIT_OK && o.threads && !plan_threads_parse(o.threads, &threads, error, sizeof(error))) {
        cli_error(command, "--threads is '%.100s': %s", o.threads, error);
        code = EXIT_USAGE;
    }
    if (code == EXIT_OK && !output_check(command, &o.svg, 1, NULL, 0))
        code = EXIT_FAILED;
    if (code == EXIT_OK)
        code = o.ranks ? plan_ranks(&o, &p) : make_plans(&o, &p, &threads);
    free(p.lens_kv);
    random_lists_free(&p.lists);
    return code;
}
