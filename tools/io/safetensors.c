/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* jansson, because it is strict where a hostile header counts: it can refuse duplicate keys (at
 * every level), refuses invalid UTF-8 and trailing text, limits nesting, and keeps integers exact
 * to 64 bits instead of turning offsets into doubles. It is maintained, depends on nothing but
 * libc, keeps the order of keys when writing, and every distribution ships its pkg-config file. */
#include <jansson.h>

#include "internal.h"

enum {
    LENGTH_SIZE = 8,
    /* The limit of the format's own implementation. */
    MAX_HEADER = 100000000,
    HEADER_ALIGNMENT = 8,
    FIELD_SIZE = 128,
    MAX_SHOWN = 80,
};

static const char metadata_key[] = "__metadata__";

typedef struct st_dtype {
    const char *name;
    io_type type;
    size_t stored;
} st_dtype;

/* A type that is also written comes before one that is only read. */
static const st_dtype dtypes[] = {
    {"F32", IO_F32, 4}, {"F16", IO_F16, 2}, {"BF16", IO_BF16, 2}, {"F64", IO_F32, 8},
    {"U8", IO_U8, 1},   {"BOOL", IO_U8, 1}, {"I64", IO_I64, 8},   {"I32", IO_I64, 4},
};
enum { DTYPE_COUNT = sizeof(dtypes) / sizeof(dtypes[0]) };

typedef struct entry {
    const char *file, *name;
    io_error *err;
    const json_t *json;
    const st_dtype *dtype;
    io_tensor tensor;
    uint64_t begin;
    io_source *source;
    uint64_t data; /* where in the source all data begins */
} entry;

static const char *field_name(char field[FIELD_SIZE], const char *tensor, const char *key)
{
    snprintf(field, FIELD_SIZE, "tensor '%.90s'%s%s", tensor, key ? " " : "", key ? key : "");
    return field;
}

static bool refuse(const entry *e, const char *key, const json_t *found, const char *expected)
{
    char field[FIELD_SIZE];
    char *text = found ? json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;

    io_fail(e->err, e->file, field_name(field, e->name, key), "found %.*s%s, expected %s", MAX_SHOWN,
            text ? text : "nothing", text && strlen(text) > MAX_SHOWN ? "..." : "", expected);
    free(text);
    return false;
}

static bool get_dtype(entry *e)
{
    const json_t *json = json_object_get(e->json, "dtype");
    const char *text = json_string_value(json);

    for (size_t i = 0; text && i < DTYPE_COUNT; i++) {
        if (!strcmp(dtypes[i].name, text)) {
            e->dtype = &dtypes[i];
            e->tensor.type = dtypes[i].type;
            return true;
        }
    }
    return refuse(e, "dtype", json,
                  "\"F32\", \"F16\", \"BF16\", \"F64\", \"U8\", \"BOOL\", \"I64\" or "
                  "\"I32\"");
}

static bool get_shape(entry *e)
{
    const json_t *json = json_object_get(e->json, "shape");
    const size_t rank = json_array_size(json);

    if (!json_is_array(json))
        return refuse(e, "shape", json, "an array of whole numbers");
    if (rank > IO_MAX_RANK)
        return refuse(e, "shape", json, "at most 8 dimensions");
    for (size_t d = 0; d < rank; d++) {
        const json_t *dim = json_array_get(json, d);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return refuse(e, "shape", json, "whole numbers of 0 or more");
        e->tensor.shape[d] = json_integer_value(dim);
    }
    e->tensor.rank = (int)rank;
    if (!io_shape_bytes(e->tensor.shape, e->tensor.rank, io_type_size(e->tensor.type), &e->tensor.bytes))
        return refuse(e, "shape", json, "a product of dimensions that does not overflow");
    return true;
}

static bool get_offsets(entry *e)
{
    const json_t *json = json_object_get(e->json, "data_offsets");
    const json_t *ends[2] = {json_array_get(json, 0), json_array_get(json, 1)};
    char expected[128];

    if (json_array_size(json) != 2 || !json_is_integer(ends[0]) || !json_is_integer(ends[1]))
        return refuse(e, "data_offsets", json, "[begin, end] in whole numbers");

    const json_int_t begin = json_integer_value(ends[0]), end = json_integer_value(ends[1]);
    if (begin < 0 || begin > end)
        return refuse(e, "data_offsets", json, "0 <= begin <= end");
    if (!io_source_reach(e->source, e->data + (uint64_t)end, e->err))
        return false;
    const uint64_t data_size = e->source->size - e->data;
    if ((uint64_t)end > data_size) {
        snprintf(expected, sizeof(expected),
                 "an end within the %" PRIu64 " bytes of data in the "
                 "file",
                 data_size);
        return refuse(e, "data_offsets", json, expected);
    }

    const uint64_t size = e->tensor.bytes / io_type_size(e->tensor.type) * e->dtype->stored;
    if ((uint64_t)(end - begin) != size) {
        snprintf(expected, sizeof(expected), "%" PRIu64 " bytes by dtype and shape", size);
        return refuse(e, "data_offsets", json, expected);
    }
    e->begin = (uint64_t)begin;
    return true;
}

static bool refuse_name(const entry *e, json_t *root)
{
    char field[FIELD_SIZE], names[sizeof(e->err->text)] = "";
    const char *key;
    json_t *value;
    size_t used = 0, count = 0;

    json_object_foreach(root, key, value)
    {
        if (!strcmp(key, metadata_key))
            continue;
        if (used < sizeof(names))
            used += (size_t)snprintf(names + used, sizeof(names) - used, "%s'%s'", count ? ", " : "", key);
        count++;
    }
    return io_fail(e->err, e->file, field_name(field, e->name, NULL),
                   "not among the file's %zu, "
                   "expected one of: %s",
                   count, count ? names : "(none)");
}

static bool find_entry(entry *e, json_t *root)
{
    e->json = strcmp(e->name, metadata_key) ? json_object_get(root, e->name) : NULL;
    if (!e->json)
        return refuse_name(e, root);
    if (!json_is_object(e->json))
        return refuse(e, NULL, e->json, "an object with dtype, shape and data_offsets");
    return get_dtype(e) && get_shape(e) && get_offsets(e);
}

static bool read_length(io_source *s, size_t *length, io_error *err)
{
    uint8_t p[LENGTH_SIZE];
    uint64_t found = 0;

    if (!io_source_reach(s, LENGTH_SIZE, err))
        return false;
    if (s->size < LENGTH_SIZE)
        return io_fail(err, s->name, "header length",
                       "found a file of %" PRIu64 " bytes, expected "
                       "at least %d",
                       s->size, LENGTH_SIZE);
    if (!io_source_read(s, 0, p, LENGTH_SIZE, err))
        return false;
    for (int i = LENGTH_SIZE - 1; i >= 0; i--)
        found = found << 8 | p[i];

    if (found > MAX_HEADER)
        return io_fail(err, s->name, "header length", "found %" PRIu64 ", expected at most %d", found,
                       MAX_HEADER);
    if (!io_source_reach(s, LENGTH_SIZE + found, err))
        return false;
    if (found > s->size - LENGTH_SIZE)
        return io_fail(err, s->name, "header length",
                       "found %" PRIu64 ", expected at most the %" PRIu64 " bytes that follow it", found,
                       s->size - LENGTH_SIZE);
    *length = (size_t)found;
    return true;
}

static json_t *read_header(io_source *s, size_t length, io_error *err)
{
    json_t *root = NULL;
    json_error_t why;

    char *text = malloc(length + 1);
    if (!text) {
        io_fail(err, s->name, "header", "found no memory, expected room for its %zu bytes", length);
        return NULL;
    }
    if (io_source_read(s, LENGTH_SIZE, text, length, err)) {
        if (length == 0 || text[0] != '{') {
            io_fail(err, s->name, "header", "found %s, expected { as its first byte",
                    length ? "something else" : "an empty one");
        } else {
            root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
            if (!root)
                io_fail(err, s->name, "header", "found %s at byte %d, expected strict JSON", why.text,
                        why.position);
        }
    }
    free(text);
    return root;
}

bool io_safetensors_find(io_source *s, const char *name, io_found *found, io_error *err)
{
    entry e = {.file = s->name, .name = name, .err = err, .source = s};
    size_t length = 0;

    *found = (io_found){.stored = 0};
    if (!read_length(s, &length, err))
        return false;
    json_t *root = read_header(s, length, err);
    if (!root)
        return false;

    e.data = LENGTH_SIZE + (uint64_t)length;
    const bool ok = find_entry(&e, root);
    json_decref(root);
    if (ok)
        *found = (io_found){.tensor = e.tensor, .offset = e.data + e.begin, .stored = e.dtype->stored};
    return ok;
}

static bool load(io_source *s, const char *name, io_tensor *out, io_error *err)
{
    io_found found;
    return io_safetensors_find(s, name, &found, err) && io_load(s, &found, out, err);
}

bool io_safetensors_parse(const void *bytes, size_t size, const char *file, const char *tensor_name,
                          io_tensor *out, io_error *err)
{
    io_source s = io_source_memory(bytes, size, file);

    *out = (io_tensor){0};
    return load(&s, tensor_name, out, err);
}

bool io_safetensors_read(const char *path, const char *tensor_name, io_tensor *out, io_error *err)
{
    io_source s;

    *out = (io_tensor){0};
    if (!io_source_open(&s, path, err))
        return false;
    bool ok = load(&s, tensor_name, out, err);
    /* A file that changed explains any other complaint better than the complaint does. */
    if (!io_source_close(&s, err))
        ok = false;
    if (!ok)
        io_tensor_free(out);
    return ok;
}

static const char *dtype_name(io_type type)
{
    size_t i = 0;

    while (dtypes[i].type != type)
        i++;
    return dtypes[i].name;
}

static json_t *make_entry(const io_tensor *t, uint64_t begin)
{
    json_t *shape = json_array();

    for (int d = 0; d < t->rank; d++) {
        if (json_array_append_new(shape, json_integer(t->shape[d])) != 0) {
            json_decref(shape);
            return NULL;
        }
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_name(t->type), "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)(begin + t->bytes));
}

typedef struct output {
    const char *path;
    const char *const *names;
    const io_tensor *tensors;
    int count;
    io_error *err;

    int *order;
    char *header;
    size_t header_size;
} output;

static bool sort_by_element(output *o)
{
    int used = 0;

    o->order = malloc(((size_t)o->count + 1) * sizeof(*o->order));
    if (!o->order)
        return io_fail(o->err, o->path, "memory",
                       "found none, expected room for %d "
                       "tensors",
                       o->count);
    for (size_t size = sizeof(int64_t); size > 0; size--) {
        for (int i = 0; i < o->count; i++) {
            if (io_type_size(o->tensors[i].type) == size)
                o->order[used++] = i;
        }
    }
    return true;
}

static bool add_entries(const output *o, json_t *root)
{
    uint64_t begin = 0;
    char field[FIELD_SIZE];

    for (int i = 0; i < o->count; i++) {
        const char *name = o->names[o->order[i]];
        const io_tensor *t = &o->tensors[o->order[i]];

        field_name(field, name, NULL);
        if (!strcmp(name, metadata_key))
            return io_fail(o->err, o->path, field, "found a reserved name, expected another");
        if (json_object_get(root, name))
            return io_fail(o->err, o->path, field, "found the name twice, expected it once");
        if (t->bytes > (uint64_t)INT64_MAX - begin)
            return io_fail(o->err, o->path, field,
                           "found more than 2^63 bytes in all, "
                           "expected fewer");
        if (json_object_set_new(root, name, make_entry(t, begin)) != 0)
            return io_fail(o->err, o->path, field,
                           "cannot be named in the header, expected a "
                           "name in UTF-8 and memory for it");
        begin += t->bytes;
    }
    return true;
}

static bool format_header(output *o, const json_t *root)
{
    const size_t length = json_dumpb(root, NULL, 0, JSON_COMPACT);
    const size_t padded = (length + HEADER_ALIGNMENT - 1) / HEADER_ALIGNMENT * HEADER_ALIGNMENT;

    if (length == 0 || padded > MAX_HEADER)
        return io_fail(o->err, o->path, "header length", "found %zu, expected 1 to %d", padded, MAX_HEADER);
    o->header_size = LENGTH_SIZE + padded;
    o->header = malloc(o->header_size);
    if (!o->header || json_dumpb(root, o->header + LENGTH_SIZE, length, JSON_COMPACT) != length)
        return io_fail(o->err, o->path, "header",
                       "found no memory, expected room for its "
                       "%zu bytes",
                       padded);

    for (int i = 0; i < LENGTH_SIZE; i++)
        o->header[i] = (char)((uint64_t)padded >> (8 * i) & 0xff);
    memset(o->header + LENGTH_SIZE + length, ' ', padded - length);
    return true;
}

static bool write_file(const output *o)
{
    io_output file;
    bool ok =
        io_output_begin(&file, o->path, o->err) && io_output_write(&file, o->header, o->header_size, o->err);

    for (int i = 0; ok && i < o->count; i++) {
        const io_tensor *t = &o->tensors[o->order[i]];
        ok = io_output_write(&file, t->data, t->bytes, o->err);
    }
    return io_output_end(&file, ok, o->err);
}

bool io_safetensors_write(const char *path, const char *const *names, const io_tensor *tensors, int count,
                          io_error *err)
{
    output o = {path, names, tensors, count, err, NULL, NULL, 0};
    char field[FIELD_SIZE];

    if (count < 0)
        return io_fail(err, path, "count", "found %d, expected 0 or more", count);
    for (int i = 0; i < count; i++) {
        if (!io_tensor_check(&tensors[i], path, field_name(field, names[i], NULL), err))
            return false;
    }

    json_t *root = json_object();
    bool ok = root || io_fail(err, path, "header", "found no memory, expected room for it");
    ok = ok && sort_by_element(&o) && add_entries(&o, root) && format_header(&o, root) && write_file(&o);
    json_decref(root);
    free(o.header);
    free(o.order);
    return ok;
}
