/* SPDX-License-Identifier: Apache-2.0 */
/* What the objects of <fastattn/select.h> have in common: each is a task with parameters of a fixed size. */
#ifndef FA_CORE_SELECT_STEP_H
#define FA_CORE_SELECT_STEP_H

#include <fastattn/select.h>

#include "core/portable/visible.h"
#include "core/task.h"

/* The first member of each object. */
typedef struct fa_step {
    fa_task task;
    size_t bytes; /* of the object */
    const char *const *names;
    int operands;
    size_t align[FA_TASK_OPERANDS];
    int32_t groups; /* 0: there is nothing to do */
} fa_step;

/* Fills a zeroed object, all but the device and the size. */
typedef fa_status (*fa_step_init)(fa_step *step, const void *desc);

/* Makes an object of so many bytes in *made; `object` is its name. */
fa_status fa_step_create(fa_device *device, const char *object, size_t bytes, fa_step_init init,
                         const void *desc, void **made);
void fa_step_destroy(fa_step *step);

/* Adds an operand: `span` bytes of elements of `size`. */
void fa_step_operand(fa_step *step, int n, size_t span, size_t size, bool written);

/* Work-groups of one axis and another. FA_UNSUPPORTED: too many. */
fa_status fa_step_groups(fa_step *step, int64_t a, int64_t b);

/* FA_UNSUPPORTED where a work-item's loops have more turns than the driver lets them. */
fa_status fa_step_check_turns(const fa_step *step, int64_t turns);

/* The work-items that a group has at least. */
int fa_step_items(const fa_step *step);

/* Looks at the operands, and enqueues the task. */
fa_status fa_step_run(const fa_step *step, fa_queue *queue, fa_task_binding *binding);

/* Bytes of f32 or int32 numbers of that shape. FA_OUT_OF_MEMORY. */
fa_status fa_step_size(const char *what, int64_t a, int64_t b, int64_t c, int64_t d, size_t *bytes);

/* Checks the shape, in which block sizes of 0 become 1, and says what rows of scores see. */
fa_status fa_step_rule(fa_sparse_shape *shape, fa_visible_rule *rule);

/* Checks a tensor of rows: f32, f16 or bf16. */
fa_status fa_step_tensor(fa_tensor *tensor, const char *name, size_t *span);

#endif
