/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes become a description: sizes small and hostile, offsets in any order, arrays of every kind. Whatever
 * they say, validation, planning, the bound of workspaces and the queries about a plan on the null backend end in a
 * status, leave no memory behind, and agree with each other.
 */
#include <fastattn/fastattn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/attention/problem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    MAX_SEQUENCES = 64,
    MAX_HEADS = 1 << 20,
    MAX_MEMORY = 8 << 20,
    MAX_LISTS = 1024,
    MAX_BLOCKS = 1 << 16
};

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            fprintf(stderr, "line %d: %s: \"%s\"\n", __LINE__, #condition, fa_last_error()); \
            abort();                                                                         \
        }                                                                                    \
    } while (0)

typedef struct bytes {
    const uint8_t *data;
    size_t left;
} bytes;

/* 0 behind the end. */
static uint8_t take(bytes *b)
{
    if (b->left == 0)
        return 0;
    b->left--;
    return *b->data++;
}

static int64_t take_raw(bytes *b)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | take(b);
    return (int64_t)value;
}

/* A number: mostly small, else near a power of two or anything at all. */
static int64_t take_number(bytes *b)
{
    uint8_t kind = take(b);
    if (kind < 224)
        return kind % 48;
    if (kind < 232)
        return take(b) * 16;
    if (kind < 252) {
        uint8_t shift = take(b) % 63;
        return ((int64_t)1 << shift) + take(b) % 4 - 1;
    }
    return kind == 255 ? take_raw(b) : -(int64_t)take(b);
}

static void take_tensor(bytes *b, fa_tensor *t)
{
    uint8_t kind = take(b);
    int dtype = kind % 16 == 15 ? take(b) : kind % 3;
    memcpy(&t->dtype, &dtype, sizeof(dtype)); /* may be no fa_dtype */
    for (int axis = 0; axis < 4 && kind & 16; axis++)
        t->shape[axis] = take_number(b);
    for (int axis = 0; axis < 4 && kind & 32; axis++)
        t->stride[axis] = axis == 3 && kind & 64 ? 1 : take_number(b);
}

/* Everything that a description may point to. */
typedef struct arrays {
    int64_t cu_q[MAX_SEQUENCES + 1], cu_kv[MAX_SEQUENCES + 1], lens_q[MAX_SEQUENCES], lens_kv[MAX_SEQUENCES];
    int32_t narrow[4][MAX_SEQUENCES + 1];
    fa_tuning tuning;
    char kernel[80];
    fa_block_lists lists;
    fa_neighbourhood neighbourhood;
    int32_t indptr[MAX_LISTS + 1], indices[4 * MAX_LISTS];
    uint8_t mask[MAX_BLOCKS];
} arrays;

/* The slopes' second half is for those of later batch entries. Factors of the bias are the first half. */
static float slopes[2 * MAX_HEADS], sinks[MAX_HEADS];

static void take_offsets(bytes *b, int64_t *cu)
{
    int64_t at = 0;
    for (int i = 0; i <= MAX_SEQUENCES; i++) {
        cu[i] = at;
        uint8_t step = take(b);
        at = step == 255 ? take_number(b) : at + step % 32;
        if (at > INT64_MAX / 2 || at < -INT64_MAX / 2)
            at = INT64_MAX / 2;
    }
}

static void take_tuning(bytes *b, arrays *a)
{
    a->tuning = (fa_tuning){.struct_size = take(b) == 255 ? (size_t)take_number(b) % sizeof(fa_tuning)
                                                          : sizeof(fa_tuning)};
    a->tuning.block_q = (int32_t)take_number(b);
    a->tuning.block_kv = (int32_t)take_number(b);
    a->tuning.splits = (int32_t)take_number(b);
    uint8_t named = take(b);
    if (named < 192)
        return;
    size_t length = named < 224 ? 4 : take(b) % sizeof(a->kernel);
    memset(a->kernel, 'x', sizeof(a->kernel));
    memcpy(a->kernel, "null", 4);
    a->kernel[length] = '\0';
    a->tuning.kernel = a->kernel;
}

/* The shapes that agree with each other, from which single tensors then stray. */
static void take_shapes(bytes *b, fa_attention_desc *d)
{
    int64_t batch = take_number(b), heads = take_number(b), group = take_number(b), rows = take_number(b);
    int64_t keys = take_number(b), dim_qk = take_number(b), dim_v = take_number(b), heads_q;
    if (__builtin_mul_overflow(heads, group, &heads_q))
        heads_q = heads;
    d->q = fa_tensor_make(FA_F32, batch, heads_q, rows, dim_qk);
    d->k = fa_tensor_make(FA_F16, batch, heads, keys, dim_qk);
    d->v = fa_tensor_make(FA_BF16, batch, heads, keys, dim_v);
    d->o = fa_tensor_make(FA_F32, batch, heads_q, rows, dim_v);
    uint8_t stray = take(b);
    fa_tensor *const tensor[4] = {&d->q, &d->k, &d->v, &d->o};
    for (int i = 0; i < 4; i++) {
        if (stray >> i & 1)
            take_tensor(b, tensor[i]);
    }
    if (stray & 16)
        d->bias = fa_tensor_make(FA_F16, stray & 64 ? batch : 1, heads_q, rows, stray & 128 ? keys : 1);
    if (stray & 32)
        d->keep = fa_tensor_make(FA_BOOL, 1, stray & 64 ? heads_q : 1, rows, keys);
}

static void take_sequences(bytes *b, fa_attention_desc *d, arrays *a)
{
    uint8_t kind = take(b);
    if (kind & 1) {
        take_offsets(b, a->cu_q);
        d->cu_rows_q = a->cu_q;
        d->q.shape[0] = d->o.shape[0] = 1;
    }
    if (kind & 2) {
        take_offsets(b, a->cu_kv);
        d->cu_rows_kv = a->cu_kv;
        d->k.shape[0] = d->v.shape[0] = 1;
    }
    d->sequences = take_number(b);
    /* An array as long as the caller says it is, unless that is refused before the array is looked at. */
    bool refused = d->sequences < 0 || d->sequences > 1 << 24;
    if (kind & 3 && !refused && d->sequences > MAX_SEQUENCES)
        d->sequences = MAX_SEQUENCES;
    if (kind & 4 && d->q.shape[0] <= MAX_SEQUENCES && (!(kind & 3) || d->sequences <= MAX_SEQUENCES)) {
        for (int i = 0; i < MAX_SEQUENCES; i++)
            a->lens_kv[i] = take_number(b);
        d->lens_kv = a->lens_kv;
    }
}

/* Slopes for each batch entry, as far apart as memory goes, unless the distance or the batch is refused first. */
static void take_slopes(bytes *b, fa_attention_desc *d)
{
    int64_t count = d->cu_rows_q || d->cu_rows_kv ? d->sequences : d->q.shape[0];
    int64_t stride = take_number(b);
    bool refused = stride < 0 || stride > (int64_t)1 << 36 || count > 1 << 24;
    if (!refused && count > 1 && stride > MAX_HEADS / (count - 1))
        stride = MAX_HEADS / (count - 1);
    d->alibi_stride = stride;
}

/* Contiguous, but for axes that are repeated, and axes that have any stride at all. */
static void take_strides(bytes *b, fa_tensor *t)
{
    uint8_t kind = take(b);
    int64_t next = 1;
    for (int axis = 3; axis >= 0; axis--) {
        t->stride[axis] = kind >> axis & 1 ? 0 : next;
        if (kind >> axis & 16)
            t->stride[axis] = t->shape[axis] == 1 ? take_raw(b) : take_number(b);
        if (t->shape[axis] > 0 && __builtin_mul_overflow(next, t->shape[axis], &next))
            next = 1;
    }
}

/* Some lists become 32-bit ones; of some, both stay. */
static void take_narrow(bytes *b, fa_attention_desc *d, arrays *a)
{
    const int64_t **const wide[4] = {&d->cu_rows_q, &d->cu_rows_kv, &d->lens_q, &d->lens_kv};
    const int32_t **const narrow[4] = {&d->cu_rows_q32, &d->cu_rows_kv32, &d->lens_q32, &d->lens_kv32};
    uint8_t which = take(b), both = take(b);
    for (int list = 0; list < 4; list++) {
        if (!*wide[list] || !(which >> list & 1))
            continue;
        for (int i = 0; i < MAX_SEQUENCES + (list < 2); i++)
            a->narrow[list][i] = (int32_t)(*wide[list])[i];
        *narrow[list] = a->narrow[list];
        if (both != 16 + list)
            *wide[list] = NULL;
    }
}

/* Drawn behind everything else, so that older seeds mean what they meant: 0 is nothing. */
static void take_additions(bytes *b, fa_attention_desc *d, arrays *a)
{
    uint8_t kind = take(b);
    if (kind & 1) {
        int alignment = take(b);
        alignment = alignment < 250 ? alignment % 3 : alignment;
        memcpy(&d->alignment, &alignment, sizeof(alignment));
    }
    if (kind & 2)
        d->scale_is_set = (int32_t)take_number(b);
    if (kind & 4)
        take_slopes(b, d);
    if (kind & 8)
        d->bias_factors = slopes;
    bool packed = d->cu_rows_q || d->cu_rows_kv;
    if (kind & 16 && d->q.shape[0] <= MAX_SEQUENCES && (!packed || d->sequences <= MAX_SEQUENCES)) {
        for (int i = 0; i < MAX_SEQUENCES; i++)
            a->lens_q[i] = take_number(b);
        d->lens_q = a->lens_q;
    }
    if (kind & 32)
        take_narrow(b, d, a);
    uint8_t strided = kind & 64 ? take(b) : 0;
    fa_tensor *const tensor[6] = {&d->q, &d->k, &d->v, &d->o, &d->bias, &d->keep};
    for (int i = 0; i < 6; i++) {
        if (strided >> i & 1)
            take_strides(b, tensor[i]);
    }
}

/* As many blocks as may be read of arrays that are so long; what is read of more is refused first. */
static bool holds(const fa_block_lists *l, int64_t each, int64_t most)
{
    int64_t count;
    return !__builtin_mul_overflow(l->sequences, l->heads, &count) &&
           !__builtin_mul_overflow(count, l->row_blocks, &count) &&
           !__builtin_mul_overflow(count, each, &count) && count <= most;
}

/* Lists whose sizes mostly fit, in either form or in both. Drawn last, as the additions are. Not of large problems: planning goes
 * through all blocks that lists have. */
static void take_lists(bytes *b, fa_attention_desc *d, arrays *a)
{
    const uint8_t kind = take(b), rows = take(b), keys = take(b);
    const int64_t entries = d->sequences > 0 ? d->sequences : d->q.shape[0];
    fa_block_lists *l = &a->lists;
    if (!(kind & 1) || d->q.shape[2] > 1 << 10 || d->k.shape[2] > 1 << 10 || entries > MAX_SEQUENCES)
        return;
    *l = (fa_block_lists){
        .struct_size = kind == 255 ? (size_t)take_number(b) % sizeof(*l) : sizeof(*l),
        .block_rows = rows == 255 ? (int32_t)take_raw(b) : rows,
        .block_keys = keys == 255 ? (int32_t)take_raw(b) : keys,
        .sequences = kind & 2 ? entries : 1,
        .heads = kind & 4   ? d->q.shape[1]
                 : kind & 8 ? d->k.shape[1]
                            : 1,
        .row_blocks = take_number(b),
        .key_blocks = take_number(b),
    };
    if (kind & 16) { /* they fit, whatever was drawn */
        l->row_blocks = d->q.shape[2] / (l->block_rows > 0 ? l->block_rows : 1) + 1;
        l->key_blocks = d->k.shape[2] / (l->block_keys > 0 ? l->block_keys : 1) + 1;
    }
    for (int i = 0; i < MAX_BLOCKS; i++)
        a->mask[i] = i < 64 ? take(b) & 1 : a->mask[i % 64];
    int32_t at = 0;
    for (int i = 0; i <= MAX_LISTS; i++) {
        const uint8_t step = i < 64 ? take(b) : (uint8_t)(i & 3);
        a->indptr[i] = step == 255 ? -at : at;
        at += step % 4;
    }
    for (int i = 0; i < 4 * MAX_LISTS; i++)
        a->indices[i] = i < 64 ? (int32_t)take_number(b) : i % 4;
    l->mask = kind & 32 && holds(l, l->key_blocks, MAX_BLOCKS) ? a->mask : NULL;
    l->indptr = (!(kind & 32) || kind & 64) && holds(l, 1, MAX_LISTS) ? a->indptr : NULL;
    l->indices = l->indptr ? a->indices : NULL;
    d->lists = l;
}

/* A grid that mostly has as many tokens as there are rows. Not of large problems, as lists. */
static void take_neighbourhood(bytes *b, fa_attention_desc *d, arrays *a)
{
    const uint8_t kind = take(b);
    fa_neighbourhood *n = &a->neighbourhood;
    if (!(kind & 1) || d->q.shape[2] < 1 || d->q.shape[2] > 1 << 10 || d->k.shape[2] > 1 << 10)
        return;
    *n = (fa_neighbourhood){
        .struct_size = kind == 255 ? (size_t)take_number(b) % sizeof(*n) : sizeof(*n),
        .axes = kind == 255 ? (int32_t)take_raw(b) : 1 + kind / 2 % 3,
    };
    int32_t tokens = (int32_t)d->q.shape[2];
    for (int axis = 2; axis >= 0; axis--) {
        const int32_t size = 1 + take(b) % 8, kernel = 1 + take(b) % 8;
        const bool last = axis == 0 || tokens % size != 0;
        n->size[axis] = axis >= n->axes ? 0 : last ? tokens : size;
        tokens = axis >= n->axes ? tokens : tokens / n->size[axis];
        n->kernel[axis] = kernel;
        n->stride[axis] = take(b) % (kernel + 1);
        n->dilation[axis] = take(b) % 3;
        n->causal[axis] = take(b) % 2;
        n->tile[axis] = take(b) % 8;
    }
    const uint8_t stray = take(b);
    int32_t *const fields[] = {n->size, n->kernel, n->stride, n->dilation, n->causal, n->tile};
    if (stray < 36)
        fields[stray / 6][stray % 3] = (int32_t)take_number(b);
    d->neighbourhood = n;
}

static void take_desc(bytes *b, fa_attention_desc *d, arrays *a)
{
    memset(d, 0, sizeof(*d));
    uint8_t kind = take(b);
    d->struct_size = kind == 255 ? (size_t)take_number(b) % sizeof(*d) : sizeof(*d);
    take_shapes(b, d);
    if (kind & 1)
        take_sequences(b, d, a);
    uint8_t mask = take(b);
    int mask_kind = mask < 250 ? mask % 3 : mask;
    memcpy(&d->mask, &mask_kind, sizeof(mask_kind));
    if (kind & 2) {
        d->window_left = take_number(b);
        d->window_right = take_number(b);
        d->prefix = take_number(b);
        d->diagonal_offset = take_number(b);
    }
    if (kind & 4) {
        int32_t bits[2] = {(int32_t)take_raw(b), (int32_t)take_raw(b)};
        memcpy(&d->scale, &bits[0], sizeof(d->scale));
        memcpy(&d->softcap, &bits[1], sizeof(d->softcap));
        memcpy(&slopes[take(b)], &bits[0], sizeof(slopes[0]));
        d->want_lse = (int32_t)take_number(b);
    }
    d->alibi_slopes = kind & 8 ? slopes : NULL;
    d->sinks = kind & 16 ? sinks : NULL;
    if (kind & 32) {
        take_tuning(b, a);
        d->tuning = &a->tuning;
    }
    take_additions(b, d, a);
    take_lists(b, d, a);
    take_neighbourhood(b, d, a);
}

/* Hostile sizes may make the library ask for a lot: it gets little, and must give all of it back. */
static size_t taken;

static void *allocate(void *user, size_t size, size_t alignment)
{
    (void)user;
    void *memory = NULL;
    if (size > MAX_MEMORY - taken || posix_memalign(&memory, alignment, size) != 0)
        return NULL;
    taken += size;
    return memory;
}

static void release(void *user, void *memory, size_t size)
{
    (void)user;
    taken -= size;
    free(memory);
}

/* A family has its largest member in it. */
static void check_bound(fa_device *device, const fa_attention_desc *desc, const fa_plan *plan)
{
    size_t needed;
    fa_status status = fa_workspace_bound(device, desc, &needed);
    CHECK(status == FA_OK || (status == FA_OUT_OF_MEMORY && needed == 0));
    CHECK(status != FA_OK || needed >= fa_plan_workspace(plan));
}

static void check_plan(const fa_plan *plan)
{
    fa_plan_info info = {.struct_size = sizeof(info)};
    CHECK(fa_plan_get_info(plan, &info) == FA_OK);
    CHECK(info.imbalance >= 1 && info.seconds >= 0 && info.items >= 0 && info.splits >= 0);
    CHECK(info.block_q % info.tile_q == 0 && info.block_kv % info.tile_kv == 0);
    CHECK(info.blocks_full >= 0 && info.blocks_partial >= 0 && info.blocks_skipped >= 0);
    CHECK(info.workspace == fa_plan_workspace(plan));
    int64_t rows, columns;
    for (int64_t n = 0; n < info.sequences && n < 4; n++) {
        fa_tile_class tile;
        CHECK(fa_plan_grid(plan, n, &rows, &columns) == FA_OK && rows >= 0 && columns >= 0);
        if (rows > 0 && columns > 0)
            CHECK(fa_plan_tile(plan, n, rows - 1, columns - 1, &tile) == FA_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static arrays a;
    bytes b = {data, size};
    fa_attention_desc desc, before;
    take_desc(&b, &desc, &a);
    memcpy(&before, &desc, sizeof(desc));

    const fa_context_options options = {.struct_size = sizeof(options),
                                        .allocator = {allocate, release, NULL}};
    fa_context *context;
    fa_device *device;
    CHECK(fa_context_create(&options, &context) == FA_OK);
    CHECK(fa_device_open(context, "null", NULL, &device) == FA_OK);
    size_t idle = taken;

    fa_problem problem;
    fa_status valid = fa_problem_init(context, &desc, &problem);
    CHECK(valid == FA_OK || fa_last_error()[0]);
    if (valid == FA_OK)
        fa_problem_release(context, &problem);
    CHECK(taken == idle);

    char reason[256];
    fa_status supported = fa_device_supports(device, &desc, reason, sizeof(reason));
    CHECK((supported == FA_OK) == (reason[0] == '\0'));
    CHECK(valid == FA_OK || supported == valid);
    fa_plan *plan;
    fa_status planned = fa_plan_create(device, &desc, &plan);
    CHECK(planned == supported || planned == FA_OUT_OF_MEMORY);
    CHECK((planned == FA_OK) == (plan != NULL));
    if (planned == FA_OK) {
        check_plan(plan);
        check_bound(device, &desc, plan);
    } else {
        CHECK(fa_last_error()[0]);
    }
    fa_plan_destroy(plan);
    CHECK(taken == idle);
    CHECK(memcmp(&before, &desc, sizeof(desc)) == 0);

    fa_device_close(device);
    fa_context_destroy(context);
    CHECK(taken == 0);
    memset(slopes, 0, 256 * sizeof(slopes[0]));
    return 0;
}
