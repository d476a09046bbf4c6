// Shared by all kernels: where an invocation is, and 16-bit numbers packed in words.
//
//     #version 460
//     #extension GL_GOOGLE_include_directive : require
//     #include "common.glsl"
//
// Built without any 16-bit feature: halves are packed two per uint, the low half first.
#ifndef COMMON_GLSL
#define COMMON_GLSL

#include "limits.h"

// Workgroups are one-dimensional, of the size that the variant's line asks for. Here and not in each shader, because
// gl_WorkGroupSize used above the declaration is silently 1.
layout(local_size_x_id = SPEC_WORKGROUP) in;

// The workgroup's number. The host folds grids of more than 65535 workgroups over x and y, so there may be more
// workgroups than work: check the result against the bound.
uint wg_index()
{
    return gl_WorkGroupID.x + gl_WorkGroupID.y * gl_NumWorkGroups.x;
}

// The invocation's number, for kernels with one invocation per item. Below 2^32: check against n.
uint item_index()
{
    return wg_index() * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
}

// By hand in both directions: Vulkan lets a driver flush the subnormals of unpackHalf2x16, and leaves the rounding of
// packHalf2x16 open.
float f16_to_f32(uint h)
{
    uint sign = (h & 0x8000u) << 16;
    uint e = (h >> 10) & 31u;
    uint m = h & 0x3ffu;
    if (e == 0u)
        return uintBitsToFloat(sign | floatBitsToUint(float(m) * (1.0 / 16777216.0)));
    return uintBitsToFloat(sign | ((e == 31u ? 255u : e + 112u) << 23) | (m << 13));
}

// Rounds to nearest even.
uint f32_to_f16(float f)
{
    uint u = floatBitsToUint(f);
    uint sign = (u >> 16) & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u)
        return sign | 0x7e00u; // NaN
    if (u >= 0x477ff000u)
        return sign | 0x7c00u; // beyond the range, after rounding
    if (u < 0x33000001u)
        return sign;           // half of the smallest subnormal rounds to zero
    uint e = u >> 23;
    uint m = (u & 0x7fffffu) | 0x800000u;
    uint shift = e >= 113u ? 13u : 126u - e;
    uint h = m >> shift;
    uint rest = m & ((1u << shift) - 1u);
    uint half_way = 1u << (shift - 1u);
    if (rest > half_way || (rest == half_way && (h & 1u) != 0u))
        h++;
    // A normal h holds the implicit one (0x400), which is one step of the exponent.
    return sign | (e >= 113u ? h + ((e - 113u) << 10) : h);
}

float bf16_to_f32(uint h)
{
    return uintBitsToFloat(h << 16);
}

// Rounds to nearest even.
uint f32_to_bf16(float f)
{
    uint u = floatBitsToUint(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (u >> 16) | 0x40u; // NaN, quiet
    return (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}

// Element 0 and 1 of a word of 16-bit numbers. kind: HALVES_.
vec2 unpack_halves(uint word, uint kind)
{
    return kind == HALVES_F16 ? vec2(f16_to_f32(word & 0xffffu), f16_to_f32(word >> 16))
                      : vec2(bf16_to_f32(word & 0xffffu), bf16_to_f32(word >> 16));
}

uint pack_halves(vec2 v, uint kind)
{
    return kind == HALVES_F16 ? f32_to_f16(v.x) | (f32_to_f16(v.y) << 16) : f32_to_bf16(v.x) | (f32_to_bf16(v.y) << 16);
}

// What is left of a scale once it is stored. scale_type: STORED_.
float round_to_scale_type(float s, uint scale_type)
{
    if (scale_type == STORED_F16)
        return f16_to_f32(f32_to_f16(s));
    if (scale_type == STORED_BF16)
        return bf16_to_f32(f32_to_bf16(s));
    return s;
}

#endif
