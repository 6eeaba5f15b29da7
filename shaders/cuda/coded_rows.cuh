/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of codes in shared memory, for coded.cuh: copied as they are, by copies that nothing waits for. Each warp has room of its
 * own, for 32 keys and their values.
 */
#pragma once

#include "decode.cuh"
#include "numbers.cuh"

template <int ROW, int TYPE, int BLOCK_Q, bool TRANSFORMS>
struct coded_rows : decode_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> {
    typedef decode_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> rows;
    using rows::s, rows::lane, rows::R;
    static constexpr int PITCH_K = fa_cuda_coded_pitch(R, FORMAT_K, false), PITCH_V = fa_cuda_coded_pitch(R, FORMAT_V, true);
    static constexpr int ROWS = 32 * (PITCH_K + PITCH_V);

    const uchar *const rows_k, *const rows_v; /* this warp's, in shared memory */
    /* How they are copied, of v in the second bit; and shifts of rows: the lane's of k and v, g's of k, 2 t's and the next of v. */
    const uint ways, shift_lane_k, shift_lane_v, shift_k, shift_even, shift_odd;

    __device__ coded_rows(const work &of, const uchar *room)
        : rows(of), rows_k(room), rows_v(rows_k + 32 * PITCH_K), ways(pin(in_chunks<false>() + 2 * in_chunks<true>())),
          shift_lane_k(pin(shift_of<false>(lane))), shift_lane_v(pin(shift_of<true>(lane))),
          shift_k(pin(shift_of<false>(lane / 4))), shift_even(pin(shift_of<true>(lane % 4 * 2))),
          shift_odd(pin(shift_of<true>(lane % 4 * 2 + 1)))
    {
    }

    /* Where the row of a key begins. In pages, each lane has looked up one. */
    template <bool OF_V>
    __device__ const uchar *row_at(const uchar *looked_up, int key, int i) const
    {
        if (s.in_pages())
            return (const uchar *)__shfl_sync(0xffffffffu, (unsigned long long)looked_up, i);
        return (OF_V ? s.template values<TYPE_ANY>() : s.template keys<TYPE_ANY>()).row_at(key + i);
    }

    template <bool OF_V>
    __device__ cursor cursor_of() const
    {
        return OF_V ? s.template values<TYPE_ANY>() : s.template keys<TYPE_ANY>();
    }

    /*
     * Whether rows are copied by chunks of 16 bytes of memory. A row then lies in shared memory as many bytes behind its
     * place as it lies behind such a chunk's begin. Of every eighth row they are as many, in pages too.
     */
    template <bool OF_V>
    __device__ bool in_chunks() const
    {
        const int aligned = OF_V ? s.a.aligned_v : s.a.aligned_k;
        const fa_long page = span_of((OF_V ? s.p->v_stride : s.p->k_stride)[0], OF_V ? s.a.type_v : s.a.type_k,
                                     OF_V ? s.a.in_v : s.a.in_k);
        const fa_long step = cursor_of<OF_V>().step;
        return aligned >= 4 && most_bytes<OF_V>() + 16 - aligned <= 16 * chunks<OF_V>() &&
               32 / chunks<OF_V>() * 2 * aligned % 16 == 0 && s.key_begin % 8 == 0 && step == (int)step &&
               (!s.in_pages() || (page % 16 == 0 && s.p->page_size % 8 == 0));
    }

    template <bool OF_V>
    static __device__ constexpr int chunks()
    {
        return fa_cuda_coded_chunks(R, OF_V ? FORMAT_V : FORMAT_K);
    }

    /* Of the longest row that the kernel serves. */
    template <bool OF_V>
    static __device__ constexpr int most_bytes()
    {
        return FA_TYPE_SPAN(OF_V ? FORMAT_V : FORMAT_K, R.dim_v);
    }

    template <bool OF_V>
    __device__ int bytes_of_row() const
    {
        return FA_TYPE_SPAN(OF_V ? FORMAT_V : FORMAT_K, OF_V ? s.p->dim_v : s.p->dim_qk);
    }

    /* Bytes from the place of key number n in shared memory to its row. */
    template <bool OF_V>
    __device__ uint shift_of(int n) const
    {
        const cursor c = cursor_of<OF_V>();
        const uint number = (s.in_pages() ? s.sequence.first : 0) + s.key_begin + n;
        return ways & (OF_V ? 2 : 1) ? (low_bits(c.first) + number * (uint)c.step) % 16 : 0;
    }

    /* The row of key number n of those in shared memory. */
    template <bool OF_V>
    __device__ const uchar *row(int n) const
    {
        return (OF_V ? rows_v : rows_k) + n * (OF_V ? PITCH_V : PITCH_K) + shift_of<OF_V>(n);
    }

    /*
     * Rows of 32 keys that are whole, by chunks. Branches between copies cost more than the copies: lanes that have none
     * are told by a predicate.
     */
    template <bool OF_V, bool IN_PAGES>
    __device__ void copy_whole(const uchar *looked_up, int key)
    {
        constexpr int CHUNKS = chunks<OF_V>(), APART = 32 / CHUNKS, PITCH = OF_V ? PITCH_V : PITCH_K;
        const int line = lane / CHUNKS, from = lane % CHUNKS * 16;
        const uint to = pin(shared_address(OF_V ? rows_v : rows_k) + line * PITCH + from);
        const cursor c = cursor_of<OF_V>();
        const int step = (int)c.step;
        const uchar *at[2]; /* of every second row that the lane copies */
        bool has[2];        /* whether these have the chunk: no other is touched */
        UNROLL
        for (int i = 0; i < 2; i++) {
            if (!IN_PAGES)
                at[i] = chunk_of(c.first + (fa_long)(key + line + i * APART) * step) + from;
            has[i] = line < APART;
            if (most_bytes<OF_V>() <= 16 * (CHUNKS - 1))
                has[i] = has[i] && from < most_bytes<OF_V>() + (int)shift_of<OF_V>(line + i * APART);
        }
        UNROLL
        for (int i = 0; i < ceil_div(32, APART); i++) {
            if (IN_PAGES)
                at[i % 2] = chunk_of(row_at<OF_V>(looked_up, key, (line + i * APART) % 32)) + from;
            copy_16_if(has[i % 2] && ((i + 1) * APART <= 32 || line + i * APART < 32), to + i * APART * PITCH, at[i % 2]);
            at[i % 2] += 2 * APART * step;
        }
    }

    static __device__ const uchar *chunk_of(const uchar *at)
    {
        return (const uchar *)((unsigned long long)at & ~15ull);
    }

    /* Any other; rows past the end are 0, as all is that no row has. */
    template <bool OF_V>
    __device__ void copy_some(const uchar *looked_up, int key)
    {
        constexpr int LANES = 8, PITCH = OF_V ? PITCH_V : PITCH_K;
        const int line = lane / LANES;
        const uint to = shared_address(OF_V ? rows_v : rows_k) + line * PITCH;
        ROLLED
        for (int i = 0; i < 32; i += 32 / LANES) {
            const uchar *const at = row_at<OF_V>(looked_up, key, line + i);
            const int bytes = key + line + i < s.key_end ? bytes_of_row<OF_V>() + (int)shift_of<OF_V>(line + i) : 0;
            ROLLED
            for (int chunk = lane % LANES; chunk < chunks<OF_V>(); chunk += LANES) {
                const int exist = FA_MAX(FA_MIN(bytes - 16 * chunk, 16), 0);
                copy_bytes<16>(to + i * PITCH + 16 * chunk, exist > 0 ? chunk_of(at) + 16 * chunk : (const uchar *)&no_row,
                               exist);
            }
        }
    }

    /* Where rows are not in chunks. */
    template <bool OF_V, int BYTES>
    __device__ void copy_pieces(const uchar *looked_up, int key)
    {
        constexpr int LANES = 8, PITCH = OF_V ? PITCH_V : PITCH_K;
        const int line = lane / LANES, bytes = bytes_of_row<OF_V>();
        const uint to = shared_address(OF_V ? rows_v : rows_k) + line * PITCH;
        ROLLED
        for (int i = 0; i < 32; i += 32 / LANES) {
            const uchar *const at = row_at<OF_V>(looked_up, key, line + i);
            const int exist = key + line + i < s.key_end ? bytes : 0;
            ROLLED
            for (int from = lane % LANES * BYTES; from < bytes; from += LANES * BYTES)
                copy_bytes<BYTES>(to + i * PITCH + from, at + from, FA_MAX(FA_MIN(BYTES, exist - from), 0));
        }
    }

    template <bool OF_V, bool IN_PAGES>
    __device__ void copy(const uchar *looked_up, int key)
    {
        if ((ways & (OF_V ? 2 : 1)) == 0)
            copy_pieces<OF_V, 2>(looked_up, key);
        else if (key + 32 <= s.key_end && (OF_V ? s.p->dim_v : s.p->dim_qk) == R.dim_v)
            copy_whole<OF_V, IN_PAGES>(looked_up, key);
        else
            copy_some<OF_V>(looked_up, key);
    }

    /* What no copy reaches. Chunks of whole rows leave out nothing that is read. */
    __device__ void clear_rows()
    {
        if (ways == 3 && s.p->dim_qk == R.dim_v && s.p->dim_v == R.dim_v)
            return;
        for (int at = 16 * lane; at < ROWS; at += 32 * 16)
            store_shared(shared_address(rows_k) + at, make_uint4(0, 0, 0, 0));
    }
};
