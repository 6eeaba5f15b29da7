/* SPDX-License-Identifier: Apache-2.0 */
/* Types of elements, as frameworks name them. */
#include <string.h>

#include "binding.h"

static const struct {
    const char *name; /* of NumPy, PyTorch and JAX */
    int type;
} long_names[] = {
    {"float32", FA_F32}, {"float16", FA_F16},        {"bfloat16", FA_BF16},    {"bool", FA_BOOL},
    {"int32", FA_I32},   {"float8_e4m3fn", FA_E4M3}, {"float8_e5m2", FA_E5M2}, {"float8_e8m0fnu", FA_E8M0},
    {"int8", FA_I8},     {"uint8", FA_U8},           {"int64", FA_PY_I64},     {"float64", FA_PY_F64},
};

const char *fa_py_type_name(int type)
{
    for (size_t at = 0; at < sizeof long_names / sizeof *long_names; at++) {
        if (long_names[at].type == type)
            return long_names[at].name;
    }
    return type < FA_PY_I64 ? fa_dtype_name((fa_dtype)type) : "a type that fastattn does not have";
}

int fa_py_type_of(const char *name)
{
    const char *dot = strrchr(name, '.');
    if (dot)
        name = dot + 1;
    for (size_t at = 0; at < sizeof long_names / sizeof *long_names; at++) {
        if (strcmp(long_names[at].name, name) == 0)
            return long_names[at].type;
    }
    for (int type = 0; fa_dtype_size((fa_dtype)type) > 0; type++) {
        if (strcmp(fa_dtype_name((fa_dtype)type), name) == 0)
            return type;
    }
    return -1;
}

int fa_py_type_of_dlpack(const fa_py_dltensor *dl)
{
    const int code = dl->code, bits = dl->bits;
    if (dl->lanes != 1)
        return FA_PY_OTHER;
    if (code == FA_DL_FLOAT)
        return bits == 32 ? FA_F32 : bits == 16 ? FA_F16 : bits == 64 ? FA_PY_F64 : FA_PY_OTHER;
    if (code == FA_DL_BFLOAT)
        return bits == 16 ? FA_BF16 : FA_PY_OTHER;
    if (code == FA_DL_BOOL)
        return bits == 8 ? FA_BOOL : FA_PY_OTHER;
    if (code == FA_DL_INT)
        return bits == 32 ? FA_I32 : bits == 64 ? FA_PY_I64 : bits == 8 ? FA_I8 : FA_PY_OTHER;
    if (code == FA_DL_UINT)
        return bits == 8 ? FA_U8 : FA_PY_OTHER;
    return code == FA_DL_E4M3FN    ? FA_E4M3
           : code == FA_DL_E5M2    ? FA_E5M2
           : code == FA_DL_E8M0FNU ? FA_E8M0
                                   : FA_PY_OTHER;
}

int fa_py_type_of_format(const char *format, Py_ssize_t size)
{
    if (!format)
        return FA_U8;
    if (*format == '<' || *format == '=' || *format == '@')
        format++;
    if (format[0] == '\0' || format[1] != '\0')
        return FA_PY_OTHER;
    switch (*format) {
    case 'f': return FA_F32;
    case 'e': return FA_F16;
    case '?': return FA_BOOL;
    case 'b': return FA_I8;
    case 'B':
    case 'c': return FA_U8;
    case 'd': return FA_PY_F64;
    case 'i':
    case 'l':
    case 'q': return size == 4 ? FA_I32 : size == 8 ? FA_PY_I64 : FA_PY_OTHER;
    default: return FA_PY_OTHER;
    }
}
