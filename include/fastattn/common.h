/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_COMMON_H
#define FASTATTN_COMMON_H

#include <stddef.h>
#include <stdint.h>

#define FA_VERSION_MAJOR 0
#define FA_VERSION_MINOR 1
#define FA_VERSION_PATCH 0

#if defined(_WIN32)
#define FA_API
#elif defined(__GNUC__)
#define FA_API __attribute__((visibility("default")))
#else
#define FA_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Structs that begin with `struct_size` grow from version to version, at their end only. The caller sets it to the
 * sizeof of the struct that it was compiled with, and zeroes what it does not use.
 *  - Read by the library: a shorter struct of an older caller has its missing fields taken as zero. In a longer one of a
 *    newer caller, what this library does not know must be zero; else FA_UNSUPPORTED.
 *  - Filled by the library: the fields that the caller has; those that this library does not know become zero.
 * No byte behind struct_size is touched. Sizes below version 0.1's are FA_INVALID. Structs without struct_size
 * (fa_tensor, fa_allocator, fa_executor, fa_inputs) never change. tests/abi holds all this.
 */

/**
 * What a call came to. Every value but FA_OK leaves a message for fa_last_error(), and leaves the
 * caller's memory and every object as they were, except where a call says otherwise.
 */
typedef enum fa_status {
    FA_OK = 0,
    FA_INVALID = 1,       /* an argument is wrong: the message names the field and the value        */
    FA_UNSUPPORTED = 2,   /* a valid request that this device does not serve: the message says why   */
    FA_NO_DEVICE = 3,     /* no such backend or device, or none that can run here                    */
    FA_OUT_OF_MEMORY = 4, /* host or device memory, or a size that no memory could hold              */
    FA_DEVICE_LOST = 5,   /* the device failed; destroy what belongs to it                           */
    FA_COMPILE = 6,       /* device code did not compile; the message ends in the compiler's log     */
    FA_IO = 7             /* a file or a cache on disk                                               */
} fa_status;

/** The status as a word, "FA_OK" and so on; "FA_UNKNOWN" for a number that is none. Never NULL. */
FA_API const char *fa_status_name(fa_status status);

/**
 * The message of this thread's last fa_ call that returns a status: why it failed, or "" where it returned
 * FA_OK. Other calls, such as those that destroy things, leave it as it is. Valid until this thread's next
 * fa_ call; "" before the first. Never NULL. Thread-safe: each thread has its own.
 */
FA_API const char *fa_last_error(void);

/** The version of the library that runs, as "major.minor.patch"; compare with FA_VERSION_*. */
FA_API const char *fa_version(void);

#ifdef __cplusplus
}
#endif
#endif
