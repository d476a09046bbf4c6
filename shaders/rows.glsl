// lanes.glsl for kernels with one workgroup a row: on a CPU device one subgroup of 8 (NEEDS LANES8, WG 8), on GPUs any.
// Sums and maxima are over the workgroup, in a fixed order.
#ifndef ROWS_GLSL
#define ROWS_GLSL

#ifdef CPU
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#include "lanes.glsl"
#ifdef CPU
#include "subgroup8.glsl"
const uint LANES = 8u;
#define row_sum(v)        sum8(v)
#define row_max(v)        max8(v)
#define row_argmax(v, at) argmax8(v, at)
#else
#include "reduce.glsl"
#define LANES             gl_WorkGroupSize.x
#define row_sum(v)        wg_sum(v)
#define row_max(v)        wg_max(v)
#define row_argmax(v, at) wg_argmax(v, at)
#endif

// Goes through the fours t, elements 4 t and on, that a row of n columns from element `begin` on touches.
#define EACH_FOUR(t, begin, n)                                                                          \
    for (uint t = ((begin) >> 2) + LANE, last_ = ((begin) + (n) - 1u) >> 2; t <= last_; t += LANES)

// v with what is not of a row of n columns replaced. c: the first one's column, 4 t - begin, which wraps before the row.
vec4 of_row(vec4 v, uint c, uint n, float other)
{
    return vec4(c < n ? v.x : other, c + 1u < n ? v.y : other, c + 2u < n ? v.z : other, c + 3u < n ? v.w : other);
}

float sum_of(vec4 v)
{
    return v.x + v.y + v.z + v.w;
}

float max_of(vec4 v)
{
    return max(max(v.x, v.y), max(v.z, v.w));
}

#endif
