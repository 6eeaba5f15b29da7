/* SPDX-License-Identifier: Apache-2.0 */
/* The conformance suite: what its parts tell each other. */
#ifndef FASTATTN_TOOLS_CONFORM_H
#define FASTATTN_TOOLS_CONFORM_H

#include <stdbool.h>
#include <stdio.h>

#include <fastattn/fastattn.h>
#include <fastattn/reference.h>
#include <fastattn/sparse.h>

#include "tools/check.h"
#include "tools/kvtype.h"
#include "tools/pages.h"

/*
 * A length, fixed or relative to what the kernel works in: TILE is the kernel's level-2 tile, BLOCK the
 * level-1 block that the case asks for. The case's name holds the relation, so it is the same everywhere.
 */
typedef enum conform_base { CONFORM_FIXED, CONFORM_TILE, CONFORM_BLOCK } conform_base;
typedef struct conform_length {
    conform_base base;
    int32_t add;
} conform_length;

/* Level-1 blocks: the planner's for this problem; forced to the numbers in the case; forced to two tiles by
 * two tiles; forced to what the planner takes for a long problem. */
typedef enum conform_blocks {
    CONFORM_BLOCKS_PLANNED,
    CONFORM_BLOCKS_NUMBERS,
    CONFORM_BLOCKS_TWO_TILES, /* or of one, where the kernel has none that large */
    CONFORM_BLOCKS_LONG
} conform_blocks;

typedef enum conform_layout {
    CONFORM_BHSD,   /* contiguous                                                                 */
    CONFORM_BSHD,   /* rows outside heads                                                         */
    CONFORM_PACKED, /* q, k and v of one row beside each other in one memory                      */
    CONFORM_VIEW,   /* every tensor inside a larger one, NaN in the gaps                          */
    /* Below, keys share memory. */
    CONFORM_BROADCAST, /* k and v stored once for all batch entries and heads                        */
    CONFORM_SHARED,    /* v is the first columns of k, as in multi-head latent attention             */
    CONFORM_OVERLAP,   /* each row of k and v begins inside the row before it                        */
    CONFORM_LAYOUTS
} conform_layout;

typedef enum conform_packing {
    CONFORM_DENSE,
    CONFORM_PACK_BOTH,
    CONFORM_PACK_Q,
    CONFORM_PACK_KV,
    CONFORM_PACK_GAPS, /* both, with rows before and behind that belong to no sequence               */
    CONFORM_LENS,      /* dense k and v, lens_kv                                                     */
    CONFORM_PACK_Q_LENS,
    CONFORM_LENS_Q,
    CONFORM_LENS_BOTH, /* as many rows as keys in each entry, where the tensors have as many         */
    CONFORM_PACK_KV_LENS_Q,
    CONFORM_PACKINGS
} conform_packing;

typedef enum conform_hazard {
    CONFORM_TAME,
    CONFORM_LARGE, /* scores to about 1e4                                                           */
    CONFORM_HUGE,  /* scores to about 1e30                                                          */
    CONFORM_NAN_Q, /* one row                                                                       */
    CONFORM_NAN_K,
    CONFORM_NAN_V,
    CONFORM_INF_Q,
    CONFORM_INF_K,
    CONFORM_INF_V,
    CONFORM_HIDDEN,     /* keys that no row sees become NaN, after the expected result was computed      */
    CONFORM_HIDDEN_INF, /* they become infinite, of either sign                                      */
    CONFORM_HAZARDS
} conform_hazard;

/* A bias that holds the largest number of its type, or the lowest: what frameworks mask with. */
typedef enum conform_bias_ends {
    CONFORM_BIAS_TAME,
    CONFORM_BIAS_MIN_ALL,  /* the lowest everywhere, so that keys weigh the same          */
    CONFORM_BIAS_MIN_ROWS, /* in every other row                                          */
    CONFORM_BIAS_MIN_KEYS, /* for about half of the keys                                  */
    CONFORM_BIAS_MAX_ALL,  /* the largest everywhere                                      */
    CONFORM_BIAS_MAX_KEY,  /* for one key of a row                                        */
    CONFORM_BIAS_BOTH      /* the largest for one key of a row, the lowest for all others */
} conform_bias_ends;

/* Scales of k or v that are a tensor of their own, and zeros beside them. */
typedef struct conform_scales {
    const char *name; /* NULL: there are none */
    fa_dtype type;
    bool batch, head;   /* each entry (or page), each head has its own */
    int32_t keys, dims; /* of a group; 0: all have one                 */
    bool zero;          /* zeros too, in f16                           */
    float factor;
} conform_scales;

/* scalings.c: kinds of scales, and the types that may have them. */
enum { CONFORM_SCALINGS = 7, CONFORM_SCALED_TYPES = 9 };
extern const conform_scales conform_scalings[CONFORM_SCALINGS];
extern const fa_dtype conform_scaled_types[CONFORM_SCALED_TYPES];

/* Whose lists of key blocks are alike. */
typedef enum conform_list_heads {
    CONFORM_LIST_SHARED,
    CONFORM_LIST_HEADS_KV,
    CONFORM_LIST_HEADS_Q
} conform_list_heads;

/* What makes the lists of key blocks; NONE: they are drawn. */
typedef enum conform_planner {
    CONFORM_PLAN_NONE,
    CONFORM_PLAN_WINDOW,
    CONFORM_PLAN_STREAMING,
    CONFORM_PLAN_DISTANCE,
    CONFORM_PLAN_TOPK,
    CONFORM_PLAN_PERMUTED
} conform_planner;

typedef enum conform_test {
    CONFORM_RUN,
    CONFORM_THREADS,
    CONFORM_MERGE,
    CONFORM_LENGTHS,
    CONFORM_DEVICE_LENGTHS,
    CONFORM_LOST_PAGES
} conform_test;

enum { CONFORM_NO_AXES = -1 }; /* of bias_axes and keep_axes */

typedef struct conform_case {
    char name[192];
    conform_test test;
    fa_dtype q, k, v, o;
    int32_t batch, heads_q, heads_kv, dim_qk, dim_v;
    conform_length len_q, len_kv;
    conform_layout layout;
    conform_packing packing;
    conform_hazard hazard;
    fa_mask_kind mask;
    fa_alignment alignment;
    int32_t window_left, window_right, prefix, diagonal_offset;
    fa_dtype bias;
    int bias_axes, keep_axes;    /* bit n: axis n is full, not 1                                        */
    int keep_bits;               /* keep holds bits: -1 of all keys, n of the last n                    */
    bool keep_runs;              /* long runs of its bits are 0 in many rows, or in all                 */
    int repeats;                 /* of bias and keep: bit n: axis n has stride 0 where it is full       */
    bool bias_holes;             /* some of it is -inf                                                  */
    bool alibi, sinks, no_sinks; /* no_sinks: sinks of -inf, which are as good as none               */
    bool no_lse;
    bool slopes_each;    /* ALiBi's slopes of each batch entry or sequence                      */
    bool factors;        /* of the bias, one per head                                           */
    bool narrow;         /* offsets and lengths as 32-bit integers                              */
    int32_t page;        /* keys of a page; 0: keys do not lie in pages                         */
    bool shared_pages;   /* all sequences have the same pages                                  */
    const paging *order; /* of the pool's pages; NULL: at random, as the suite's seed has it         */
    bool first;          /* sequences begin at a key of their own                               */
    conform_scales k_scales, v_scales;
    bool latent;  /* of CONFORM_SHARED: the description says so                    */
    bool singles; /* axes of size 1 have strides that make no sense                      */
    bool scale_zero;
    float softcap, scale;
    conform_bias_ends bias_ends;
    float slope, sink; /* of the first head, the others' being parts of it; 0: tame                */
    float gain_q, gain_k, gain_v; /* how large elements are; 0: 1                                    */
    kv_rows rows_k, rows_v;       /* of bitmap_f16, what they have room for */
    int32_t list_rows, list_keys; /* of a block of lists; 0: there are none                     */
    int32_t list_part; /* of blocks that lists have, in percent; below 100, key blocks 1, 4, 7 are in none */
    conform_planner planner;
    conform_list_heads list_heads;
    bool list_each, list_mask; /* a list for each sequence; as a block mask                   */
    fa_neighbourhood
        near;  /* of no axes: there is none. Sequences without lengths have a row for each token */
    bool ramp; /* q and k have one dim that is not 0: rows are +-gain_q, keys fall from gain_k on */
    conform_blocks blocks;
    int32_t block_q, block_kv, splits;
} conform_case;

typedef struct conform_list {
    conform_case *cases;
    size_t count, room;
} conform_list;

/* Every case of the suite. The seed matters for the cases named random/NNN; false without memory. */
bool conform_list_make(uint64_t seed, conform_list *list);
void conform_list_free(conform_list *list);

/* cache.c: the options --kv-type, --page and --scatter */
typedef struct conform_cache {
    kv_types types;
    paging pages;
} conform_cache;

/* Their values, as kv_types_option() and pages_options() take them. False after an error. */
bool conform_cache_options(const char *command, const char *types, int64_t page, int64_t scatter,
                           conform_cache *out);
/* Gives all cases that cache, and a name that says so; cases that cannot have it are dropped. It must outlive the list. */
void conform_list_take(const conform_cache *cache, conform_list *list);
/* " --kv-type q8_0 --page 16", or "". */
void conform_cache_print(const conform_cache *cache, char *text, size_t size);

/* Fills c->name from a label and what every case has. */
void conform_name(conform_case *c, const char *label);
const char *conform_hazard_name(conform_hazard hazard);

/* The cases named random/NNN, and what was drawn, as text. */
void conform_draw(uint64_t seed, int number, conform_case *c);
void conform_describe(const conform_case *c, char *text, size_t size);

/* random.c: a small generator, for data and for random cases: SplitMix64 */
typedef struct conform_random {
    uint64_t state;
} conform_random;

conform_random conform_random_of(uint64_t seed, const char *name);
uint32_t conform_random_below(conform_random *random, uint32_t bound);
/* Bell-shaped, mean 0, variance 1. */
float conform_random_normal(conform_random *random);

/* What a case comes to on one kernel. */
typedef struct conform_sizes {
    int32_t len_q, len_kv, block_q, block_kv;
} conform_sizes;

enum {
    CONFORM_Q,
    CONFORM_K,
    CONFORM_V,
    CONFORM_BIAS,
    CONFORM_KEEP,
    CONFORM_PAGES,
    CONFORM_K_SCALE,
    CONFORM_V_SCALE,
    CONFORM_K_ZERO,
    CONFORM_V_ZERO,
    CONFORM_INPUTS
};

/* A case's problem with its inputs. */
typedef struct conform_data {
    fa_attention_desc desc;
    fa_tuning tuning;
    void *memory[CONFORM_INPUTS];   /* exactly as large as needed; NULL: none, or in another's memory */
    void *pristine[CONFORM_INPUTS]; /* what it must still be after a run                             */
    void *tame[CONFORM_INPUTS];     /* with a hazard: the same, every element finite; else NULL      */
    size_t bytes[CONFORM_INPUTS];
    int home[CONFORM_INPUTS];      /* in whose memory the tensor lies                               */
    size_t offset[CONFORM_INPUTS]; /* bytes into it                                                 */
    fa_inputs inputs;
    int64_t *offsets_q, *offsets_kv, *lens_q, *lens_kv, *first_kv;
    int32_t *narrow; /* the five again, where the case asks for that */
    float *slopes, *factors, *sinks;
    fa_block_lists lists;
    uint8_t *list_mask; /* 1 for each block of keys of each list; NULL: there are none */
    int32_t *list_indptr, *list_indices;
    fa_neighbourhood near;
    int32_t near_tokens, (*near_at)[3]; /* of its grid, in its order: where each is; NULL: there is none */
} conform_data;

/* data.c */

/* False without memory; *data can be freed in any case. */
bool conform_data_make(const conform_case *c, const conform_sizes *sizes, uint64_t seed, conform_data *data);
void conform_data_free(conform_data *data);
/* Whether a row of q belongs to some sequence. */
bool conform_data_uses_row(const conform_data *data, int64_t batch, int64_t row);
/* Exchanges the inputs and their tame versions, where there are such. */
void conform_data_exchange(conform_data *data);
/* Whether an input is no longer what it was. */
bool conform_data_changed(const conform_data *data);

/* From now on, the inputs are to stay as they are. */
void conform_data_keep(conform_data *data);

/* fill.c: the parts of conform_data_make() */

/* What there is one of for each head. False without memory. */
bool conform_fill_heads(const conform_case *c, conform_data *data, conform_random *random);
/* The tensors, when they have their memory. */
void conform_fill(const conform_case *c, conform_data *data, conform_random *random);
/* One number in the middle of the first sequence's first head. */
void conform_place_hazard(conform_data *data, conform_hazard hazard);

/* planners.c */

/* The lists of the case's planner, for the q and k that the data hold. */
fa_status conform_plan(fa_context *context, const conform_case *c, const conform_sizes *sizes,
                       const conform_data *data, fa_block_mask **mask);

/* lists.c */

/* Lists of key blocks, where the case has some. False without memory, or where a planner makes none. */
bool conform_make_lists(const conform_case *c, const conform_sizes *sizes, conform_data *data,
                        conform_random *random);

/* near.c */

/* A neighbourhood, where the case has one. False without memory. */
bool conform_make_near(const conform_case *c, conform_data *data);

/* Whether it shows the row a key; there must be one. */
bool conform_near_shows(const conform_data *data, int64_t row, int64_t key);

/* tensors.c */

/* One operand's tensor of a description, by CONFORM_Q and so on. */
fa_tensor *conform_tensor(fa_attention_desc *desc, int input);
/* A tensor with its strides spelled out. */
fa_tensor conform_strides(fa_tensor tensor);

/* Where a sequence's rows or keys begin in their tensor, how many there are, and the first that it uses. */
typedef struct conform_part {
    int64_t batch, begin, count, first;
} conform_part;

conform_part conform_part_q(const fa_attention_desc *desc, int64_t sequence);
conform_part conform_part_kv(const fa_attention_desc *desc, int64_t sequence);
int64_t conform_sequences(const fa_attention_desc *desc);
int64_t conform_index(const fa_tensor *tensor, int64_t batch, int64_t head, int64_t row);
/* The batch entry, or page, of k and v in which key j of sequence n lies, and its row there. */
typedef struct conform_place {
    int64_t batch, row;
} conform_place;
conform_place conform_place_of(const conform_data *data, int64_t n, int64_t j);
/* The element that key j of sequence n begins with, in k or v with its strides spelled out. */
int64_t conform_key_index(const conform_data *data, const fa_tensor *tensor, int64_t n, int64_t head,
                          int64_t j);
/* The most keys of a sequence. */
int64_t conform_keys(const fa_attention_desc *desc);
/* The first element of an input; NULL where it has none. */
void *conform_address(const conform_data *data, int input);
/* The bytes of so many elements, whole blocks. */
size_t conform_bytes(fa_dtype dtype, int64_t elements);
/* In a block of a format of caches: its scale. */
void conform_store(fa_dtype dtype, void *base, int64_t index, float value);
/* The same of dim d of a row that begins with element `index`; of bitmap_f16, whose strides count bytes, of the d-th that it keeps. */
void conform_store_row(const fa_tensor *t, void *base, int64_t index, int64_t d, float value);
/* The bytes of a row. */
int64_t conform_row_bytes(const fa_tensor *t);
float conform_load(fa_dtype dtype, const void *base, int64_t index);

/* oracle.c */

/* Whether the library's oracle says what the suite's own does. False, with the first difference. */
bool conform_oracles_agree(const conform_data *data, const check_reference *reference, char *message,
                           size_t size);
/* Makes every key that no row sees NaN or infinite, in k and in v. */
void conform_poison(conform_data *data, conform_hazard hazard);
/* Whether a row of q, or a key that it sees, is another in the tame inputs. */
bool conform_meets_hazard(const conform_data *data, int64_t sequence, int64_t head, int64_t row);
/* Whether a row sees some key of [begin, end). */
bool conform_sees(const conform_data *data, int64_t sequence, int64_t head, int64_t row, int64_t begin,
                  int64_t end);

typedef enum conform_status { CONFORM_PASSED, CONFORM_FAILED, CONFORM_SKIPPED } conform_status;

typedef struct conform_outcome {
    const char *kernel, *name;
    conform_status status;
    double error, bound; /* 0 where nothing was compared */
    char *message;       /* why it is not passed; NULL: no memory for it, or passed */
} conform_outcome;

typedef struct conform_kernel {
    char name[64];
    int32_t tile_q, tile_kv; /* these and below: 0 until a case needs them */
    int32_t two_q, two_kv;   /* a block of two tiles, or of one where no larger is served */
    int32_t long_block_q, long_block_kv;
} conform_kernel;

enum { CONFORM_MAX_KERNELS = 32 };

typedef struct conform_suite {
    fa_context *context;
    fa_device *device;
    fa_device_info info;
    const char *backend; /* as it was asked for; NULL: not at all */
    uint64_t seed;
    conform_cache cache;
    bool ignore_memory; /* run what memory seems too short for */
    bool computes;      /* false: the null backend, whose results mean nothing */
    conform_kernel kernel[CONFORM_MAX_KERNELS];
    int kernels;

    /* The problem at hand, kept for the next kernel as long as it is the same. */
    const conform_case *current;
    conform_sizes sizes;
    check_means means;
    conform_data data;
    check_reference *reference;

    conform_outcome *outcomes;
    size_t outcome_count, outcome_room;
    size_t count[3]; /* by conform_status */
} conform_suite;

/* Runs a case on a kernel. *message (of `size` bytes) says what is wrong, or why it was skipped. */
conform_status conform_run(conform_suite *suite, const conform_case *c, conform_kernel *kernel,
                           check_result *result, char *message, size_t size);
void conform_suite_forget(conform_suite *suite);

/* exec.c: runs that show what they touch */

/* o and lse in host memory, a pattern around them and in their gaps. */
typedef struct conform_output {
    unsigned char *o, *lse; /* the whole memory; lse NULL where there is none */
    size_t o_bytes, lse_bytes;
    size_t o_offset, lse_offset;
    int32_t *status; /* of each sequence; NULL: not wanted */
} conform_output;

/* False without memory; *output can be freed in any case. */
bool conform_output_make(const conform_data *data, conform_output *output);
/* The same, but that o is aligned to 16 bytes and not only to its elements. */
bool conform_output_make_aligned(const conform_data *data, conform_output *output);
void conform_output_free(conform_output *output);
const void *conform_output_o(const conform_output *output);
const float *conform_output_lse(const conform_output *output);
/* False, with the reason, when a byte was written that belongs to no row of the result. */
bool conform_output_intact(const conform_output *output, const conform_data *data, char *message,
                           size_t size);

/* lengths.c */

/* What a run with lengths of its own is given: those of the case, in work that was written for others before. */
typedef struct conform_lengths {
    fa_lengths before, now;
    fa_attention_desc other;          /* the case's problem, made for the lengths before */
    const fa_attention_desc *planned; /* what the plan that runs was made of */
    int64_t *memory;
} conform_lengths;

/* Lists of 32-bit integers, each of so many entries: offsets of q and of k, lengths of q and of k, first keys. */
enum { CONFORM_LISTS = 5 };
typedef struct conform_lists {
    int32_t *list[CONFORM_LISTS]; /* in one piece, the first its begin; NULL without memory */
    bool given[CONFORM_LISTS];    /* whether the plan takes it */
    int64_t count;
} conform_lists;

/* `now` or `before` of *lengths as the device reads them. The caller frees list[0]. */
conform_lists conform_lists_make(const conform_lengths *lengths, const fa_lengths *of);

/* False without memory; *lengths can be freed in any case. */
bool conform_lengths_make(const conform_data *data, conform_lengths *lengths);
void conform_lengths_free(conform_lengths *lengths);

/* Runs a plan on buffers of the device, at odd offsets, in a workspace full of NaN; with `lengths`, where it is not NULL.
 * False, with the reason, when a call fails, an input changes, or the workspace or the work overflows. */
bool conform_execute(fa_device *device, const fa_plan *plan, const conform_data *data,
                     const conform_lengths *lengths, conform_output *output, char *message, size_t size);
/* Merges states that lie in host memory, on buffers of the device. */
fa_status conform_execute_merge(fa_device *device, const fa_merge_desc *desc, const float *partial,
                                const float *lse, conform_output *output);
/* An attention through fa_attention_host(). */
bool conform_execute_host(fa_device *device, const conform_data *data, conform_output *output, char *message,
                          size_t size);

/* The same through fa_plan_run_host(). */
bool conform_execute_pointers(fa_device *device, const fa_plan *plan, const conform_data *data,
                              const conform_lengths *lengths, conform_output *output, char *message,
                              size_t size);

/* lost.c */

/* Runs a plan with pages that the pool does not have: the rows that meet them become NaN and the status names them; where the
 * host reads the table, the run is refused. */
bool conform_lose_pages(conform_suite *suite, const fa_plan *plan, bool host_table, char *message,
                        size_t size);

/* kernels.c */

/* Lists the kernels of suite->device. */
void conform_suite_kernels(conform_suite *suite);
/* What the case needs to know of the kernel, and no more: a backend may have to compile programs for it. */
bool conform_measure_kernel(fa_device *device, const conform_case *c, conform_kernel *kernel, char *message,
                            size_t size);
conform_sizes conform_resolve(const conform_case *c, const conform_kernel *kernel);

/* judge.c */

/* What runs of one case share. */
typedef struct conform_trial {
    conform_suite *suite;
    const conform_case *c;
    const fa_plan *plan;
    check_result *result;
    char *message;
    size_t size;
} conform_trial;

enum { CONFORM_PARTS = 4 }; /* of keys, which CONFORM_MERGE merges */

/* Runs the case's test. False, with the reason. */
bool conform_judge(const conform_trial *r);

/* report.c */

/* Appends; false without memory. */
bool conform_record(conform_suite *suite, const conform_outcome *outcome);
void conform_print_failure(const conform_suite *suite, const conform_outcome *outcome);
void conform_print_skips(const conform_suite *suite);
/* Reports of a conform_suite, as output_save() takes them. */
void conform_write_json(FILE *file, const void *suite);
void conform_write_junit(FILE *file, const void *suite);

#endif
