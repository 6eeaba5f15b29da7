/* SPDX-License-Identifier: Apache-2.0 */
/* The part of matrix.comp that brings keys and values from memory to shared memory, by way of registers. */

/* With pages, places of the work-item's keys; those past the end are the last one again. */
void find_keys(int key, int key_end)
{
    [[unroll]] for (int n = 0; n < FETCH_K; n++)
        keys_at[n] = place_of(w, min(key + id / WIDE_QK + n * LINES_K, key_end - 1));
}

void find_values(int key, int key_end)
{
    if (!SAME_KEYS) {
        [[unroll]] for (int n = 0; n < FETCH_V; n++)
            values_at[n] = place_of(w, min(key + id / WIDE_V + n * LINES_V, key_end - 1));
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
        fetched[n] = fetch_k8(1, row_at(w, all_keys, placed(keys_at[n], j)), j + id / WIDE_QK < key_end ? count : 0).low;
    }
}

void put_keys()
{
    [[unroll]] for (int n = 0; n < FETCH_K; n++) {
        const int j = id / WIDE_QK + n * LINES_K, d = id % WIDE_QK;
        if ((BLOCK_KV % LINES_K == 0 || j < BLOCK_KV) && (DIM_QK == WIDE_QK * 8 || d < DIM_QK / 8))
            room[j * LINE_QK + d] = fetched[n];
    }
}

void fetch_values(int key, int key_end)
{
    const int count = WHOLE_V != 0 && DIM_V == WIDE_V * 8 ? 8 : w.dim_v - id % WIDE_V * 8;
    [[unroll]] for (int n = 0; n < FETCH_V; n++) {
        const int j = key + n * LINES_V;
        const fa_key_place before = SAME_KEYS ? keys_at[n] : values_at[n];
        fetched[n] = fetch_v8(1, row_at(w, all_values, placed(before, j)), j + id / WIDE_V < key_end ? count : 0).low;
    }
}

/* The highest bit of each half that is not finite. */
uvec4 nonfinite_halves(uvec4 x)
{
    return (x & 0x7fff7fffu) + 0x04000400u & 0x80008000u;
}

/* What is not finite among the fetched values becomes 0. Whether there is any. */
bool clear_nonfinite()
{
    uvec4 any = uvec4(0u);
    [[unroll]] for (int n = 0; n < FETCH_V; n++) {
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
        if ((BLOCK_KV % LINES_V == 0 || j < BLOCK_KV) && (DIM_V == WIDE_V * 8 || d < DIM_V / 8))
            room[ROOM_K + j * LINE_V + d] = fetched[n];
    }
}
