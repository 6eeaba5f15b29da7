/* SPDX-License-Identifier: Apache-2.0 */
/* A fully static program: it computes, and drivers, which would crash in it, are declined with the reason. */
#include <fastattn/fastattn.h>
#include <stdio.h>
#include <string.h>

static int is_declined(const fa_device_info *info)
{
    return !info->available && (strstr(info->reason, "linked statically") ||
                                strstr(info->reason, "left out when this library was built"));
}

static int computes(fa_context *context)
{
    static float q[4 * 8], k[6 * 8], v[6 * 8], o[4 * 8];
    fa_attention_desc desc = {.struct_size = sizeof(desc)};
    fa_device *device;
    for (int i = 0; i < 6 * 8; i++)
        v[i] = 3;
    desc.q = desc.o = fa_tensor_make(FA_F32, 1, 1, 4, 8);
    desc.k = desc.v = fa_tensor_make(FA_F32, 1, 1, 6, 8);
    if (fa_device_open(context, "auto", &desc, &device) != FA_OK)
        return 0;
    fa_status status = fa_attention_host(device, &desc, q, k, v, NULL, NULL, o, NULL);
    fa_device_close(device);
    return status == FA_OK && o[0] > 2.999f && o[0] < 3.001f && o[31] > 2.999f && o[31] < 3.001f;
}

int main(void)
{
    static const char *const gpus[] = {"cuda", "opencl", "vulkan"};
    int failed = 0;
    fa_context *context;
    if (fa_context_create(NULL, &context) != FA_OK)
        return 1;
    for (size_t i = 0; i < fa_device_count(context); i++) {
        fa_device_info info = {.struct_size = sizeof(info)};
        failed |= fa_device_describe(context, i, &info) != FA_OK;
        for (int g = 0; g < 3; g++) {
            if (strcmp(info.backend, gpus[g]) == 0 && !is_declined(&info)) {
                printf("%s: available %d, reason \"%s\"\n", info.backend, (int)info.available, info.reason);
                failed = 1;
            }
        }
    }
    if (!computes(context)) {
        printf("computing: %s\n", fa_last_error());
        failed = 1;
    }
    fa_context_destroy(context);
    return failed;
}
