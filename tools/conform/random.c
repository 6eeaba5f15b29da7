/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/conform/conform.h"

conform_random conform_random_of(uint64_t seed, const char *name)
{
    conform_random random = {0xcbf29ce484222325u ^ (seed * 0x9e3779b97f4a7c15u)};
    for (; *name; name++)
        random.state = (random.state ^ (unsigned char)*name) * 0x100000001b3u;
    return random;
}

static uint64_t next(conform_random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t conform_random_below(conform_random *random, uint32_t bound)
{
    return (uint32_t)((next(random) >> 32) * bound >> 32);
}

float conform_random_normal(conform_random *random)
{
    /* A sum of four uniform numbers: variance 1/3, so that sqrt(3) makes it 1. */
    uint64_t bits = next(random);
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)(bits >> (16 * i) & 0xffff) * 0x1p-15f - 1;
    return sum * 0.8660254f;
}
