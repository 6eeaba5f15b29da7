/* SPDX-License-Identifier: Apache-2.0 */
/** Two devices share a cache that one is too small for: what fits where, how fast that is, and attention on both. */
#ifndef FASTATTN_COOPERATE_H
#define FASTATTN_COOPERATE_H

#include "attention.h"
#include "device.h"
#include "segments.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A host with one or more devices (GPUs), all alike. Heads and weights of a model are divided among the devices; the host is
 * shared by all. Bytes and FLOPs are per second, as a kernel reaches them rather than as a data sheet has them.
 */
typedef struct fa_cooperate_machine {
    size_t struct_size;      /* sizeof(fa_cooperate_machine)                                       */
    int64_t devices;         /* 0: 1. A model's heads_kv is a multiple: no head has replicas       */
    uint64_t device_bytes;   /* memory of one device that may be used                              */
    uint64_t host_bytes;     /* memory of the host that may be used, for all devices together      */
    double device_bandwidth; /* one device reads its memory                                        */
    double host_bandwidth;   /* the host's processors, all together, read the host's memory        */
    double link_bandwidth;   /* between one device and the host, each way, while all devices do so */
    double link_seconds;     /* what a message takes beside its bytes; 0 or more                   */
    double device_flops;     /* of one device                                                      */
    double host_flops;       /* of the host                                                        */
    double memory_bandwidth; /* the host's memory is read, by its processors and by copies         */
                             /* together; 0: neither slows the other down                          */
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
 * placed as a whole, and device_used and host_used are those of whole layers. FA_COOPERATE_SPLIT divides each layer instead:
 * it has split_host * layers * layer_bytes * devices bytes on the host, which may be more than host_used and is never more than
 * host_bytes. Of a device it takes (1 - split_host) * layers * layer_bytes for caches and 2 * split_host * layer_bytes for
 * buffers, which is no more than device_used has for them, but for a model of one layer.
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
    double stream_host;   /* the share of each layer's keys that the host streams to the devices */
    double decode_stream; /* FA_COOPERATE_SPLIT with that share: seconds of one further token     */
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

/* Attention to keys of which some lie on one device and some on another. */

/**
 * A prepared attention on two devices. The home device has q and the outputs; its cache, segment[1], holds each sequence's newest
 * keys. The away device, such as the host (openmp), holds the oldest, in segment[0]. Both run at the same time, each over
 * its own keys, but for two devices of the host: the calls of those return when the work is done, so one follows the other.
 * Where stream_bytes is given, there is a third part: some of the away cache's keys are copied to the home device in pieces,
 * each computed there while the next is copied, beside what both devices compute of their own. The away device's states go to
 * the home one, where all are merged by LSE. Nothing else goes between them but q. It holds memory of both devices and
 * remembers what runs took: one thread at a time may use it, on one queue.
 */
typedef struct fa_cooperate fa_cooperate;

/** What to prepare. Zero means default. */
typedef struct fa_cooperate_desc {
    size_t struct_size; /* sizeof(fa_cooperate_desc) */
    /* Two segments, each of as many keys as its cache has room for, without lengths (lens_kv, first_kv NULL), which each
     * run has of its own. dynamic_lengths is 0 or 1, and means the same. What segments refuse is refused here. */
    const fa_segments_desc *segments;
    /* Between the two devices: bytes per second, and what a message takes beside. 0: 10e9, and 20e-6; so 0 seconds is the
     * default here, and none in fa_cooperate_machine. */
    double link_bandwidth, link_seconds;
    /* Streaming. The away device works in host memory (openmp), and its cache has no page table and no scales, else
     * FA_UNSUPPORTED. Copies run beside the processors where that memory is of fa_host_memory_create(home) and home is CUDA;
     * elsewhere they are done before the processors begin, and nothing is streamed unless that is faster, but for one run in
     * 64, which measures anew. */
    uint64_t stream_bytes; /* of home memory, for two buffers of a piece each; a run has up to 6. 0: none */
    double stream_share;   /* of keys that lie away alone, up to 1. 0: the run chooses                   */
    double host_bandwidth; /* bytes per second that processors and copies together read; 0: no limit     */
} fa_cooperate_desc;

/**
 * Prepares it: a plan on each device, a queue of the away one, the merge on the home one, and memory for what goes between.
 * The devices may be one and the same, or of two contexts: then host memory between them is of the home device's. Everything is
 * copied out of desc. Destroy with fa_cooperate_destroy() before either device. *cooperate is NULL on failure.
 *
 * FA_INVALID, FA_UNSUPPORTED: as fa_segments_create(); the message names the segment. FA_INVALID also: segments is not 2, a
 * number is negative, stream_share is above 1, or stream_bytes has no room for two pieces of a key. FA_UNSUPPORTED also:
 * dynamic_lengths 2; the away cache cannot be streamed. FA_OUT_OF_MEMORY. FA_COMPILE. FA_DEVICE_LOST.
 */
FA_API fa_status fa_cooperate_create(fa_device *home, fa_device *away, const fa_cooperate_desc *desc,
                                     fa_cooperate **cooperate);

/** Destroys it, when the home queue has done what runs enqueued. NULL is allowed. */
FA_API void fa_cooperate_destroy(fa_cooperate *cooperate);

/**
 * Where the keys of one run lie. A sequence's keys are numbered from 0. Each list has a number for each sequence; it is read
 * during the call alone.
 * Keys that are in both caches are computed on either: the run chooses. Where there are none such, the split is the
 * caller's.
 */
typedef struct fa_cooperate_keys {
    size_t struct_size;       /* sizeof(fa_cooperate_keys)                                            */
    const int64_t *keys;      /* all keys of the sequence                                             */
    const int64_t *away_keys; /* keys [0, away_keys) lie in the away cache, key j in its row j          */
    const int64_t *home_from; /* keys [home_from, keys) lie in the home cache, key j in row           */
                              /* j - home_from; at most away_keys. NULL: away_keys                      */
} fa_cooperate_keys;

/**
 * Runs it. `args` is as fa_segments_run() takes it, but workspace and work are NULL; segment[0] has buffers of the away device, all
 * else of the home one. The split is even in time: of keys in both caches, so many are taken to be away that both
 * devices are expected to end together, by the model at first and by what runs took afterwards. Of two devices of the host the
 * faster takes all that it may. Of keys that lie away alone, so many are streamed that copying ends with the away device.
 * fa_cooperate_get_info() tells the split.
 *
 * Returns when both devices have computed their states and the merge is enqueued on `queue`, one of the home device, in whose order
 * the outputs are written. q is read in its order too, so the call waits for the work before it, the merge of the run before
 * included: two runs never overlap. No memory is allocated but in the first run, by fa_plan_schedule().
 *
 * FA_INVALID, before anything is enqueued: as fa_segments_run(); a list is NULL, or a number in it beyond its cache or the
 * other list, which the message names; keys such that a row does not see all keys that lie away alone. After any other failure
 * both devices have done what they were given when the call returns, o and lse are not written, but in part by a merge that
 * failed on the device, and no run ever writes a cache: FA_INVALID: a page table that the host reads; FA_OUT_OF_MEMORY;
 * FA_DEVICE_LOST, of either device; FA_UNSUPPORTED: a queue that records or is captured.
 */
FA_API fa_status fa_cooperate_run(fa_cooperate *cooperate, fa_queue *queue, const fa_cooperate_keys *keys,
                                  const fa_segments_args *args);

/** How the two devices share. Seconds are of the device's own clock where it has one, else of the host's. */
typedef struct fa_cooperate_info {
    size_t struct_size;           /* sizeof(fa_cooperate_info), set by the caller                       */
    int64_t runs;                 /* that succeeded                                                     */
    double share_away;            /* of a sequence's keys that the next run takes to be away where all   */
                                  /* keys are in both caches; callers place keys by it                  */
    int64_t keys_away, keys_home; /* computed by the last run on each, of all sequences; a run that was  */
                                  /* refused or failed changes nothing here                             */
    double modelled_away;         /* seconds for a key of each sequence, of all heads: the plan's model */
    double modelled_home;
    double measured_away; /* likewise, the mean of runs, the last ones most; 0: none was timed  */
    double measured_home;
    double seconds_away; /* that the last run took on each; 0: not timed                       */
    double seconds_home;
    double link_seconds; /* modelled, of what goes between                                     */
    uint64_t link_bytes; /* of a run: q there, states back                                     */
    char kernel_away[64];
    char kernel_home[64];
    int64_t keys_streamed;  /* computed by the last run on the home device, of those that lie away     */
    int64_t stream_most;    /* keys of each sequence that a run streams at most                         */
    double share_streamed;  /* of keys that lie away alone, which the next run streams where both caches */
                            /* are full                                                                 */
    double modelled_stream; /* seconds for a key of each sequence, of all heads: by the link            */
    double measured_stream; /* likewise, the mean of runs; 0: none was timed                            */
    double seconds_stream;  /* that the last run took, from the first copy to the last state            */
    char kernel_stream[64]; /* "": nothing is streamed                                                  */
} fa_cooperate_info;

/** Fills `info`. FA_INVALID: NULL, or struct_size is wrong. It reads what runs write: not while another thread runs it. */
FA_API fa_status fa_cooperate_get_info(const fa_cooperate *cooperate, fa_cooperate_info *info);

#ifdef __cplusplus
}
#endif
#endif
