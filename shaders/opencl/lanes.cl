/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work-items by number. Where there are sub-groups, they are numbered so that a sub-group's are consecutive; a row of
 * LANES work-items that lies in one, which FA_LANES_SHARE() tells, then exchanges values without local memory.
 */
#ifdef FA_SUBGROUPS
static inline int work_item(void)
{
    return get_sub_group_id() * get_max_sub_group_size() + get_sub_group_local_id();
}

#define FA_LANES_SHARE(lanes) (((lanes) & ((lanes)-1)) == 0 && get_max_sub_group_size() % (lanes) == 0)
#define FA_SHUFFLE_XOR(x, mask) sub_group_shuffle_xor(x, (uint)(mask))
#else
static inline int work_item(void)
{
    return get_local_id(0);
}

#define FA_LANES_SHARE(lanes) false
#define FA_SHUFFLE_XOR(x, mask) (x)
#endif
#include "core/portable/lanes.h"
