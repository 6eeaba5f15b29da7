/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "memory.h"
#include "text.h"

enum { PATH_SIZE = 1024, MAX_FIELDS = 24 };

/* A version of control groups: its file system, and its files in a group's folder. */
typedef struct version {
    const char *file_system;
    const char *limits[2]; /* NULL: no second one */
    const char *usage;
    const char *reclaimable; /* a line of memory.stat */
} version;

static const version versions[] = {
    {"cgroup2", {"memory.max", "memory.high"}, "memory.current", "inactive_file "},
    {"cgroup", {"memory.limit_in_bytes", NULL}, "memory.usage_in_bytes", "total_inactive_file "},
};

static void lower(io_memory *m, uint64_t bytes, const char *limit, const char *where)
{
    char text[2 * PATH_SIZE + 128];

    if (bytes >= m->bytes)
        return;
    m->bytes = bytes;
    snprintf(text, sizeof(text), "%s%s", limit, where);
    io_plain(m->limit, sizeof(m->limit), text);
}

static FILE *open_in(const char *root, const char *path)
{
    char name[3 * PATH_SIZE + 64];
    const int length = snprintf(name, sizeof(name), "%s%s", root, path);
    return length > 0 && (size_t)length < sizeof(name) ? fopen(name, "r") : NULL;
}

/* The number behind `key`, which begins a line of a small text file. False: there is none, or no limit ("max"). */
static bool read_number(const char *root, const char *path, const char *key, uint64_t *number)
{
    char line[256];
    bool found = false;
    FILE *file = open_in(root, path);

    while (file && !found && fgets(line, sizeof(line), file)) {
        const char *text = line + strlen(key);
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        text += strspn(text, " \t");
        found = *text >= '0' && *text <= '9';
        if (!found)
            break;
        *number = strtoull(text, NULL, 10);
    }
    if (file)
        (void)fclose(file);
    return found;
}

static bool read_file_of(const char *root, const char *folder, const char *name, const char *key,
                         uint64_t *number)
{
    char path[2 * PATH_SIZE + 64];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return read_number(root, path, key, number);
}

/* What the limits of one group leave. `shown` names the group to the user. */
static void ask_group(const char *root, const version *v, const char *folder, const char *shown, io_memory *m)
{
    uint64_t used, limit, cached = 0;

    if (!read_file_of(root, folder, v->usage, "", &used))
        return;
    (void)read_file_of(root, folder, "memory.stat", v->reclaimable, &cached);
    used -= cached < used ? cached : used;
    for (int i = 0; i < 2 && v->limits[i]; i++) {
        char what[96];
        if (!read_file_of(root, folder, v->limits[i], "", &limit))
            continue;
        snprintf(what, sizeof(what), "%s of the control group ", v->limits[i]);
        lower(m, limit > used ? limit - used : 0, what, shown);
    }
}

/* Cuts a line at its spaces. Returns how many parts there are. */
static int split(char *line, char *fields[MAX_FIELDS])
{
    int count = 0;

    for (char *at = strtok(line, " \n"); at && count < MAX_FIELDS; at = strtok(NULL, " \n"))
        fields[count++] = at;
    return count;
}

/* Whether a word is in a list that commas separate. */
static bool listed(const char *list, const char *word)
{
    const size_t length = strlen(word);

    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        if (!strncmp(at, word, length) && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

/* The kernel writes spaces and backslashes in paths as \040. */
static void decode(char *path)
{
    char *to = path;

    for (const char *from = path; *from; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' &&
            from[3] >= '0' && from[3] <= '7') {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* Where a version's groups are mounted, and which group is shown at the mount point. */
typedef struct mount {
    char point[PATH_SIZE], group[PATH_SIZE];
} mount;

static bool parse_mount(char *line, const version *v, mount *out)
{
    /* id parent device group point options... - type source options */
    char *fields[MAX_FIELDS];
    const int count = split(line, fields);
    int dash = 5;

    while (dash < count && strcmp(fields[dash], "-") != 0)
        dash++;
    if (dash + 3 >= count || strcmp(fields[dash + 1], v->file_system) != 0)
        return false;
    if (!strcmp(v->file_system, "cgroup") && !listed(fields[dash + 3], "memory"))
        return false;
    decode(fields[3]);
    decode(fields[4]);
    return snprintf(out->group, PATH_SIZE, "%s", fields[3]) < PATH_SIZE &&
           snprintf(out->point, PATH_SIZE, "%s", fields[4]) < PATH_SIZE;
}

static bool find_mount(const char *root, const version *v, mount *out)
{
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    FILE *file = open_in(root, "/proc/self/mountinfo");

    while (file && !found && getline(&line, &room, file) > 0)
        found = parse_mount(line, v, out);
    free(line);
    if (file)
        (void)fclose(file);
    return found;
}

/* The process's own group, from a line "number:controllers:path". */
static bool find_group(const char *root, const version *v, char group[PATH_SIZE])
{
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    FILE *file = open_in(root, "/proc/self/cgroup");

    while (file && !found && getline(&line, &room, file) > 0) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        controllers++;
        found = !strcmp(v->file_system, "cgroup") ? listed(controllers, "memory") : controllers[0] == '\0';
        found = found && snprintf(group, PATH_SIZE, "%s", path) < PATH_SIZE;
    }
    free(line);
    if (file)
        (void)fclose(file);
    return found;
}

/* The group's path below the mount point. A group outside of what is mounted is judged by the mount point's own. */
static const char *below(const char *group, const char *mounted)
{
    const size_t length = strcmp(mounted, "/") ? strlen(mounted) : 0;

    if (strncmp(group, mounted, length) != 0 || (group[length] != '/' && group[length] != '\0') ||
        strstr(group, "/.."))
        return "";
    return group + length;
}

/* The process's group and all above it, as far as they can be seen. */
static void ask_groups(const char *root, const version *v, io_memory *m)
{
    mount at;
    char group[PATH_SIZE], folder[2 * PATH_SIZE];

    if (!find_group(root, v, group) || !find_mount(root, v, &at))
        return;
    const size_t point = !strcmp(at.point, "/") ? 0 : strlen(at.point);
    snprintf(folder, sizeof(folder), "%.*s%s", (int)point, at.point, below(group, at.group));
    for (char *slash = folder; slash;) {
        ask_group(root, v, folder, folder[point] ? folder + point : "/", m);
        slash = strrchr(folder + point, '/');
        if (slash)
            *slash = '\0';
    }
}

static void ask_kernel(const char *root, io_memory *m)
{
    uint64_t number;

    if (read_number(root, "/proc/meminfo", "MemAvailable:", &number)) {
        lower(m, number * 1024, "the machine's memory", "");
        return;
    }
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (root[0] == '\0' && pages > 0 && page > 0)
        lower(m, (uint64_t)pages * (uint64_t)page, "the machine's memory", "");
}

void io_memory_available_in(const char *root, uint64_t address_space, io_memory *m)
{
    uint64_t pages;
    const long page = sysconf(_SC_PAGESIZE);

    *m = (io_memory){.bytes = UINT64_MAX};
    ask_kernel(root, m);
    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
        ask_groups(root, &versions[i], m);
    if (address_space != UINT64_MAX && page > 0 && read_number(root, "/proc/self/statm", "", &pages)) {
        const uint64_t used = pages * (uint64_t)page;
        lower(m, address_space > used ? address_space - used : 0, "RLIMIT_AS", "");
    }
}

void io_memory_available(io_memory *m)
{
    struct rlimit limit;
    const bool limited = getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;

    io_memory_available_in("", limited ? (uint64_t)limit.rlim_cur : UINT64_MAX, m);
}
