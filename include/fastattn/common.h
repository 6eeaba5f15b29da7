/* SPDX-License-Identifier: Apache-2.0 */
/** What every other header uses: statuses, error messages, the version, and how structs grow. */
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
 * sizeof of the struct that it was compiled with, and sets the fields that it does not use to zero.
 *  - Structs that the library reads: fields that an older caller's struct lacks are taken as zero. Fields of a newer
 *    caller's struct that this library does not know must be zero; otherwise the call returns FA_UNSUPPORTED.
 *  - Structs that the library fills: it fills the fields that the caller's struct has. Those that this library does not
 *    know become zero.
 * The library touches no byte beyond struct_size. A size smaller than version 0.1's is FA_INVALID. Structs without
 * struct_size (fa_tensor, fa_allocator, fa_executor, fa_inputs) never change. tests/abi checks all this.
 *
 * What holds for every function that returns an fa_status, unless it says otherwise:
 *  - A pointer to a new object (`fa_plan **plan` and the like) is set to NULL on failure.
 *  - A NULL argument that may not be NULL is FA_INVALID.
 *  - A failed call changes neither the caller's memory nor any object.
 */

/** The result of a call. Each value but FA_OK leaves a message for fa_last_error(). */
typedef enum fa_status {
    FA_OK = 0,
    FA_INVALID = 1,       /* an argument is wrong; the message names the field and the value         */
    FA_UNSUPPORTED = 2,   /* a valid request that this device does not serve; the message says why  */
    FA_NO_DEVICE = 3,     /* there is no such backend or device, or none can run here                */
    FA_OUT_OF_MEMORY = 4, /* host or device memory ran out, or no memory could hold that size        */
    FA_DEVICE_LOST = 5,   /* the device failed; destroy what belongs to it                           */
    FA_COMPILE = 6,       /* device code did not compile; the message ends with the compiler's log   */
    FA_IO = 7,            /* a file, or the cache on disk                                            */
    FA_RANK_LOST = 8      /* another rank died, failed or did not come in time (transport.h)         */
} fa_status;

/** The name of a status, such as "FA_OK". Returns "FA_UNKNOWN" for any other number. Never NULL. Thread-safe. */
FA_API const char *fa_status_name(fa_status status);

/**
 * The error message of this thread's last call that returns an fa_status. It is "" if that call returned FA_OK, and
 * before the first call. Functions that return anything else, such as those that destroy objects, do not change it.
 * The text is valid until this thread's next fa_ call. Never NULL. Thread-safe: each thread has its own.
 */
FA_API const char *fa_last_error(void);

/** The version of the running library, as "major.minor.patch". Compare it with FA_VERSION_*. Thread-safe. */
FA_API const char *fa_version(void);

#ifdef __cplusplus
}
#endif
#endif
