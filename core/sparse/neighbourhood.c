/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a token sees is a box of tokens of its group, and so is what the tokens of a patch see together. The patches of a box that
 * follow each other on the last axis follow each other in memory.
 */
#include <stdio.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/size.h"
#include "core/sparse/grid.h"
#include "core/sparse/mask.h"
#include "core/structs.h"

/* Tokens [begin, end) of a group on each axis. */
typedef struct box {
    int begin[FA_AXES], end[FA_AXES];
} box;

typedef struct neighbourhood {
    fa_grid grid;
    fa_sparse_shape shape;
} neighbourhood;

/* Of entry n of a field that has one for each axis. */
static fa_status check_field(const char *name, int n, int64_t value, int64_t least, int64_t most)
{
    char field[32];
    (void)snprintf(field, sizeof(field), "%s[%d]", name, n);
    return fa_check_limit(field, value, least, most);
}

static fa_status read_axis(const fa_sparse_neighbourhood_desc *d, int n, fa_axis *a)
{
    static const int tiles[] = {64, 8, 4};
    *a = (fa_axis){
        .size = d->size[n],
        .kernel = d->kernel[n],
        .stride = d->stride[n] ? d->stride[n] : 1,
        .dilation = d->dilation[n] ? d->dilation[n] : 1,
        .tile = d->tile[n] ? d->tile[n] : tiles[d->axes - 1],
        .causal = d->causal[n] == 1,
    };
    FA_TRY(check_field("size", n, a->size, 1, FA_MAX_LENGTH));
    FA_TRY(check_field("dilation", n, a->dilation, 1, a->size));
    FA_TRY(check_field("kernel", n, a->kernel, 1, a->size / a->dilation));
    FA_TRY(check_field("stride", n, a->stride, 1, a->kernel));
    FA_TRY(check_field("causal", n, d->causal[n], 0, 1));
    return check_field("tile", n, a->tile, 1, FA_MAX_LENGTH);
}

static fa_status read_desc(const fa_sparse_neighbourhood_desc *desc, neighbourhood *h)
{
    fa_sparse_neighbourhood_desc d;
    int64_t tokens = 1, tile = 1;
    if (!desc)
        return fa_fail(FA_INVALID, "desc is NULL");
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_SPARSE_NEIGHBOURHOOD_DESC_0_1, desc,
                          "fa_sparse_neighbourhood_desc"));
    FA_TRY(fa_check_limit("axes", d.axes, 1, FA_AXES));
    for (int n = 0; n < FA_AXES; n++) {
        const int from = n - (FA_AXES - d.axes);
        fa_axis *a = &h->grid.axis[n];
        *a = (fa_axis){.size = 1, .kernel = 1, .stride = 1, .dilation = 1, .tile = 1};
        if (from < 0)
            continue;
        FA_TRY(read_axis(&d, from, a));
        tokens *= a->size;
        tile *= a->tile;
        if (tokens > FA_MAX_LENGTH)
            return fa_fail(FA_INVALID, "size[%d] is %d: the grid has more than %d tokens", from, a->size,
                           FA_MAX_LENGTH);
        if (tile > FA_MAX_LENGTH)
            return fa_fail(FA_INVALID, "tile[%d] is %d: a tile has more than %d tokens", from, a->tile,
                           FA_MAX_LENGTH);
        a->tile = FA_MIN(a->tile, a->size);
    }
    FA_TRY(fa_check_limit("extra_keys", d.extra_keys, 0, FA_MAX_LENGTH - tokens));
    h->grid.tokens = (int)tokens;
    h->shape = (fa_sparse_shape){tokens, tokens + d.extra_keys, d.block_rows, d.block_keys, FA_MASK_NONE};
    return fa_shape_check(&h->shape, (int32_t)tile);
}

/*
 * Adds the patches of a box that follow each other on the last axis, from token (x, y) of the others on, where patches begin. Their
 * tokens follow each other. `base` is the number of the group's first token.
 */
static void add_line(const fa_grid *g, fa_list_maker *m, const int length[FA_AXES], const box *b, int base,
                     int x, int y)
{
    const int size = m->shape.block_keys, tile = g->axis[2].tile;
    const int rows = FA_MIN(g->axis[0].tile, length[0] - x),
              area = rows * FA_MIN(g->axis[1].tile, length[1] - y);
    const int z = b->begin[2] / tile * tile, z_end = FA_MIN((b->end[2] - 1) / tile * tile + tile, length[2]);
    const int begin = base + (x * length[1] + rows * y) * length[2];
    fa_maker_add(m, (begin + area * z) / size, (begin + area * z_end - 1) / size + 1);
}

/* Adds the blocks that the tokens of a patch see, of which `place` is the first. */
static void add_patch(const fa_grid *g, fa_list_maker *m, const fa_place *place, const int last[FA_AXES])
{
    const int tx = g->axis[0].tile, ty = g->axis[1].tile;
    fa_place origin = *place;
    box b;
    for (int n = 0; n < FA_AXES; n++) {
        b.begin[n] = fa_axis_begin(&g->axis[n], place->length[n], place->at[n]);
        b.end[n] = fa_axis_end(&g->axis[n], place->length[n], last[n]);
        origin.at[n] = 0;
    }
    const int base = fa_grid_number(g, &origin);
    for (int x = b.begin[0] / tx * tx; x < b.end[0]; x += tx) {
        for (int y = b.begin[1] / ty * ty; y < b.end[1]; y += ty)
            add_line(g, m, place->length, &b, base, x, y);
    }
}

/* The patch in which token p is; its last token. Returns the number of the token that follows. */
static int64_t find_patch(const fa_grid *g, int64_t p, fa_place *first, int last[FA_AXES])
{
    *first = fa_grid_find(g, (int)p);
    fa_place end = *first;
    for (int n = 0; n < FA_AXES; n++) {
        const int tile = g->axis[n].tile;
        first->at[n] = first->at[n] / tile * tile;
        end.at[n] = last[n] = FA_MIN(first->at[n] + tile, first->length[n]) - 1;
    }
    return fa_grid_number(g, &end) + 1;
}

static fa_status make(const neighbourhood *h, fa_list_maker *m)
{
    const int64_t tokens = h->grid.tokens, size = m->shape.block_keys;
    for (int64_t r = 0; r < m->row_blocks; r++) {
        const int64_t end = FA_MIN((r + 1) * m->shape.block_rows, tokens);
        for (int64_t p = r * m->shape.block_rows; p < end;) {
            fa_place place;
            int last[FA_AXES];
            p = find_patch(&h->grid, p, &place, last);
            add_patch(&h->grid, m, &place, last);
        }
        if (m->shape.keys > tokens)
            fa_maker_add(m, tokens / size, m->key_blocks);
        FA_TRY(fa_maker_next(m));
    }
    return FA_OK;
}

fa_status fa_sparse_neighbourhood(fa_context *context, const fa_sparse_neighbourhood_desc *desc,
                                  fa_block_mask **mask)
{
    neighbourhood h;
    fa_list_maker m;
    FA_TRY(fa_planner_enter(context, desc, mask));
    FA_TRY(read_desc(desc, &h));
    fa_status status = fa_maker_begin(&m, context, &h.shape, 1, 1);
    if (status == FA_OK)
        status = make(&h, &m);
    return fa_maker_finish(&m, status, mask);
}

fa_status fa_sparse_neighbourhood_order(const fa_sparse_neighbourhood_desc *desc, int32_t *order)
{
    neighbourhood h;
    fa_clear_error();
    if (!order)
        return fa_fail(FA_INVALID, "order is NULL");
    FA_TRY(read_desc(desc, &h));
    for (int p = 0; p < h.grid.tokens; p++) {
        const fa_place place = fa_grid_find(&h.grid, p);
        int token = 0;
        for (int n = 0; n < FA_AXES; n++)
            token = token * h.grid.axis[n].size + place.at[n] * h.grid.axis[n].dilation + place.group[n];
        order[p] = token;
    }
    return FA_OK;
}

/* Sets bits [begin, end). */
static void set_bits(uint32_t *bits, int64_t begin, int64_t end)
{
    for (int64_t n = begin / 32; n * 32 < end && begin < end; n++) {
        const int64_t first = FA_MAX(begin - n * 32, 0), last = FA_MIN(end - n * 32, 32) - 1;
        bits[n] |= ~(uint32_t)0 << first & ~(uint32_t)0 >> (31 - last);
    }
}

static void set_row(const neighbourhood *h, int64_t row, uint32_t *bits)
{
    const fa_grid *g = &h->grid;
    const int last = FA_AXES - 1, tile = g->axis[last].tile;
    fa_place key = fa_grid_find(g, (int)row);
    box b;
    for (int n = 0; n < FA_AXES; n++) {
        b.begin[n] = fa_axis_begin(&g->axis[n], key.length[n], key.at[n]);
        b.end[n] = fa_axis_end(&g->axis[n], key.length[n], key.at[n]);
    }
    for (key.at[0] = b.begin[0]; key.at[0] < b.end[0]; key.at[0]++) {
        for (key.at[1] = b.begin[1]; key.at[1] < b.end[1]; key.at[1]++) {
            for (int z = b.begin[last], next; z < b.end[last]; z = next) {
                next = FA_MIN((z / tile + 1) * tile, b.end[last]);
                key.at[last] = z;
                const int at = fa_grid_number(g, &key);
                set_bits(bits, at, at + next - z);
            }
        }
    }
    set_bits(bits, g->tokens, h->shape.keys);
}

fa_status fa_sparse_neighbourhood_bits(const fa_sparse_neighbourhood_desc *desc, int64_t first_row,
                                       int64_t rows, uint32_t *bits)
{
    neighbourhood h;
    fa_clear_error();
    if (!bits)
        return fa_fail(FA_INVALID, "bits is NULL");
    FA_TRY(read_desc(desc, &h));
    FA_TRY(fa_check_limit("first_row", first_row, 0, h.grid.tokens));
    FA_TRY(fa_check_limit("rows", rows, 0, h.grid.tokens - first_row));
    const int64_t words = fa_ceil_div(h.shape.keys, 32);
    memset(bits, 0, (size_t)(rows * words) * sizeof(*bits));
    for (int64_t row = 0; row < rows; row++)
        set_row(&h, first_row + row, bits + row * words);
    return FA_OK;
}

fa_status fa_sparse_neighbourhood_sees(const fa_sparse_neighbourhood_desc *desc, int64_t row, int64_t key,
                                       int32_t *sees)
{
    neighbourhood h;
    fa_clear_error();
    if (!sees)
        return fa_fail(FA_INVALID, "sees is NULL");
    FA_TRY(read_desc(desc, &h));
    FA_TRY(fa_check_limit("row", row, 0, h.grid.tokens - 1));
    FA_TRY(fa_check_limit("key", key, 0, h.shape.keys - 1));
    *sees = 1;
    if (key < h.grid.tokens) {
        const fa_place from = fa_grid_find(&h.grid, (int)row), to = fa_grid_find(&h.grid, (int)key);
        *sees = fa_grid_sees(&h.grid, &from, &to);
    }
    return FA_OK;
}
