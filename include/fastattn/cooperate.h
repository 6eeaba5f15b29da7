/* SPDX-License-Identifier: Apache-2.0 */
/** Two devices share a cache that one is too small for: what fits where, and how fast that is. */
#ifndef FASTATTN_COOPERATE_H
#define FASTATTN_COOPERATE_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A host with one or more devices (GPUs), all alike. Heads and weights of a model are divided among the devices; the host is
 * shared by all. Bytes and FLOPs are per second, as a kernel reaches them rather than as a data sheet has them.
 */
typedef struct fa_cooperate_machine {
    size_t struct_size;      /* sizeof(fa_cooperate_machine)                                       */
    int64_t devices;         /* 0: 1                                                               */
    uint64_t device_bytes;   /* memory of one device that may be used                              */
    uint64_t host_bytes;     /* memory of the host that may be used, for all devices together      */
    double device_bandwidth; /* one device reads its memory                                        */
    double host_bandwidth;   /* the host's processors, all together, read the host's memory        */
    double link_bandwidth;   /* between one device and the host, each way, while all devices do so */
    double link_seconds;     /* what a message takes beside its bytes; 0 or more                   */
    double device_flops;     /* of one device                                                      */
    double host_flops;       /* of the host                                                        */
} fa_cooperate_machine;

/** A model, and how many sequences it serves at a time. Zero means default where one is named. */
typedef struct fa_cooperate_model {
    size_t struct_size; /* sizeof(fa_cooperate_model)                                            */
    int64_t layers, heads_q, heads_kv;
    int64_t dim_qk, dim_v;     /* dim_v 0: dim_qk                                                       */
    int64_t sequences;         /* each of the whole context; 0: 1                                       */
    fa_dtype k_type, v_type;   /* of the cache                                                          */
    uint64_t kv_bytes;         /* of one token in one layer, all heads, k and v together. 0: what types */
                               /* and dims come to. Given where they do not tell: scales in tensors of  */
                               /* their own, FA_BITMAP_F16, v_in_k                                      */
    uint64_t weight_bytes;     /* of the whole model                                                    */
    double weight_flops;       /* of one token, without attention; 0: as many as weight_bytes, which    */
                               /* weights of 16 bits come to                                            */
    uint64_t activation_bytes; /* of one device, whatever the context: activations, workspaces, */
                               /* the driver                                                    */
    uint64_t activation_token_bytes; /* of one device, for each token of all sequences, besides       */
} fa_cooperate_model;

/** Where the attention of a token's step to keys in the host's memory is computed. */
typedef enum fa_cooperate_way {
    FA_COOPERATE_COPY = 0,  /* on the device, to which each step copies the host's layers          */
    FA_COOPERATE_HOST = 1,  /* on the host: of a layer whose cache is there, everything            */
    FA_COOPERATE_SPLIT = 2, /* on both at the same time: each layer's keys lie partly on the host  */
    FA_COOPERATE_WAYS = 3
} fa_cooperate_way;

/**
 * What fa_cooperate_place() found. Seconds are modelled, of the whole model, and 0 where the context does not fit. A layer is
 * placed as a whole, but for FA_COOPERATE_SPLIT, which puts the same bytes in the same memories and divides them otherwise.
 */
typedef struct fa_cooperate_placement {
    size_t struct_size;      /* sizeof(fa_cooperate_placement), set by the caller                     */
    int64_t context;         /* that was asked for                                                    */
    int32_t fits;            /* 1: it fits                                                            */
    int32_t decode_way;      /* fa_cooperate_way: the fastest for a token's step                      */
    int64_t layers_device;   /* L_GPU: layers whose cache stays on the devices; 0 if it does not fit  */
    int64_t layers_host;     /* L_CPU: layers whose cache lies in the host's memory                   */
    int64_t context_device;  /* the longest whose cache the devices hold alone; 0: none               */
    int64_t context_longest; /* the longest that fits with the host's memory                          */
    uint64_t layer_bytes;    /* of one device: K and V of one layer                                   */
    uint64_t device_used;    /* bytes of one device: weights, activations, caches and two buffers     */
    uint64_t host_used;      /* bytes of the host                                                     */
    double split_host;       /* FA_COOPERATE_SPLIT: the share of each layer's keys on the host        */
    double prefill[FA_COOPERATE_WAYS]; /* seconds until all tokens of the context are computed          */
    double decode[FA_COOPERATE_WAYS];  /* seconds of one further token of each sequence                 */
} fa_cooperate_placement;

/**
 * Which layers keep their cache on the devices and which on the host, how long a context may be, and how long it takes in
 * three ways. A pure function: no device is needed, and none is asked. With S tokens, B sequences and n devices,
 *     K         = B * S * kv_bytes / n                      one layer's cache on one device
 *     free      = device_bytes - weights / n - activations
 *     layers_device = layers if layers * K <= free, else floor(free / K) - 2.
 * Two layers' worth of device memory is kept for buffers: a host layer's K and V are computed in one during prefill
 * while the other is copied out, and copied in likewise where decoding copies. A context fits if no number is negative
 * and the host's memory holds layers_host * K * n. docs/cooperate.md has the model of the times.
 *
 * FA_INVALID: NULL; a field is wrong, which the message names with its value; context is below 1 or above FA_MAX_LENGTH. A
 * context that does not fit is no error. Thread-safe.
 */
FA_API fa_status fa_cooperate_place(const fa_cooperate_machine *machine, const fa_cooperate_model *model,
                                    int64_t context, fa_cooperate_placement *placement);

/** "copy", "host" or "split"; "unknown" for any other value. Never NULL. Thread-safe. */
FA_API const char *fa_cooperate_way_name(fa_cooperate_way way);

#ifdef __cplusplus
}
#endif
#endif
