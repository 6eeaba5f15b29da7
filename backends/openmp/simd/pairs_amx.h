/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The product of tile_bf16.h with AMX: 16 x 16 sums a tile, 16 pairs deep. Two tiles of rows by two of lanes
 * are summed side by side, so that each tile that is loaded is used twice.
 */

enum {
    DIM_GRAIN = 32, /* head dims of q and k come in multiples of this */
    KEY_GRAIN = 32, /* keys                                           */
    ROW_GRAIN = 16, /* rows of the left operand                       */
};

/* All eight tiles are 16 rows of 64 bytes. */
static inline void tile_begin(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t columns[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.columns[i] = 64;
        config.rows[i] = 16;
    }
    _tile_loadconfig(&config);
}

static inline void tile_end(void)
{
    _tile_release();
}

/* A tile's name is part of the instruction. Sums 0 1 in the upper row of tiles and 2 3 in the lower; left operand
 * 4 and 5, right operand 6 and 7. */
FA_INLINE void pairs_tile(const int nv, const bool two_rows, const bool two_lanes, const uint16_t *a,
                          ptrdiff_t stride, const float *b, int pairs, const bool add, float *c)
{
    enum { TILE = 16 };
    const int line = lane_count(nv) * (int)sizeof(float); /* bytes */
    float *lower = c + TILE * lane_count(nv);
    if (add) {
        _tile_loadd(0, c, line);
        if (two_lanes)
            _tile_loadd(1, c + TILE, line);
        if (two_rows)
            _tile_loadd(2, lower, line);
        if (two_rows && two_lanes)
            _tile_loadd(3, lower + TILE, line);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int p = 0; p < pairs; p += TILE) {
        _tile_loadd(4, a + 2 * p, stride * 2);
        _tile_loadd(6, b + p * lane_count(nv), line);
        _tile_dpbf16ps(0, 4, 6);
        if (two_lanes) {
            _tile_loadd(7, b + p * lane_count(nv) + TILE, line);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (two_rows) {
            _tile_loadd(5, a + TILE * stride + 2 * p, stride * 2);
            _tile_dpbf16ps(2, 5, 6);
            if (two_lanes)
                _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, c, line);
    if (two_lanes)
        _tile_stored(1, c + TILE, line);
    if (two_rows)
        _tile_stored(2, lower, line);
    if (two_rows && two_lanes)
        _tile_stored(3, lower + TILE, line);
}

/* c[row][lane] = (add ? c[row][lane] * rescale[lane] : 0) + sum over pairs of a[row][pair] . b[pair][lane] */
FA_INLINE void pairs_product(const int nv, const uint16_t *a, ptrdiff_t stride, int rows, const float *b,
                             int pairs, const vf *rescale, const bool add, float *c)
{
    for (int r = 0; rescale && r < rows; r++) {
        FA_UNROLL
        for (int n = 0; n < nv; n++) {
            float *at = c + r * lane_count(nv) + n * VL;
            v_store(at, v_mul(v_load(at), rescale[n]));
        }
    }
    /* gcc does not know that loading a tile reads memory. */
    __asm__ volatile("" ::: "memory");
    for (int r = 0; r < rows; r += 32) {
        bool two_rows = r + 16 < rows;
        for (int n = 0; n < nv; n += 2) {
            bool two_lanes = n + 1 < nv;
            const uint16_t *left = a + r * stride;
            float *sums = c + r * lane_count(nv) + n * VL;
            if (two_rows && two_lanes)
                pairs_tile(nv, true, true, left, stride, b + n * VL, pairs, add, sums);
            else
                pairs_tile(nv, two_rows, two_lanes, left, stride, b + n * VL, pairs, add, sums);
        }
    }
}
