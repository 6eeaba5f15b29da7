/* SPDX-License-Identifier: Apache-2.0 */
/* The part of matrix.comp that brings keys and values from memory to shared memory, by way of registers. */

/* With pages, places of the work-item's keys; those past the end are the last one again. */
void find_keys(int key, int key_end)
{
    [[unroll]] for (int n = 0; n < FETCH_K; n++)
        keys_at[n] = fa_work_find(w, min(key + id / WIDE_QK + n * LINES_K, key_end - 1));
}

void find_values(int key, int key_end)
{
    if (!SAME_KEYS) {
        [[unroll]] for (int n = 0; n < FETCH_V; n++)
            values_at[n] = fa_work_find(w, min(key + id / WIDE_V + n * LINES_V, key_end - 1));
    }
}

/*
 * all_keys and all_values begin where this work-item's first vector lies in the sequence's first keys; with pages, in page
 * 0's first key.
 */
void fetch_keys(int key, int key_end)
{
    const int count = WHOLE_QK != 0 && DIM_QK == WIDE_QK * 8 ? 8 : w.dim_qk - id % WIDE_QK * 8;
    [[unroll]] for (int n = 0; n < FETCH_K; n++) {
        const int j = key + n * LINES_K;
        const address from = row_at(w, all_keys, placed(keys_at[n], j));
        const int exist = j + id / WIDE_QK < key_end ? count : 0;
        if (BLOCKS_K) {
            const raw8 x = k_octet(from, id % WIDE_QK * 8 & 31, exist);
            fetched[n] = x.low;
            beside[n] = x.high;
        } else if (CODED_K) {
            fetched[n] = k8(from, 0, exist).low;
        } else {
            fetched[n] = fetch_k8(1, from, exist).low;
        }
    }
}

/* The highest bit of each half that is not finite. */
uvec4 nonfinite_halves(uvec4 x)
{
    return (x & 0x7fff7fffu) + 0x04000400u & 0x80008000u;
}

/* A block's elements are NaN where its scale or its offset is not finite. */
void put_key_scaling(int at, uint bits)
{
    const vec2 x = staged_scaling(TYPE_K, bits);
    const bool finite = (nonfinite_halves(uvec4(bits)).x & (OFFSETS_K ? 0x80008000u : 0x8000u)) == 0u;
    scales_k[at] = finite ? x.x : uintBitsToFloat(0x7fc00000u);
    if (OFFSETS_K)
        offsets_k[at] = x.y;
}

void put_keys()
{
    [[unroll]] for (int n = 0; n < FETCH_K; n++) {
        const int j = id / WIDE_QK + n * LINES_K, d = id % WIDE_QK;
        if ((BLOCK_KV % LINES_K == 0 || j < BLOCK_KV) && (DIM_QK == WIDE_QK * 8 || d < DIM_QK / 8)) {
            const raw8 x = raw8(fetched[n], beside[n]);
            if (CODED_K)
                room[j * LINE_QK + d] = k_octet_numbers(x, d * 8 & 31, POWER_ONE);
            else
                room[j * LINE_QK + d] = fetched[n];
            if (BLOCKS_K && d % 4 == 0)
                put_key_scaling(d / 4 * BLOCK_KV + j, k_octet_scaling(x));
        }
    }
}

void fetch_values(int key, int key_end)
{
    const int count = WHOLE_V != 0 && DIM_V == WIDE_V * 8 ? 8 : w.dim_v - id % WIDE_V * 8;
    [[unroll]] for (int n = 0; n < FETCH_V; n++) {
        const int j = key + n * LINES_V;
        const fa_key_place before = SAME_KEYS ? keys_at[n] : values_at[n];
        const address from = row_at(w, all_values, placed(before, j));
        const int exist = j + id / WIDE_V < key_end ? count : 0;
        if (BLOCKS_V) {
            const raw8 x = v_octet(from, id % WIDE_V * 8 & 31, exist);
            fetched[n] = x.low;
            beside[n] = x.high;
        } else if (CODED_V) {
            fetched[n] = v8(from, 0, exist).low;
        } else {
            fetched[n] = fetch_v8(1, from, exist).low;
        }
    }
}

/* Fetched codes become numbers; what scales their block stays beside them. */
void decode_values()
{
    [[unroll]] for (int n = 0; n < FETCH_V; n++) {
        const raw8 x = raw8(fetched[n], beside[n]);
        const uint scaling = BLOCKS_V ? v_octet_scaling(x) : 0u;
        fetched[n] = v_octet_numbers(x, id % WIDE_V * 8 & 31, scale_power(scaling));
        beside[n].x = scaling;
    }
}

/* What is not finite among the fetched values becomes 0. Whether there is any. */
bool clear_nonfinite()
{
    uvec4 any = uvec4(0u);
    [[unroll]] for (int n = 0; n < FETCH_V; n++) {
        if (BLOCKS_V) {
            const uint halves = nonfinite_halves(beside[n]).x & (OFFSETS_V ? 0x80008000u : 0x8000u);
            beside[n].x = halves != 0u ? 0u : beside[n].x;
            any.x |= halves;
        }
        const uvec4 halves = nonfinite_halves(fetched[n]);
        fetched[n] &= ~((halves >> 15) * 0xffffu);
        any |= halves;
    }
    return any != uvec4(0u);
}

void put_values()
{
    [[unroll]] for (int n = 0; n < FETCH_V; n++) {
        const int j = id / WIDE_V + n * LINES_V, d = id % WIDE_V;
        if ((BLOCK_KV % LINES_V == 0 || j < BLOCK_KV) && (DIM_V == WIDE_V * 8 || d < DIM_V / 8)) {
            room[ROOM_K + j * LINE_V + d] = fetched[n];
            if (BLOCKS_V && d % 4 == 0) {
                scales_v[d / 4 * BLOCK_KV + j] = scale_rest(beside[n].x);
                if (OFFSETS_V)
                    offsets_v[d / 4 * BLOCK_KV + j] = staged_scaling(TYPE_V, beside[n].x).y;
            }
        }
    }
}
