/* SPDX-License-Identifier: Apache-2.0 */
/* Between the library and its module for MPI, which knows an mpi.h and nothing of the library but this. */
#ifndef FA_CORE_RANKS_MPI_MODULE_H
#define FA_CORE_RANKS_MPI_MODULE_H

#include <fastattn/transport.h>

#define FA_MPI_MODULE_ABI 2

/* fa_transport_create_mpi() of a module that has that ABI; any other is FA_UNSUPPORTED. `message` is written on failure. */
FA_API fa_status fa_mpi_module_open(uint32_t abi, const void *communicator, fa_transport **made,
                                    char *message, size_t message_size);

#endif
