/* SPDX-License-Identifier: Apache-2.0 */
/* Plans, kept in a small cache by their descriptions: the one that was used the longest time ago goes first. */
#include <stdlib.h>
#include <string.h>

#include "binding.h"

enum { DEFAULT_PLANS = 256 };
static fa_py_plan *newest, *oldest;
static Py_ssize_t kept, most = DEFAULT_PLANS;
static unsigned long long hits, misses;

/* ---- keys ---- */

/* A description as bytes: the struct without its pointers, then what these point to. */
typedef struct key_bytes {
    unsigned char *bytes, local[2048];
    size_t size, room;
} key_bytes;

static bool key_put(key_bytes *key, const void *from, size_t size)
{
    if (size > key->room - key->size) {
        const size_t room = key->size + size + key->room;
        unsigned char *bytes = malloc(room);
        if (!bytes)
            return false;
        memcpy(bytes, key->bytes, key->size);
        if (key->bytes != key->local)
            free(key->bytes);
        key->bytes = bytes;
        key->room = room;
    }
    memcpy(key->bytes + key->size, from, size);
    key->size += size;
    return true;
}

/* A list: its length, and its numbers. */
static bool key_list(key_bytes *key, const void *list, int64_t count, size_t size)
{
    const int64_t length = list ? count : -1;
    return key_put(key, &length, sizeof length) && (!list || key_put(key, list, (size_t)count * size));
}

/* Lists of key blocks, if there are any; their sizes were checked when they were copied. */
static bool key_blocks(key_bytes *key, const fa_py_problem *problem)
{
    if (!problem->desc.lists)
        return key_list(key, NULL, 0, 1);
    fa_block_lists sizes = problem->block_lists;
    const int64_t count = sizes.sequences * sizes.heads * sizes.row_blocks;
    const void *const indptr = sizes.indptr, *const indices = sizes.indices, *const mask = sizes.mask;
    sizes.indptr = sizes.indices = NULL;
    sizes.mask = NULL;
    return key_list(key, &sizes, 1, sizeof sizes) && key_list(key, indptr, count + 1, sizeof(int32_t)) &&
           key_list(key, indices, problem->index_count, sizeof(int32_t)) &&
           key_list(key, mask, mask ? count * sizes.key_blocks : 0, 1);
}

static bool key_make(key_bytes *key, const fa_py_device *device, const fa_py_problem *problem)
{
    const fa_attention_desc *desc = &problem->desc;
    key->bytes = key->local;
    key->room = sizeof key->local;
    key->size = 0;
    if (!key_put(key, &device, sizeof(void *)) || !key_put(key, desc, sizeof *desc))
        return false;
    fa_attention_desc *copy = (fa_attention_desc *)(void *)(key->bytes + sizeof(void *));
    copy->cu_rows_q = copy->cu_rows_kv = copy->lens_q = copy->lens_kv = copy->first_kv = NULL;
    copy->bias_factors = copy->alibi_slopes = copy->sinks = NULL;
    copy->lists = NULL;
    copy->neighbourhood = NULL;
    copy->tuning = NULL;
    const int64_t n = problem->entries, heads = desc->q.shape[1];
    const bool lists = desc->cu_rows_q || desc->cu_rows_kv || desc->lens_q || desc->lens_kv ||
                       desc->first_kv || desc->bias_factors || desc->alibi_slopes || desc->sinks ||
                       desc->lists || desc->neighbourhood || desc->tuning;
    return !lists ||
           (key_list(key, desc->cu_rows_q, n + 1, sizeof(int64_t)) &&
            key_list(key, desc->cu_rows_kv, n + 1, sizeof(int64_t)) &&
            key_list(key, desc->lens_q, n, sizeof(int64_t)) &&
            key_list(key, desc->lens_kv, n, sizeof(int64_t)) &&
            key_list(key, desc->first_kv, n, sizeof(int64_t)) &&
            key_list(key, desc->bias_factors, heads, sizeof(float)) &&
            key_list(key, desc->alibi_slopes, desc->alibi_stride ? n * heads : heads, sizeof(float)) &&
            key_list(key, desc->sinks, heads, sizeof(float)) && key_blocks(key, problem) &&
            key_list(key, desc->neighbourhood, 1, sizeof(fa_neighbourhood)) &&
            key_list(key, desc->tuning ? problem->kernel : NULL, (int64_t)sizeof problem->kernel, 1) &&
            key_list(key, desc->tuning ? &desc->tuning->block_q : NULL, 3, sizeof(int32_t)));
}

static uint64_t key_hash(const key_bytes *key)
{
    uint64_t hash = key->size;
    size_t at = 0;
    for (; at + 8 <= key->size; at += 8) {
        uint64_t word;
        memcpy(&word, key->bytes + at, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    for (; at < key->size; at++)
        hash = (hash ^ key->bytes[at]) * 0x9e3779b97f4a7c15u;
    return hash;
}

/* ---- the list ---- */

static void unlink_plan(fa_py_plan *plan)
{
    *(plan->newer ? &plan->newer->older : &newest) = plan->older;
    *(plan->older ? &plan->older->newer : &oldest) = plan->newer;
    kept--;
}

static void link_plan(fa_py_plan *plan)
{
    plan->newer = NULL;
    plan->older = newest;
    *(newest ? &newest->newer : &oldest) = plan;
    newest = plan;
    kept++;
}

static fa_py_plan *find(const key_bytes *key, uint64_t hash)
{
    for (fa_py_plan *plan = newest; plan; plan = plan->older) {
        if (plan->hash != hash || plan->key_size != key->size ||
            memcmp(plan->key, key->bytes, key->size) != 0)
            continue;
        if (plan != newest) {
            unlink_plan(plan);
            link_plan(plan);
        }
        plan->references++;
        return plan;
    }
    return NULL;
}

static void evict(void)
{
    while (kept > most) {
        fa_py_plan *plan = oldest;
        unlink_plan(plan);
        fa_py_plan_drop(plan);
    }
}

/* Runs on a stream of CUDA may still be under way. */
static void finish_runs(const fa_py_plan *plan)
{
    for (fa_py_lane *lane = plan->device->idle; plan->device->is_cuda && lane; lane = lane->next)
        (void)fa_queue_wait(lane->queue);
}

void fa_py_plan_drop(fa_py_plan *plan)
{
    if (!plan || --plan->references > 0)
        return;
    finish_runs(plan);
    fa_plan_destroy(plan->plan);
    free(plan->key);
    free(plan);
}

static fa_py_plan *make(fa_py_device *device, const fa_py_problem *problem)
{
    fa_py_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        PyErr_NoMemory();
        return NULL;
    }
    fa_status status;
    Py_BEGIN_ALLOW_THREADS status = fa_plan_create(device->device, &problem->desc, &plan->plan);
    Py_END_ALLOW_THREADS if (status != FA_OK)
    {
        fa_py_raise(status);
        free(plan);
        return NULL;
    }
    plan->references = 1;
    plan->device = device;
    plan->workspace = fa_plan_workspace(plan->plan);
    return plan;
}

fa_py_plan *fa_py_plan_find(fa_py_device *device, const fa_py_problem *problem)
{
    key_bytes key;
    if (!key_make(&key, device, problem)) {
        PyErr_NoMemory();
        return NULL;
    }
    const uint64_t hash = key_hash(&key);
    fa_py_plan *plan = find(&key, hash);
    if (plan) {
        hits++;
    } else {
        misses++;
        plan = make(device, problem);
        void *copy = plan ? malloc(key.size) : NULL;
        if (copy) {
            memcpy(copy, key.bytes, key.size);
            plan->key = copy;
            plan->key_size = key.size;
            plan->hash = hash;
            plan->references++;
            link_plan(plan);
            evict();
        }
    }
    if (key.bytes != key.local)
        free(key.bytes);
    return plan;
}

PyObject *fa_py_plan_cache_info(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return Py_BuildValue("{s:K,s:K,s:n,s:n}", "hits", hits, "misses", misses, "maxsize", most, "currsize",
                         kept);
}

PyObject *fa_py_plan_cache_resize(PyObject *module, PyObject *size)
{
    (void)module;
    const Py_ssize_t wanted = PyLong_AsSsize_t(size);
    if (wanted < 0) {
        if (!PyErr_Occurred())
            fa_py_fail(FA_INVALID, "maxsize is %zd, expected at least 0", wanted);
        return NULL;
    }
    most = wanted;
    evict();
    Py_RETURN_NONE;
}
