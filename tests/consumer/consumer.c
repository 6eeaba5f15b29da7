/* SPDX-License-Identifier: Apache-2.0 */
/* What a program of someone else's looks like, in the language that is both C11 and C++17. */
#include <fastattn/fastattn.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    /* Scores are all 0, so the output is the mean of the two rows of v. */
    const float q[4] = {0, 0, 0, 0}, k[8] = {1, 2, 3, 4, 5, 6, 7, 8}, v[8] = {0, 2, 4, 6, 2, 4, 6, 8};
    float o[4] = {0, 0, 0, 0};
    fa_context *context = NULL;
    fa_device *device = NULL;
    fa_attention_desc desc;
    memset(&desc, 0, sizeof(desc));
    desc.struct_size = sizeof(desc);
    desc.q = desc.o = fa_tensor_make(FA_F32, 1, 1, 1, 4);
    desc.k = desc.v = fa_tensor_make(FA_F32, 1, 1, 2, 4);

    fa_status status = fa_context_create(NULL, &context);
    if (status == FA_OK)
        status = fa_device_open(context, name, &desc, &device);
    if (status == FA_OK)
        status = fa_attention_host(device, &desc, q, k, v, NULL, NULL, o, NULL);
    if (status != FA_OK)
        fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    fa_device_close(device);
    fa_context_destroy(context);
    printf("fastattn %s: %g %g %g %g\n", fa_version(), (double)o[0], (double)o[1], (double)o[2], (double)o[3]);
    if (status != FA_OK || (name && strcmp(name, "null") == 0))
        return status != FA_OK;
    return o[0] != 1 || o[1] != 3 || o[2] != 5 || o[3] != 7;
}
