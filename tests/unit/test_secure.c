/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that root owns and that runs as root whoever starts it: what the starter's environment names is neither
 * loaded nor written. test_secure PLANTED copies itself, and starts the copy as another user with the setuid bit and
 * without. Exit status 77 where that takes more rights than there are.
 */
#if defined(__linux__)
#define _GNU_SOURCE /* O_CLOEXEC */
#endif
#include <fastattn/fastattn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/gpu/cache.h"
#include "core/environment.h"

enum { NOBODY = 65534, PATH = 512 };

static const char *const libraries[] = {"FASTATTN_CUDA_LIBRARY",   "FASTATTN_NVRTC_LIBRARY",
                                        "FASTATTN_OPENCL_LIBRARY", "FASTATTN_VULKAN_LIBRARY",
                                        "OCL_ICD_VENDORS",         "OPENCL_LAYERS"};
static const char *const folders[] = {"FASTATTN_CACHE", "XDG_CACHE_HOME", "HOME"};
static char base[PATH] = "/tmp/fastattn-secure-XXXXXX";

static void need(bool fine, const char *what)
{
    if (fine)
        return;
    (void)fprintf(stderr, "failed: %s\n", what);
    _exit(EXIT_FAILURE);
}

/* What the copy does: it looks for every device, and caches something. Tells whether it saw the environment. */
static int use_library(void)
{
    fa_context *context;
    need(fa_context_create(NULL, &context) == FA_OK, "a context");
    for (size_t i = 0; i < fa_device_count(context); i++) {
        fa_device_info info = {.struct_size = sizeof(info)};
        need(fa_device_describe(context, i, &info) == FA_OK, "a device's description");
    }
    fa_cache_store(context, "key", "blob", 4);
    bool obeyed = fa_environment("FASTATTN_BACKEND") != NULL;
    fa_device *device = NULL;
    fa_status status = fa_device_open(context, NULL, NULL, &device);
    need(obeyed == (status == FA_NO_DEVICE), "FASTATTN_BACKEND is obeyed or not");
    fa_device_close(device);
    fa_context_destroy(context);
    return EXIT_SUCCESS;
}

static void in_base(char path[PATH], const char *name)
{
    (void)snprintf(path, PATH, "%.400s/%s", base, name);
}

static void copy_file(const char *from, const char *to, mode_t mode)
{
    char bytes[4096];
    int source = open(from, O_RDONLY | O_CLOEXEC),
        target = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    need(source >= 0 && target >= 0, "a copy's files");
    for (ssize_t got; (got = read(source, bytes, sizeof(bytes))) > 0;)
        need(write(target, bytes, (size_t)got) == got, "writing a copy");
    need(fchmod(target, mode) == 0 && close(target) == 0 && close(source) == 0, "a copy's mode");
}

static bool has(const char *name)
{
    char path[PATH];
    struct stat info;
    in_base(path, name);
    return lstat(path, &info) == 0;
}

/* Starts the copy as another user, with an environment that names what should not be touched. */
static void start_copy(const char *folder)
{
    char program[PATH], planted[PATH], path[PATH], name[64];
    in_base(program, "copy");
    in_base(planted, "planted.so");
    pid_t child = fork();
    need(child >= 0, "fork");
    if (child == 0) {
        for (size_t i = 0; i < sizeof(libraries) / sizeof(libraries[0]); i++)
            need(setenv(libraries[i], planted, 1) == 0, "setenv");
        (void)snprintf(name, sizeof(name), "open/%s", folder);
        in_base(path, name);
        for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
            need(unsetenv(folders[i]) == 0, "unsetenv");
        need(setenv(folder, path, 1) == 0, "setenv");
        in_base(path, "open/mark");
        need(setenv("PLANTED_MARK", path, 1) == 0 && setenv("FASTATTN_BACKEND", "nonsense", 1) == 0,
             "setenv");
        need(setgid(NOBODY) == 0 && setuid(NOBODY) == 0, "another user");
        (void)execl(program, program, (char *)NULL);
        _exit(EXIT_FAILURE);
    }
    int status;
    need(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the copy");
}

static bool may_run_setuid(void)
{
    char program[PATH];
    in_base(program, "copy");
    pid_t child = fork();
    need(child >= 0, "fork");
    if (child == 0) {
        if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
            _exit(77);
        (void)execl(program, program, "who", (char *)NULL);
        _exit(77);
    }
    int status;
    need(waitpid(child, &status, 0) == child, "waitpid");
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void clean(void)
{
    char command[PATH + 16];
    (void)snprintf(command, sizeof(command), "rm -rf %s", base);
    (void)!system(command);
}

static int run_test(const char *planted)
{
    char path[PATH], name[64];
    if (geteuid() != 0 || !mkdtemp(base))
        return 77;
    need(chmod(base, 0755) == 0, "chmod");
    in_base(path, "open");
    need(mkdir(path, 0777) == 0 && chmod(path, 0777) == 0, "a folder for all");
    in_base(path, "planted.so");
    copy_file(planted, path, 0755);
    in_base(path, "copy");
    copy_file("/proc/self/exe", path, 04755);
    if (!may_run_setuid()) { /* the file system, or the container, knows no setuid */
        clean();
        return 77;
    }
    for (int secure = 1; secure >= 0; secure--) {
        if (!secure)
            need(chmod(path, 0755) == 0, "chmod");
        for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
            start_copy(folders[i]);
            (void)snprintf(name, sizeof(name), "open/%s", folders[i]);
            /* Without the bit everything is obeyed, so that this test would see it. */
            need(has(name) == !secure, "the folder of the environment");
        }
        need(has("open/mark") == !secure, "the library of the environment");
    }
    clean();
    return EXIT_SUCCESS;
}

int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "who") == 0)
        return getuid() == NOBODY && geteuid() == 0 ? EXIT_SUCCESS : 77;
    return count == 2 ? run_test(arguments[1]) : use_library();
}
