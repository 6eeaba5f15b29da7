/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_TOOLS_IO_INTERNAL_H
#define FASTATTN_TOOLS_IO_INTERNAL_H

#include "output.h"
#include "source.h"

/* Both formats store little-endian numbers, and data is copied as it is. */
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensor files are read and written on little-endian machines only"
#endif

#include <fcntl.h>
#include <stdio.h>
#if defined(_WIN32)
#include <io.h>
#endif

/* Flags that only some systems have, or need. */
#if !defined(O_CLOEXEC)
#define O_CLOEXEC 0
#endif
#if !defined(O_NOCTTY)
#define O_NOCTTY 0
#endif
#if !defined(O_BINARY)
#define O_BINARY 0
#endif

#if defined(__MINGW_PRINTF_FORMAT) /* by stdio.h: that of its printf */
#define IO_PRINTF(text, first) __attribute__((format(__MINGW_PRINTF_FORMAT, text, first)))
#elif defined(__GNUC__)
#define IO_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define IO_PRINTF(text, first)
#endif

/* Linux moves at most this much less one page in one call, and other systems refuse more. */
#define IO_MAX_CHUNK ((size_t)1 << 30)

/* Returns false, so that a check can end in `return io_fail(...)`. */
bool io_fail(io_error *err, const char *file, const char *field, const char *format, ...) IO_PRINTF(4, 5);

/* Reads a stream up to byte `end`, or to its end: s->size is then true up to there. False when reading fails. */
bool io_source_reach(io_source *s, uint64_t end, io_error *err);
bool io_source_read(io_source *s, uint64_t offset, void *dst, size_t size, io_error *err);

/* False when a dimension is negative or the byte count cannot be allocated. */
bool io_shape_bytes(const int64_t *shape, int rank, size_t element, size_t *bytes);
/* Guards the writers against a tensor whose fields contradict one another. */
bool io_tensor_check(const io_tensor *t, const char *file, const char *field, io_error *err);

#endif
