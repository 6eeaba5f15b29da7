/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The search for levels. Neighbours that begin with the same pages form a tree: a node is a range of sequences and how
 * many pages they have in common, and its children are the ranges within it that have more. A node is either a group of
 * its own, which reads the pages that no group above it has, or leaves them to its children. Going through the tree from
 * below gives the cheapest choice for each number of levels.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/cascade/cascade.h"
#include "core/context.h"
#include "core/size.h"
#include "core/tensor.h"

enum {
    DEPTH = 16, /* deeper ranges leave their pages to their sequences */
    LEVELS = FA_CASCADE_MAX_LEVELS,
    BLOCK_ROWS = 64 /* that read a key together */
};

/* cost[j][l]: the keys that a node's children read, if they may use l levels, and if groups above them read the pages of
 * the ancestor of depth j, or of the node itself. */
typedef struct choice {
    double cost[DEPTH][LEVELS + 1];
} choice;

/* What is decided above a node's children: the depth up to which pages are read, how many levels there are, and how many
 * there may be below. */
typedef struct above {
    int64_t depth;
    int level, left;
} above;

/* One sequence, or those of a range that have `pages` in common. */
typedef struct node {
    int64_t first, end, pages;
    int64_t parent; /* -1: the root */
    int64_t depth;
    bool inner;    /* not one sequence, and not too deep */
    choice *below; /* of an inner node */
    above children;
    int level;    /* on which it is a group; -1: it is none */
    int64_t from; /* its first page */
} node;

typedef struct tree {
    const fa_problem *problem;
    const int32_t *table;
    bool even;            /* fa_cascade_rows_even() */
    int64_t nodes, inner; /* children come before their parent, and the root is the last */
    node *node;
    choice *choices;
} tree;

int64_t fa_cascade_seen(const fa_sequence *s)
{
    if (s->len_q == 0)
        return (int64_t)s->first + s->len_kv;
    /* Of a window that has a key before it, beyond the prefix, nobody sees all. */
    const bool whole = fa_mask_begin(s->mask, s->len_q - 1) <= s->mask.prefix;
    return (int64_t)s->first + (whole ? FA_MAX(s->mask.prefix, fa_mask_end(s->mask, 0)) : s->mask.prefix);
}

int64_t fa_cascade_shared(const fa_problem *p, const fa_sequence *s)
{
    const int64_t diagonal = p->alibi_slopes && s->len_q > 0 ? (int64_t)s->mask.diagonal + 1 : s->len_kv;
    const int64_t before = s->first + FA_MIN(diagonal, (int64_t)s->len_kv - p->keep_last);
    return FA_MIN(fa_cascade_seen(s), FA_MAX(before, s->first));
}

/* Whether the operand is there, and its elements differ from row to row or from sequence to sequence. */
static bool has_rows(const fa_problem *p, int operand)
{
    const fa_tensor *t = &p->tensor[operand];
    return (p->features & fa_operands[operand].feature) && (t->stride[0] != 0 || t->stride[2] != 0) &&
           !(operand == FA_KEEP && p->keep_last > 0);
}

int64_t fa_cascade_row_stride(const fa_problem *p, int operand)
{
    const fa_tensor *t = &p->tensor[operand];
    return has_rows(p, operand) ? t->stride[p->sequence[0].len_q == 1 ? 0 : 2] : 0;
}

bool fa_cascade_rows_even(const fa_problem *p)
{
    static const int operands[] = {FA_BIAS, FA_KEEP};
    for (int i = 0; i < 2; i++) {
        const int64_t *stride = p->tensor[operands[i]].stride;
        for (int64_t n = 0; n < p->sequences && has_rows(p, operands[i]); n++) {
            const int64_t rows = p->sequence[n].len_q;
            if (rows == 0 || rows != p->sequence[0].len_q || (rows > 1 && stride[0] != rows * stride[2]))
                return false;
        }
    }
    return true;
}

static const int32_t *line_of(const tree *t, int64_t n)
{
    return t->table + n * t->problem->tensor[FA_PAGES].stride[0];
}

/* Whether ALiBi is the same for both. */
static bool same_slopes(const fa_problem *p, int64_t a, int64_t b)
{
    return p->alibi_stride == 0 ||
           memcmp(p->alibi_slopes + a * p->alibi_stride, p->alibi_slopes + b * p->alibi_stride,
                  (size_t)p->heads_q * sizeof(float)) == 0;
}

/*
 * The pages that sequences n - 1 and n begin with, as far as all of their rows see them whole. Those before the first key that
 * both use count too, whatever the table says of them.
 */
static int64_t common_pages(const tree *t, int64_t n)
{
    const fa_sequence *s = t->problem->sequence;
    const int64_t shared =
        FA_MIN(fa_cascade_shared(t->problem, &s[n - 1]), fa_cascade_shared(t->problem, &s[n]));
    const int64_t size = t->problem->tensor[FA_K].shape[2], most = size > 0 ? shared / size : 0;
    const int64_t from = size > 0 ? s[n].first / size : 0;
    const int32_t *a = line_of(t, n - 1), *b = line_of(t, n);
    int64_t pages = from;
    if (!t->even || s[n - 1].first != s[n].first || !same_slopes(t->problem, n - 1, n))
        return 0;
    while (pages < most && a[pages] == b[pages])
        pages++;
    return pages > from ? pages : 0;
}

/* Adds a node. The children of a range are the last of the orphans, the nodes without a parent, that lie in it. */
static void add_node(tree *t, node made, int64_t *orphans, int64_t *count)
{
    while (made.inner && *count > 0 && t->node[orphans[*count - 1]].first >= made.first)
        t->node[orphans[--*count]].parent = t->nodes;
    made.parent = -1;
    made.level = -1;
    orphans[(*count)++] = t->nodes;
    t->node[t->nodes++] = made;
}

/* A range whose end is not known yet. */
typedef struct open_range {
    int64_t first, pages;
} open_range;

/* `ranges` and `orphans` have room for one entry of each sequence, and one more. */
static void grow_tree(tree *t, open_range *ranges, int64_t *orphans)
{
    const int64_t sequences = t->problem->sequences;
    int64_t open = 1, count = 0;
    ranges[0] = (open_range){0, 0};
    for (int64_t n = 1; n <= sequences; n++) {
        const int64_t pages = n < sequences ? common_pages(t, n) : 0;
        int64_t first = n - 1;
        add_node(t, (node){.first = first, .end = n}, orphans, &count);
        while (ranges[open - 1].pages > pages) {
            const open_range ended = ranges[--open];
            first = ended.first;
            add_node(t, (node){.first = first, .end = n, .pages = ended.pages, .inner = true}, orphans,
                     &count);
        }
        if (ranges[open - 1].pages < pages)
            ranges[open++] = (open_range){first, pages};
    }
    add_node(t, (node){.end = sequences, .inner = true}, orphans, &count);
}

/* Depths, and parents that are not too deep. */
static void measure_depths(tree *t)
{
    for (int64_t i = t->nodes - 1; i >= 0; i--) {
        node *n = &t->node[i];
        if (n->parent >= 0 && !t->node[n->parent].inner)
            n->parent = t->node[n->parent].parent;
        n->depth = n->parent < 0 ? 0 : t->node[n->parent].depth + 1;
        n->inner = n->inner && n->depth < DEPTH;
        t->inner += n->inner;
    }
}

/* The pages of a node's ancestor of that depth. */
static int64_t pages_above(const tree *t, const node *n, int64_t depth)
{
    while (n->depth > depth)
        n = &t->node[n->parent];
    return n->pages;
}

/* How often the rows of a range read a key, as one group. */
static double reads_of(const tree *t, const node *n)
{
    const fa_sequence *s = t->problem->sequence;
    const int64_t rows = s[n->end - 1].q_row + s[n->end - 1].len_q - s[n->first].q_row;
    return (double)fa_ceil_div(rows * t->problem->group, BLOCK_ROWS);
}

static int64_t keys_of(const tree *t, int64_t pages)
{
    return pages * t->problem->tensor[FA_K].shape[2];
}

/* The first key that a node reads, if others read so many pages. */
static int64_t first_key(const tree *t, const node *n, int64_t pages)
{
    return FA_MAX(keys_of(t, pages), t->problem->sequence[n->first].first);
}

/* What a node costs as a group that reads the pages behind those of an ancestor; DBL_MAX where it cannot be one. */
static double cost_of_group(const tree *t, const node *n, int64_t depth, int left)
{
    const int64_t from = pages_above(t, n, depth);
    if (!n->inner || left == 0 || n->pages <= from)
        return DBL_MAX;
    return reads_of(t, n) * (double)(keys_of(t, n->pages) - first_key(t, n, from)) +
           n->below->cost[n->depth][left - 1];
}

/* Adds the cheaper choice of a node, or what a sequence costs, to its parent's. */
static void add_costs(const tree *t, const node *n)
{
    const node *parent = &t->node[n->parent];
    for (int64_t depth = 0; depth <= parent->depth; depth++) {
        const fa_sequence *s = &t->problem->sequence[n->first];
        const double own = (double)(s->first + s->len_kv - first_key(t, n, pages_above(t, n, depth)));
        for (int left = 0; left <= LEVELS; left++)
            parent->below->cost[depth][left] +=
                n->inner ? fmin(n->below->cost[depth][left], cost_of_group(t, n, depth, left))
                         : reads_of(t, n) * own;
    }
}

static bool is_counted(const node *n)
{
    return n->parent >= 0 && (n->inner || n->end - n->first == 1);
}

static void weigh(tree *t)
{
    choice *next = t->choices;
    for (int64_t i = 0; i < t->nodes; i++) {
        if (t->node[i].inner)
            t->node[i].below = next++;
    }
    for (int64_t i = 0; i < t->nodes; i++) {
        if (is_counted(&t->node[i]))
            add_costs(t, &t->node[i]);
    }
}

/* From the root on, what was cheapest with so many levels. Notes where each sequence's own keys begin. */
static void decide(tree *t, int levels, int64_t *first)
{
    t->node[t->nodes - 1].children = (above){.left = levels};
    for (int64_t i = t->nodes - 2; i >= 0; i--) {
        node *n = &t->node[i];
        if (!is_counted(n))
            continue;
        const above a = t->node[n->parent].children;
        n->children = a;
        n->from = pages_above(t, n, a.depth);
        if (!n->inner)
            first[n->first] = first_key(t, n, n->from);
        else if (cost_of_group(t, n, a.depth, a.left) < n->below->cost[a.depth][a.left]) {
            n->level = a.level;
            n->children = (above){n->depth, a.level + 1, a.left - 1};
        }
    }
}

/* How many levels cost the least, and what. */
static int choose_levels(const tree *t, const fa_cascade_costs *costs, fa_cascade *c)
{
    const double *keys = t->node[t->nodes - 1].below->cost[0];
    int best = 0;
    c->bytes = c->bytes_flat = keys[0] * costs->key;
    for (int levels = 1; levels <= LEVELS; levels++) {
        const double bytes = keys[levels] * costs->key + levels * costs->level + costs->merge;
        if (bytes < c->bytes) {
            c->bytes = bytes;
            best = levels;
        }
    }
    return best;
}

/* Adds a group, or counts it where there are no lists yet. */
static void add_group(const tree *t, const node *n, fa_cascade_level_lists *l)
{
    const int64_t g = l->groups++, pages = n->pages - n->from;
    if (!l->table) {
        l->pages = FA_MAX(l->pages, pages);
        l->width = FA_MAX(l->width, n->pages);
        return;
    }
    l->cu_sequences[g + 1] = n->end;
    l->cu_rows[g + 1] = n->end < t->problem->sequences ? t->problem->sequence[n->end].q_row
                                                       : t->problem->tensor[FA_Q].shape[2];
    l->lens[g] = pages * t->problem->tensor[FA_K].shape[2];
    l->first[g] = pages > 0 ? first_key(t, n, n->from) : 0;
    l->end[g] = pages > 0 ? keys_of(t, n->pages) : 0;
    if (pages > 0)
        memcpy(l->table + g * l->pages, line_of(t, n->first) + n->from, (size_t)pages * sizeof(*l->table));
}

/* The groups of a level, and what lies between them. */
static void add_groups(const tree *t, int level, fa_cascade_level_lists *l)
{
    int64_t next = 0;
    l->groups = 0;
    for (int64_t i = 0; i < t->nodes; i++) {
        const node *n = &t->node[i];
        if (n->level != level)
            continue;
        if (n->first > next)
            add_group(t, &(node){.first = next, .end = n->first}, l);
        add_group(t, n, l);
        next = n->end;
    }
    if (next < t->problem->sequences)
        add_group(t, &(node){.first = next, .end = t->problem->sequences}, l);
}

/* Counts, then writes into memory of that size. */
static fa_status list_level(const tree *t, int level, fa_cascade *c)
{
    fa_cascade_level_lists *l = &c->level[level];
    add_groups(t, level, l);
    const size_t groups = (size_t)l->groups, cells = groups * (size_t)l->pages;
    l->cu_sequences = fa_alloc_zeroed(c->context, (groups + 1) * sizeof(int64_t));
    l->cu_rows = fa_alloc_zeroed(c->context, (groups + 1) * sizeof(int64_t));
    l->lens = fa_alloc_zeroed(c->context, groups * sizeof(int64_t));
    l->first = fa_alloc_zeroed(c->context, groups * sizeof(int64_t));
    l->end = fa_alloc_zeroed(c->context, groups * sizeof(int64_t));
    l->table = fa_alloc_zeroed(c->context, cells * sizeof(int32_t));
    c->levels = level + 1;
    if (!l->cu_sequences || !l->cu_rows || !l->lens || !l->first || !l->end || !l->table)
        return FA_OUT_OF_MEMORY;
    add_groups(t, level, l);
    return FA_OK;
}

static fa_status search(tree *t, open_range *ranges, int64_t *orphans, const fa_cascade_costs *costs,
                        fa_cascade *c)
{
    if (!t->node || !ranges || !orphans)
        return FA_OUT_OF_MEMORY;
    grow_tree(t, ranges, orphans);
    measure_depths(t);
    t->choices = fa_alloc_zeroed(c->context, (size_t)t->inner * sizeof(choice));
    if (!t->choices)
        return FA_OUT_OF_MEMORY;
    weigh(t);
    const int levels = choose_levels(t, costs, c);
    decide(t, levels, c->first);
    fa_status status = FA_OK;
    for (int i = 0; i < levels && status == FA_OK; i++)
        status = list_level(t, i, c);
    fa_release(c->context, t->choices, (size_t)t->inner * sizeof(choice));
    return status;
}

fa_status fa_cascade_search(const fa_problem *problem, const int32_t *table, const fa_cascade_costs *costs,
                            fa_cascade *cascade)
{
    const fa_context *context = cascade->context;
    const size_t sequences = (size_t)problem->sequences + 1, nodes = 2 * sequences;
    tree t = {.problem = problem,
              .table = table,
              .even = fa_cascade_rows_even(problem),
              .node = fa_alloc(context, nodes * sizeof(node))};
    open_range *ranges = fa_alloc(context, sequences * sizeof(*ranges));
    int64_t *orphans = fa_alloc(context, sequences * sizeof(*orphans));
    fa_status status = search(&t, ranges, orphans, costs, cascade);
    fa_release(context, t.node, nodes * sizeof(node));
    fa_release(context, ranges, sequences * sizeof(*ranges));
    fa_release(context, orphans, sequences * sizeof(*orphans));
    return status;
}
