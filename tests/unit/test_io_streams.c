/* SPDX-License-Identifier: Apache-2.0 */
/* Reading what cannot be read twice. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"
#include "test_io.h"

static char path[512];

/* What a thread writes into a pipe: the blob, in pieces of so many bytes. */
typedef struct writing {
    const blob *b;
    size_t piece;
} writing;

static void *write_pipe(void *argument)
{
    const writing *w = argument;
    const int fd = open(path, O_WRONLY);
    for (size_t done = 0, n; done < w->b->size; done += n) {
        n = w->b->size - done < w->piece ? w->b->size - done : w->piece;
        if (write(fd, w->b->bytes + done, n) != (ssize_t)n)
            break;
    }
    close(fd);
    return NULL;
}

static pthread_t start_writer(writing *w)
{
    pthread_t writer;
    strcpy(path, in_folder("pipe"));
    if (access(path, F_OK) != 0)
        ck_assert_int_eq(mkfifo(path, 0600), 0);
    signal(SIGPIPE, SIG_IGN);
    ck_assert_int_eq(pthread_create(&writer, NULL, write_pipe, w), 0);
    return writer;
}

static const size_t pieces[] = {1, 7, MAX_BYTES};

START_TEST(npy_from_a_pipe)
{
    const blob whole = make_npy(1, NPY_SHAPE("(2, 3)"), 24);
    writing w = {&whole, pieces[_i]};

    pthread_t writer = start_writer(&w);
    ck_assert_msg(io_npy_read(path, &tensor, &err), "%s", err.text);
    pthread_join(writer, NULL);
    ck_assert_uint_eq(tensor.bytes, 24);
    ck_assert_mem_eq(tensor.data, whole.bytes + whole.size - 24, 24);
    io_tensor_free(&tensor);

    blob part = whole;
    while (part.size-- > 0) {
        writing cut = {&part, pieces[_i]};
        writer = start_writer(&cut);
        assert_refused(io_npy_read(path, &tensor, &err), "pipe", "", "found");
        pthread_join(writer, NULL);
    }
    part = whole;
    append(&part, "x", 1);
    writing longer = {&part, pieces[_i]};
    writer = start_writer(&longer);
    assert_refused(io_npy_read(path, &tensor, &err), "pipe", "data", "something follows");
    pthread_join(writer, NULL);
}
END_TEST

/* Several tensors of one pipe, in whatever order. */
START_TEST(safetensors_from_a_pipe)
{
    const blob whole = make_safetensors("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                                        "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
                                        9);
    writing w = {&whole, pieces[_i]};
    io_source s;
    io_found a, b, none;

    pthread_t writer = start_writer(&w);
    ck_assert_msg(io_source_open(&s, path, &err), "%s", err.text);
    ck_assert_msg(io_safetensors_find(&s, "b", &b, &err), "%s", err.text);
    ck_assert_msg(io_safetensors_find(&s, "a", &a, &err), "%s", err.text);
    ck_assert(!io_safetensors_find(&s, "c", &none, &err));
    ck_assert(io_load(&s, &a, &tensor, &err));
    ck_assert_mem_eq(tensor.data, "\1\2\3", 3);
    io_tensor_free(&tensor);
    ck_assert(io_load(&s, &b, &tensor, &err));
    ck_assert_mem_eq(tensor.data, "\4\5\6\7", 4);
    ck_assert(io_source_close(&s, &err));
    ck_assert(io_source_close(&s, &err));
    pthread_join(writer, NULL);
}
END_TEST

START_TEST(standard_input)
{
    const blob whole = make_npy(1, NPY_SHAPE("(2, 3)"), 24);
    blob framed = {.size = 0};
    append(&framed, "read by somebody else", 21);
    append(&framed, whole.bytes, whole.size);
    write_blob(in_folder("file"), &framed);
    const int kept = dup(STDIN_FILENO), fd = open(in_folder("file"), O_RDONLY);
    ck_assert_int_ge(dup2(fd, STDIN_FILENO), 0);
    ck_assert_int_eq(lseek(STDIN_FILENO, 21, SEEK_SET), 21);
    const bool ok = io_npy_read("-", &tensor, &err);
    dup2(kept, STDIN_FILENO);
    ck_assert_msg(ok, "%s", err.text);
    ck_assert_mem_eq(tensor.data, whole.bytes + whole.size - 24, 24);
}
END_TEST

/* A stream without an end is read no further than it says something. */
START_TEST(endless_streams_end)
{
    assert_refused(io_npy_read("/dev/zero", &tensor, &err), "/dev/zero", "magic", "no npy file");
    assert_refused(io_npy_read("/dev/null", &tensor, &err), "/dev/null", "magic", "no npy file");
    assert_refused(io_safetensors_read("/dev/zero", "q", &tensor, &err), "/dev/zero", "header",
                   "an empty one");
}
END_TEST

void add_stream_tests(TCase *tc)
{
    tcase_add_loop_test(tc, npy_from_a_pipe, 0, COUNT(pieces));
    tcase_add_loop_test(tc, safetensors_from_a_pipe, 0, COUNT(pieces));
    tcase_add_test(tc, standard_input);
    tcase_add_test(tc, endless_streams_end);
}
