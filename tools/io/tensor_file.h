/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_TOOLS_IO_TENSOR_FILE_H
#define FASTATTN_TOOLS_IO_TENSOR_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { IO_MAX_RANK = 8 };

/* IO_U8 is also what a bool file reads as (any non-zero byte is true), IO_I64 what a 32-bit integer
 * file reads as, and IO_F32 what a double-precision file reads as, rounded to nearest: a caller has
 * one mask type and one index type to deal with, and none that no device computes in. */
typedef enum io_type { IO_F32, IO_F16, IO_BF16, IO_U8, IO_I64 } io_type;

/* Always C-contiguous. From a read or parse, data is 64-byte aligned and never NULL, not even
 * for a tensor without elements. */
typedef struct io_tensor {
    io_type type;
    int rank;
    int64_t shape[IO_MAX_RANK];
    void *data;
    size_t bytes;
    void *memory;       /* what io_tensor_free frees, and data lies in */
    bool narrowed;      /* the file holds double precision */
    uint64_t overflows; /* finite numbers of such a file that became infinite */
} io_tensor;

/* Filled by every call that returns false: the file, the field, what was found there and what was
 * expected. Text is in its plain form: see text.h. */
typedef struct io_error {
    char text[512];
} io_error;

size_t io_type_size(io_type type);
const char *io_type_name(io_type type);

/* A failed read or parse leaves *out empty, which io_tensor_free accepts. Pipes and devices are read
 * as well as files, "-" is standard input. Sizes are checked before memory is taken for the data; a
 * stream takes as much more as it holds. source.h reads several tensors of one stream. */

/* Versions 1.0 to 3.0; a file in Fortran order is brought into C order. */
bool io_npy_read(const char *path, io_tensor *out, io_error *err);
bool io_npy_parse(const void *bytes, size_t size, const char *name, io_tensor *out, io_error *err);

/* Reads the header and that one tensor's bytes, however large the rest of the file is. */
bool io_safetensors_read(const char *path, const char *tensor_name, io_tensor *out, io_error *err);
bool io_safetensors_parse(const void *bytes, size_t size, const char *file, const char *tensor_name,
                          io_tensor *out, io_error *err);

/* Files are written as output.h says. */

/* npy has no bfloat16: such a tensor is refused. */
bool io_npy_write(const char *path, const io_tensor *t, io_error *err);
/* The same into an output that is open. */
struct io_output;
bool io_npy_put(struct io_output *o, const io_tensor *t, io_error *err);
/* The tensors' data is laid out by falling element size, so that each of them lies aligned. */
bool io_safetensors_write(const char *path, const char *const *names, const io_tensor *tensors, int count,
                          io_error *err);

void io_tensor_free(io_tensor *t);

/* Makes room for t->bytes; false where there is none. What the tensor had stays the caller's. */
bool io_tensor_alloc(io_tensor *t);

#endif
