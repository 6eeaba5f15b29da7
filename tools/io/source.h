/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading in two steps: what a file says of a tensor, which costs little, then the tensor itself.
 * One source can be asked for any number of tensors, also a pipe, which can be read only once.
 */
#ifndef FASTATTN_TOOLS_IO_SOURCE_H
#define FASTATTN_TOOLS_IO_SOURCE_H

#include "tensor_file.h"

/* Bytes in memory, an open file or a stream behind one face: the formats are then parsed by the same code in the
 * fuzzers as in the tool, and reading a large file needs no second copy of it. */
typedef struct io_source {
    const char *name;     /* NULL: not open */
    const uint8_t *bytes; /* NULL: a file that is read by position */
    int fd;               /* -1: there is none */
    bool stream;          /* pipes and devices: `bytes` is what was read of it so far, and is kept */
    uint64_t size, room;  /* size: of a stream, so far */
} io_source;

/* Where a tensor lies: all but its data is set. */
typedef struct io_found {
    io_tensor tensor;
    uint64_t offset;
    size_t stored; /* bytes of an element in the source */
    bool fortran;
} io_found;

io_source io_source_memory(const void *bytes, size_t size, const char *name);
/* "-" is standard input. A path that names a pipe is waited for until somebody writes to it. */
bool io_source_open(io_source *s, const char *path, io_error *err);
/* False when a file's size is no longer the one that io_source_open found. One that is closed, or all zero, has
 * nothing to close. */
bool io_source_close(io_source *s, io_error *err);

/* What io_npy_read and io_safetensors_read do, up to the data. The source must hold all of it. */
bool io_npy_find(io_source *s, io_found *found, io_error *err);
bool io_safetensors_find(io_source *s, const char *tensor_name, io_found *found, io_error *err);

/* The data of what was found. A failure leaves *out empty. */
bool io_load(io_source *s, const io_found *found, io_tensor *out, io_error *err);

#endif
