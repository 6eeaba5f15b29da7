/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory the process can still take before the system refuses it, or ends the process. */
#ifndef FASTATTN_TOOLS_IO_MEMORY_H
#define FASTATTN_TOOLS_IO_MEMORY_H

#include <stdint.h>

typedef struct io_memory {
    uint64_t bytes;  /* UINT64_MAX: the system tells of no limit */
    char limit[192]; /* what sets it: "RLIMIT_AS", "memory.max of the control group /a/b" ... */
} io_memory;

/*
 * The least of: what the kernel calls available (without swap); what the limits of the process's own control group
 * and of every group above it leave, in either version of control groups; what the limits on its address space leave.
 * File contents that a control group keeps only as long as nobody needs the memory count as free.
 */
void io_memory_available(io_memory *memory);

/* The same of a system whose /proc and /sys lie below the folder `root`, for a process with this RLIMIT_AS. */
void io_memory_available_in(const char *root, uint64_t address_space, io_memory *memory);

#endif
