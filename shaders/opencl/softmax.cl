/* SPDX-License-Identifier: Apache-2.0 */
/* What a description can do to scores, and how a row ends: the same for every kernel. */
#include "memory.cl"
#include "lanes.cl"

/* One query row: where it stands and what it sees. */
typedef struct query {
    int head;
    int position;
    int begin, end; /* its interval of keys */
    bool exists;
} query;

/* What is the same for a whole work item. */
typedef struct scene {
    __global const fa_table_params *params;
    __global const fa_table_sequence *sequence;
    __global const float *slopes, *sinks;
    memory bias, keep;
    long bias_at, keep_at; /* elements, of the first element */
    int prefix;
} scene;

static inline query query_of(__global const fa_table_params *p, fa_mask mask, int head_kv, int row, int row_end)
{
    query q;
    q.exists = row < row_end;
    int r = q.exists ? row : row_end - 1;
    q.position = r / p->group;
    q.head = head_kv * p->group + r - q.position * p->group;
    q.begin = fa_mask_begin(mask, q.position);
    q.end = fa_mask_end(mask, q.position);
    return q;
}

static inline bool is_seen(query q, int prefix, int key)
{
    return key < prefix || (key >= q.begin && key < q.end);
}

#ifdef FA_BLOCK_KV
/*
 * The first block from `key` on of which some row sees something; `key_end` where there is none. Loops with barriers
 * go from one to the next by this: PoCL 3.1 miscompiles a `continue` around the barriers, though all take it alike.
 */
static inline int next_block(__global const fa_table_params *p, fa_mask mask, int row_begin, int row_end, int key,
                             int key_end)
{
    int first = row_begin / p->group, last = (row_end - 1) / p->group + 1;
    while (key < key_end &&
           fa_mask_classify(mask, first, last, key, FA_MIN(key + FA_BLOCK_KV, key_end)) == FA_CLASS_SKIP)
        key += FA_BLOCK_KV;
    return FA_MIN(key, key_end);
}
#endif

static inline long extra_at(__global const fa_long *stride, int number, int head, int position, int key)
{
    return number * stride[0] + head * stride[1] + position * stride[2] + key * stride[3];
}

static inline bool is_kept(scene s, query q, int key)
{
    long at = extra_at(s.params->keep_stride, s.sequence->number, q.head, q.position, key);
    return *memory_at(s.keep, s.keep_at + at) != 0;
}

/* Whether neither the mask nor `keep` hides the key. */
static inline bool is_visible(scene s, query q, int key)
{
    return is_seen(q, s.prefix, key) && (!(s.params->flags & FA_TABLE_KEEP) || is_kept(s, q, key));
}

/* A visible raw product as a natural score; -inf where `keep` hides it. */
static inline float transform(scene s, query q, int key, float x)
{
    int flags = s.params->flags;
    fa_terms t = fa_terms_none();
    if (flags & FA_TABLE_ALIBI) {
        t.slope = s.slopes[s.sequence->number * s.params->slope_stride + q.head];
        t.distance = s.sequence->mask.diagonal + q.position - key;
    }
    if (flags & FA_TABLE_BIAS) {
        long at = extra_at(s.params->bias_stride, s.sequence->number, q.head, q.position, key);
        t.bias = load_any(s.params->bias_type, s.bias, s.bias_at + at);
    }
    if (flags & FA_TABLE_BIAS_FACTORS) /* the parameters begin the table */
        t.bias *= ((__global const float *)((__global const char *)s.params + s.params->factors_at))[q.head];
    if (flags & FA_TABLE_KEEP)
        t.kept = is_kept(s, q, key);
    return fa_score_of(s.params->score, t, x);
}

static inline float4 normalised(float4 x, float factor)
{
    return (float4)(fa_normalised(x.x, factor), fa_normalised(x.y, factor), fa_normalised(x.z, factor),
                    fa_normalised(x.w, factor));
}

/* What a part of a split row leaves, two floats each. */
static inline void store_state(memory states, long first, long part, fa_state state)
{
    store_0(states, first + 2 * part, state.max);
    store_0(states, first + 2 * part + 1, state.sum);
}

static inline fa_state load_state(memory states, long first, long part)
{
    fa_state state;
    state.max = load_0(states, first + 2 * part);
    state.sum = load_0(states, first + 2 * part + 1);
    return state;
}

/* Ends a row of an item that is `whole`, or a part of one: sinks count once, in the whole. */
static inline fa_closed close_row(scene s, query q, fa_state state, bool whole)
{
    float sink = whole && (s.params->flags & FA_TABLE_SINKS) ? s.sinks[q.head] : FA_NEG_INF;
    return fa_state_close(state, s.params->score.natural, sink);
}
