/* SPDX-License-Identifier: Apache-2.0 */
#include "life.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HEADS = 2, ROWS = 40, KEYS = 80, DIM = 16, OPERANDS = 5 };

/* The objects of one life. */
typedef struct world {
    const life *plan_of;
    outcome *result;
    fa_context *context;
    fa_device *device;
    fa_plan *plan;
    fa_queue *queue;
    fa_buffer *buffer[OPERANDS], *workspace; /* q, k, v, o, lse */
} world;

static const size_t bytes_of[OPERANDS] = {HEADS * ROWS * DIM * sizeof(float),
                                          HEADS *KEYS *DIM * sizeof(float), HEADS *KEYS *DIM * sizeof(float),
                                          HEADS *ROWS *DIM * sizeof(float), HEADS *ROWS * sizeof(float)};
static float host[OPERANDS][HEADS * KEYS * DIM];

/* Notes a failure. True: go on. */
static bool went(world *w, const char *step, fa_status status)
{
    outcome *r = w->result;
    if (status == FA_OK) {
        ck_assert_msg(fa_last_error()[0] == '\0', "%s leaves \"%s\"", step, fa_last_error());
        return true;
    }
    if (r->failures++ == 0) {
        r->status = status;
        (void)snprintf(r->step, sizeof(r->step), "%s", step);
        (void)snprintf(r->message, sizeof(r->message), "%s", fa_last_error());
    }
    return w->plan_of->stubborn;
}

static bool make(world *w)
{
    /* Two parts of the keys, so that a workspace and a merge take part. */
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .splits = 2};
    fa_attention_desc d = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    d.want_lse = 1;
    d.tuning = &tuning;
    if (!went(w, "fa_device_open", fa_device_open(w->context, "opencl", NULL, &w->device)) || !w->device)
        return false;
    if (!went(w, "fa_plan_create", fa_plan_create(w->device, &d, &w->plan)) ||
        !went(w, "fa_queue_create", fa_queue_create(w->device, &w->queue)))
        return false;
    for (int i = 0; i < OPERANDS; i++) {
        if (!went(w, "fa_buffer_create", fa_buffer_create(w->device, bytes_of[i], &w->buffer[i])))
            return false;
    }
    size_t workspace = fa_plan_workspace(w->plan);
    return workspace == 0 ||
           went(w, "fa_buffer_create", fa_buffer_create(w->device, workspace, &w->workspace));
}

static bool use(world *w)
{
    for (int i = 0; i < 3; i++) {
        if (w->queue && w->buffer[i] &&
            !went(w, "fa_buffer_write", fa_buffer_write(w->queue, w->buffer[i], 0, host[i], bytes_of[i])))
            return false;
    }
    fa_attention_args args = {.struct_size = sizeof(args),
                              .q = w->buffer[0],
                              .k = w->buffer[1],
                              .v = w->buffer[2],
                              .o = w->buffer[3],
                              .lse = w->buffer[4],
                              .workspace = w->workspace};
    if (!went(w, "fa_plan_run", fa_plan_run(w->plan, w->queue, &args)))
        return false;
    for (int i = 0; i < 2 && w->queue; i++) {
        w->result->waits[i] = fa_queue_wait(w->queue);
        if (!went(w, "fa_queue_wait", w->result->waits[i]) && i == 1)
            return false;
    }
    if (w->result->failures > 0 && !w->plan_of->stubborn)
        return false;
    double seconds;
    if (w->queue && !went(w, "fa_queue_seconds", fa_queue_seconds(w->queue, &seconds)))
        return false;
    for (int i = 3; i < OPERANDS; i++) {
        if (w->queue && w->buffer[i] &&
            !went(w, "fa_buffer_read", fa_buffer_read(w->queue, w->buffer[i], 0, host[i], bytes_of[i])))
            return false;
    }
    fa_attention_desc d = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    return went(w, "fa_attention_host",
                fa_attention_host(w->device, &d, host[0], host[1], host[2], NULL, NULL, host[3], NULL));
}

static void destroy(world *w)
{
    for (int i = 0; i < OPERANDS; i++) {
        fa_buffer_destroy(w->buffer[i]);
        w->buffer[i] = NULL;
    }
    fa_buffer_destroy(w->workspace);
    fa_queue_destroy(w->queue);
    fa_plan_destroy(w->plan);
    fa_device_close(w->device);
    w->workspace = NULL;
    w->queue = NULL;
    w->plan = NULL;
    w->device = NULL;
}

static void live_here(const life *l, outcome *r)
{
    static counting books;
    books.fail_at = l->fail_at;
    world w = {.plan_of = l, .result = r};
    const fa_context_options options = {.struct_size = sizeof(options),
                                        .allocator = counting_allocator(&books)};
    if (l->function && l->lose)
        stub_lose(l->function, l->after, l->error);
    else if (l->function)
        stub_fail(l->function, l->after, l->error);
    if (!went(&w, "fa_context_create", fa_context_create(&options, &w.context)) || !w.context)
        return;
    for (size_t i = 0; i < fa_device_count(w.context); i++) {
        fa_device_info info = {.struct_size = sizeof(info)};
        (void)went(&w, "fa_device_describe", fa_device_describe(w.context, i, &info));
    }
    for (int i = 0; i < (l->rounds ? l->rounds : 1); i++) {
        if (make(&w))
            (void)use(&w);
        destroy(&w);
    }
    fa_context_destroy(w.context);
    r->host_live = atomic_load(&books.live);
    r->host_calls = atomic_load(&books.calls);
}

typedef struct assignment {
    const life *l;
    outcome r;
} assignment;

static void live_and_tell(void *user)
{
    assignment *a = user;
    live_here(a->l, &a->r);
    outcome *r = &a->r;
    r->live = stub_live();
    r->compiled = stub_compiled();
    (void)snprintf(r->misuse, sizeof(r->misuse), "%s", stub_misuse());
    const char *name;
    while (r->functions < LIFE_FUNCTIONS && (name = stub_function(r->functions)) != NULL) {
        (void)snprintf(r->function[r->functions].name, sizeof(r->function[0].name), "%s", name);
        r->function[r->functions++].calls = stub_calls(name);
    }
}

void run_child(child_fn function, void *user, void *result, size_t size)
{
    int ends[2], state = 0;
    ck_assert_int_eq(pipe(ends), 0);
    (void)fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        function(user);
        const char *bytes = result;
        for (size_t done = 0; done < size;) {
            ssize_t wrote = write(ends[1], bytes + done, size - done);
            if (wrote <= 0)
                _exit(2);
            done += (size_t)wrote;
        }
        exit(0); /* not _exit(): a leak sanitizer speaks here */
    }
    (void)close(ends[1]);
    size_t got = 0;
    for (ssize_t part = 1; part > 0 && got<size; got += part> 0 ? (size_t)part : 0)
        part = read(ends[0], (char *)result + got, size - got);
    (void)close(ends[0]);
    ck_assert_int_eq(waitpid(child, &state, 0), child);
    ck_assert_msg(!WIFSIGNALED(state), "the child died of signal %d", WTERMSIG(state));
    ck_assert_msg(WIFEXITED(state) && WEXITSTATUS(state) == 0, "the child left with %d", WEXITSTATUS(state));
    ck_assert_uint_eq(got, size);
}

void live(const life *l, outcome *result)
{
    static assignment a;
    a = (assignment){.l = l};
    run_child(live_and_tell, &a, &a.r, sizeof(a.r));
    *result = a.r;
}

int calls_of(const outcome *result, const char *function)
{
    for (int i = 0; i < result->functions; i++) {
        if (strcmp(result->function[i].name, function) == 0)
            return result->function[i].calls;
    }
    return 0;
}

void assert_clean(const outcome *r, const char *what)
{
    ck_assert_msg(r->misuse[0] == '\0', "%s: misuse of the driver: %s", what, r->misuse);
    ck_assert_msg(r->live == 0, "%s: %d objects of the driver's are left", what, r->live);
    ck_assert_msg(r->host_live == 0, "%s: %ld pieces of host memory are left", what, r->host_live);
}

void make_cache_folder(char path[64])
{
    (void)snprintf(path, 64, "/tmp/fastattn-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(path));
    ck_assert_int_eq(setenv("FASTATTN_CACHE", path, 1), 0);
}

void remove_cache_folder(const char *path)
{
    (void)chmod(path, 0700);
    DIR *folder = opendir(path);
    ck_assert_ptr_nonnull(folder);
    for (const struct dirent *e; (e = readdir(folder)) != NULL;) {
        char file[400];
        (void)snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
        if (e->d_name[0] != '.')
            ck_assert_int_eq(unlink(file), 0);
    }
    (void)closedir(folder);
    ck_assert_int_eq(rmdir(path), 0);
}
