/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A language model in llama.cpp with the backend and without it, in turns in one process: tokens per second of prompts and of
 * generation behind a cache that is filled so far; or what both generate greedily, and how far their logits behind each prompt
 * are from those without flash attention.
 *
 *   bench_ggml MODEL.gguf libggml-fastattn.so CACHE DEPTH PROMPT TOKENS THREADS TURNS
 *   bench_ggml MODEL.gguf libggml-fastattn.so CACHE text [DEPTH]
 *
 * CACHE is a type as ggml calls it: f16, q8_0. A cache is filled once, with the backend; both
 * sides begin with it. Texts behind a cache of DEPTH keys are compared with ggml's flash attention alone, since without flash
 * attention a cache lies otherwise in memory. Positions beyond what the model was trained for are scaled. Seconds are the process's CPU time
 * over its threads, which on a machine that is busy with something else says more than the clock; both are printed.
 */
#define _POSIX_C_SOURCE 200809L
#include <ggml-backend.h>
#include <ggml.h>
#include <llama.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH 2048
#define TEXT_TOKENS 24
#define MAX_PROMPT 512

typedef struct state {
    uint8_t *memory;
    size_t bytes;
} state;

typedef struct job {
    struct llama_model *model;
    const char *backend;
    enum ggml_type cache;
    int depth, prompt, tokens, threads;
    llama_token *token; /* depth + prompt + tokens of them */
    state filled;
} job;

typedef struct seconds {
    double cpu, clock;
} seconds;

static void *allocate(size_t bytes)
{
    void *memory = calloc(bytes, 1);
    if (!memory)
        abort();
    return memory;
}

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

static enum ggml_type type_of(const char *name)
{
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char *other = ggml_type_name((enum ggml_type)i);
        if (other && strcmp(other, name) == 0)
            return (enum ggml_type)i;
    }
    fprintf(stderr, "ggml has no type %s\n", name);
    exit(2);
}

static void feed(struct llama_context *context, llama_token *token, int count)
{
    for (int at = 0; at < count; at += BATCH) {
        const int some = count - at < BATCH ? count - at : BATCH;
        if (llama_decode(context, llama_batch_get_one(token + at, some))) {
            fprintf(stderr, "llama_decode failed\n");
            exit(1);
        }
    }
    llama_synchronize(context);
}

static struct llama_context *open_context(const job *j, bool flash)
{
    struct llama_context_params p = llama_context_default_params();
    p.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    p.type_k = p.type_v = j->cache;
    p.n_ctx = (uint32_t)(j->depth + j->prompt + j->tokens + 16);
    const float trained = (float)llama_model_n_ctx_train(j->model);
    if ((float)p.n_ctx > trained) {
        p.rope_scaling_type = LLAMA_ROPE_SCALING_TYPE_LINEAR;
        p.rope_freq_scale = trained / (float)p.n_ctx;
    }
    p.n_batch = BATCH;
    p.n_threads = p.n_threads_batch = j->threads;
    struct llama_context *context = llama_init_from_model(j->model, p);
    if (!context)
        exit(1);
    llama_token first = 0; /* the backend has nodes from the second graph on */
    feed(context, &first, 1);
    llama_memory_clear(llama_get_memory(context), true);
    return context;
}

/* Loads the backend, if this side has it. */
static ggml_backend_reg_t enter(const job *j, bool with)
{
    ggml_backend_reg_t reg = with ? ggml_backend_load(j->backend) : NULL;
    if (with && !reg)
        exit(1);
    return reg;
}

static void leave(struct llama_context *context, ggml_backend_reg_t reg)
{
    llama_free(context);
    if (reg)
        ggml_backend_unload(reg);
}

/* ---- times ---- */

static void fill_cache(job *j)
{
    if (j->depth == 0)
        return;
    ggml_backend_reg_t reg = enter(j, true);
    struct llama_context *context = open_context(j, true);
    feed(context, j->token, j->depth);
    j->filled.bytes = llama_state_seq_get_size(context, 0);
    j->filled.memory = allocate(j->filled.bytes);
    llama_state_seq_get_data(context, j->filled.memory, j->filled.bytes, 0);
    leave(context, reg);
}

static void begin(const job *j, struct llama_context *context)
{
    llama_memory_clear(llama_get_memory(context), true);
    if (j->depth > 0 && !llama_state_seq_set_data(context, j->filled.memory, j->filled.bytes, 0))
        exit(1);
}

static seconds measure(const job *j, struct llama_context *context, int count, int at_once)
{
    begin(j, context);
    const seconds start = {now(CLOCK_PROCESS_CPUTIME_ID), now(CLOCK_MONOTONIC)};
    for (int i = 0; i < count; i += at_once)
        feed(context, j->token + j->depth + i, at_once);
    return (seconds){now(CLOCK_PROCESS_CPUTIME_ID) - start.cpu, now(CLOCK_MONOTONIC) - start.clock};
}

static int compare_seconds(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int count)
{
    qsort(x, (size_t)count, sizeof(*x), compare_seconds);
    return (x[(count - 1) / 2] + x[count / 2]) / 2;
}

static void report(const job *j, const char *what, int count, seconds *side[2], int turns)
{
    double *cpu = allocate((size_t)turns * 5 * sizeof(double)), *ratio[2], *at[2];
    at[0] = cpu;
    at[1] = cpu + turns;
    ratio[0] = cpu + 2 * turns;
    ratio[1] = cpu + 3 * turns;
    for (int i = 0; i < turns; i++) {
        at[0][i] = count / side[0][i].cpu;
        at[1][i] = count / side[1][i].cpu;
        ratio[0][i] = side[0][i].cpu / side[1][i].cpu;
        ratio[1][i] = side[0][i].clock / side[1][i].clock;
    }
    printf(
        "%s, depth %d, %s%d, %d threads: ggml %.2f, with the backend %.2f tokens per CPU second; ratio %.2f, by the clock %.2f\n",
        ggml_type_name(j->cache), j->depth, what, count, j->threads, median(at[0], turns),
        median(at[1], turns), median(ratio[0], turns), median(ratio[1], turns));
    fflush(stdout);
    free(cpu);
}

static void compare_times(job *j, int turns)
{
    const int most = j->depth + j->prompt + j->tokens;
    j->token = allocate((size_t)most * sizeof(llama_token));
    const int words = llama_vocab_n_tokens(llama_model_get_vocab(j->model));
    for (int i = 0; i < most; i++)
        j->token[i] = (llama_token)((uint32_t)i * 2654435761u % (uint32_t)words);
    fill_cache(j);
    seconds *prompt[2], *tokens[2];
    for (int s = 0; s < 2; s++) {
        prompt[s] = allocate((size_t)turns * sizeof(seconds));
        tokens[s] = allocate((size_t)turns * sizeof(seconds));
    }
    for (int i = 0; i < turns; i++) {
        for (int s = 0; s < 2; s++) {
            ggml_backend_reg_t reg = enter(j, s);
            struct llama_context *context = open_context(j, true);
            if (j->prompt > 0)
                prompt[s][i] = measure(j, context, j->prompt, j->prompt);
            if (j->tokens > 0)
                tokens[s][i] = measure(j, context, j->tokens, 1);
            leave(context, reg);
        }
    }
    if (j->prompt > 0)
        report(j, "pp", j->prompt, prompt, turns);
    if (j->tokens > 0)
        report(j, "tg", j->tokens, tokens, turns);
    for (int s = 0; s < 2; s++) {
        free(prompt[s]);
        free(tokens[s]);
    }
    free(j->token);
    free(j->filled.memory);
}

/* ---- text ---- */

typedef struct text {
    llama_token token[TEXT_TOKENS];
    int count;
    float *logit; /* behind the prompt */
} text;

static llama_token likeliest(const float *logit, int words)
{
    llama_token best = 0;
    for (int i = 1; i < words; i++)
        best = logit[i] > logit[best] ? i : best;
    return best;
}

/* A text of lines that differ, as tokens: what the cache is filled with. */
static void write_lines(job *j, const struct llama_vocab *vocab)
{
    int count = 0;
    j->token = allocate((size_t)(j->depth + MAX_PROMPT) * sizeof(llama_token));
    for (int line = 1; count < j->depth; line++) {
        char words[128];
        snprintf(words, sizeof(words), "On day %d the river carried %d boats past the village.\n", line,
                 (int)((uint32_t)line * 2654435761u >> 25));
        count += llama_tokenize(vocab, words, (int32_t)strlen(words), j->token + count, MAX_PROMPT, line == 1,
                                false);
    }
}

static void generate(const job *j, struct llama_context *context, const char *prompt, text *t)
{
    const struct llama_vocab *vocab = llama_model_get_vocab(j->model);
    const int words = llama_vocab_n_tokens(vocab);
    llama_token token[MAX_PROMPT];
    const int count =
        llama_tokenize(vocab, prompt, (int32_t)strlen(prompt), token, MAX_PROMPT, j->depth == 0, true);
    begin(j, context);
    feed(context, token, count);
    t->logit = allocate((size_t)words * sizeof(float));
    memcpy(t->logit, llama_get_logits_ith(context, -1), (size_t)words * sizeof(float));
    while (t->count < TEXT_TOKENS) {
        t->token[t->count] = likeliest(llama_get_logits_ith(context, -1), words);
        if (llama_vocab_is_eog(vocab, t->token[t->count]))
            break;
        feed(context, &t->token[t->count++], 1);
    }
}

/* Of a's logits from b's: the root of the sum of squares, over that of b's. */
static double distance(const text *a, const text *b, int words)
{
    double square = 0, of = 0;
    for (int i = 0; i < words; i++) {
        square += ((double)a->logit[i] - b->logit[i]) * ((double)a->logit[i] - b->logit[i]);
        of += (double)b->logit[i] * b->logit[i];
    }
    return sqrt(square / of);
}

static int same_tokens(const text *a, const text *b)
{
    int same = 0;
    while (same < a->count && same < b->count && a->token[same] == b->token[same])
        same++;
    return same;
}

static void compare_texts(job *j)
{
    static const char *const prompts[] = {
        "The capital of France is",
        "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nWrite a haiku about the sea.<|im_end|>\n<|im_start|>assistant\n",
        "def fibonacci(n):\n",
        "Once upon a time, in a small village by the river,",
    };
    enum { PROMPTS = sizeof(prompts) / sizeof(prompts[0]), PLAIN = 0, GGML = 1, OURS = 2, SIDES = 3 };
    static text made[SIDES][PROMPTS];
    const struct llama_vocab *vocab = llama_model_get_vocab(j->model);
    const int words = llama_vocab_n_tokens(vocab);
    const int first = ggml_is_quantized(j->cache) || j->depth > 0 ? GGML : PLAIN;
    write_lines(j, vocab);
    fill_cache(j);
    for (int s = first; s < SIDES; s++) {
        ggml_backend_reg_t reg = enter(j, s == OURS);
        struct llama_context *context = open_context(j, s != PLAIN);
        for (int i = 0; i < PROMPTS; i++)
            generate(j, context, prompts[i], &made[s][i]);
        leave(context, reg);
    }
    for (int i = 0; i < PROMPTS; i++) {
        const text *ours = &made[OURS][i], *ggml = &made[GGML][i], *plain = &made[PLAIN][i];
        printf("\"%s\":", prompts[i]);
        for (int k = 0; k < ours->count; k++) {
            char piece[64];
            const int length = llama_token_to_piece(vocab, ours->token[k], piece, sizeof(piece), 0, true);
            if (length < 0) /* a longer piece: -length bytes */
                printf("[%d]", (int)ours->token[k]);
            else
                printf("%.*s", length, piece);
        }
        printf("\n  %d tokens, %d as without the backend; logits from those: %.1e", ours->count,
               same_tokens(ours, ggml), distance(ours, ggml, words));
        if (first == PLAIN)
            printf(
                ", %d as without flash attention, which has %d in common with ggml's\n  logits from those without flash "
                "attention: the backend's %.1e, ggml's %.1e",
                same_tokens(ours, plain), same_tokens(ggml, plain), distance(ours, plain, words),
                distance(ggml, plain, words));
        printf("\n");
        for (int s = first; s < SIDES; s++)
            free(made[s][i].logit);
    }
    free(j->token);
    free(j->filled.memory);
}

int main(int argc, char **argv)
{
    const bool texts = (argc == 5 || argc == 6) && strcmp(argv[4], "text") == 0;
    if (argc != 9 && !texts) {
        fprintf(
            stderr,
            "bench_ggml MODEL BACKEND CACHE DEPTH PROMPT TOKENS THREADS TURNS | bench_ggml MODEL BACKEND CACHE text [DEPTH]\n");
        return 2;
    }
    llama_log_set(quiet, NULL);
    ggml_backend_load_all();
    job j = {.backend = argv[2], .cache = type_of(argv[3]), .threads = 2};
    j.model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!j.model)
        return 1;
    if (texts) {
        j.depth = argc > 5 ? atoi(argv[5]) : 0;
        j.prompt = MAX_PROMPT;
        j.tokens = TEXT_TOKENS;
        j.threads = 1;
        compare_texts(&j);
    } else {
        j.depth = atoi(argv[4]);
        j.prompt = atoi(argv[5]);
        j.tokens = atoi(argv[6]);
        j.threads = atoi(argv[7]);
        compare_times(&j, atoi(argv[8]));
    }
    llama_model_free(j.model);
    return 0;
}
