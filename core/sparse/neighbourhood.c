/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a token sees is a box of tokens of its group, and so is what the tokens of a patch see together. The patches of a box that
 * follow each other on the last axis follow each other in memory.
 */
#include "core/attention/checks.h"
#include "core/size.h"
#include "core/sparse/grid.h"
#include "core/sparse/mask.h"
#include "core/structs.h"

/* Tokens [begin, end) of a group on each axis. */
typedef struct box {
    int begin[FA_AXES], end[FA_AXES];
} box;

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

static fa_status make(const fa_grid *g, fa_list_maker *m)
{
    const int64_t tokens = g->tokens, size = m->shape.block_keys;
    for (int64_t r = 0; r < m->row_blocks; r++) {
        const int64_t end = FA_MIN((r + 1) * m->shape.block_rows, tokens);
        for (int64_t p = r * m->shape.block_rows; p < end;) {
            fa_place place;
            int last[FA_AXES];
            p = fa_grid_patch(g, p, &place, last);
            add_patch(g, m, &place, last);
        }
        if (m->shape.keys > tokens)
            fa_maker_add(m, tokens / size, m->key_blocks);
        FA_TRY(fa_maker_next(m));
    }
    return FA_OK;
}

/* Tokens of as many patches as have 64, and of one at least. */
static int32_t whole_patches(const fa_grid *g)
{
    const int patch = g->axis[0].tile * g->axis[1].tile * g->axis[2].tile;
    return patch * (int)fa_ceil_div(64, FA_MIN(patch, 64));
}

fa_status fa_grid_lists(const fa_context *context, const fa_grid *g, int64_t keys, int32_t block_rows,
                        int32_t block_keys, fa_block_mask **mask)
{
    fa_list_maker m;
    fa_sparse_shape shape = {g->tokens, keys, block_rows, block_keys, FA_MASK_NONE};
    FA_TRY(fa_shape_check(&shape, whole_patches(g)));
    fa_status status = fa_maker_begin(&m, context, &shape, 1, 1);
    if (status == FA_OK)
        status = make(g, &m);
    return fa_maker_finish(&m, status, mask);
}

fa_status fa_sparse_neighbourhood(fa_context *context, const fa_sparse_neighbourhood_desc *desc,
                                  fa_block_mask **mask)
{
    fa_sparse_neighbourhood_desc d;
    fa_grid g;
    FA_TRY(fa_planner_enter(context, desc, mask));
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_SPARSE_NEIGHBOURHOOD_DESC_0_1, desc,
                          "fa_sparse_neighbourhood_desc"));
    FA_TRY(fa_grid_read(d.neighbourhood, &g));
    FA_TRY(fa_check_limit("extra_keys", d.extra_keys, 0, FA_MAX_LENGTH - g.tokens));
    return fa_grid_lists(context, &g, g.tokens + d.extra_keys, d.block_rows, d.block_keys, mask);
}

fa_status fa_sparse_neighbourhood_order(const fa_neighbourhood *neighbourhood, int32_t *order)
{
    fa_grid g;
    fa_clear_error();
    if (!order)
        return fa_fail(FA_INVALID, "order is NULL");
    FA_TRY(fa_grid_read(neighbourhood, &g));
    for (int p = 0; p < g.tokens; p++) {
        const fa_place place = fa_grid_find(&g, p);
        int token = 0;
        for (int n = 0; n < FA_AXES; n++)
            token = token * g.axis[n].size + place.at[n] * g.axis[n].dilation + place.group[n];
        order[p] = token;
    }
    return FA_OK;
}

fa_status fa_sparse_neighbourhood_sees(const fa_neighbourhood *neighbourhood, int64_t row, int64_t key,
                                       int32_t *sees)
{
    fa_grid g;
    fa_clear_error();
    if (!sees)
        return fa_fail(FA_INVALID, "sees is NULL");
    FA_TRY(fa_grid_read(neighbourhood, &g));
    FA_TRY(fa_check_limit("row", row, 0, g.tokens - 1));
    FA_TRY(fa_check_limit("key", key, 0, FA_MAX_LENGTH - 1));
    *sees = fa_grid_shows(&g, (int)row, (int)key);
    return FA_OK;
}
