/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_TOOLS_IO_INTERNAL_H
#define FASTATTN_TOOLS_IO_INTERNAL_H

#include "tensor_file.h"

/* Both formats store little-endian numbers, and data is copied as it is. */
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensor files are read and written on little-endian machines only"
#endif

#if defined(__GNUC__)
#define IO_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define IO_PRINTF(text, first)
#endif

/* Returns false, so that a check can end in `return io_fail(...)`. */
bool io_fail(io_error *err, const char *file, const char *field, const char *format, ...)
    IO_PRINTF(4, 5);

/* Bytes in memory or an open file (fd >= 0) behind one face: the formats are then parsed by the
 * same code in the fuzzers as in the tool, and a read needs no second copy of a large file. */
typedef struct io_source {
    const char *name;
    const uint8_t *bytes;
    int fd;
    uint64_t size;
} io_source;

io_source io_source_memory(const void *bytes, size_t size, const char *name);
bool io_source_open(io_source *s, const char *path, io_error *err);
bool io_source_read(const io_source *s, uint64_t offset, void *dst, size_t size, io_error *err);
/* False when the file's size is no longer the one that io_source_open found. */
bool io_source_close(io_source *s, io_error *err);

typedef struct io_atomic {
    const char *path;
    char *temp;
    int fd;
} io_atomic;

/* Every begin, also a failed one, is followed by one end. */
bool io_atomic_begin(io_atomic *a, const char *path, io_error *err);
bool io_atomic_write(io_atomic *a, const void *data, size_t size, io_error *err);
/* Puts the file in place when ok; else, or when that fails, removes the temporary. */
bool io_atomic_end(io_atomic *a, bool ok, io_error *err);

/* False when a dimension is negative or the byte count cannot be allocated. */
bool io_shape_bytes(const int64_t *shape, int rank, size_t element, size_t *bytes);
/* Guards the writers against a tensor whose fields contradict one another. */
bool io_tensor_check(const io_tensor *t, const char *file, const char *field, io_error *err);
/* Fills t->data from a source whose elements take `stored` bytes; type, rank, shape and bytes are
 * set by the caller, who has also checked that the source holds them. */
bool io_tensor_load(io_tensor *t, const io_source *s, uint64_t offset, size_t stored,
                    bool fortran, io_error *err);

#endif
