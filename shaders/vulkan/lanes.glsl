/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work-items by number. Where there are subgroups, they are numbered so that a subgroup's are consecutive; a row of
 * LANES work-items that lies in one, which lanes_share() tells, then exchanges values without shared memory.
 */
layout(local_size_x_id = FA_VK_GROUP, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = FA_VK_GROUP) const int GROUP = 64;
layout(constant_id = FA_VK_SUBGROUP) const int SUBGROUP = 1;

int work_group()
{
    return int(gl_WorkGroupID.x + gl_WorkGroupID.y * gl_NumWorkGroups.x);
}

#ifdef FA_SUBGROUPS
int work_item()
{
    return int(gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID);
}

bool lanes_share(int lanes)
{
    return (lanes & (lanes - 1)) == 0 && SUBGROUP % lanes == 0;
}

#define FA_SHUFFLE_XOR(x, mask) subgroupShuffleXor(x, uint(mask))
#else
int work_item()
{
    return int(gl_LocalInvocationIndex);
}

bool lanes_share(int lanes)
{
    return false;
}

#define FA_SHUFFLE_XOR(x, mask) (x)
#endif
#define FA_UNROLL [[unroll]]
#include "core/portable/lanes.h"
