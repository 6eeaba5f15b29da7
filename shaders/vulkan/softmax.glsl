/* SPDX-License-Identifier: Apache-2.0 */
/* What a description can do to scores, and how a row ends: the same for every kernel. */
#ifdef FA_SUBGROUPS
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#include "memory.glsl"
#include "lanes.glsl"

layout(constant_id = FA_VK_TRANSFORM) const int TRANSFORM = 0;
layout(constant_id = FA_VK_FAR) const int FAR = 0;

/* One query row: where it stands and what it sees. */
struct query {
    int head;
    int position;
    int begin, end; /* its interval of keys */
    bool exists;
};

/* What is the same for a whole work item. */
struct work {
    bool whole;        /* the item writes its rows itself, and not a part of them */
    address part_row; /* else the first of its rows among the partial results */
    int head_kv, row_begin, row_end, key_begin, key_end;
    int sequence; /* first word of its entry in the table */
    fa_mask mask;
    int group, dim_qk, dim_v, flags;
};

fa_mask mask_at(int sequence)
{
    fa_mask m;
    m.len_kv = table_int(sequence + FA_VK_WORD_MASK);
    m.diagonal = table_int(sequence + FA_VK_WORD_MASK + 1);
    m.left = table_int(sequence + FA_VK_WORD_MASK + 2);
    m.right = table_int(sequence + FA_VK_WORD_MASK + 3);
    m.prefix = table_int(sequence + FA_VK_WORD_MASK + 4);
    return m;
}

/* Item n of the list that begins at the byte which the table has at word `list`. */
work work_at(int list, int n)
{
    const int item = table_int(list) / 4 + n * FA_VK_WORDS_ITEM;
    work w;
    w.whole = table_int(item + FA_VK_WORD_PART_ROW + 1) < 0;
    w.part_row = table_wide(item + FA_VK_WORD_PART_ROW);
    w.head_kv = table_int(item + FA_VK_WORD_HEAD_KV);
    w.row_begin = table_int(item + FA_VK_WORD_ROW_BEGIN);
    w.row_end = table_int(item + FA_VK_WORD_ROW_END);
    w.key_begin = table_int(item + FA_VK_WORD_KEY_BEGIN);
    w.key_end = table_int(item + FA_VK_WORD_KEY_END);
    w.sequence = table_int(FA_VK_WORD_SEQUENCES_AT) / 4 + table_int(item + FA_VK_WORD_SEQUENCE) * FA_VK_WORDS_SEQUENCE;
    w.mask = mask_at(w.sequence);
    w.group = table_int(FA_VK_WORD_GROUP);
    w.dim_qk = table_int(FA_VK_WORD_DIM_QK);
    w.dim_v = table_int(FA_VK_WORD_DIM_V);
    w.flags = table_int(FA_VK_WORD_FLAGS);
    return w;
}

query query_of(work w, int row)
{
    query q;
    q.exists = row < w.row_end;
    const int r = q.exists ? row : w.row_end - 1;
    q.position = r / w.group;
    q.head = w.head_kv * w.group + r - q.position * w.group;
    q.begin = fa_mask_begin(w.mask, q.position);
    q.end = fa_mask_end(w.mask, q.position);
    return q;
}

bool is_seen(work w, query q, int key)
{
    return key < w.mask.prefix || (key >= q.begin && key < q.end);
}

/* Where a row of an operand begins: its first byte. `strides` is the word of the operand's strides. */
address row_at(int slot, int type, int first, int strides, int head, int row)
{
    return at(slot) + (table_wide(first) + address(head) * table_wide(strides + 2) +
                       address(row) * table_wide(strides + 4)) * address(bytes_of(type));
}

/* How far row n lies from row 0. Most strides need few bits, and then the product is one instruction. */
address rows_on(int n, address stride)
{
    return FAR != 0 ? address(n) * stride : address(n) * address(int(stride));
}

address row_of_o(work w, query q)
{
    return row_at(FA_VK_SLOT_O, TYPE_O, w.sequence + FA_VK_WORD_O_AT, FA_VK_WORD_O_STRIDE, q.head, q.position);
}

address lse_of(work w, query q)
{
    return at(FA_VK_SLOT_LSE) + (table_wide(w.sequence + FA_VK_WORD_LSE_AT) +
                                 address(q.head) * address(table_int(FA_VK_WORD_LSE_ROWS)) +
                                 address(q.position)) * 4;
}

/* How the item's block of keys from `key` on is seen by its rows. */
int classify(work w, int key, int key_end)
{
    return fa_mask_classify(w.mask, w.row_begin / w.group, (w.row_end - 1) / w.group + 1, key, key_end);
}

/* The first block from `key` on of which some row sees something; key_end where there is none. */
int next_block(work w, int block, int key)
{
    while (key < w.key_end && classify(w, key, min(key + block, w.key_end)) == FA_CLASS_SKIP)
        key += block;
    return min(key, w.key_end);
}

/* Elements of bias or keep, from the first on. */
address extra_at(work w, int strides, query q, int key)
{
    return address(table_int(w.sequence + FA_VK_WORD_NUMBER)) * table_wide(strides) +
           address(q.head) * table_wide(strides + 2) + address(q.position) * table_wide(strides + 4) +
           address(key) * table_wide(strides + 6);
}

bool is_kept(work w, query q, int key)
{
    const address p = at(FA_VK_SLOT_KEEP) + extra_at(w, FA_VK_WORD_KEEP_STRIDE, q, key);
    return (WORD1(6, p & ~address(3)) >> (uint(p & address(3)) * 8u) & 0xffu) != 0u;
}

/* Whether neither the mask nor `keep` hides the key. */
bool is_visible(work w, query q, int key)
{
    return is_seen(w, q, key) && ((w.flags & FA_TABLE_KEEP) == 0 || is_kept(w, q, key));
}

float bias_of(work w, query q, int key)
{
    const int type = table_int(FA_VK_WORD_BIAS_TYPE);
    const address p = at(FA_VK_SLOT_BIAS) +
                       extra_at(w, FA_VK_WORD_BIAS_STRIDE, q, key) * address(bytes_of(type));
    return FA_LOAD(5, type, p);
}

fa_score score_data()
{
    fa_score s;
    s.scale = table_float(FA_VK_WORD_SCORE);
    s.scale_rest = table_float(FA_VK_WORD_SCORE + 1);
    s.cap = table_float(FA_VK_WORD_SCORE + 2);
    s.cap_inverse = table_float(FA_VK_WORD_SCORE + 3);
    s.unit = table_float(FA_VK_WORD_SCORE + 4);
    s.natural = table_float(FA_VK_WORD_SCORE + 5);
    s.transforms = table_int(FA_VK_WORD_SCORE + 6);
    return s;
}

/* A visible raw product as a natural score; -inf where `keep` hides it. */
float transform(work w, query q, int key, float x)
{
    fa_terms t = fa_terms_none();
    if ((w.flags & FA_TABLE_ALIBI) != 0) {
        t.slope = table_float(table_int(FA_VK_WORD_SLOPES_AT) / 4 +
                              table_int(w.sequence + FA_VK_WORD_NUMBER) * table_int(FA_VK_WORD_SLOPE_STRIDE) + q.head);
        t.distance = w.mask.diagonal + q.position - key;
    }
    if ((w.flags & FA_TABLE_BIAS) != 0)
        t.bias = bias_of(w, q, key);
    if ((w.flags & FA_TABLE_BIAS_FACTORS) != 0)
        t.bias *= table_float(table_int(FA_VK_WORD_FACTORS_AT) / 4 + q.head);
    if ((w.flags & FA_TABLE_KEEP) != 0)
        t.kept = is_kept(w, q, key);
    return fa_score_of(score_data(), t, x);
}

float sink_of(work w, query q)
{
    return (w.flags & FA_TABLE_SINKS) != 0 ? table_float(table_int(FA_VK_WORD_SINKS_AT) / 4 + q.head) : FA_NEG_INF;
}

vec4 normalised(vec4 x, float factor)
{
    return vec4(fa_normalised(x.x, factor), fa_normalised(x.y, factor), fa_normalised(x.z, factor),
                fa_normalised(x.w, factor));
}

/* What part row n of split rows leaves. */
void store_part_state(address n, fa_state state)
{
    const address p = at(FA_VK_SLOT_STATE) + n * 8;
    store_state(p, state.max);
    store_state(p + 4, state.sum);
}

fa_state load_part_state(address n)
{
    const address p = at(FA_VK_SLOT_STATE) + n * 8;
    fa_state state;
    state.max = load_state(p);
    state.sum = load_state(p + 4);
    return state;
}

/* Ends a row; sinks count once, in the item that is whole. */
fa_closed close_row(work w, query q, fa_state state)
{
    return fa_state_close(state, score_data().natural, w.whole ? sink_of(w, q) : FA_NEG_INF);
}
