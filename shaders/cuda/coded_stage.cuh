/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stages of coded_tile.cuh. Rows of codes pass through shared memory as they are, by copies that nothing waits for; each
 * warp has room for its share of one block of k, or of v. It makes numbers of them in the stage that is multiplied next. A
 * block of 32 dims is a lane's. On Turing, which has no such copies, a share passes through registers: all of it is on its way
 * before the first of it is stored.
 */
#pragma once

#include "numbers.cuh"
#include "tensor.cuh"

template <int ROW, int TYPE, int BLOCK_Q, bool TRANSFORMS>
struct coded_stages : tensor_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> {
    typedef tensor_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> tiles;
    typedef format<FORMAT_K> K;
    typedef format<FORMAT_V> V;
    using tiles::s, tiles::id, tiles::lane, tiles::warp, tiles::room, tiles::memory;
    using tiles::R, tiles::UNIT, tiles::BLOCK_KV, tiles::WARPS, tiles::DIM, tiles::GROUP;
    static constexpr int ALL = R.dim_v / 32, BLOCKS = DIM / 32; /* blocks of a row, and of a warp's part */
    /* Whether k, or v, is plain, and staged as tensor.cuh does; and whether nothing but its elements is needed. */
    static constexpr bool PLAIN_K = !FA_TYPE_IS_CODED(FORMAT_K), PLAIN_V = !FA_TYPE_IS_CODED(FORMAT_V);
    static constexpr bool BARE_K = PLAIN_K || K::FP8, BARE_V = PLAIN_V || V::FP8;
    static constexpr int DECODERS = fa_cuda_tile_warps(R);
    static constexpr int SHARE = BLOCK_KV / DECODERS, TURNS = SHARE * ALL / 32; /* a warp's rows; a lane's blocks of them */
    static constexpr int PITCH_K = fa_cuda_tile_pitch(R, FORMAT_K), PITCH_V = fa_cuda_tile_pitch(R, FORMAT_V);
    static constexpr int LANES = 32 / FA_MIN(SHARE, 4); /* that copy a row */
    static_assert(SHARE >= 1 && SHARE <= 32 && TURNS * 32 == SHARE * ALL, "what the kernel is made for");
    static_assert(UNIT >= 80 || (!PLAIN_K && !PLAIN_V), "plain rows are copied without registers");

    /* Bytes of shared memory behind what any kernel has: of each stage what is noted of its scales; sums of q; and codes. */
    static constexpr int NOTED_AT = fa_cuda_tile_notes_at(R, BLOCK_Q), NOTED = fa_cuda_tile_notes(R, FORMAT_K, FORMAT_V);
    static constexpr int LIST = ALL * BLOCK_KV * 4; /* a number for each block of each key */
    static constexpr int SCALES_K = 0, OFFSETS_K = SCALES_K + (BARE_K ? 0 : LIST), RESTS = OFFSETS_K + (K::OFFSET ? LIST : 0),
                         COLUMNS = RESTS + (BARE_V ? 0 : LIST);
    static constexpr int SUMS_Q = NOTED_AT + 2 * NOTED, CODES = SUMS_Q + fa_cuda_tile_sums(R, FORMAT_K, BLOCK_Q);
    static constexpr int COLUMN = BLOCK_KV + 8; /* numbers of a column of offsets, apart so that eight are in different banks */

    /* Whether warps do nothing but decode. Codes of K and V then have room of their own: some come while others are decoded. */
    static constexpr bool OWN_ROOM = fa_cuda_takes_formats(R);

    const int decoder; /* this warp, of those that decode */
    uchar *const codes; /* its codes */

    __device__ coded_stages(const work &of, uchar *shared)
        : tiles(of, shared), decoder(OWN_ROOM ? warp - WARPS : warp),
          codes(shared + CODES + decoder * fa_cuda_tile_share(R, FORMAT_K, FORMAT_V))
    {
    }

    /* Where those of K, or of V, begin. */
    template <bool OF_V>
    static __device__ constexpr int codes_at()
    {
        return OWN_ROOM && OF_V ? SHARE * PITCH_K : 0;
    }

    /* What is noted of a stage, from such a list on. */
    __device__ uchar *noted(int stage, int list) const { return memory + NOTED_AT + stage * NOTED + list; }

    /* Where the warp's row number i of codes begins. In pages, each lane has looked up one. */
    template <bool OF_V, bool IN_PAGES>
    __device__ const uchar *row_at(const uchar *looked_up, int key, int i) const
    {
        if (IN_PAGES)
            return (const uchar *)__shfl_sync(0xffffffffu, (unsigned long long)looked_up, i);
        return (OF_V ? s.template values<TYPE_ANY>() : s.template keys<TYPE_ANY>()).row_at(key + i);
    }

    /* Rows that are whole and aligned to so many bytes. */
    template <bool OF_V, int BYTES, bool IN_PAGES>
    __device__ void copy_whole(const uchar *looked_up, int key)
    {
        constexpr int FULL = FA_TYPE_SPAN(OF_V ? FORMAT_V : FORMAT_K, R.dim_v), PITCH = OF_V ? PITCH_V : PITCH_K;
        constexpr int APART = 32 / LANES, TURN = LANES * BYTES;
        const int from = lane % LANES * BYTES;
        const uint to = shared_address(codes) + codes_at<OF_V>() + lane / LANES * PITCH + from;
        const fa_long step = (OF_V ? s.template values<TYPE_ANY>() : s.template keys<TYPE_ANY>()).step * APART;
        const uchar *at = IN_PAGES ? looked_up : row_at<OF_V, false>(looked_up, key, lane / LANES) + from;
        [[maybe_unused]] passing_bytes<BYTES> passing[SHARE / APART][ceil_div(FULL, TURN)];
        UNROLL
        for (int i = 0; i < SHARE; i += APART) {
            if (IN_PAGES)
                at = row_at<OF_V, true>(looked_up, key, lane / LANES + i) + from;
            UNROLL
            for (int turn = 0; turn < FULL; turn += TURN) {
                if (turn + from >= FULL)
                    continue;
                if constexpr (UNIT < 80)
                    passing[i / APART][turn / TURN] = load_bytes<BYTES>(at + turn, BYTES);
                else
                    copy_bytes<BYTES>(to + i * PITCH + turn, at + turn, BYTES);
            }
            if (!IN_PAGES)
                at += step;
        }
        if constexpr (UNIT < 80) {
            UNROLL
            for (int i = 0; i < SHARE; i += APART) {
                UNROLL
                for (int turn = 0; turn < FULL; turn += TURN) {
                    if (turn + from < FULL)
                        store_bytes<BYTES>(to + i * PITCH + turn, passing[i / APART][turn / TURN]);
                }
            }
        }
    }

    /* Any other; rows past the end are 0, and so are dims past the last. */
    template <bool OF_V, int BYTES, bool IN_PAGES>
    __device__ void copy_some(const uchar *looked_up, int key, int bytes)
    {
        constexpr int FULL = FA_TYPE_SPAN(OF_V ? FORMAT_V : FORMAT_K, R.dim_v), PITCH = OF_V ? PITCH_V : PITCH_K;
        ROLLED
        for (int i = lane / LANES; i < SHARE; i += 32 / LANES) {
            const uchar *const at = row_at<OF_V, IN_PAGES>(looked_up, key, i);
            const int exist = key + i < s.key_end ? bytes : 0;
            ROLLED
            for (int from = lane % LANES * BYTES; from < FULL; from += LANES * BYTES) {
                const uint to = shared_address(codes) + codes_at<OF_V>() + i * PITCH + from;
                const int some = FA_MAX(FA_MIN(BYTES, exist - from), 0);
                if constexpr (UNIT < 80)
                    store_bytes<BYTES>(to, load_bytes<BYTES>(at + from, some));
                else
                    copy_bytes<BYTES>(to, at + from, some);
            }
        }
    }

    template <bool OF_V, bool IN_PAGES>
    __device__ void copy(const uchar *looked_up, int key)
    {
        constexpr int FORMAT = OF_V ? FORMAT_V : FORMAT_K, FULL = FA_TYPE_SPAN(FORMAT, R.dim_v);
        constexpr bool WIDE = FA_TYPE_IS_FP8(FORMAT);
        const int aligned = OF_V ? s.a.aligned_v : s.a.aligned_k;
        const int bytes = FA_TYPE_SPAN(FORMAT, OF_V ? s.p->dim_v : s.p->dim_qk);
        const bool whole = key + SHARE <= s.key_end && bytes == FULL;
        if (WIDE && whole && aligned == 16)
            copy_whole<OF_V, WIDE ? 16 : 8, IN_PAGES>(looked_up, key);
        else if (FULL % 8 == 0 && whole && aligned >= 8)
            copy_whole<OF_V, FULL % 8 == 0 ? 8 : 4, IN_PAGES>(looked_up, key);
        else if (FULL % 4 == 0 && whole && aligned >= 4)
            copy_whole<OF_V, 4, IN_PAGES>(looked_up, key);
        else if (aligned >= 4)
            copy_some<OF_V, 4, IN_PAGES>(looked_up, key, bytes);
        else
            copy_some<OF_V, 2, IN_PAGES>(looked_up, key, bytes);
    }

    /* The warp's rows of codes of a block. Those that were there are done with. */
    template <bool OF_V>
    __device__ void copy_codes(int block)
    {
        const int key = block + SHARE * decoder;
        __syncwarp();
        if (block < s.key_end && s.in_pages()) {
            const work w = tiles::to_look_up();
            copy<OF_V, true>(w.template row_in<TYPE_ANY, OF_V>(w.place_of(key + lane % SHARE)), key);
        } else if (block < s.key_end) {
            copy<OF_V, false>(NULL, key);
        }
        commit_copies();
    }

    /* Both, where the operand is plain: its block goes to the stage. */
    template <bool OF_V>
    __device__ void copy_plain(int stage, int key)
    {
        const int to = OF_V ? tiles::stage_v(stage) : tiles::stage_k(stage), dims = OF_V ? s.p->dim_v : s.p->dim_qk;
        if (tiles::is_whole(key))
            tiles::copy_whole(to, OF_V ? s.template values<TYPE>() : s.template keys<TYPE>(), dims, key);
        else if (key < s.key_end && s.in_pages())
            copy_paged<OF_V>(to, dims, key);
        else if (key < s.key_end)
            tiles::copy_some(to, OF_V ? s.template values<TYPE>() : s.template keys<TYPE>(), dims, key);
        commit_copies();
    }

    template <bool OF_V>
    __device__ void copy_paged(int to, int dims, int key)
    {
        constexpr int CHUNKS = tiles::CHUNKS;
        const work s = tiles::to_look_up();
        const uchar *const row =
            s.template row_in<TYPE, OF_V>(s.place_of(key + fa_cuda_row_looked_up(GROUP, CHUNKS, id)));
        const int left = s.key_end - key - (int)id / CHUNKS, dim = (int)id % CHUNKS * 8;
        ROLLED
        for (int i = 0; i < tiles::COPIES; i++) {
            const uchar *const at = tiles::chunk_of(row, id, i);
            const int count = i * tiles::ROWS_APART < left ? dims - dim : 0;
            if (s.a.aligned)
                copy_async(tiles::copy_at(to, i), at, count > 0 ? 16 : 0);
            else
                store_shared(tiles::copy_at(to, i), elements(at, count));
        }
    }

    /* A block of k, or of v, on its way: to the stage, or as codes. */
    template <bool OF_V>
    __device__ void fetch(int stage, int key)
    {
        if constexpr (OF_V ? PLAIN_V : PLAIN_K)
            copy_plain<OF_V>(stage, key);
        else
            copy_codes<OF_V>(key);
    }

    /* A list's number of block b of the stage's key `line`. */
    __device__ float &note(int stage, int list, int b, int line) const
    {
        return ((float *)noted(stage, list))[b * BLOCK_KV + line];
    }

    /* The offset of a value over the rest of its scale, as two numbers in columns 2 b and 2 b + 1. */
    static constexpr float FINER = TYPE == TYPE_F16 ? 2048.0f : 1.0f; /* f16 would lose the second number's small ones */
    __device__ void note_offset(int stage, int b, int line, float x) const
    {
        ushort *const to = (ushort *)noted(stage, COLUMNS) + 2 * b * COLUMN + line;
        const uint first = pack<TYPE>(x, 0.0f);
        to[0] = (ushort)first;
        to[COLUMN] = (ushort)pack<TYPE>((x - unpack<TYPE>(first, 0)) * FINER, 0.0f);
    }

    /* A block of codes that a lane makes numbers of, a chunk of eight elements at a time. */
    struct decoding {
        int at;           /* of the block, behind the warp's codes                                   */
        uint to;          /* the stage's chunk that is the block's first                             */
        uint by, plus;    /* of v: what multiplies numbers; minus what that times the code of 0 is    */
        uint fifth;       /* bits, of formats that have them                                         */
        uint word[4];     /* with the codes of the next chunk; of fp8, of two                        */
        bool left_out;    /* whether some block of v was                                             */
    };
    static constexpr int CHUNKS_OF_LANE = 4 * TURNS;

    /* A block of v: a power of two for its numbers, and what is noted. */
    __device__ void scale_v(decoding &d, int stage, int b, int line, uint scaling) const
    {
        const uint bits = __float_as_uint(from_half((ushort)scaling));
        const bool apart = is_apart<TYPE>(scaling & 0xffffu, V::OFFSET ? scaling >> 16 : 0);
        const float power = apart ? 0.0f : __uint_as_float(bits & 0xff800000u), zero = -(1024.0f + V::ZERO) * power;
        const float rest = __uint_as_float((bits & 0x007fffffu) | 0x3f800000u);
        note(stage, RESTS, b, line) = rest;
        if constexpr (V::OFFSET)
            note_offset(stage, b, line, apart ? 0.0f : __fdividef(from_half((ushort)(scaling >> 16)), rest));
        d.by = pack<TYPE>(power, power);
        d.plus = pack<TYPE>(zero, zero);
        d.left_out = d.left_out || apart;
    }

    /* One of k: its numbers stay bare. */
    __device__ void scale_k(int stage, int b, int line, uint scaling) const
    {
        note(stage, SCALES_K, b, line) = nan_unless_finite(from_half((ushort)scaling));
        if constexpr (K::OFFSET)
            note(stage, OFFSETS_K, b, line) = nan_unless_finite(from_half((ushort)(scaling >> 16)));
    }

    /* A lane's block of a turn of the stage's next operand, and its first codes. */
    template <typename F, bool OF_V>
    __device__ void begin_block(decoding &d, int stage, int turn) const
    {
        const int row = lane % SHARE, b = lane / SHARE * TURNS + turn, line = decoder * SHARE + row;
        d.at = codes_at<OF_V>() + row * fa_cuda_tile_pitch(R, F::TYPE_OF) + b * F::BLOCK;
        d.to = room + (OF_V ? tiles::stage_v(stage) : tiles::stage_k(stage)) + fa_cuda_tile_block_at(R, OF_V, line, b);
        if constexpr (!F::FP8) {
            const ushort *const from = (const ushort *)(codes + d.at);
            const uint scaling = F::OFFSET ? *(const uint *)from : from[0];
            if constexpr (F::FIFTH > 0)
                d.fifth = from[F::FIFTH / 2] | (uint)from[F::FIFTH / 2 + 1] << 16;
            if constexpr (OF_V)
                scale_v(d, stage, b, line, scaling);
            else
                scale_k(stage, b, line, scaling);
        }
        load_chunk<F>(d, 0);
    }

    /* Words of blocks that do not all begin at one are shared with what precedes the codes. */
    template <typename F>
    __device__ void load_chunk(decoding &d, int i) const
    {
        if constexpr (F::FP8) {
            const uint4 x = *(const uint4 *)(codes + d.at + 8 * i);
            d.word[0] = x.x, d.word[1] = x.y, d.word[2] = x.z, d.word[3] = x.w;
        } else {
            const int first = F::CODES + (F::NIBBLES ? i % 2 : i) * 8;
            const uint *const from = (const uint *)(codes + d.at / 4 * 4 + first / 4 * 4);
            UNROLL
            for (int n = 0; n < (F::BLOCK % 4 == 0 ? 2 : 3); n++)
                d.word[n] = from[n];
        }
    }

    /* Four codes of a chunk, the second and third exchanged: raise() takes pairs of first and third. */
    template <typename F>
    static __device__ uint codes_of_chunk(const decoding &d, int i, int h)
    {
        constexpr bool LATER = F::FIFTH > 0; /* fifth bits are not exchanged */
        const bool odd = F::BLOCK % 4 != 0 && d.at % 4 != 0;
        const uint first = LATER ? 0x5432 : 0x5342, second = LATER ? 0x7654 : 0x7564;
        const uint x = F::BLOCK % 4 == 0 ? __byte_perm(d.word[h], 0, LATER ? 0x3210 : 0x3120)
                                         : __byte_perm(d.word[h], d.word[h + 1], odd ? second : first);
        if constexpr (F::FIFTH > 0)
            return __byte_perm(codes_of<F>(x >> i / 2 * 4, d.fifth >> (8 * i + 4 * h)), 0, 0x3120);
        return F::NIBBLES ? codes_of<F>(x >> i / 2 * 4, 0) : x;
    }

    template <typename F, bool OF_V>
    static __device__ void numbers_of(const decoding &d, int i, uint to[4])
    {
        UNROLL
        for (int h = 0; h < 2; h++) {
            if constexpr (F::FP8) {
                operands_of_fp8<TYPE, F>(d.word[i % 2 * 2 + h], to + 2 * h);
            } else if constexpr (OF_V && TYPE == TYPE_F16) {
                raise<TYPE, F>(codes_of_chunk<F>(d, i, h), to + 2 * h);
                to[2 * h] = multiply_add2(to[2 * h], d.by, d.plus);
                to[2 * h + 1] = multiply_add2(to[2 * h + 1], d.by, d.plus);
            } else {
                operands_of<TYPE, F>(codes_of_chunk<F>(d, i, h), to + 2 * h);
                UNROLL
                for (int j = 2 * h; OF_V && j < 2 * h + 2; j++)
                    to[j] = multiply2<TYPE>(to[j], d.by);
            }
        }
    }

    /* A lane's chunk number n of all, and loads for the one after it. */
    template <typename F, bool OF_V>
    __device__ void decode_chunk(decoding &d, int stage, int n) const
    {
        const int i = n % 4;
        uint x[4];
        numbers_of<F, OF_V>(d, i, x);
        store_shared(d.to ^ i * 16, make_uint4(x[0], x[1], x[2], x[3]));
        if (i < 3 && (!F::FP8 || i % 2 == 1))
            load_chunk<F>(d, i + 1);
        else if (i == 3 && n + 1 < CHUNKS_OF_LANE)
            begin_block<F, OF_V>(d, stage, n / 4 + 1);
    }

    /* Those of all turns side by side, where no other work of the warp hides what a load waits for. */
    template <typename F, bool OF_V>
    __device__ void decode_together(decoding &d, int stage) const
    {
        decoding turn[TURNS];
        UNROLL
        for (int t = 0; t < TURNS; t++) {
            turn[t].left_out = false;
            begin_block<F, OF_V>(turn[t], stage, t);
        }
        UNROLL
        for (int i = 0; i < 4; i++) {
            uint x[TURNS][4];
            UNROLL
            for (int t = 0; t < TURNS; t++)
                numbers_of<F, OF_V>(turn[t], i, x[t]);
            UNROLL
            for (int t = 0; i < 3 && (!F::FP8 || i % 2 == 1) && t < TURNS; t++)
                load_chunk<F>(turn[t], i + 1);
            UNROLL
            for (int t = 0; t < TURNS; t++)
                store_shared(turn[t].to ^ i * 16, make_uint4(x[t][0], x[t][1], x[t][2], x[t][3]));
        }
        UNROLL
        for (int t = 0; t < TURNS; t++)
            d.left_out = d.left_out || turn[t].left_out;
    }

    /* The stage's next operand, of which codes of this warp are on their way. A plain one is waited for. */
    template <bool OF_V>
    __device__ void decode(decoding &d, int stage) const
    {
        wait_copies<OWN_ROOM ? 1 : 0>();
        __syncwarp();
        if constexpr (OF_V ? !PLAIN_V : !PLAIN_K) {
            typedef format<OF_V ? FORMAT_V : FORMAT_K> F;
            if constexpr (OWN_ROOM)
                return decode_together<F, OF_V>(d, stage);
            begin_block<F, OF_V>(d, stage, 0);
            UNROLL
            for (int n = 0; n < CHUNKS_OF_LANE; n++)
                decode_chunk<F, OF_V>(d, stage, n);
        }
    }
};
