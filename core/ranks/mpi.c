/* SPDX-License-Identifier: Apache-2.0 */
/* Opens the module for MPI. */
#include <pthread.h>

#include "core/library.h"
#include "core/ranks/mpi_module.h"
#include "core/status.h"

static const char *const names[] = {"libfastattn-mpi.so", NULL};
static fa_library library = {"FASTATTN_MPI_MODULE", names, "the module for MPI",
                             "expected one of this version of the library", ""};
static pthread_once_t once = PTHREAD_ONCE_INIT;

static struct {
    fa_status (*open)(uint32_t abi, const void *communicator, fa_transport **made, char *message,
                      size_t message_size);
} module;

static const fa_library_symbol symbols[] = {{"fa_mpi_module_open", 0}};

static void load(void)
{
    (void)fa_library_load(&library, symbols, 1, &module);
}

fa_status fa_transport_create_mpi(fa_context *context, const void *communicator, fa_transport **transport)
{
    char message[FA_MESSAGE_SIZE / 2] = "";
    fa_clear_error();
    if (!transport)
        return fa_fail(FA_INVALID, "transport is NULL, expected where to store the new transport");
    *transport = NULL;
    if (!context)
        return fa_fail(FA_INVALID, "context is NULL");
    (void)pthread_once(&once, load);
    if (!module.open)
        return fa_fail(FA_UNSUPPORTED, "no module for MPI: %s", library.failure);
    const fa_status status =
        module.open(FA_MPI_MODULE_ABI, communicator, transport, message, sizeof(message));
    return status == FA_OK ? FA_OK : fa_fail(status, "%s", message);
}
