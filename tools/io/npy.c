/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum {
    PREFIX_V1 = 10,
    PREFIX_V2 = 12,
    /* What version 1 can hold. Later versions allow more for the field names of structured
     * types, which are refused here, so only padding could ever make a header longer. */
    MAX_HEADER = 65535,
    ALIGNMENT = 64,
    MAX_SHOWN = 60,
};

static const char magic[] = "\x93NUMPY";
enum { MAGIC_SIZE = sizeof(magic) - 1 };

typedef struct npy_dtype {
    const char *descr;
    io_type type;
    size_t stored;
} npy_dtype;

/* A type that is also written comes before one that is only read. */
static const npy_dtype dtypes[] = {
    {"<f4", IO_F32, 4}, {"<f2", IO_F16, 2}, {"<f8", IO_F32, 8}, {"|u1", IO_U8, 1},
    {"|b1", IO_U8, 1},  {"<i8", IO_I64, 8}, {"<i4", IO_I64, 4},
};
enum { DTYPE_COUNT = sizeof(dtypes) / sizeof(dtypes[0]) };

#define DTYPES_TEXT "'<f4', '<f2', '<f8', '|u1', '|b1', '<i8' or '<i4'"

enum { KEY_DESCR, KEY_ORDER, KEY_SHAPE, KEY_COUNT };
static const char *const keys[KEY_COUNT] = {"descr", "fortran_order", "shape"};

typedef struct header {
    const char *file;
    io_error *err;
    const char *text;
    size_t size, pos;

    bool seen[KEY_COUNT];
    const npy_dtype *dtype;
    bool fortran;
    int rank;
    int64_t shape[IO_MAX_RANK];
} header;

static bool refuse(const header *h, size_t at, const char *field, const char *expected)
{
    const size_t left = h->size - at;

    if (left == 0)
        return io_fail(h->err, h->file, field, "found the end of the header, expected %s", expected);
    return io_fail(h->err, h->file, field, "found %.*s at byte %zu of the header, expected %s",
                   (int)(left < MAX_SHOWN ? left : MAX_SHOWN), h->text + at, at, expected);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n';
}

/* The next byte that counts, or 0 at the end: a header with a 0 in it never gets this far. */
static char peek(header *h)
{
    while (h->pos < h->size && is_space(h->text[h->pos]))
        h->pos++;
    return h->pos < h->size ? h->text[h->pos] : '\0';
}

static bool accept(header *h, char c)
{
    if (peek(h) != c)
        return false;
    h->pos++;
    return true;
}

static bool accept_word(header *h, const char *word)
{
    const size_t length = strlen(word);

    peek(h);
    if (h->size - h->pos < length || memcmp(h->text + h->pos, word, length) != 0)
        return false;
    h->pos += length;
    return true;
}

/* The strings that are accepted need no escapes, so a backslash is left to match none of them. */
static bool parse_string(header *h, const char *field, const char **text, size_t *length)
{
    const char quote = peek(h);
    const size_t start = h->pos;

    if (quote != '\'' && quote != '"')
        return refuse(h, start, field, "a quoted string");
    const char *end = memchr(h->text + start + 1, quote, h->size - start - 1);
    if (!end)
        return refuse(h, start, field, "a closing quote");
    *text = h->text + start + 1;
    *length = (size_t)(end - *text);
    h->pos = start + *length + 2;
    return true;
}

static const char *descr_hint(const char *text, size_t length)
{
    if (length > 0 && text[0] == '>')
        return " (big-endian)";
    if (memchr(text, 'O', length))
        return " (Python objects)";
    return "";
}

static bool parse_descr(header *h)
{
    const char *text;
    size_t length = 0;
    const char first = peek(h);

    if (first == '[' || first == '(' || first == '{')
        return refuse(h, h->pos, "descr", "no structured type but " DTYPES_TEXT);
    if (!parse_string(h, "descr", &text, &length))
        return false;
    for (size_t i = 0; i < DTYPE_COUNT; i++) {
        if (strlen(dtypes[i].descr) == length && !memcmp(dtypes[i].descr, text, length)) {
            h->dtype = &dtypes[i];
            return true;
        }
    }
    return io_fail(h->err, h->file, "descr", "found '%.*s'%s, expected " DTYPES_TEXT,
                   (int)(length < MAX_SHOWN ? length : MAX_SHOWN), text, descr_hint(text, length));
}

static bool parse_order(header *h)
{
    h->fortran = accept_word(h, "True");
    if (h->fortran || accept_word(h, "False"))
        return true;
    return refuse(h, h->pos, "fortran_order", "True or False");
}

static bool parse_dim(header *h, int64_t *dim)
{
    int64_t value = 0;
    bool zero = false;

    peek(h);
    const size_t start = h->pos;
    for (; h->pos < h->size && h->text[h->pos] >= '0' && h->text[h->pos] <= '9'; h->pos++) {
        const int digit = h->text[h->pos] - '0';
        if (zero)
            return refuse(h, start, "shape", "no leading zero");
        if (value > (INT64_MAX - digit) / 10)
            return refuse(h, start, "shape", "a dimension below 2^63");
        value = value * 10 + digit;
        zero = value == 0;
    }
    *dim = value;
    return h->pos > start || refuse(h, start, "shape", "a whole number of 0 or more");
}

static bool parse_shape(header *h)
{
    bool comma = true;

    peek(h);
    const size_t start = h->pos;
    if (!accept(h, '('))
        return refuse(h, start, "shape", "a tuple such as (2, 3)");
    for (h->rank = 0; !accept(h, ')'); h->rank++) {
        if (!comma)
            return refuse(h, h->pos, "shape", "a comma or )");
        if (h->rank == IO_MAX_RANK)
            return refuse(h, start, "shape", "at most 8 dimensions");
        if (!parse_dim(h, &h->shape[h->rank]))
            return false;
        comma = accept(h, ',');
    }
    if (h->rank == 1 && !comma)
        return refuse(h, start, "shape", "(n,): one dimension takes a trailing comma");
    return true;
}

static bool parse_entry(header *h)
{
    static bool (*const parsers[KEY_COUNT])(header *) = {parse_descr, parse_order, parse_shape};
    const char *text;
    size_t length = 0;
    int key = 0;

    peek(h);
    const size_t start = h->pos;
    if (!parse_string(h, "header", &text, &length))
        return false;
    while (key < KEY_COUNT && (strlen(keys[key]) != length || memcmp(keys[key], text, length)))
        key++;
    if (key == KEY_COUNT)
        return refuse(h, start, "header", "no key but descr, fortran_order and shape");
    if (h->seen[key])
        return refuse(h, start, keys[key], "the key only once");
    h->seen[key] = true;
    if (!accept(h, ':'))
        return refuse(h, h->pos, keys[key], "a colon");
    return parsers[key](h);
}

static bool parse_header(header *h)
{
    bool comma = true;

    for (size_t i = 0; i < h->size; i++) {
        const unsigned char c = (unsigned char)h->text[i];
        if ((c < 0x20 || c > 0x7e) && !is_space(h->text[i]))
            return io_fail(h->err, h->file, "header",
                           "found 0x%02x at byte %zu of the header, "
                           "expected printable ASCII",
                           c, i);
    }
    if (!accept(h, '{'))
        return refuse(h, h->pos, "header", "a dictionary that starts with {");
    while (!accept(h, '}')) {
        if (!comma)
            return refuse(h, h->pos, "header", "a comma or }");
        if (!parse_entry(h))
            return false;
        comma = accept(h, ',');
    }
    peek(h);
    if (h->pos != h->size)
        return refuse(h, h->pos, "header", "only spaces after the dictionary");
    for (int key = 0; key < KEY_COUNT; key++) {
        if (!h->seen[key])
            return io_fail(h->err, h->file, keys[key],
                           "found no such key in the header, expected "
                           "descr, fortran_order and shape");
    }
    return true;
}

/* Sets where the header's text starts and how long it is. */
static bool read_prefix(io_source *s, uint64_t *start, size_t *size, io_error *err)
{
    uint8_t p[PREFIX_V2] = {0};

    if (!io_source_reach(s, PREFIX_V2, err))
        return false;
    const size_t have = s->size < PREFIX_V2 ? (size_t)s->size : PREFIX_V2;

    if (!io_source_read(s, 0, p, have, err))
        return false;
    if (have < MAGIC_SIZE || memcmp(p, magic, MAGIC_SIZE) != 0)
        return io_fail(err, s->name, "magic",
                       "found no npy file, expected \\x93NUMPY in the "
                       "first %d bytes",
                       MAGIC_SIZE);

    if (have < PREFIX_V1)
        return io_fail(err, s->name, "size", "found %zu bytes, expected at least %d", have, PREFIX_V1);

    const int major = p[MAGIC_SIZE], minor = p[MAGIC_SIZE + 1];
    if (major < 1 || major > 3 || minor != 0)
        return io_fail(err, s->name, "version", "found %d.%d, expected 1.0, 2.0 or 3.0", major, minor);
    *start = major == 1 ? PREFIX_V1 : PREFIX_V2;
    if (have < *start)
        return io_fail(err, s->name, "size", "found %zu bytes, expected at least %d", have, PREFIX_V2);

    uint32_t length = (uint32_t)p[8] | (uint32_t)p[9] << 8;
    if (major > 1)
        length |= (uint32_t)p[10] << 16 | (uint32_t)p[11] << 24;
    if (length > MAX_HEADER)
        return io_fail(err, s->name, "header length", "found %" PRIu32 ", expected at most %d", length,
                       MAX_HEADER);
    if (!io_source_reach(s, *start + length, err))
        return false;
    if (length > s->size - *start)
        return io_fail(err, s->name, "header length",
                       "found %" PRIu32 ", expected at most the "
                       "%" PRIu64 " bytes that follow it",
                       length, s->size - *start);
    *size = length;
    return true;
}

/* The file must hold exactly the data, which also bounds the memory that is taken for it. */
static bool check_data(const header *h, io_source *s, uint64_t start, size_t *bytes)
{
    const size_t element = io_type_size(h->dtype->type);

    if (!io_shape_bytes(h->shape, h->rank, element, bytes))
        return io_fail(h->err, h->file, "shape",
                       "found a product of dimensions that overflows, "
                       "expected one that memory can hold");
    const uint64_t expected = *bytes / element * h->dtype->stored;
    /* One byte more, so that a stream shows what follows. */
    if (!io_source_reach(s, expected < UINT64_MAX / 2 ? start + expected + 1 : UINT64_MAX, h->err))
        return false;
    const uint64_t found = s->size - start;
    if (found != expected)
        return io_fail(h->err, h->file, "data",
                       "found %" PRIu64 " bytes, expected %" PRIu64 " by descr and shape: %s", found,
                       expected, found < expected ? "the file is cut short" : "something follows the data");
    return true;
}

bool io_npy_find(io_source *s, io_found *found, io_error *err)
{
    header h = {.file = s->name, .err = err};
    uint64_t start = 0;
    size_t bytes = 0;

    *found = (io_found){.stored = 0};
    if (!read_prefix(s, &start, &h.size, err))
        return false;
    char *text = malloc(h.size + 1);
    if (!text)
        return io_fail(err, s->name, "header",
                       "found no memory, expected room for its %zu "
                       "bytes",
                       h.size);
    h.text = text;

    const bool ok = io_source_read(s, start, text, h.size, err) && parse_header(&h) &&
                    check_data(&h, s, start + h.size, &bytes);
    if (ok) {
        found->tensor = (io_tensor){.type = h.dtype->type, .rank = h.rank, .bytes = bytes};
        memcpy(found->tensor.shape, h.shape, sizeof(h.shape));
        found->offset = start + h.size;
        found->stored = h.dtype->stored;
        found->fortran = h.fortran;
    }
    free(text);
    return ok;
}

static bool load(io_source *s, io_tensor *out, io_error *err)
{
    io_found found;
    return io_npy_find(s, &found, err) && io_load(s, &found, out, err);
}

bool io_npy_parse(const void *bytes, size_t size, const char *name, io_tensor *out, io_error *err)
{
    io_source s = io_source_memory(bytes, size, name);

    *out = (io_tensor){0};
    return load(&s, out, err);
}

bool io_npy_read(const char *path, io_tensor *out, io_error *err)
{
    io_source s;

    *out = (io_tensor){0};
    if (!io_source_open(&s, path, err))
        return false;
    bool ok = load(&s, out, err);
    /* A file that changed explains any other complaint better than the complaint does. */
    if (!io_source_close(&s, err))
        ok = false;
    if (!ok)
        io_tensor_free(out);
    return ok;
}

static const char *find_descr(io_type type)
{
    for (size_t i = 0; i < DTYPE_COUNT; i++) {
        if (dtypes[i].type == type)
            return dtypes[i].descr;
    }
    return NULL;
}

/* Version 1.0 always: the longest shape that is accepted is far from its limit. */
static size_t format_header(char *out, size_t size, const io_tensor *t)
{
    char shape[IO_MAX_RANK * 24] = "";
    size_t used = 0;

    for (int d = 0; d < t->rank; d++)
        used +=
            (size_t)snprintf(shape + used, sizeof(shape) - used, "%s%" PRId64, d ? ", " : "", t->shape[d]);
    memcpy(out, magic, MAGIC_SIZE);
    out[MAGIC_SIZE] = 1;
    out[MAGIC_SIZE + 1] = 0;
    used = PREFIX_V1;
    used += (size_t)snprintf(out + used, size - used,
                             "{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }",
                             find_descr(t->type), shape, t->rank == 1 ? "," : "");

    const size_t total = (used + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    memset(out + used, ' ', total - used);
    out[total - 1] = '\n';
    out[8] = (char)((total - PREFIX_V1) & 0xff);
    out[9] = (char)((total - PREFIX_V1) >> 8);
    return total;
}

bool io_npy_put(io_output *o, const io_tensor *t, io_error *err)
{
    char head[512];

    if (!io_tensor_check(t, o->path, "tensor", err))
        return false;
    if (!find_descr(t->type))
        return io_fail(err, o->path, "type",
                       "found %s, which npy cannot hold, expected f32, f16, u8 "
                       "or integer (a .safetensors file takes it)",
                       io_type_name(t->type));

    const size_t size = format_header(head, sizeof(head), t);
    return io_output_write(o, head, size, err) && io_output_write(o, t->data, t->bytes, err);
}

bool io_npy_write(const char *path, const io_tensor *t, io_error *err)
{
    io_output o;
    const bool ok = io_output_begin(&o, path, err) && io_npy_put(&o, t, err);
    return io_output_end(&o, ok, err);
}
