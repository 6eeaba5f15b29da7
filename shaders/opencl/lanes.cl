/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work-items by number. Where there are sub-groups, they are numbered so that a sub-group's are consecutive; a row of
 * LANES work-items that lies in one, which LANES_SHARE() tells, then exchanges values without local memory.
 */
#ifdef FA_SUBGROUPS
static inline int work_item(void)
{
    return get_sub_group_id() * get_max_sub_group_size() + get_sub_group_local_id();
}

#define LANES_SHARE(lanes) (((lanes) & ((lanes)-1)) == 0 && get_max_sub_group_size() % (lanes) == 0)

static inline float lanes_max(float x, int lanes)
{
    FA_UNROLL
    for (int mask = 1; mask < lanes; mask *= 2)
        x = fmax(x, sub_group_shuffle_xor(x, (uint)mask));
    return x;
}

static inline float lanes_sum(float x, int lanes)
{
    FA_UNROLL
    for (int mask = 1; mask < lanes; mask *= 2)
        x += sub_group_shuffle_xor(x, (uint)mask);
    return x;
}
#else
static inline int work_item(void)
{
    return get_local_id(0);
}

#define LANES_SHARE(lanes) false
#define lanes_max(x, lanes) (x)
#define lanes_sum(x, lanes) (x)
#endif
