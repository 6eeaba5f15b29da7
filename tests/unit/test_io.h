/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_TESTS_UNIT_TEST_IO_H
#define FASTATTN_TESTS_UNIT_TEST_IO_H

#include <check.h>

#include "tensor_file.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

#define NPY(descr, order, shape) "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape "}"
#define NPY_SHAPE(shape) NPY("'<f4'", "False", shape)

enum { MAX_BYTES = 2048 };

typedef struct blob {
    uint8_t bytes[MAX_BYTES];
    size_t size;
} blob;

/* What the test at hand reads into: empty at its start, freed after it. */
extern io_tensor tensor;
extern io_error err;

/* A path in the test's own folder, in a buffer that the next call reuses. */
const char *in_folder(const char *name);
/* Of files and folders in it. */
int count_files(void);

void append(blob *b, const void *bytes, size_t size);
/* The bytes 1, 2, 3..., so that every element is told from every other. */
void append_data(blob *b, size_t size);
blob make_npy(int major, const char *header, size_t data);
blob make_safetensors(const char *header, size_t data);
blob read_blob(const char *path);

void assert_refused(bool result, const char *file, const char *field, const char *found);

/* Makes a folder in the test's own. */
const char *make_folder(const char *name);
/* Makes a file there of a text. */
void write_text(const char *path, const char *text);
void write_blob(const char *path, const blob *b);

void add_format_tests(TCase *tc);
void add_output_tests(TCase *tc);
void add_stream_tests(TCase *tc);
void add_system_tests(TCase *tc);

#endif
