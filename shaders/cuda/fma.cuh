/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention by multiply-adds, in two levels of tiles. A block of threads takes one item: BLOCK_Q packed rows against
 * the item's keys in blocks of R.block_kv. Thread (x, y) holds ROWS rows by KEYS keys of the scores and ROWS rows by
 * DIMS dims of the output, in registers for good. Both products run through shared memory in steps of DEPTH: dims
 * of q and k for the scores, then keys of the weights and of v for the output. What a step needs is fetched into
 * registers while the step before it computes, and stored in the stage that was read a step ago: one barrier a step.
 *
 * The keys of a thread are 4 x + e + 4 LANES g, e < 4: vectors of four, interleaved. Every step of the second product
 * takes one key of each of DEPTH threads, so that all write weights at once.
 */
#pragma once

#include "scaled.cuh"

/* TYPE is that of q, k and v, and rows are aligned. With TYPE_ANY each has one of its own, and rows lie where they like. */
template <int ROW, int TYPE, int BLOCK_Q>
struct fma_kernel {
    static constexpr fa_cuda_traits R = fa_cuda_table[ROW];
    static constexpr int LANES = R.fma.lanes, ROWS = R.fma.rows, DEPTH = R.fma.depth, BLOCK_KV = R.block_kv;
    static constexpr int LINES = BLOCK_Q / ROWS, GROUP = LANES * LINES, KEYS = BLOCK_KV / LANES;
    static constexpr int DIMS = R.dim_v / LANES, STEPS_V = BLOCK_KV / DEPTH;
    static constexpr bool ANY = TYPE == TYPE_ANY;
    static constexpr int PARTIAL = 128; /* dims that a score is summed over in one go, where rows are longer */
    static constexpr bool IN_PARTS = R.dim_v > PARTIAL;
    static constexpr uint OTHER = 4 * fa_cuda_fma_stage(R, BLOCK_Q); /* where the second stage begins, in bytes */
    static_assert(LANES <= 32 && ROWS % 4 == 0 && KEYS % 4 == 0 && DIMS % 4 == 0 && PARTIAL % DEPTH == 0,
                  "what the kernel is made for");

    /* Vectors of four that each thread fetches for a step. */
    static constexpr int FETCH_Q = ceil_div(BLOCK_Q * (DEPTH / 4), GROUP);
    static constexpr int FETCH_K = ceil_div(BLOCK_KV * (DEPTH / 4), GROUP);
    static constexpr int FETCH_V = ceil_div(DEPTH * (R.dim_v / 4), GROUP);
    static constexpr int FETCH = FETCH_Q + FETCH_K > FETCH_V ? FETCH_Q + FETCH_K : FETCH_V;

    /* Lines of a stage: padded so that neither writing columns nor reading lines meets one bank twice. */
    static __device__ constexpr int line_q(int d) { return fa_cuda_fma_line(R, BLOCK_Q, d); }
    static __device__ constexpr int line_k(int d) { return fa_cuda_fma_line(R, BLOCK_KV, d); }
    static __device__ constexpr int line_p(int t) { return t * (BLOCK_Q + 4); }
    static __device__ constexpr int line_v(int t) { return t * R.dim_v; }
    static constexpr int STAGE_ROWS = DEPTH * (BLOCK_Q + 4);

    const work &s;
    const int id, x, y;
    volatile int *const unsafe; /* of each stage: some value that it had, and that may be hidden, is not finite */
    /*
     * Addresses in the first stage: where this thread puts the first vectors that it fetches, and its weights of the first
     * of its keys of a step; and where what it multiplies begins.
     */
    const uint room, at_q, at_k, at_v, at_weights, at_rows, at_columns;
    const int first_slot_key; /* see slot_key() */
    raw4 fetched[FETCH];
    const uchar *rows_q[FETCH_Q], *rows_k[FETCH_K], *rows_v; /* where it fetches from, but for a step's dims or keys */
    scaled_row scales_k[FETCH_K];                            /* of those rows                                        */
    float sc[ROWS][KEYS], out[ROWS][DIMS];
    float max, sum; /* of row x % ROWS of the thread's */
    uint stage;     /* where the stage of the present step begins, in bytes from the first */

    __device__ fma_kernel(const work &of, volatile int *flag, uint stages)
        : s(of), id(pin(threadIdx.x)), x(id % LANES), y(id / LANES), unsafe(flag), room(stages),
          at_q(pin(room + 4 * (line_q(first_dim()) + row_of(0)))),
          at_k(pin(room + 4 * (STAGE_ROWS + line_k(first_dim()) + row_of(0)))), at_v(pin(room + 4 * STAGE_ROWS + 16 * id)),
          at_weights(pin(room + 4 * (line_p(x) + y * ROWS))), at_rows(pin(room + 4 * y * ROWS)),
          at_columns(pin(room + 4 * STAGE_ROWS + 16 * x)), first_slot_key(pin(key_of(0, id / (R.dim_v / 4))))
    {
    }

    /* The work, read again where it is seldom needed: kept in registers, it would take the room of operands. */
    __device__ work again() const { return work(s.a, blockIdx.x); }

    __device__ int type_q() const { return ANY ? s.a.type_q : TYPE; }
    __device__ int type_k() const { return ANY ? s.a.type_k : TYPE; }
    __device__ int type_v() const { return ANY ? s.a.type_v : TYPE; }

    /* Of number n of the vectors that this thread fetches, of a step of the first product: its row; and the dim of all. */
    static constexpr int ROWS_APART = GROUP / (DEPTH / 4);
    __device__ int row_of(int n) const { return id / (DEPTH / 4) + n * ROWS_APART; }
    __device__ int first_dim() const { return id % (DEPTH / 4) * 4; }
    static_assert(GROUP % (DEPTH / 4) == 0, "a thread's vectors are of one dim");

    /* Rows past the end are the last one again. */
    __device__ void find_rows()
    {
        UNROLL
        for (int n = 0; n < FETCH_Q; n++)
            rows_q[n] = query(s, s.row_begin + row_of(n)).q(s) + first_dim() * bytes_of(type_q());
    }

    /* Keys past the end likewise: their scores are hidden, their weights 0. */
    __device__ void find_keys(int key)
    {
        int j[FETCH_K];
        UNROLL
        for (int n = 0; n < FETCH_K; n++)
            j[n] = FA_MIN(key + row_of(n), s.key_end - 1);
        if (s.in_pages()) {
            again().template rows_in_pages<TYPE, false, FETCH_K>(j, rows_k);
        } else {
            UNROLL
            for (int n = 0; n < FETCH_K; n++)
                rows_k[n] = s.keys<TYPE>().row_at(j[n]);
        }
        UNROLL
        for (int n = 0; n < FETCH_K; n++) {
            rows_k[n] += offset_of(first_dim(), type_k(), s.a.in_k);
            if constexpr (SCALED)
                scales_k[n] = scales_of<false>(s, j[n]);
        }
    }

    template <bool OF_Q, int N>
    __device__ void fetch_dims(int type, const uchar *const rows[N], int dim, raw4 to[N])
    {
        const uchar *at[N];
        int d[N], count[N];
        UNROLL
        for (int n = 0; n < N; n++) {
            at[n] = rows[n] + (OF_Q ? dim * bytes_of(type) : offset_of(dim, type, s.a.in_k));
            d[n] = dim + first_dim();
            count[n] = s.p->dim_qk - dim - first_dim();
        }
        fetch<OF_Q, false, N>(type, s.a.in_k, at, scales_k, d, count, to);
    }

    /* Dims d[n] and after of rows, which are at at[n], or in the block there. */
    template <bool OF_Q, bool OF_V, int N>
    __device__ void fetch(int type, const fa_cuda_format &in, const uchar *const at[N], const scaled_row scales[N],
                          const int d[N], const int count[N], raw4 to[N])
    {
        if constexpr (ANY && OF_Q) {
            fetch4<N>(type, s.a.aligned, at, count, to);
        } else if constexpr (ANY) {
            by_kind(type, [&](auto is) {
                if constexpr (is.kind == KIND_PLAIN) {
                    fetch4<N>(type, s.a.aligned, at, count, to);
                } else if constexpr (is.kind == KIND_ROWS) {
                    UNROLL
                    for (int n = 0; n < N; n++)
                        to[n] = fetch4_row<OF_V>(s, at[n], d[n], count[n] > 0);
                } else if constexpr (is.kind == KIND_SCALED) {
                    UNROLL
                    for (int n = 0; n < N; n++)
                        to[n] = fetch4_scaled<OF_V>(s, at[n], scales[n], d[n], count[n] > 0);
                } else {
                    UNROLL
                    for (int n = 0; n < N; n++)
                        to[n] = fetch4_coded<is.kind>(in, at[n], dim_in<is.kind>(d[n]), count[n] > 0);
                }
            });
        } else {
            UNROLL
            for (int n = 0; n < N; n++)
                to[n] = fetch_if<TYPE>(count[n] > 0, at[n]);
        }
    }

    __device__ void fetch_qk(int dim)
    {
        fetch_dims<true, FETCH_Q>(type_q(), rows_q, dim, fetched);
        fetch_dims<false, FETCH_K>(type_k(), rows_k, dim, fetched + FETCH_Q);
    }

    /* The key, from the block's first, whose weight is number `slot` of a step: what step and slot add up to. */
    static __device__ int key_of(int step, int slot)
    {
        const uint i = step * DEPTH + slot, group = i / LANES;
        return group / 4 * (4 * LANES) + i % LANES * 4 + group % 4;
    }

    /* Of number n of the vectors of v that this thread fetches for a step: key_of() of its slot, and dim. */
    static constexpr int VECTORS = R.dim_v / 4, SLOTS_APART = GROUP / VECTORS;
    static constexpr bool EVEN = GROUP % VECTORS == 0; /* then slots are SLOTS_APART from one vector to the next */
    static_assert(!EVEN || LANES % SLOTS_APART == 0 || SLOTS_APART % LANES == 0, "keys of slots add up");
    __device__ int slot_key(int n) const
    {
        return EVEN ? first_slot_key + key_of(0, n * SLOTS_APART) : key_of(0, (id + n * GROUP) / VECTORS);
    }
    __device__ int slot_dim(int n) const { return EVEN ? id % VECTORS * 4 : (id + n * GROUP) % VECTORS * 4; }

    __device__ void find_values(int key)
    {
        if (EVEN && !s.in_pages())
            rows_v = pin(s.values<TYPE>().row_at(key + first_slot_key) + offset_of(slot_dim(0), type_v(), s.a.in_v));
    }

    __device__ void fetch_v(int key, int step)
    {
        const uchar *at[FETCH_V];
        [[maybe_unused]] scaled_row scales[FETCH_V];
        int j[FETCH_V], d[FETCH_V], count[FETCH_V];
        const int first = key_of(step, 0);
        UNROLL
        for (int n = 0; n < FETCH_V; n++) {
            j[n] = key + first + slot_key(n);
            d[n] = slot_dim(n);
            count[n] = j[n] < s.key_end ? s.p->dim_v - slot_dim(n) : 0;
            if constexpr (SCALED)
                scales[n] = scales_of<true>(s, j[n]);
        }
        if (s.in_pages()) {
            again().template rows_in_pages<TYPE, true, FETCH_V>(j, at);
            UNROLL
            for (int n = 0; n < FETCH_V; n++)
                at[n] += offset_of(slot_dim(n), type_v(), s.a.in_v);
        } else {
            UNROLL
            for (int n = 0; n < FETCH_V; n++)
                at[n] = EVEN ? s.values<TYPE>().row_after(rows_v, first + key_of(0, n * SLOTS_APART))
                             : s.values<TYPE>().row_at(j[n]) + offset_of(slot_dim(n), type_v(), s.a.in_v);
        }
        fetch<false, true, FETCH_V>(type_v(), s.a.in_v, at, scales, d, count, fetched);
    }

    static __device__ void put_column(uint to, int width, float4 v)
    {
        store_shared(to, v.x);
        store_shared(to + 4 * width, v.y);
        store_shared(to + 8 * width, v.z);
        store_shared(to + 12 * width, v.w);
    }

    __device__ void put_qk(uint stage, int dim)
    {
        UNROLL
        for (int n = 0; n < FETCH_Q; n++) {
            if (FETCH_Q * ROWS_APART == BLOCK_Q || row_of(n) < BLOCK_Q)
                put_column(at_q + stage + 4 * n * ROWS_APART, BLOCK_Q, widen4(type_q(), fetched[n]));
        }
        by_kind(type_k(), [&](auto is) {
            UNROLL
            for (int n = 0; n < FETCH_K; n++) {
                if (FETCH_K * ROWS_APART == BLOCK_KV || row_of(n) < BLOCK_KV)
                    put_column(at_k + stage + 4 * n * ROWS_APART, BLOCK_KV,
                               widen4_of<is.kind>(type_k(), s.a.in_k, fetched[FETCH_Q + n], dim + first_dim()));
            }
        });
    }

    /* Where it `matters`, notes that one of them is not finite. */
    __device__ void put_v(uint stage, bool matters)
    {
        float4 value[FETCH_V];
        by_kind(type_v(), [&](auto is) {
            UNROLL
            for (int n = 0; n < FETCH_V; n++)
                value[n] = widen4_of<is.kind>(type_v(), s.a.in_v, fetched[n], slot_dim(n));
        });
        UNROLL
        for (int n = 0; n < FETCH_V; n++) {
            const int i = id + n * GROUP;
            if (DEPTH * (R.dim_v / 4) % GROUP == 0 || i < DEPTH * (R.dim_v / 4))
                store_shared(at_v + stage + 16 * n * GROUP, value[n]);
        }
        if (matters) {
            bool finite = true;
            UNROLL
            for (int n = 0; n < FETCH_V; n++)
                finite = finite & is_finite4(value[n]);
            if (!finite)
                unsafe[stage > 0] = 1;
        }
    }

    /* What a term of a step takes: of each of the thread's rows one number, and of each of its columns. */
    template <int COLUMNS>
    struct operands {
        float4 row[ROWS / 4], column[COLUMNS / 4];

        __device__ void load(uint rows, uint columns)
        {
            UNROLL
            for (int i = 0; i < ROWS / 4; i++)
                row[i] = load_shared(rows + 16 * i);
            UNROLL
            for (int g = 0; g < COLUMNS / 4; g++)
                column[g] = load_shared(columns + 16 * g * LANES);
        }

        static __device__ void add(float a, float4 b, float *sums)
        {
            sums[0] += a * b.x;
            sums[1] += a * b.y;
            sums[2] += a * b.z;
            sums[3] += a * b.w;
        }

        __device__ void multiply(float sums[ROWS][COLUMNS]) const
        {
            UNROLL
            for (int g = 0; g < COLUMNS / 4; g++) {
                UNROLL
                for (int i = 0; i < ROWS / 4; i++) {
                    add(row[i].x, column[g], sums[4 * i] + 4 * g);
                    add(row[i].y, column[g], sums[4 * i + 1] + 4 * g);
                    add(row[i].z, column[g], sums[4 * i + 2] + 4 * g);
                    add(row[i].w, column[g], sums[4 * i + 3] + 4 * g);
                }
            }
        }
    };

    /*
     * sums += rows columns, DEPTH terms. A term's operands are loaded while the one before is added; the first while
     * `fetch` begins to fetch what the next step takes.
     */
    template <int COLUMNS, typename ROW_LINE, typename COLUMN_LINE, typename FETCH_NEXT>
    __device__ void multiply(uint stage, ROW_LINE row_line, COLUMN_LINE column_line, float sums[ROWS][COLUMNS],
                             FETCH_NEXT fetch)
    {
        operands<COLUMNS> two[2];
        two[0].load(at_rows + stage, at_columns + stage);
        fetch();
        UNROLL
        for (int t = 0; t < DEPTH; t++) {
            const int next = t + 1;
            if (next < DEPTH)
                two[next % 2].load(at_rows + stage + 4 * row_line(next), at_columns + stage + 4 * column_line(next));
            two[t % 2].multiply(sums);
        }
    }

    /* Row 0 goes last and the others move up. Registers have no index: what is long and seldom treats row 0, in turns. */
    template <int COLUMNS>
    static __device__ void turn_rows(float rows[ROWS][COLUMNS])
    {
        UNROLL
        for (int g = 0; g < COLUMNS; g++) {
            const float first = rows[0][g];
            UNROLL
            for (int i = 0; i + 1 < ROWS; i++)
                rows[i][g] = rows[i + 1][g];
            rows[ROWS - 1][g] = first;
        }
    }

    /* The second product where a hidden value may not be finite: it is 0 for the rows that do not see it. */
    __device__ void multiply_guarded(uint stage, int key, int key_end, int step)
    {
        const work s = again();
        ROLLED
        for (int turn = 0; turn < ROWS; turn++) {
            const query q(s, s.row_begin + y * ROWS + turn);
            ROLLED
            for (int t = 0; t < DEPTH; t++) {
                const int j = key + key_of(step, t);
                const bool hidden = j >= key_end || !fa_work_shows(s, q, j);
                const float weight = load_shared1(at_rows + stage + 4 * (line_p(t) + turn));
                UNROLL
                for (int g = 0; g < DIMS; g += 4) {
                    float4 value = load_shared(at_columns + stage + 4 * (line_v(t) + g * LANES));
                    if (hidden)
                        value = make_float4(finite_or_0(value.x), finite_or_0(value.y), finite_or_0(value.z),
                                            finite_or_0(value.w));
                    operands<DIMS>::add(weight, value, out[0] + g);
                }
            }
            turn_rows<DIMS>(out);
        }
    }

    /* The weights of one step: of each thread in its turn, the keys that key_of() names. */
    __device__ void put_weights(uint stage, int step)
    {
        constexpr int PER_STEP = LANES < DEPTH ? DEPTH / LANES : 1;
        const uint to = at_weights + stage - 4 * line_p(step * DEPTH);
        UNROLL
        for (int g = 0; g < KEYS; g++) {
            if (LANES <= DEPTH ? step == g / PER_STEP : (uint)(g * LANES + x - step * DEPTH) < DEPTH) {
                UNROLL
                for (int i = 0; i < ROWS; i += 4)
                    store_shared(to + 4 * (line_p(g * LANES) + i),
                                 make_float4(sc[i][g], sc[i + 1][g], sc[i + 2][g], sc[i + 3][g]));
            }
        }
    }

    /* Scores that the mask cuts, or that a description transforms, row by row in turns. */
    __device__ void mask_scores(int key, int key_end, bool cut, bool transformed)
    {
        const work s = again();
        ROLLED
        for (int turn = 0; turn < ROWS; turn++) {
            const query q(s, s.row_begin + y * ROWS + turn);
            UNROLL
            for (int g = 0; g < KEYS; g++) {
                const int j = key + g / 4 * 4 * LANES + 4 * x + g % 4;
                if (j >= key_end || (cut && !q.sees(s, j)))
                    sc[0][g] = FA_NEG_INF;
                else if (transformed)
                    sc[0][g] = fa_work_score(s, q, j, sc[0][g]);
            }
            turn_rows<KEYS>(sc);
        }
    }

    /* Of each row the greatest, or the sum, of what the lanes have that share it: that of row x % ROWS. */
    template <bool SUM>
    __device__ float reduce(float of[ROWS]) const
    {
        UNROLL
        for (int bit = ROWS / 2; bit > 0; bit /= 2) {
            UNROLL
            for (int i = 0; i < bit; i++) {
                const float mine = x & bit ? of[i + bit] : of[i], other = exchange(x & bit ? of[i] : of[i + bit], bit);
                of[i] = SUM ? mine + other : fmaxf(mine, other);
            }
        }
        UNROLL
        for (int bit = ROWS; bit < LANES; bit *= 2) {
            const float other = exchange(of[0], bit);
            of[0] = SUM ? of[0] + other : fmaxf(of[0], other);
        }
        return of[0];
    }
    static __device__ float exchange(float value, int bit) { return __shfl_xor_sync(0xffffffffu, value, bit); }

    /* What the lane has that keeps row i's. */
    static __device__ float of_row(float value, int i) { return __shfl_sync(0xffffffffu, value, i, LANES); }

    /* Scores become weights, under the new maximum of each row. */
    __device__ void softmax_step()
    {
        float all[ROWS];
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            all[i] = sc[i][0];
            UNROLL
            for (int g = 1; g < KEYS; g++)
                all[i] = fmaxf(all[i], sc[i][g]);
        }
        const float unit = s.p->score.unit, next = fmaxf(max, reduce<false>(all));
        const float old = fa_state_weight(max, next, unit), base = fa_safe_max(next);
        const bool rescales = __any_sync(0xffffffffu, old != 1.0f);
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            const float base_i = of_row(base, i);
            all[i] = 0.0f;
            UNROLL
            for (int g = 0; g < KEYS; g++) {
                sc[i][g] = exp2_fast((sc[i][g] - base_i) * unit);
                all[i] += sc[i][g];
            }
        }
        max = next;
        sum = sum * old + reduce<true>(all);
        if (rescales) {
            UNROLL
            for (int i = 0; i < ROWS; i++) {
                const float old_i = of_row(old, i);
                UNROLL
                for (int g = 0; g < DIMS; g++)
                    out[i][g] *= old_i;
            }
        }
    }

    __device__ void clear(float rows[ROWS][KEYS])
    {
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            UNROLL
            for (int g = 0; g < KEYS; g++)
                rows[i][g] = 0.0f;
        }
    }

    __device__ void start()
    {
        max = FA_NEG_INF;
        sum = 0.0f;
        stage = 0;
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            UNROLL
            for (int g = 0; g < DIMS; g++)
                out[i][g] = 0.0f;
        }
    }

    __device__ void finish()
    {
        const work s = again();
        ROLLED
        for (int turn = 0; turn < ROWS; turn++) {
            const int row = s.row_begin + y * ROWS + turn;
            const query q(s, row);
            fa_state state;
            state.max = of_row(max, turn);
            state.sum = of_row(sum, turn);
            const target to(s, q, row, state, x == 0);
            UNROLL
            for (int g = 0; g < DIMS; g += 4) {
                const int d = 4 * x + g * LANES;
                store4(to.type, to.aligned, to.at + d * bytes_of(to.type), q.exists ? s.p->dim_v - d : 0,
                       fa_normalised4(make_float4(out[0][g], out[0][g + 1], out[0][g + 2], out[0][g + 3]), to.factor));
            }
            turn_rows<DIMS>(out);
        }
    }

    /*
     * A long sum in one chain is less exact than that of its parts. Sums of the dims before wait in memory, since there are
     * no registers for as many again.
     */
    typedef held<ROWS * KEYS / 4, true> waiting;

    /* The sums begin anew; what they were is added to those before, if there are any. */
    __device__ void set_aside(const waiting &before, bool more)
    {
        if (more)
            add(before);
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            UNROLL
            for (int g = 0; g < KEYS; g += 4)
                before.set((i * KEYS + g) / 4, make_uint4(__float_as_uint(sc[i][g]), __float_as_uint(sc[i][g + 1]),
                                                          __float_as_uint(sc[i][g + 2]), __float_as_uint(sc[i][g + 3])));
        }
        clear(sc);
    }

    __device__ void add(const waiting &before)
    {
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            UNROLL
            for (int g = 0; g < KEYS; g += 4) {
                const uint4 x = before.get((i * KEYS + g) / 4);
                sc[i][g] += __uint_as_float(x.x);
                sc[i][g + 1] += __uint_as_float(x.y);
                sc[i][g + 2] += __uint_as_float(x.z);
                sc[i][g + 3] += __uint_as_float(x.w);
            }
        }
    }

    /* The scores of a block, whose first step is fetched. The last step fetches the first values. */
    __device__ void take_keys(int key)
    {
        [[maybe_unused]] typename waiting::room room_before;
        [[maybe_unused]] waiting before;
        if (IN_PARTS)
            before.use(room_before);
        clear(sc);
        ROLLED
        for (int d = 0; d < s.p->dim_qk; d += DEPTH) {
            if (IN_PARTS && d > 0 && d % PARTIAL == 0)
                set_aside(before, d > PARTIAL);
            put_qk(stage, d);
            __syncthreads();
            multiply<KEYS>(stage, line_q, line_k, sc, [&] {
                if (d + DEPTH < s.p->dim_qk)
                    fetch_qk(d + DEPTH);
                else
                    fetch_v(key, 0);
            });
            stage = OTHER - stage;
        }
        if (IN_PARTS && s.p->dim_qk > PARTIAL)
            add(before);
    }

    /* Their part of the output. The last step fetches the first of the next block, if there is one. */
    __device__ void take_values(int key, int next, bool hides)
    {
        ROLLED
        for (int step = 0; step < STEPS_V; step++) {
            const auto fetch_next = [&] {
                if (step + 1 < STEPS_V)
                    fetch_v(key, step + 1);
                else if (next < s.key_end)
                    fetch_qk(0);
            };
            put_weights(stage, step);
            put_v(stage, hides);
            __syncthreads();
            if (hides && unsafe[stage > 0]) {
                fetch_next();
                multiply_guarded(stage, key, FA_MIN(key + BLOCK_KV, s.key_end), step);
            } else {
                multiply<DIMS>(stage, line_p, line_v, out, fetch_next);
            }
            stage = OTHER - stage;
        }
    }

    __device__ void run()
    {
        start();
        find_rows();
        if (id < 2)
            unsafe[id] = 0;
        int key = fa_work_next(s, false, s.key_begin, BLOCK_KV);
        if (key < s.key_end) {
            find_keys(key);
            fetch_qk(0);
        }
        ROLLED
        while (key < s.key_end) {
            const int key_end = FA_MIN(key + BLOCK_KV, s.key_end);
            const bool cut = s.is_cut(key, key_end), transformed = transforms(s);
            find_values(key);
            take_keys(key);
            if (cut || transformed || key_end < key + BLOCK_KV)
                mask_scores(key, key_end, cut, transformed);
            softmax_step();
            const int next = fa_work_next(s, false, key + BLOCK_KV, BLOCK_KV);
            if (next < s.key_end)
                find_keys(next);
            take_values(key, next, cut || (s.p->flags & FA_TABLE_KEEP));
            key = next;
        }
        finish();
    }
};

/* FA_TYPE is that of q, k and v, or TYPE_ANY. */
template <int ROW, int BLOCK_Q>
__device__ __forceinline__ void fma_attention(const fa_cuda_args &a, float4 *room)
{
    const work s(a, blockIdx.x);
    fma_kernel<ROW, SCALED || WHOLE_ROWS ? TYPE_ANY : FA_TYPE, BLOCK_Q> kernel(s, (volatile int *)room, shared_address(room + 1));
    kernel.run();
}
