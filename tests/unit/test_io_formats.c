/* SPDX-License-Identifier: Apache-2.0 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "test_io.h"

#define ST(dtype, shape, offsets) \
    "{\"q\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void assert_tensor(io_type type, int rank, const int64_t *shape, const void *data, size_t bytes)
{
    ck_assert_int_eq(tensor.type, type);
    ck_assert_int_eq(tensor.rank, rank);
    for (int d = 0; d < rank; d++)
        ck_assert_int_eq(tensor.shape[d], shape[d]);
    ck_assert_uint_eq(tensor.bytes, bytes);
    ck_assert_uint_eq((uintptr_t)tensor.data % 64, 0);
    ck_assert_mem_eq(tensor.data, data, bytes);
}

static bool parse_npy(const blob *b)
{
    return io_npy_parse(b->bytes, b->size, "in.npy", &tensor, &err);
}

static bool parse_safetensors(const blob *b, const char *name)
{
    return io_safetensors_parse(b->bytes, b->size, "in.safetensors", name, &tensor, &err);
}

/* ---- round trips ---- */

static const struct {
    int rank;
    int64_t shape[IO_MAX_RANK];
} shapes[] = {
    {0, {0}}, {1, {5}}, {2, {2, 3}}, {3, {2, 0, 4}}, {1, {0}}, {8, {1, 2, 1, 2, 1, 1, 3, 1}},
};

enum { TYPE_COUNT = IO_I64 + 1 };

static io_tensor sample(int index, void *data)
{
    io_tensor t = {.type = (io_type)(index % TYPE_COUNT), .data = data};
    const int shape = index / TYPE_COUNT;

    t.rank = shapes[shape].rank;
    memcpy(t.shape, shapes[shape].shape, sizeof(t.shape));
    t.bytes = io_type_size(t.type);
    for (int d = 0; d < t.rank; d++)
        t.bytes *= (size_t)t.shape[d];
    return t;
}

START_TEST(npy_round_trip)
{
    blob data = {.size = 0};
    append_data(&data, 256);
    const io_tensor t = sample(_i, data.bytes);
    const char *path = in_folder("t.npy");

    if (t.type == IO_BF16) {
        assert_refused(io_npy_write(path, &t, &err), "t.npy", "type", "bf16");
        ck_assert_int_eq(count_files(), 0);
        return;
    }
    ck_assert_msg(io_npy_write(path, &t, &err), "%s", err.text);
    ck_assert_int_eq(count_files(), 1);
    ck_assert_msg(io_npy_read(path, &tensor, &err), "%s", err.text);
    assert_tensor(t.type, t.rank, t.shape, t.data, t.bytes);

    /* NumPy maps files by this alignment. */
    const blob file = read_blob(path);
    ck_assert_uint_eq((file.size - t.bytes) % 64, 0);
    ck_assert_int_eq(file.bytes[file.size - t.bytes - 1], '\n');
}
END_TEST

START_TEST(safetensors_round_trip)
{
    blob data = {.size = 0};
    append_data(&data, 256);
    const io_tensor t[] = {sample(IO_U8, data.bytes + 7), sample(_i, data.bytes)};
    const char *names[] = {"mask", "q \"\xc3\xa9\""};
    const char *path = in_folder("t.safetensors");

    ck_assert_msg(io_safetensors_write(path, names, t, 2, &err), "%s", err.text);
    ck_assert_int_eq(count_files(), 1);
    for (int i = 0; i < 2; i++) {
        ck_assert_msg(io_safetensors_read(path, names[i], &tensor, &err), "%s", err.text);
        assert_tensor(t[i].type, t[i].rank, t[i].shape, t[i].data, t[i].bytes);
        io_tensor_free(&tensor);
    }
    ck_assert_uint_eq(read_blob(path).bytes[0] % 8, 0);
}
END_TEST

START_TEST(safetensors_without_tensors)
{
    const char *path = in_folder("t.safetensors");

    ck_assert_msg(io_safetensors_write(path, NULL, NULL, 0, &err), "%s", err.text);
    assert_refused(io_safetensors_read(path, "q", &tensor, &err), "t.safetensors", "tensor 'q'", "(none)");
}
END_TEST

/* ---- npy: what is accepted ---- */

static const struct {
    int major;
    const char *header;
    size_t data;
    io_type type;
    int rank;
    int64_t shape[IO_MAX_RANK];
} npy_good[] = {
    {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  \n", 24, IO_F32, 2, {2, 3}},
    {2, "{'descr': '<f2', 'fortran_order': False, 'shape': (3,), }\n", 6, IO_F16, 1, {3}},
    {3, "{'descr': '|b1', 'fortran_order': False, 'shape': (), }\n", 1, IO_U8, 0, {0}},
    {1, "{\"shape\":(1,0,4,),\"fortran_order\":True,\"descr\":\"|u1\"}", 0, IO_U8, 3, {1, 0, 4}},
    {1, "{'descr': '<i8', 'fortran_order': True, 'shape': (3,)}", 24, IO_I64, 1, {3}},
};

START_TEST(npy_accepts)
{
    const blob b = make_npy(npy_good[_i].major, npy_good[_i].header, npy_good[_i].data);

    ck_assert_msg(parse_npy(&b), "%s", err.text);
    assert_tensor(npy_good[_i].type, npy_good[_i].rank, npy_good[_i].shape,
                  b.bytes + b.size - npy_good[_i].data, npy_good[_i].data);
}
END_TEST

START_TEST(fortran_order_becomes_c_order)
{
    blob b = make_npy(1, "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 2)}", 12);
    const uint8_t expected[] = {1, 7, 3, 9, 5, 11, 2, 8, 4, 10, 6, 12};

    ck_assert_msg(parse_npy(&b), "%s", err.text);
    assert_tensor(IO_U8, 3, (const int64_t[]){2, 3, 2}, expected, sizeof(expected));
}
END_TEST

START_TEST(i32_is_widened)
{
    const int32_t narrow[] = {1, -2, INT32_MAX, INT32_MIN};
    const int64_t in_order[] = {1, -2, INT32_MAX, INT32_MIN};
    const int64_t transposed[] = {1, INT32_MAX, -2, INT32_MIN};
    const int64_t shape[] = {2, 2};

    blob npy = make_npy(1, "{'descr': '<i4', 'fortran_order': True, 'shape': (2, 2)}", 0);
    append(&npy, narrow, sizeof(narrow));
    ck_assert_msg(parse_npy(&npy), "%s", err.text);
    assert_tensor(IO_I64, 2, shape, transposed, sizeof(transposed));
    io_tensor_free(&tensor);

    blob st = make_safetensors(ST("\"I32\"", "[2,2]", "[0,16]"), 0);
    append(&st, narrow, sizeof(narrow));
    ck_assert_msg(parse_safetensors(&st, "q"), "%s", err.text);
    assert_tensor(IO_I64, 2, shape, in_order, sizeof(in_order));
}
END_TEST

/* Double precision comes as f32, rounded to nearest; what f32 cannot hold is counted. */
START_TEST(f64_is_narrowed)
{
    const double wide[] = {1.0 + 0x1.8p-24, -0.1, 1e300, -INFINITY, 0x1p-149, (double)FLT_MAX};
    const float narrow[] = {1.0f + 0x1p-23f, -0.1f, INFINITY, -INFINITY, 0x1p-149f, FLT_MAX};
    const int64_t shape[] = {6};

    blob npy = make_npy(1, NPY("'<f8'", "False", "(6,)"), 0);
    append(&npy, wide, sizeof(wide));
    ck_assert_msg(parse_npy(&npy), "%s", err.text);
    assert_tensor(IO_F32, 1, shape, narrow, sizeof(narrow));
    ck_assert(tensor.narrowed);
    ck_assert_uint_eq(tensor.overflows, 1);
    io_tensor_free(&tensor);

    blob st = make_safetensors(ST("\"F64\"", "[6]", "[0,48]"), 0);
    append(&st, wide, sizeof(wide));
    ck_assert_msg(parse_safetensors(&st, "q"), "%s", err.text);
    assert_tensor(IO_F32, 1, shape, narrow, sizeof(narrow));
    ck_assert(tensor.narrowed);
}
END_TEST

/* More than one part of what is converted at once, and Fortran order on top. */
START_TEST(f64_in_parts)
{
    enum { ROWS = 2, COLUMNS = 1500 };
    static double wide[ROWS * COLUMNS];
    static float narrow[ROWS * COLUMNS];
    static uint8_t file[sizeof(wide) + 256];
    const blob head = make_npy(1, NPY("'<f8'", "True", "(2, 1500)"), 0);

    for (int column = 0; column < COLUMNS; column++) {
        for (int row = 0; row < ROWS; row++) {
            wide[column * ROWS + row] = 10000 * row + column;
            narrow[row * COLUMNS + column] = (float)(10000 * row + column);
        }
    }
    memcpy(file, head.bytes, head.size);
    memcpy(file + head.size, wide, sizeof(wide));
    ck_assert_msg(io_npy_parse(file, head.size + sizeof(wide), "in.npy", &tensor, &err), "%s", err.text);
    assert_tensor(IO_F32, 2, (const int64_t[]){ROWS, COLUMNS}, narrow, sizeof(narrow));
    ck_assert_uint_eq(tensor.overflows, 0);
}
END_TEST

/* ---- npy: what is refused ---- */

#define NPY_DESCR(descr) NPY(descr, "False", "(1,)")

static const struct {
    const char *header;
    size_t data;
    const char *field, *found;
} npy_bad[] = {
    {NPY_DESCR("'<f16'"), 16, ": descr: ", "'<f16'"},
    {NPY_DESCR("'<c8'"), 8, ": descr: ", "'<c8'"},
    {NPY_DESCR("'>f8'"), 8, ": descr: ", "'>f8' (big-endian)"},
    {NPY_DESCR("'<f8'"), 4, ": data: ", "found 4 bytes, expected 8"},
    {NPY_DESCR("'>f4'"), 4, ": descr: ", "'>f4' (big-endian)"},
    {NPY_DESCR("'|O'"), 8, ": descr: ", "'|O' (Python objects)"},
    {NPY_DESCR("[('a', '<f4')]"), 4, ": descr: ", "[('a', '<f4')]"},
    {NPY_DESCR("'<f4\\x00'"), 4, ": descr: ", "<f4\\x00"},
    {NPY_DESCR("<f4"), 4, ": descr: ", "<f4"},
    {NPY_DESCR("'"), 4, ": descr: ", "', '"},
    {"{'descr': '<f4}", 4, ": descr: ", "closing quote"},
    {NPY("'<f4'", "1", "(1,)"), 4, ": fortran_order: ", "found 1"},
    {NPY_SHAPE("(1)"), 4, ": shape: ", "trailing comma"},
    {NPY_SHAPE("[1]"), 4, ": shape: ", "[1]"},
    {NPY_SHAPE("(,)"), 4, ": shape: ", "found ,)"},
    {NPY_SHAPE("(-1,)"), 4, ": shape: ", "-1"},
    {NPY_SHAPE("(01,)"), 4, ": shape: ", "01"},
    {NPY_SHAPE("(1L,)"), 4, ": shape: ", "found L"},
    {NPY_SHAPE("(1 1)"), 4, ": shape: ", "a comma"},
    {NPY_SHAPE("(1, 1"), 4, ": shape: ", "found }"},
    {NPY_SHAPE("(1,1,1,1,1,1,1,1,1)"), 4, ": shape: ", "at most 8"},
    {NPY_SHAPE("(9223372036854775808,)"), 4, ": shape: ", "9223372036854775808"},
    {NPY_SHAPE("(9223372036854775807,)"), 4, ": shape: ", "overflows"},
    {NPY_SHAPE("(4294967296, 4294967296)"), 4, ": shape: ", "overflows"},
    {NPY_SHAPE("(0, 4294967296, 4294967296)"), 0, ": shape: ", "overflows"},
    {NPY_SHAPE("(2,)"), 7, ": data: ", "found 7 bytes, expected 8"},
    {NPY_SHAPE("(2,)"), 9, ": data: ", "found 9 bytes, expected 8"},
    {NPY_SHAPE("(0,)"), 1, ": data: ", "found 1 bytes, expected 0"},
    {"{'descr': '<f4', 'shape': (1,)}", 4, ": fortran_order: ", "no such key"},
    {"{}", 4, ": descr: ", "no such key"},
    {"{'descr': '<f4', 'descr': '<f4'}", 4, ": descr: ", "only once"},
    {"{'descr' '<f4'}", 4, ": descr: ", "a colon"},
    {"{'spam': 1}", 4, ": header: ", "spam"},
    {"{1: 2}", 4, ": header: ", "1: 2"},
    {"('descr', '<f4')", 4, ": header: ", "('descr'"},
    {"", 4, ": header: ", "end of the header"},
    {NPY_SHAPE("(1,)") " x", 4, ": header: ", "found x"},
    {NPY_SHAPE("(1,)") ",", 4, ": header: ", "found ,"},
    {"{'descr': '<f4' 'shape': (1,)}", 4, ": header: ", "'shape'"},
    {"{'descr': '<f4\x1b[31m'}", 4, ": header: ", "0x1b"},
};

START_TEST(npy_refuses)
{
    const blob b = make_npy(1, npy_bad[_i].header, npy_bad[_i].data);
    assert_refused(parse_npy(&b), "in.npy", npy_bad[_i].field, npy_bad[_i].found);
}
END_TEST

/* One byte of a good file changed, or the file cut short. */
static const struct {
    size_t at;
    uint8_t value;
    size_t size;
    const char *field, *found;
} npy_broken[] = {
    {0, 'x', 0, ": magic: ", "no npy file"},
    {0, 0x93, 5, ": magic: ", "no npy file"},
    {0, 0x93, 9, ": size: ", "9 bytes"},
    {6, 0, 0, ": version: ", "0.0"},
    {6, 4, 0, ": version: ", "4.0"},
    {7, 1, 0, ": version: ", "1.1"},
    {6, 2, 11, ": size: ", "11 bytes"},
    {6, 3, 0, ": header length: ", "at most 65535"},
    {9, 0xff, 0, ": header length: ", "bytes that follow"},
};

START_TEST(npy_refuses_broken)
{
    blob b = make_npy(1, NPY_SHAPE("(1,)"), 4);

    b.bytes[npy_broken[_i].at] = npy_broken[_i].value;
    if (npy_broken[_i].size > 0)
        b.size = npy_broken[_i].size;
    assert_refused(parse_npy(&b), "in.npy", npy_broken[_i].field, npy_broken[_i].found);
}
END_TEST

START_TEST(npy_refuses_every_truncation)
{
    blob b = make_npy(1, NPY_SHAPE("(2, 3)"), 24);

    while (b.size-- > 0)
        assert_refused(parse_npy(&b), "in.npy", "", "found");
}
END_TEST

/* ---- safetensors ---- */

static const struct {
    const char *header;
    const char *field, *found;
} st_bad[] = {
    {ST("\"F8_E4M3\"", "[1]", "[0,1]"), "'q' dtype: ", "\"F8_E4M3\""},
    {ST("\"F64\"", "[2]", "[0,8]"), "'q' data_offsets: ", "16 bytes by dtype and shape"},
    {ST("7", "[1]", "[0,4]"), "'q' dtype: ", "found 7"},
    {"{\"q\":{}}", "'q' dtype: ", "nothing"},
    {"{\"q\":{\"dtype\":\"F32\"}}", "'q' shape: ", "nothing"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[]}}", "'q' data_offsets: ", "nothing"},
    {ST("\"F32\"", "1", "[0,4]"), "'q' shape: ", "found 1"},
    {ST("\"F32\"", "[-1]", "[0,4]"), "'q' shape: ", "[-1]"},
    {ST("\"F32\"", "[1.0]", "[0,4]"), "'q' shape: ", "[1.0]"},
    {ST("\"F32\"", "[true]", "[0,4]"), "'q' shape: ", "[true]"},
    {ST("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), "'q' shape: ", "at most 8"},
    {ST("\"F32\"", "[4294967296,4294967296]", "[0,4]"), "'q' shape: ", "overflow"},
    {ST("\"F32\"", "[0,4294967296,4294967296]", "[0,0]"), "'q' shape: ", "overflow"},
    {ST("\"F32\"", "[9223372036854775808]", "[0,4]"), "header: ", "too big integer"},
    {ST("\"F32\"", "[1]", "4"), "'q' data_offsets: ", "found 4"},
    {ST("\"F32\"", "[1]", "[4]"), "'q' data_offsets: ", "[4]"},
    {ST("\"F32\"", "[1]", "[0,4,8]"), "'q' data_offsets: ", "[0,4,8]"},
    {ST("\"F32\"", "[1]", "[0,4.0]"), "'q' data_offsets: ", "[0,4.0]"},
    {ST("\"F32\"", "[1]", "[-4,0]"), "'q' data_offsets: ", "[-4,0]"},
    {ST("\"F32\"", "[1]", "[8,4]"), "'q' data_offsets: ", "begin <= end"},
    {ST("\"F32\"", "[1]", "[14,18]"), "'q' data_offsets: ", "within the 16 bytes"},
    {ST("\"F32\"", "[1]", "[0,9223372036854775807]"), "'q' data_offsets: ", "within the 16"},
    {ST("\"F32\"", "[2]", "[0,4]"), "'q' data_offsets: ", "8 bytes by dtype and shape"},
    {ST("\"F32\"", "[]", "[0,8]"), "'q' data_offsets: ", "4 bytes by dtype and shape"},
    {ST("\"I32\"", "[2]", "[0,16]"), "'q' data_offsets: ", "8 bytes by dtype and shape"},
    {"{\"q\":[1]}", "'q': ", "[1]"},
    {"{\"k\":{},\"v\":{},\"__metadata__\":{}}", "'q': ", "the file's 2, expected one of: 'k', 'v'"},
    {"{\"q\":{},\"q\":{}}", "header: ", "duplicate object key"},
    {"{\"q\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", "header: ", "duplicate object key"},
    {"{\"q\":{}", "header: ", "'}' expected"},
    {"{} x", "header: ", "end of file expected"},
    {"{\"\xff\":1}", "header: ", "unable to decode byte 0xff"},
    {"{\"a\\u0000b\":1}", "header: ", "NUL"},
    {" {}", "header: ", "{ as its first byte"},
    {"[]", "header: ", "{ as its first byte"},
    {"", "header: ", "an empty one"},
};

START_TEST(safetensors_refuses)
{
    const blob b = make_safetensors(st_bad[_i].header, 16);
    assert_refused(parse_safetensors(&b, "q"), "in.safetensors", st_bad[_i].field, st_bad[_i].found);
}
END_TEST

START_TEST(safetensors_refuses_header_length)
{
    blob b = make_safetensors("{}", 16);
    const struct {
        uint64_t length;
        const char *found;
    } cases[] = {
        {19, "at most the 18"}, {100000001, "at most 100000000"}, {UINT64_MAX, "18446744073709551615"}};

    for (int i = 0; i < COUNT(cases); i++) {
        memcpy(b.bytes, &cases[i].length, sizeof(cases[i].length));
        assert_refused(parse_safetensors(&b, "q"), "in.safetensors", "header length: ", cases[i].found);
    }
    b.size = 7;
    assert_refused(parse_safetensors(&b, "q"), "in.safetensors", "header length: ", "7 bytes");
}
END_TEST

START_TEST(safetensors_refuses_metadata_as_tensor)
{
    const blob b = make_safetensors("{\"__metadata__\":{\"a\":\"b\"}}", 0);
    assert_refused(parse_safetensors(&b, "__metadata__"), "in.safetensors", "'__metadata__'", "(none)");
}
END_TEST

START_TEST(safetensors_ignores_other_tensors)
{
    const blob b = make_safetensors("{\"k\":{\"dtype\":\"F4\",\"shape\":\"?\"},\"q\":{\"dtype\":"
                                    "\"BOOL\",\"shape\":[2],\"data_offsets\":[1,3]}}  ",
                                    9);

    ck_assert_msg(parse_safetensors(&b, "q"), "%s", err.text);
    assert_tensor(IO_U8, 1, (const int64_t[]){2}, "\2\3", 2);
}
END_TEST

START_TEST(error_names_are_cut_and_cleaned)
{
    char header[1500] = "{", name[700];
    const blob b = make_safetensors("{\"a\\u001b[2J\":{}}", 0);

    assert_refused(parse_safetensors(&b, "q"), "in.safetensors", "tensor 'q'", "'a\\x1b[2J'");

    for (int i = 0; i < 90; i++)
        snprintf(header + strlen(header), 16, "%s\"layer.%02d\":1", i ? "," : "", i);
    strcat(header, "}");
    const blob many = make_safetensors(header, 0);
    assert_refused(parse_safetensors(&many, "q"), "in.safetensors", "the file's 90", "...");
    ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);

    memset(name, 'x', sizeof(name));
    memcpy(name + sizeof(name) - 7, "/t.npy", 7);
    assert_refused(io_npy_parse("", 0, name, &tensor, &err), "...x", "/t.npy: magic: ", "found");
    assert_refused(io_safetensors_parse(b.bytes, b.size, "in", name, &tensor, &err), "in: ", "tensor 'xxx",
                   "expected one of: 'a");
}
END_TEST

void add_format_tests(TCase *tc)
{
    const int samples = COUNT(shapes) * TYPE_COUNT;

    tcase_add_loop_test(tc, npy_round_trip, 0, samples);
    tcase_add_loop_test(tc, safetensors_round_trip, 0, samples);
    tcase_add_test(tc, safetensors_without_tensors);
    tcase_add_loop_test(tc, npy_accepts, 0, COUNT(npy_good));
    tcase_add_test(tc, fortran_order_becomes_c_order);
    tcase_add_test(tc, i32_is_widened);
    tcase_add_test(tc, f64_is_narrowed);
    tcase_add_test(tc, f64_in_parts);
    tcase_add_loop_test(tc, npy_refuses, 0, COUNT(npy_bad));
    tcase_add_loop_test(tc, npy_refuses_broken, 0, COUNT(npy_broken));
    tcase_add_test(tc, npy_refuses_every_truncation);
    tcase_add_loop_test(tc, safetensors_refuses, 0, COUNT(st_bad));
    tcase_add_test(tc, safetensors_refuses_header_length);
    tcase_add_test(tc, safetensors_refuses_metadata_as_tensor);
    tcase_add_test(tc, safetensors_ignores_other_tensors);
    tcase_add_test(tc, error_names_are_cut_and_cleaned);
}
