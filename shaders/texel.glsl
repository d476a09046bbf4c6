// For variants that run on a CPU (lavapipe). What is fast there, measured with 8 lanes:
//
//   texelFetch of 4 numbers by 8 lanes    30 cycles: 8 vector loads and a transpose
//   load of one number, storage buffer    350 cycles: one lane at a time, with a store-forwarding stall each
//   store of 4 numbers, storage buffer    60 cycles
//   subgroupShuffle, constant index       1 instruction; subgroupBroadcast is a loop over the lanes
//   barrier                               the subgroup's state goes to memory and back
//
// An `if` is not jumped over: both sides run, under a mask. A loop runs at least once, so a rare path is best a loop of no
// iteration. And an invocation ends its loops, without a word, after 65535 iterations of all of them together.
#ifndef TEXEL_GLSL
#define TEXEL_GLSL

float pick(vec4 v, uint e)
{
    return e == 0u ? v.x : e == 1u ? v.y : e == 2u ? v.z : v.w;
}

uint pick(uvec4 v, uint e)
{
    return e == 0u ? v.x : e == 1u ? v.y : e == 2u ? v.z : v.w;
}

// Element i of a texel buffer.
#define TEXEL1(buf, i) pick(texelFetch(buf, int((i) >> 2)), (i) & 3u)
// Elements i..i+3, i a multiple of 4.
#define TEXEL4(buf, i) texelFetch(buf, int((i) >> 2))

#endif
