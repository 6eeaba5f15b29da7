/* SPDX-License-Identifier: Apache-2.0 */
/* Drives a libFuzzer target where libFuzzer is not to be had: over files and folders as they are,
 * and over random mutants of them. Blind to coverage, so no replacement, but it runs anywhere.
 *
 *   fuzz_npy_standalone [-runs=N] [-seed=S] [-last=FILE] PATH...
 *
 * A mutant depends on nothing but the inputs, the seed and its number. To see the one that
 * crashed, run again with -last, which stores each mutant before it is tried. */
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    MAX_INPUT = 1 << 20,
    MAX_PATH = 4096,
    MAX_EDITS = 6,
};

typedef struct input {
    uint8_t *data;
    size_t size;
} input;

typedef struct corpus {
    input *inputs;
    size_t count;
} corpus;

static _Noreturn void die(const char *what, const char *name)
{
    fprintf(stderr, "%s: %s: %s\n", name, what, strerror(errno));
    exit(2);
}

static void *resize(void *old, size_t size)
{
    void *grown = realloc(old, size + 1);
    if (!grown)
        die("memory", "standalone");
    return grown;
}

static void add_file(corpus *c, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        die("open", path);

    input in = {resize(NULL, MAX_INPUT), 0};
    in.size = fread(in.data, 1, MAX_INPUT, file);
    if (ferror(file))
        die("read", path);
    fclose(file);
    in.data = resize(in.data, in.size);
    c->inputs = resize(c->inputs, (c->count + 1) * sizeof(*c->inputs));
    c->inputs[c->count++] = in;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void add_path(corpus *c, const char *path)
{
    struct stat st;
    struct dirent **names;
    char child[MAX_PATH];

    if (stat(path, &st) != 0)
        die("stat", path);
    if (!S_ISDIR(st.st_mode)) {
        add_file(c, path);
        return;
    }
    /* Sorted: the order that the folder happens to list would change every mutant. */
    const int count = scandir(path, &names, visible, alphasort);
    if (count < 0)
        die("list", path);
    for (int i = 0; i < count; i++) {
        const int length = snprintf(child, sizeof(child), "%s/%s", path, names[i]->d_name);
        if (length >= 0 && (size_t)length < sizeof(child))
            add_path(c, child);
        free(names[i]);
    }
    free(names);
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t below(uint64_t *state, size_t limit)
{
    return limit ? (size_t)(next_random(state) % limit) : 0;
}

static void insert(input *m, size_t at, const uint8_t *bytes, size_t size)
{
    m->data = resize(m->data, m->size + size);
    memmove(m->data + at + size, m->data + at, m->size - at);
    memcpy(m->data + at, bytes, size);
    m->size += size;
}

static void erase(input *m, size_t at, size_t size)
{
    memmove(m->data + at, m->data + at + size, m->size - at - size);
    m->size -= size;
}

/* Both formats are mostly text, where flipped bits alone stop at the first token. */
static void insert_token(input *m, uint64_t *state)
{
    static const char *const tokens[] = {"{",
                                         "}",
                                         "[",
                                         "]",
                                         "(",
                                         ")",
                                         ",",
                                         ":",
                                         "'",
                                         "\"",
                                         "\\",
                                         "-",
                                         "0",
                                         "1e9",
                                         " ",
                                         "4294967296",
                                         "9223372036854775807",
                                         "18446744073709551616",
                                         "True",
                                         "'>f4'",
                                         "'|O'",
                                         "\"q\":",
                                         "\"F64\"",
                                         "\"BOOL\"",
                                         "\\u0000",
                                         "\"data_offsets\":",
                                         "'shape':"};
    const char *token = tokens[below(state, sizeof(tokens) / sizeof(tokens[0]))];

    insert(m, below(state, m->size + 1), (const uint8_t *)token, strlen(token));
}

static void splice(input *m, const corpus *c, uint64_t *state)
{
    const input *other = &c->inputs[below(state, c->count)];
    const size_t from = below(state, other->size + 1);
    const size_t at = below(state, m->size + 1);

    m->size = at;
    insert(m, at, other->data + from, other->size - from);
}

static void edit(input *m, const corpus *c, uint64_t *state)
{
    const size_t at = below(state, m->size);

    switch (below(state, 7)) {
    case 0:
        if (m->size > 0)
            m->data[at] ^= (uint8_t)(1u << below(state, 8));
        break;
    case 1:
        if (m->size > 0)
            m->data[at] = (uint8_t)next_random(state);
        break;
    case 2: m->size = at; break;
    case 3: erase(m, at, below(state, m->size - at + 1)); break;
    case 4: splice(m, c, state); break;
    default: insert_token(m, state); break;
    }
}

static void save(const char *path, const input *m)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(m->data, 1, m->size, file) != m->size || fclose(file) != 0)
        die("write", path);
}

static void run_mutant(const corpus *c, uint64_t seed, uint64_t number, const char *last)
{
    uint64_t state = seed ^ number * 0xd1342543de82ef95u;
    const input *from = &c->inputs[below(&state, c->count)];
    input m = {resize(NULL, from->size), from->size};

    memcpy(m.data, from->data, from->size);
    for (size_t edits = 1 + below(&state, MAX_EDITS); edits > 0; edits--)
        edit(&m, c, &state);
    if (last)
        save(last, &m);

    /* An exact copy, so that a sanitizer sees the first byte read past the end. */
    uint8_t *exact = malloc(m.size ? m.size : 1);
    if (!exact)
        die("memory", "standalone");
    memcpy(exact, m.data, m.size);
    LLVMFuzzerTestOneInput(exact, m.size);
    free(exact);
    free(m.data);
}

static bool take_number(const char *arg, const char *option, uint64_t *value)
{
    const size_t length = strlen(option);
    char *end;

    if (strncmp(arg, option, length) != 0)
        return false;
    errno = 0;
    *value = strtoull(arg + length, &end, 10);
    if (errno || end == arg + length || *end)
        die("expected a number", arg);
    return true;
}

int main(int argc, char **argv)
{
    corpus c = {NULL, 0};
    uint64_t runs = 0, seed = 1;
    const char *last = NULL;

    for (int i = 1; i < argc; i++) {
        if (take_number(argv[i], "-runs=", &runs) || take_number(argv[i], "-seed=", &seed))
            continue;
        if (!strncmp(argv[i], "-last=", 6))
            last = argv[i] + 6;
        else
            add_path(&c, argv[i]);
    }
    if (c.count == 0) {
        fprintf(stderr, "usage: %s [-runs=N] [-seed=S] [-last=FILE] PATH...\n", argv[0]);
        return 2;
    }

    for (size_t i = 0; i < c.count; i++)
        LLVMFuzzerTestOneInput(c.inputs[i].data, c.inputs[i].size);
    for (uint64_t i = 0; i < runs; i++)
        run_mutant(&c, seed, i, last);
    printf("%zu inputs and %llu mutants of them done\n", c.count, (unsigned long long)runs);

    for (size_t i = 0; i < c.count; i++)
        free(c.inputs[i].data);
    free(c.inputs);
    return 0;
}
