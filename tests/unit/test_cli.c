/* SPDX-License-Identifier: Apache-2.0 */
/* The command line's parser, and that of shapes. */
#include <check.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli.h"
#include "tools/conform/conform.h"
#include "tools/conform/glob.h"
#include "tools/shape.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

enum { MAX_ARGUMENTS = 8, MAX_TEXT = 4096 };

typedef struct values {
    int flag;
    const char *text;
    int64_t count;
    double real;
} values;

static const values untouched = {0, "before", 7, 0.5};

/* What the call under test printed. Each test runs in a process of its own, so streams stay redirected. */
static FILE *printed[2];

static void setup(void)
{
    for (int i = 0; i < 2; i++) {
        printed[i] = tmpfile();
        ck_assert_ptr_nonnull(printed[i]);
        ck_assert_int_ge(dup2(fileno(printed[i]), i == 0 ? STDOUT_FILENO : STDERR_FILENO), 0);
    }
}

static const char *text_of(int stream)
{
    static char text[2][MAX_TEXT];
    fflush(stream == 1 ? stdout : stderr);
    rewind(printed[stream - 1]);
    size_t used = fread(text[stream - 1], 1, MAX_TEXT - 1, printed[stream - 1]);
    text[stream - 1][used] = '\0';
    return text[stream - 1];
}

static void assert_mentions(const char *text, const char *part)
{
    ck_assert_msg(strstr(text, part) != NULL, "no '%s' in: %s", part, text);
}

/* Parses a line whose words are separated by one space. */
static int parse(const char *line, values *v)
{
    const cli_option options[] = {
        {"flag", 'f', &v->flag, "a flag"},
        {"text", 's', &v->text, "<file.npy> a string"},
        {"count", 'i', &v->count, "a whole number"},
        {"real", 'd', &v->real, "a number"},
    };
    static char copy[256];
    char *arguments[MAX_ARGUMENTS] = {copy};
    int count = 1;
    snprintf(copy, sizeof(copy), "test%s%s", line[0] ? " " : "", line);
    for (char *space = copy; (space = strchr(space, ' ')) != NULL;) {
        *space++ = '\0';
        ck_assert_int_lt(count, MAX_ARGUMENTS);
        arguments[count++] = space;
    }
    *v = untouched;
    return cli_parse("test", "[options]\n\nWords.", options, COUNT(options), count, arguments);
}

static const struct {
    const char *line;
    values expected;
} good[] = {
    {"", {0, "before", 7, 0.5}},
    {"--flag", {1, "before", 7, 0.5}},
    {"--text a", {0, "a", 7, 0.5}},
    {"--text=a", {0, "a", 7, 0.5}},
    {"--text=a=b", {0, "a=b", 7, 0.5}},
    {"--text=--flag", {0, "--flag", 7, 0.5}},
    {"--text -", {0, "-", 7, 0.5}},
    {"--count 0", {0, "before", 0, 0.5}},
    {"--count -12", {0, "before", -12, 0.5}},
    {"--count=9223372036854775807", {0, "before", INT64_MAX, 0.5}},
    {"--count=-9223372036854775808", {0, "before", INT64_MIN, 0.5}},
    {"--count 010", {0, "before", 10, 0.5}},
    {"--real 3", {0, "before", 7, 3}},
    {"--real -0.25", {0, "before", 7, -0.25}},
    {"--real=1e-3", {0, "before", 7, 1e-3}},
    {"--real 1e-310", {0, "before", 7, 1e-310}},
    {"--count 1 --flag --real=2 --text x", {1, "x", 1, 2}},
};

START_TEST(good_lines_are_read)
{
    values v;
    ck_assert_int_eq(parse(good[_i].line, &v), 0);
    ck_assert_int_eq(v.flag, good[_i].expected.flag);
    ck_assert_str_eq(v.text, good[_i].expected.text);
    ck_assert_int_eq(v.count, good[_i].expected.count);
    ck_assert(v.real == good[_i].expected.real);
    ck_assert_str_eq(text_of(1), "");
    ck_assert_str_eq(text_of(2), "");
}
END_TEST

static const struct {
    const char *line, *names, *value;
} bad[] = {
    {"--unknown", "--unknown", "unknown option"},
    {"--unknown=3", "--unknown", "unknown option"},
    {"--fla", "--fla'", "unknown option"},
    {"--flags", "--flags'", "unknown option"},
    {"--=3", "--'", "unknown option"},
    {"-f", "'-f'", "starts with --"},
    {"--", "'--'", "starts with --"},
    {"word", "'word'", "starts with --"},
    {"--flag word", "'word'", "starts with --"},
    {"--flag=1", "--flag", "'1'"},
    {"--flag --flag", "--flag", "twice"},
    {"--text a --text=b", "--text", "twice"},
    {"--text", "--text", "needs a value"},
    {"--text --flag", "--text", "needs a value"},
    {"--text=", "--text", "''"},
    {"--count", "--count", "needs a value"},
    {"--count=", "--count", "''"},
    {"--count abc", "--count", "'abc'"},
    {"--count 1x", "--count", "'1x'"},
    {"--count 1.5", "--count", "'1.5'"},
    {"--count -", "--count", "'-'"},
    {"--count +1", "--count", "'+1'"},
    {"--count 0x10", "--count", "'0x10'"},
    {"--count 9223372036854775808", "--count", "'9223372036854775808'"},
    {"--count=-9223372036854775809", "--count", "'-9223372036854775809'"},
    {"--real", "--real", "needs a value"},
    {"--real=", "--real", "''"},
    {"--real abc", "--real", "'abc'"},
    {"--real 1e", "--real", "'1e'"},
    {"--real 1,5", "--real", "'1,5'"},
    {"--real nan", "--real", "'nan'"},
    {"--real -inf", "--real", "'-inf'"},
    {"--real 1e400", "--real", "'1e400'"},
    {"--real 1e-400", "--real", "'1e-400'"},
};

START_TEST(bad_lines_are_refused)
{
    values v;
    ck_assert_int_eq(parse(bad[_i].line, &v), 2);
    ck_assert_str_eq(text_of(1), "");
    assert_mentions(text_of(2), "fastattn test: ");
    assert_mentions(text_of(2), bad[_i].names);
    assert_mentions(text_of(2), bad[_i].value);
    assert_mentions(text_of(2), "Try 'fastattn test --help'.");
}
END_TEST

static const char *const help_lines[] = {"--help", "-h", "--flag --help", "--unknown --help"};

START_TEST(help_is_printed)
{
    values v;
    ck_assert_int_eq(parse(help_lines[_i], &v), 1);
    ck_assert_str_eq(text_of(2), "");
    assert_mentions(text_of(1), "Usage: fastattn test [options]\n\nWords.");
    assert_mentions(text_of(1), "  --flag           a flag\n");
    assert_mentions(text_of(1), "  --text file.npy  a string\n");
    assert_mentions(text_of(1), "  --count N        a whole number\n");
    assert_mentions(text_of(1), "Exit codes: 0 ");
}
END_TEST

START_TEST(words_are_listed)
{
    static const char *const words[] = {"red", "green", "blue"};
    ck_assert_int_eq(cli_word("test", "colour", NULL, words, 3), 0);
    ck_assert_int_eq(cli_word("test", "colour", "blue", words, 3), 2);
    ck_assert_int_eq(cli_word("test", "colour", "gre", words, 3), -1);
    ck_assert_str_eq(text_of(2), "fastattn test: --colour is 'gre', expected red, green or blue\n");
}
END_TEST

START_TEST(mask_words)
{
    fa_mask_kind mask;
    ck_assert(cli_mask("test", NULL, &mask) && mask == FA_MASK_NONE);
    ck_assert(cli_mask("test", "top-left", &mask) && mask == FA_MASK_CAUSAL_TOP_LEFT);
    ck_assert(cli_mask("test", "bottom-right", &mask) && mask == FA_MASK_CAUSAL_BOTTOM_RIGHT);
    ck_assert(!cli_mask("test", "top", &mask));
    assert_mentions(text_of(2), "--causal is 'top', expected top-left or bottom-right");
}
END_TEST

START_TEST(int32_range)
{
    int32_t value = 5;
    ck_assert(cli_int32("test", "n", INT32_MAX, &value));
    ck_assert_int_eq(value, INT32_MAX);
    ck_assert(!cli_int32("test", "n", (int64_t)INT32_MAX + 1, &value));
    ck_assert(!cli_int32("test", "n", -1, &value));
    ck_assert_int_eq(value, INT32_MAX);
    assert_mentions(text_of(2), "--n is 2147483648");
    assert_mentions(text_of(2), "--n is -1");
}
END_TEST

static const struct {
    const char *text, *json;
} strings[] = {
    {"", "\"\""},
    {"plain", "\"plain\""},
    {"a\"b\\c", "\"a\\\"b\\\\c\""},
    {"tab\tend\n", "\"tab\\u0009end\\u000a\""},
    {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""},
    {"\x7f\xc2\x9b\xe2\x80\xae\xf3\xa0\x81\x81", "\"\\u007f\\u009b\\u202e\\udb40\\udc41\""},
    {"\x80|\xc3|\xc0\xaf|\xed\xa0\x80|\xf5\x80\x80\x80|\xe2\x82", "\"?|?|??|???|????|??\""},
};

START_TEST(json_strings)
{
    cli_json_string(stdout, strings[_i].text);
    ck_assert_str_eq(text_of(1), strings[_i].json);
}
END_TEST

static const struct {
    const char *text, *xml;
} xml_texts[] = {
    {"a<b> & \"c\"", "a&lt;b&gt; &amp; &quot;c&quot;"},
    {"\x1b[m\n", " [m "},
    {"\xc3\xa9\xf0\x9f\x98\x80", "\xc3\xa9\xf0\x9f\x98\x80"},
    {"\x7f\xc2\x9b\xe2\x80\xae", "&#x7f;&#x9b;&#x202e;"},
    {"\xff|\xef\xbf\xbe|\xed\xa0\x80", "?|?|???"},
};

START_TEST(texts_in_xml)
{
    cli_xml_text(stdout, xml_texts[_i].text);
    ck_assert_str_eq(text_of(1), xml_texts[_i].xml);
}
END_TEST

/* What fnmatch() says, of patterns that it does not call undefined. */
START_TEST(patterns_match_as_in_a_shell)
{
    static const char *const patterns[] = {"",
                                           "*",
                                           "**",
                                           "a",
                                           "?",
                                           "a*",
                                           "*a",
                                           "a*b",
                                           "*a*b*",
                                           "[ab]",
                                           "[a-c]*",
                                           "[!a]*",
                                           "[]a]",
                                           "[!]a]*",
                                           "[a-]",
                                           "a[",
                                           "[a",
                                           "\\*",
                                           "\\[a]",
                                           "a?c",
                                           "*:causal-br/*",
                                           "tile[0-9]:[wk]*/f32*",
                                           "*b*b",
                                           "*[!b]",
                                           "[a-c-e]",
                                           "?*?"};
    static const char *const words[] = {"",
                                        "a",
                                        "b",
                                        "ab",
                                        "abc",
                                        "aab",
                                        "abab",
                                        "]",
                                        "-",
                                        "*",
                                        "[",
                                        "[a",
                                        "a[",
                                        "[a]",
                                        "x:causal-br/f32/q",
                                        "tile8:wide/f32",
                                        "tile8:side/f32",
                                        "acb",
                                        "bb",
                                        "e",
                                        "d",
                                        "bab",
                                        "abbba",
                                        "\xc3\xa9"};
    for (int p = 0; p < COUNT(patterns); p++) {
        for (int s = 0; s < COUNT(words); s++)
            ck_assert_msg(glob_match(patterns[p], words[s]) == (fnmatch(patterns[p], words[s], 0) == 0),
                          "'%s' '%s'", patterns[p], words[s]);
    }
}
END_TEST

/* A case that no machine holds is passed over before memory is taken for it. */
START_TEST(conform_passes_over_what_is_too_large)
{
    conform_case c = {
        .name = "huge",
        .q = FA_F32,
        .k = FA_F32,
        .v = FA_F32,
        .o = FA_F32,
        .batch = 1 << 20,
        .heads_q = 64,
        .heads_kv = 64,
        .dim_qk = 512,
        .dim_v = 512,
        .len_q = {CONFORM_FIXED, 1},
        .len_kv = {CONFORM_FIXED, 1 << 28},
        .bias_axes = CONFORM_NO_AXES,
        .keep_axes = CONFORM_NO_AXES,
    };
    conform_suite suite = {.backend = "null", .seed = 1, .info.struct_size = sizeof(suite.info)};
    char message[1024] = "";
    check_result result;
    ck_assert_int_eq(fa_context_create(NULL, &suite.context), FA_OK);
    if (fa_device_open(suite.context, "null", NULL, &suite.device) == FA_OK) {
        ck_assert_int_eq(fa_device_get_info(suite.device, &suite.info), FA_OK);
        conform_suite_kernels(&suite);
        ck_assert_int_eq(conform_run(&suite, &c, &suite.kernel[0], &result, message, sizeof(message)),
                         CONFORM_SKIPPED);
        assert_mentions(message, "needs about ");
        assert_mentions(message, " MiB are available (");
    }
    conform_suite_forget(&suite);
    fa_device_close(suite.device);
    fa_context_destroy(suite.context);
}
END_TEST

START_TEST(memory_that_fits)
{
    char why[384] = "";
    ck_assert(cli_memory_fits(1, why, sizeof(why)));
    ck_assert_str_eq(why, "");
    ck_assert(!cli_memory_fits(1e19, why, sizeof(why)));
    assert_mentions(why, "needs about 9536743164062.5 MiB, and ");
}
END_TEST

/* Whatever a message quotes, and whoever wrote it. */
START_TEST(messages_are_plain)
{
    values v;
    cli_error("test", "%s", "first\nsecond\x1b[2J\xe2\x80\xae");
    cli_note("test", "%s", "\xc2\x9b\xff");
    ck_assert_str_eq(text_of(2),
                     "fastattn test: first\\x0asecond\\x1b[2J\\u202e\nfastattn test: note: \\x9b\\xff\n");
    ck_assert_int_eq(parse("--\x1b[2J", &v), 2);
    ck_assert_ptr_null(strchr(text_of(2), '\x1b'));
    ck_assert_str_eq(cli_plain("\x1b").text, "\\x1b");
}
END_TEST

static const struct {
    const char *text;
    shape expected;
    const char *printed;
} shapes[] = {
    {"B1,H8,S2048,D128", {1, 8, 2048, 128, 8, 2048, 128}, "B1,H8,S2048,D128"},
    {"B1,H8,S1,D64,HK2,SK4096,DV32", {1, 8, 1, 64, 2, 4096, 32}, "B1,H8,S1,D64,HK2,SK4096,DV32"},
    {"DV3,D4,HK1,H2,B5,SK6,S7", {5, 2, 7, 4, 1, 6, 3}, "B5,H2,S7,D4,HK1,SK6,DV3"},
    {"B1,H1,S1,D1,HK1", {1, 1, 1, 1, 1, 1, 1}, "B1,H1,S1,D1"},
    {"B1,H1,S9223372036854775807,D1", {1, 1, INT64_MAX, 1, 1, INT64_MAX, 1}, "B1,H1,S9223372036854775807,D1"},
};

START_TEST(good_shapes)
{
    char error[160] = "", text[160];
    shape s;
    ck_assert(shape_parse(shapes[_i].text, &s, error, sizeof(error)));
    ck_assert_mem_eq(&s, &shapes[_i].expected, sizeof(s));
    ck_assert_str_eq(error, "");
    shape_print(&s, text, sizeof(text));
    ck_assert_str_eq(text, shapes[_i].printed);
}
END_TEST

static const struct {
    const char *text, *part;
} bad_shapes[] = {
    {"", "part '' is wrong"},
    {"B1,H8,S2048", "part D is missing"},
    {"H8,S2048,D128", "part B is missing"},
    {"B1,S2048,D128,HK8", "part H is missing"},
    {"B1,H8,S2048,D128,", "part '' is wrong"},
    {"B1,,H8,S2048,D128", "part '' is wrong"},
    {"B1,H8,S2048,D128,X3", "part 'X3' is wrong"},
    {"B1,H8,S2048,D128,HV3", "part 'HV3' is wrong"},
    {"b1,H8,S2048,D128", "part 'b1' is wrong"},
    {"B1,H8,S2048,D128,B2", "part 'B2' is wrong, expected each"},
    {"B1,H8,H8,S2048,D128", "part 'H8' is wrong, expected each"},
    {"B1,H8,S,D128", "part 'S' is wrong, expected a number"},
    {"B0,H8,S2048,D128", "part 'B0' is wrong"},
    {"B1,H8,S2048,D128,SK0", "part 'SK0' is wrong"},
    {"B1,H-8,S2048,D128", "part 'H-8' is wrong"},
    {"B1,H+8,S2048,D128", "part 'H+8' is wrong"},
    {"B1,H8,S2048,D12.5", "part 'D12.5' is wrong"},
    {"B1,H8,S2048,D128x", "part 'D128x' is wrong"},
    {"B1, H8,S2048,D128", "part ' H8' is wrong"},
    {"B1 H8", "part 'B1 H8' is wrong"},
    {"B1,H8,S9223372036854775808,D128", "part 'S9223372036854775808' is wrong, expected a number below 2^63"},
    {"B1,H8,S99999999999999999999999,D128",
     "part 'S99999999999999999999999' is wrong, expected a number below"},
};

START_TEST(bad_shapes_are_refused)
{
    const shape before = {9, 9, 9, 9, 9, 9, 9};
    char error[160] = "";
    shape s = before;
    ck_assert(!shape_parse(bad_shapes[_i].text, &s, error, sizeof(error)));
    assert_mentions(error, bad_shapes[_i].part);
    ck_assert_mem_eq(&s, &before, sizeof(s));
}
END_TEST

START_TEST(short_error_buffers_are_kept_to)
{
    char error[8];
    shape s;
    memset(error, 'x', sizeof(error));
    ck_assert(!shape_parse("B1,H8,S2048,D128,X3", &s, error, 5));
    ck_assert_str_eq(error, "part");
    ck_assert_int_eq(error[5], 'x');
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli");
    TCase *tc = tcase_create("cli");

    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_loop_test(tc, good_lines_are_read, 0, COUNT(good));
    tcase_add_loop_test(tc, bad_lines_are_refused, 0, COUNT(bad));
    tcase_add_loop_test(tc, help_is_printed, 0, COUNT(help_lines));
    tcase_add_test(tc, words_are_listed);
    tcase_add_test(tc, mask_words);
    tcase_add_test(tc, int32_range);
    tcase_add_loop_test(tc, json_strings, 0, COUNT(strings));
    tcase_add_loop_test(tc, texts_in_xml, 0, COUNT(xml_texts));
    tcase_add_test(tc, messages_are_plain);
    tcase_add_test(tc, conform_passes_over_what_is_too_large);
    tcase_add_test(tc, memory_that_fits);
    tcase_add_test(tc, patterns_match_as_in_a_shell);
    tcase_add_loop_test(tc, good_shapes, 0, COUNT(shapes));
    tcase_add_loop_test(tc, bad_shapes_are_refused, 0, COUNT(bad_shapes));
    tcase_add_test(tc, short_error_buffers_are_kept_to);
    suite_add_tcase(suite, tc);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
