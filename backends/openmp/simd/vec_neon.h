/* SPDX-License-Identifier: Apache-2.0 */
/* The vector vocabulary (see vec.h) in AArch64 Advanced SIMD. */
#include <arm_neon.h>
#include <string.h>

enum { VL = 4, PANEL_VECS = 4, SCORE_KEYS = 6, VALUE_DIMS = 4 };

typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint8x16_t vb;
typedef uint16x8x2_t vh;

#define V_BYTES_UNIT 1.0f

/* A line for each word: */
/* clang-format off */
static inline vf v_load(const float *p) { return vld1q_f32(p); }
static inline void v_store(float *p, vf a) { vst1q_f32(p, a); }
static inline vf v_set1(float a) { return vdupq_n_f32(a); }
static inline vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf v_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf v_abs(vf a) { return vabsq_f32(a); }
static inline vf v_if_less(vf a, vf b, vf yes, vf no) { return vbslq_f32(vcltq_f32(a, b), yes, no); }
static inline bool v_all_equal(vf a, vf b) { return vminvq_u32(vceqq_f32(a, b)) != 0; }
static inline float v_top(vf a) { return vmaxvq_f32(a); }
static inline float v_sum(vf a) { return vaddvq_f32(a); }
static inline void v_sum4(const vf a[4], float *sums)
{
    vst1q_f32(sums, vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3])));
}

static inline vf v_exponent(vf a) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(a), 23)); }

static inline vi vi_load(const int *p) { return vld1q_s32(p); }
static inline vi vi_set1(int a) { return vdupq_n_s32(a); }
static inline vi vi_count(int first)
{
    const int steps[4] = {0, 1, 2, 3};
    return vaddq_s32(vdupq_n_s32(first), vld1q_s32(steps));
}
static inline vf v_distance(vi a, vi b) { return vcvtq_f32_s32(vabdq_s32(a, b)); }
static inline vf v_hide_outside(vf a, vi key, vi begin, vi end)
{
    uint32x4_t seen = vandq_u32(vcleq_s32(begin, key), vcltq_s32(key, end));
    return vbslq_f32(seen, a, vdupq_n_f32(-INFINITY));
}

static inline vf v_load_f16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline vf v_load_bf16(const uint16_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
static inline void v_store_f16(uint16_t *p, vf a) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a))); }
static inline void v_store_bf16(uint16_t *p, vf a)
{
    uint32x4_t bits = vreinterpretq_u32_f32(a), upper = vshrq_n_u32(bits, 16);
    uint32x4_t odd = vandq_u32(upper, vdupq_n_u32(1));
    uint32x4_t rounded = vshrq_n_u32(vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff))), 16);
    uint32x4_t number = vceqq_f32(a, a);
    vst1_u16(p, vmovn_u32(vbslq_u32(number, rounded, vorrq_u32(upper, vdupq_n_u32(0x40)))));
}

static inline vb vb_load(const void *p) { return vld1q_u8((const uint8_t *)p); }
static inline vb vb_set1(int a) { return vdupq_n_u8((uint8_t)a); }
static inline vb vb_and(vb a, vb b) { return vandq_u8(a, b); }
static inline vb vb_or(vb a, vb b) { return vorrq_u8(a, b); }
static inline vb vb_sub(vb a, vb b) { return vsubq_u8(a, b); }
static inline vb vb_low(vb a) { return vandq_u8(a, vdupq_n_u8(15)); }
static inline vb vb_high(vb a) { return vshrq_n_u8(a, 4); }
static inline vb vb_look_up(vb table, vb a) { return vqtbl1q_u8(table, a); }
static inline vb vb_bits(const uint16_t *p)
{
    uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
    return vtstq_u8(vcombine_u8(vdup_n_u8((uint8_t)*p), vdup_n_u8((uint8_t)(*p >> 8))), bit);
}
static inline vf v_of_bytes(vb a, const int part)
{
    int8x16_t bytes = vreinterpretq_s8_u8(a);
    int16x8_t wide = vmovl_s8(part & 2 ? vget_high_s8(bytes) : vget_low_s8(bytes));
    return vcvtq_f32_s32(vmovl_s16(part & 1 ? vget_high_s16(wide) : vget_low_s16(wide)));
}
static inline vf v_splat_f16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(*p))); }
static inline uint16_t half_at(const uint8_t *p) { return *(const uint16_t *)(const void *)p; }
static inline vf v_gather_f16(const uint8_t *const p[VL], ptrdiff_t at)
{
    const uint16_t halves[VL] = {half_at(p[0] + at), half_at(p[1] + at), half_at(p[2] + at), half_at(p[3] + at)};
    return v_load_f16(halves);
}
static inline int16x8_t nearest_halves(vf a, vf b)
{
    return vcombine_s16(vmovn_s32(vcvtaq_s32_f32(vmulq_n_f32(a, 0.5f))),
                        vmovn_s32(vcvtaq_s32_f32(vmulq_n_f32(b, 0.5f))));
}
static inline void v_store_nearest32(uint8_t *p, const vf x[8])
{
    for (int i = 0; i < 8; i += 4, p += 16) {
        int8x8_t low = vmovn_s16(nearest_halves(x[i], x[i + 1]));
        vst1q_u8(p, vreinterpretq_u8_s8(vcombine_s8(low, vmovn_s16(nearest_halves(x[i + 2], x[i + 3])))));
    }
}
static inline uint32_t v_peak32(const float *p)
{
    uint32x4_t top = vdupq_n_u32(0);
    for (int i = 0; i < 32; i += 4)
        top = vmaxq_u32(top, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(p + i))));
    return vmaxvq_u32(top);
}
static inline uint32_t v_peak32_half(const uint16_t *p)
{
    uint16x8_t top = vdupq_n_u16(0);
    for (int i = 0; i < 32; i += 8)
        top = vmaxq_u16(top, vandq_u16(vld1q_u16(p + i), vdupq_n_u16(0x7fff)));
    return vmaxvq_u16(top);
}
/* e4m3, each the upper half of 16 bits, as f16. */
static inline uint16x8_t e4m3_halves(uint16x8_t wide)
{
    uint16x8_t magnitude = vdupq_n_u16(0x3f80), half = vandq_u16(vshrq_n_u16(wide, 1), magnitude);
    half = vorrq_u16(half, vandq_u16(vceqq_u16(half, magnitude), vdupq_n_u16(0x7c00)));
    return vorrq_u16(half, vandq_u16(wide, vdupq_n_u16(0x8000)));
}
static inline vh vh_load_e5m2(const uint8_t *p)
{
    uint8x16_t bytes = vld1q_u8(p);
    return (vh){{vshll_n_u8(vget_low_u8(bytes), 8), vshll_n_u8(vget_high_u8(bytes), 8)}};
}
static inline vh vh_load_e4m3(const uint8_t *p)
{
    vh wide = vh_load_e5m2(p);
    return (vh){{e4m3_halves(wide.val[0]), e4m3_halves(wide.val[1])}};
}
static inline void vh_store(uint16_t *p, vh a)
{
    vst1q_u16(p, a.val[0]);
    vst1q_u16(p + 8, a.val[1]);
}
static inline vf v_of_halves(vh a, const int part)
{
    float16x8_t halves = vreinterpretq_f16_u16(a.val[part / 2]);
    return vcvt_f32_f16(part % 2 ? vget_high_f16(halves) : vget_low_f16(halves));
}

static inline void v_transpose(vf r[VL])
{
    float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}
