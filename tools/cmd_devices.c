/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cmd.h"

#include <inttypes.h>
#include <stdio.h>

#include "tools/cli.h"

static const char command[] = "devices";

static const char usage[] =
    "[--json]\n"
    "\n"
    "Lists every device of every backend, the unusable ones with the reason.\n"
    "\n"
    "A device is chosen by its name, 'openmp:0', by its backend, 'openmp', or by a part of its own name,\n"
    "'opencl:mali': with --backend, or for every program by FASTATTN_BACKEND and FASTATTN_DEVICE.\n"
    "\n"
    "Examples:\n"
    "  fastattn devices\n"
    "  fastattn devices --json";

static void print_row(const fa_device_info *info)
{
    char device[64], memory[32] = "-", units[16] = "-";
    (void)snprintf(device, sizeof(device), "%s:%" PRId32, info->backend, info->index);
    if (info->units)
        (void)snprintf(units, sizeof(units), "%" PRIu32, info->units);
    if (info->onchip_bytes)
        (void)snprintf(memory, sizeof(memory), "%.0f KiB", (double)info->onchip_bytes / 1024);
    printf("%-12s  %-9s  %5s  %9s  %s\n", device, info->available ? "yes" : "no", units, memory,
           info->name[0] ? cli_plain(info->name).text : "-");
    if (info->reason[0])
        printf("%14s%s\n", "", cli_plain(info->reason).text);
    if (!info->available)
        return;
    printf("%14skernels: %s\n", "", info->kernels[0] ? info->kernels : "none");
    if (!info->automatic)
        printf("%14snever chosen by 'auto', only by its name\n", "");
}

static void print_names(const char *list)
{
    char name[64];
    const char *separator = "";
    for (int used; sscanf(list, " %63[^,]%n", name, &used) == 1; separator = ", ") {
        printf("%s", separator);
        cli_json_string(stdout, name);
        list += used;
        list += *list == ',';
    }
}

static void print_json(const fa_device_info *info, bool first)
{
    printf("%s\n  {\"backend\": ", first ? "" : ",");
    cli_json_string(stdout, info->backend);
    printf(", \"index\": %" PRId32 ", \"name\": ", info->index);
    cli_json_string(stdout, info->name);
    printf(", \"available\": %s, \"reason\": ", info->available ? "true" : "false");
    cli_json_string(stdout, info->reason);
    printf(", \"automatic\": %s, \"host_memory\": %s, \"units\": %" PRIu32 ", \"onchip_bytes\": %" PRIu64
           ", \"kernels\": [",
           info->automatic ? "true" : "false", info->host_memory ? "true" : "false", info->units,
           info->onchip_bytes);
    print_names(info->kernels);
    printf("]}");
}

/* A device tells its kernels once it is open; and one that then fails to open is of no use. */
static void look_inside(fa_context *context, fa_device_info *info)
{
    char name[64];
    fa_device *device;
    (void)snprintf(name, sizeof(name), "%s:%" PRId32, info->backend, info->index);
    if (fa_device_open(context, name, NULL, &device) == FA_OK) {
        (void)fa_device_get_info(device, info);
        fa_device_close(device);
        return;
    }
    info->available = 0;
    (void)snprintf(info->reason, sizeof(info->reason), "%s", fa_last_error());
}

int cmd_devices(int argc, char **argv)
{
    int json = 0, verbose = 0, code = EXIT_OK;
    const cli_option options[] = {
        {"json", 'f', &json, "print a JSON array, one object per device"},
        {"verbose", 'f', &verbose, "print the library's log on stderr"},
    };
    int parsed = cli_parse(command, usage, options, sizeof(options) / sizeof(options[0]), argc, argv);
    if (parsed)
        return parsed == 1 ? EXIT_OK : EXIT_USAGE;

    fa_context *context = cli_context(command, verbose);
    if (!context)
        return EXIT_FAILED;
    size_t count = fa_device_count(context);
    if (json)
        printf("[");
    else
        printf("%-12s  %-9s  %5s  %9s  %s\n", "device", "available", "units", "on-chip", "name");
    for (size_t i = 0; i < count; i++) {
        fa_device_info info = {.struct_size = sizeof(info)};
        if (fa_device_describe(context, i, &info) != FA_OK) {
            cli_error(command, "%s", fa_last_error());
            code = EXIT_FAILED;
            break;
        }
        if (info.available)
            look_inside(context, &info);
        if (json)
            print_json(&info, i == 0);
        else
            print_row(&info);
    }
    if (json)
        printf("%s]\n", count ? "\n" : "");
    fa_context_destroy(context);
    return code;
}
