/* SPDX-License-Identifier: Apache-2.0 */
/* Placements of made-up machines: against the paper's, numbers worked out by hand, and what holds of all. */
#include <math.h>
#include <string.h>

#include "helpers.h"
#include "suites.h"

/* 8 x V100 in one host. Two devices share a link of PCIe 3 x16. */
static fa_cooperate_machine v100(uint64_t gib)
{
    return (fa_cooperate_machine){
        .struct_size = sizeof(fa_cooperate_machine),
        .devices = 8,
        .device_bytes = gib << 30,
        .host_bytes = (uint64_t)512 << 30,
        .device_bandwidth = 800e9,
        .host_bandwidth = 200e9,
        .link_bandwidth = 6e9,
        .link_seconds = 10e-6,
        .device_flops = 60e12,
        .host_flops = 1.5e12,
    };
}

/* 38 billion weights of 16 bits; 40 layers of 5120 elements, 40 heads. Each device keeps the elements that lie between layers, and
 * a layer's output of its five heads. */
static fa_cooperate_model pangu(void)
{
    return (fa_cooperate_model){
        .struct_size = sizeof(fa_cooperate_model),
        .layers = 40,
        .heads_q = 40,
        .heads_kv = 40,
        .dim_qk = 128,
        .k_type = FA_F16,
        .v_type = FA_F16,
        .weight_bytes = 76000000000,
        .activation_bytes = 500000000,
        .activation_token_bytes = 2 * (5120 + 640),
    };
}

static fa_cooperate_placement place(const fa_cooperate_machine *machine, const fa_cooperate_model *model,
                                    int64_t tokens)
{
    fa_cooperate_placement p = {.struct_size = sizeof(p)};
    ck_assert_msg(fa_cooperate_place(machine, model, tokens, &p) == FA_OK, "%s", fa_last_error());
    return p;
}

/* The paper's case: 256K tokens on 8 x V100 with the host's memory, and not without. */
START_TEST(paper)
{
    const fa_cooperate_machine small = v100(16), large = v100(32);
    const fa_cooperate_model model = pangu();
    fa_cooperate_placement p = place(&small, &model, 262144);
    ck_assert_int_eq(p.fits, 1);
    ck_assert_uint_eq(p.layer_bytes, (uint64_t)2 * 262144 * 5 * 128 * 2);
    ck_assert_int_eq(p.layers_device, 4);
    ck_assert_int_eq(p.layers_host, 36);
    ck_assert_uint_eq(p.host_used, 36 * 8 * p.layer_bytes);
    ck_assert_int_eq(p.decode_way, FA_COOPERATE_SPLIT);
    /* free / (bytes of a token in all layers, or in the two buffers, and its activations) */
    const double free = 16.0 * 0x1p30 - 9.5e9 - 0.5e9;
    ck_assert_int_eq(p.context_device, (int64_t)(free / (11520 + 40 * 2560)));
    ck_assert_int_eq(p.context_longest, (int64_t)(free / (11520 + 2 * 2560)));
    p = place(&large, &model, 262144);
    ck_assert_int_eq(p.layers_device, 29);
    ck_assert_int_eq(p.layers_host, 11);
    ck_assert_int_lt(p.context_device, 262144);
    ck_assert_int_gt(p.context_longest, 262144);
    /* In q8_0 a token takes 17/32 of the bytes, and nearly all layers stay where they are. */
    fa_cooperate_model coded = model;
    coded.k_type = coded.v_type = FA_Q8_0;
    p = place(&large, &coded, 262144);
    ck_assert_uint_eq(p.layer_bytes, (uint64_t)2 * 262144 * 5 * 4 * 34);
    ck_assert_int_eq(p.layers_host, 0);
    ck_assert_int_gt(p.context_device, 262144);
}
END_TEST

static fa_cooperate_machine round_machine(void)
{
    return (fa_cooperate_machine){
        .struct_size = sizeof(fa_cooperate_machine),
        .device_bytes = 6000,
        .host_bytes = 100000,
        .device_bandwidth = 1000,
        .host_bandwidth = 100,
        .link_bandwidth = 50,
        .device_flops = 1e6,
        .host_flops = 1e5,
    };
}

/* 10 layers of one head; a token of a layer is 8 bytes of f32. */
static fa_cooperate_model round_model(void)
{
    return (fa_cooperate_model){
        .struct_size = sizeof(fa_cooperate_model),
        .layers = 10,
        .heads_q = 1,
        .heads_kv = 1,
        .dim_qk = 1,
        .weight_bytes = 1000,
    };
}

/* Every number worked out: 5000 bytes are free, and a layer of 100 tokens takes 800. */
START_TEST(by_hand)
{
    const fa_cooperate_machine m = round_machine();
    const fa_cooperate_model model = round_model();
    const fa_cooperate_placement p = place(&m, &model, 100);
    const double little = 1e-12;
    ck_assert_int_eq(p.fits, 1);
    ck_assert_int_eq(p.layers_device, 4); /* 6 rooms, 2 of which are buffers */
    ck_assert_int_eq(p.layers_host, 6);
    ck_assert_uint_eq(p.device_used, 1000 + 6 * 800);
    ck_assert_uint_eq(p.host_used, 6 * 800);
    ck_assert_int_eq(p.context_device, 62);   /* 5000 / 80 */
    ck_assert_int_eq(p.context_longest, 312); /* 5000 / 16 */
    /* A layer: 0.8 s on the device, 8 s on the host, 16 s over the link; messages of 2 + 8 and 8 bytes: 0.36 s. */
    ck_assert_double_eq_tol(p.decode[FA_COOPERATE_COPY], 6 * 16 + 0.8, little);
    ck_assert_double_eq_tol(p.decode[FA_COOPERATE_HOST], 1 + 4 * 0.8 + 6 * 8.36, little);
    ck_assert_double_eq_tol(p.split_host, 0.6, little); /* for even times, less than memory demands */
    ck_assert_double_eq_tol(p.decode[FA_COOPERATE_SPLIT], 1 + 10 * (0.6 * 8 + 0.36), little);
    ck_assert_int_eq(p.decode_way, FA_COOPERATE_SPLIT);
    /* Prefill: a layer computes 100 * 101 / 2 pairs of 4 FLOPs and 100 * 100 FLOPs of weights; copies take longer. */
    const double compute = (5050 * 4 + 10000) * 1e-6;
    ck_assert_double_eq_tol(p.prefill[FA_COOPERATE_COPY], compute + 5 * 16 + 16, little);
    ck_assert_double_eq(p.prefill[FA_COOPERATE_HOST], p.prefill[FA_COOPERATE_COPY]);
    ck_assert_double_eq_tol(p.prefill[FA_COOPERATE_SPLIT], compute + 9 * 9.6 + 9.6, little);
}
END_TEST

/* A host as fast as a device takes half of the keys where memory does not ask for more, and none where messages cost more than
 * that gains. */
START_TEST(even_shares)
{
    fa_cooperate_machine m = round_machine();
    const fa_cooperate_model model = round_model();
    m.device_bytes = 1 << 20;
    m.host_bandwidth = m.device_bandwidth;
    m.host_flops = m.device_flops;
    m.link_bandwidth = 1e12;
    fa_cooperate_placement p = place(&m, &model, 100);
    ck_assert_int_eq(p.layers_host, 0);
    ck_assert_uint_eq(p.host_used, 0); /* as whole layers have it, not the split */
    ck_assert_double_eq_tol(p.split_host, 0.5, 1e-9);
    ck_assert_double_eq_tol(p.decode[FA_COOPERATE_SPLIT], 1 + 10 * 0.4, 1e-9);
    ck_assert_double_eq_tol(p.decode[FA_COOPERATE_HOST], 1 + 10 * 0.8, 1e-9);
    m.link_seconds = 0.05; /* two messages take 0.1 s */
    ck_assert_double_eq_tol(place(&m, &model, 100).split_host, (0.8 - 0.1) / 1.6, 1e-9);
    m.link_seconds = 0;
    m.host_bytes = 10 * 800 / 4; /* a quarter */
    p = place(&m, &model, 100);
    ck_assert_double_eq_tol(p.split_host, 0.25, 1e-9);
    m.link_seconds = 1;
    p = place(&m, &model, 100);
    ck_assert_double_eq(p.split_host, 0);
    ck_assert_double_eq(p.decode[FA_COOPERATE_SPLIT], p.decode[FA_COOPERATE_HOST]);
    ck_assert_double_eq_tol(p.prefill[FA_COOPERATE_SPLIT], p.prefill[FA_COOPERATE_HOST], 1e-12);
}
END_TEST

/* Of any machine: layers are all somewhere, memories hold what they are said to, and the longest context is the longest. */
START_TEST(invariants)
{
    random_state random = {11};
    int some_host = 0, none = 0;
    for (int i = 0; i < 2000; i++) {
        fa_cooperate_machine m = v100(1);
        fa_cooperate_model model = pangu();
        m.devices = (int64_t)1 << random_between(&random, 0, 3);
        m.device_bytes = (uint64_t)random_between(&random, 0, (int64_t)64 << 30);
        m.host_bytes = (uint64_t)random_between(&random, 0, (int64_t)1 << 40);
        model.layers = random_between(&random, 1, 80);
        model.sequences = random_between(&random, 0, 4);
        model.weight_bytes = (uint64_t)random_between(&random, 0, (int64_t)40 << 30);
        model.activation_token_bytes = (uint64_t)random_between(&random, 0, 20000);
        const int64_t tokens = (int64_t)1 << random_between(&random, 4, 22);
        const fa_cooperate_placement p = place(&m, &model, tokens);
        ck_assert_int_eq(p.fits, tokens <= p.context_longest);
        ck_assert_int_le(p.context_device, p.context_longest);
        if (p.context_longest > 0)
            ck_assert_int_eq(place(&m, &model, p.context_longest).fits, 1);
        if (p.context_longest < FA_MAX_LENGTH)
            ck_assert_int_eq(place(&m, &model, p.context_longest + 1).fits, 0);
        none += !p.fits;
        if (!p.fits)
            continue;
        some_host += p.layers_host > 0;
        ck_assert_int_eq(p.layers_device + p.layers_host, model.layers);
        ck_assert_int_ge(p.layers_device, 0);
        ck_assert_uint_le(p.device_used, m.device_bytes);
        ck_assert_uint_le(p.host_used, m.host_bytes);
        ck_assert_uint_eq(p.host_used, (uint64_t)p.layers_host * p.layer_bytes * (uint64_t)m.devices);
        ck_assert_int_eq(p.layers_host == 0, tokens <= p.context_device);
        ck_assert_double_ge(p.split_host, (double)p.layers_host / (double)model.layers);
        /* The split: its bytes of the host are there; those of a device, with buffers, are no more than device_used. */
        const double cache = (double)model.layers * (double)p.layer_bytes;
        ck_assert_double_le(p.split_host * cache * (double)m.devices, (double)m.host_bytes * (1 + 1e-12));
        if (model.layers > 1)
            ck_assert_double_le((1 - p.split_host) * cache + 2 * p.split_host * (double)p.layer_bytes,
                                (double)p.device_used * (1 + 1e-12));
        for (int way = 0; way < FA_COOPERATE_WAYS; way++) {
            ck_assert(p.decode[way] > 0 && p.decode[way] < (double)INFINITY);
            ck_assert(p.prefill[way] > 0 && p.prefill[way] < (double)INFINITY);
            ck_assert_double_ge(p.decode[way], p.decode[p.decode_way]);
        }
        ck_assert_double_le(p.stream_host, p.split_host);
        ck_assert(p.stream_host >= 0 && p.decode_stream > 0);
        ck_assert_double_le(p.decode_stream, p.decode[FA_COOPERATE_SPLIT]);
    }
    ck_assert_int_gt(some_host, 100);
    ck_assert_int_gt(none, 100);
}
END_TEST

/*
 * One layer, all on the host, of K bytes: 1 s by the processors, 2 s by the link. Two thirds and one third end together; the
 * device computes nearly for nothing. Memory that gives both together only what the processors had makes them half as fast.
 */
START_TEST(streams)
{
    fa_cooperate_model model = {.struct_size = sizeof(model),
                                .layers = 1,
                                .heads_q = 1,
                                .heads_kv = 1,
                                .dim_qk = 128,
                                .k_type = FA_F16,
                                .v_type = FA_F16};
    const double layer = 2.0 * 128 * 2 * 100000;
    fa_cooperate_machine m = {.struct_size = sizeof(m),
                              .device_bytes = (uint64_t)(2 * layer),
                              .host_bytes = (uint64_t)1 << 40,
                              .device_bandwidth = layer * 1e6,
                              .host_bandwidth = layer,
                              .link_bandwidth = layer / 2,
                              .device_flops = 1e18,
                              .host_flops = 1e18};
    model.layers = 3; /* none stays beside two buffers */
    fa_cooperate_placement p = place(&m, &model, 100000);
    ck_assert_double_eq(p.split_host, 1);
    ck_assert_double_eq_tol(p.stream_host, 1.0 / 3, 1e-3);
    ck_assert_double_eq_tol(p.decode[FA_COOPERATE_SPLIT], 3, 1e-2);
    ck_assert_double_eq_tol(p.decode_stream, 2, 1e-2);
    m.memory_bandwidth = layer; /* processors have a half of it */
    p = place(&m, &model, 100000);
    ck_assert_double_eq_tol(p.stream_host, 0.5, 1e-3);
    ck_assert_double_eq_tol(p.decode_stream, 3, 1e-2);
    m.memory_bandwidth = layer * 0.9; /* less than half: streaming does not pay */
    p = place(&m, &model, 100000);
    ck_assert_double_eq(p.stream_host, 0);
    ck_assert_double_eq(p.decode_stream, p.decode[FA_COOPERATE_SPLIT]);
    m.device_bytes = (uint64_t)1 << 40; /* nothing is on the host */
    p = place(&m, &model, 100000);
    ck_assert_double_eq(p.stream_host, 0);
}
END_TEST

/* Numbers beyond 64 bits fit nowhere, and are no error. */
START_TEST(sizes_beyond_memory)
{
    fa_cooperate_machine m = v100(16);
    fa_cooperate_model model = pangu();
    m.host_bytes = m.device_bytes = UINT64_MAX - 1;
    model.kv_bytes = UINT64_MAX / 3;
    fa_cooperate_placement p = place(&m, &model, 1 << 20);
    ck_assert_int_eq(p.fits, 0);
    ck_assert_int_eq(p.layers_device + p.layers_host, 0);
    ck_assert_double_eq(p.decode[0] + p.prefill[0], 0);
    model.layers = 1;
    ck_assert_int_eq(place(&m, &model, 1 << 20).fits, 0);
    model = pangu();
    model.activation_token_bytes = UINT64_MAX;
    p = place(&m, &model, 1 << 20);
    ck_assert_int_eq(p.fits, 0);
    ck_assert_int_eq(p.context_longest, 0);
}
END_TEST

/* UINT64_MAX, which callers write for no limit, holds what has a size, and no number that stopped there. */
START_TEST(memory_without_limit)
{
    fa_cooperate_machine m = v100(16);
    fa_cooperate_model model = pangu();
    m.host_bytes = UINT64_MAX;
    ck_assert_uint_eq(place(&m, &model, 262144).host_used, 36 * 8 * place(&m, &model, 262144).layer_bytes);
    m.device_bytes = UINT64_MAX;
    ck_assert_int_eq(place(&m, &model, FA_MAX_LENGTH).layers_device, 40);
    model.kv_bytes = UINT64_MAX / 2; /* of a token, a sixteenth of that memory on each device */
    ck_assert_int_eq(place(&m, &model, 1).fits, 0);
    model.layers = 13;
    ck_assert_int_eq(place(&m, &model, 1).layers_device, 13);
    model.layers = 1;
    model.weight_bytes = model.activation_bytes = model.activation_token_bytes = 0;
    ck_assert_int_eq(place(&m, &model, 1 << 20).fits, 0); /* a layer of UINT64_MAX bytes */
    model.kv_bytes = 0;
    ck_assert_int_eq(place(&m, &model, 1).fits, 1);
    model.activation_bytes = UINT64_MAX;
    ck_assert_int_eq(place(&m, &model, 1).fits, 0);
}
END_TEST

START_TEST(refusals)
{
    static const struct {
        const char *message;
        size_t at; /* of a double, an int64_t or an fa_dtype in the machine or the model */
        char where, kind;
        double value;
    } row[] = {
#define MACHINE(field, kind, value, message) \
    {message, offsetof(fa_cooperate_machine, field), 'm', kind, value}
#define MODEL(field, kind, value, message)                             \
    {                                                                  \
        message, offsetof(fa_cooperate_model, field), 'o', kind, value \
    }
        MACHINE(devices, 'i', -1, "machine.devices is -1, expected 1 to"),
        MACHINE(devices, 'i', 7, "model.heads_kv is 40, expected a multiple of machine.devices, 7"),
        MACHINE(device_bandwidth, 'd', 0, "machine.device_bandwidth is 0, expected a finite number above 0"),
        MACHINE(host_bandwidth, 'd', -1, "machine.host_bandwidth is -1"),
        MACHINE(link_bandwidth, 'd', INFINITY, "machine.link_bandwidth is inf"),
        MACHINE(device_flops, 'd', NAN, "machine.device_flops is "),
        MACHINE(host_flops, 'd', 0, "machine.host_flops is 0"),
        MACHINE(memory_bandwidth, 'd', -0.5,
                "machine.memory_bandwidth is -0.5, expected a finite number from 0 on"),
        MACHINE(link_seconds, 'd', -0.5, "machine.link_seconds is -0.5, expected a finite number from 0 on"),
        MODEL(layers, 'i', 0, "model.layers is 0, expected 1 to"),
        MODEL(heads_q, 'i', 41, "model.heads_q is 41, expected a multiple of model.heads_kv, 40"),
        MODEL(heads_kv, 'i', 0, "model.heads_kv is 0"),
        MODEL(dim_qk, 'i', 577, "model.dim_qk is 577, expected 1 to 576"),
        MODEL(dim_v, 'i', -2, "model.dim_v is -2"),
        MODEL(sequences, 'i', -1, "model.sequences is -1"),
        MODEL(weight_flops, 'd', -1, "model.weight_flops is -1"),
        MODEL(k_type, 't', FA_I32, "model.k_type is i32"),
        MODEL(v_type, 't', FA_BITMAP_F16, "model.v_type is bitmap_f16 and model.kv_bytes 0"),
        MODEL(v_type, 't', 99, "model.v_type is 99, which is no fa_dtype"),
#undef MACHINE
#undef MODEL
    };
    fa_cooperate_placement p = {.struct_size = sizeof(p), .context = 5};
    for (int i = 0; i < COUNT(row); i++) {
        fa_cooperate_machine m = v100(16);
        fa_cooperate_model model = pangu();
        char *field = (row[i].where == 'm' ? (char *)&m : (char *)&model) + row[i].at;
        const int64_t whole = row[i].kind == 'd' ? 0 : (int64_t)row[i].value;
        const fa_dtype type = (fa_dtype)whole;
        if (row[i].kind == 'd')
            memcpy(field, &row[i].value, sizeof(double));
        else if (row[i].kind == 'i')
            memcpy(field, &whole, sizeof(whole));
        else
            memcpy(field, &type, sizeof(type));
        ck_assert_int_eq(fa_cooperate_place(&m, &model, 1000, &p), FA_INVALID);
        assert_message(row[i].message);
    }
    const fa_cooperate_machine m = v100(16);
    fa_cooperate_model model = pangu();
    ck_assert_int_eq(fa_cooperate_place(&m, &model, 0, &p), FA_INVALID);
    assert_message("context is 0, expected 1 to 268435456");
    ck_assert_int_eq(fa_cooperate_place(NULL, &model, 1, &p), FA_INVALID);
    ck_assert_int_eq(fa_cooperate_place(&m, NULL, 1, &p), FA_INVALID);
    ck_assert_int_eq(fa_cooperate_place(&m, &model, 1, NULL), FA_INVALID);
    model.k_type = FA_Q8_0;
    model.dim_qk = 100;
    ck_assert_int_eq(fa_cooperate_place(&m, &model, 1, &p), FA_INVALID);
    assert_message("model.dim_qk is 100, expected a multiple of 32, as model.k_type is q8_0");
    ck_assert_int_eq(p.context, 5); /* nothing was written */
    ck_assert_str_eq(fa_cooperate_way_name(FA_COOPERATE_SPLIT), "split");
    ck_assert_str_eq(fa_cooperate_way_name(FA_COOPERATE_WAYS), "unknown");
}
END_TEST

Suite *cooperate_suite(void)
{
    Suite *suite = suite_create("cooperate");
    TCase *tc = tcase_create("place");
    tcase_add_test(tc, paper);
    tcase_add_test(tc, by_hand);
    tcase_add_test(tc, even_shares);
    tcase_add_test(tc, invariants);
    tcase_add_test(tc, streams);
    tcase_add_test(tc, sizes_beyond_memory);
    tcase_add_test(tc, memory_without_limit);
    tcase_add_test(tc, refusals);
    suite_add_tcase(suite, tc);
    return suite;
}
