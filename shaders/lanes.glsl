// One source for CPU devices (a variant with DEFINES CPU=1) and GPUs: kernels that go through rows or elements four at a time.
//
//   READ(b, x), READ_WORDS(b, x)  binding b, only read: of float, of uint
//   WRITE(b, y)                   binding b, only written: of float
//   LOAD4(x, i)                   elements i .. i + 3; i is a multiple of 4, and the buffer has them all
//   LOAD4_TO(x, i, end)           the same of a buffer of `end` elements: what follows them is anything. i < end
//   FOUR_TO(x, t, end)            i = 4 t
//   LOAD1(x, i)                   element i
//   STORE4(y, i, v), STORE1(y, i, v)
//   STORE4_TO(y, i, end, v)       elements i .. i + 3, those below `end`
//
// A GPU loads and stores 16 bytes with one instruction. What is fast on a CPU device is written in texel.glsl.
#ifndef LANES_GLSL
#define LANES_GLSL

#extension GL_EXT_control_flow_attributes : require
#ifdef CPU
#extension GL_EXT_samplerless_texture_functions : require
#endif
#include "texel.glsl"

#define LANE gl_LocalInvocationID.x

#ifdef CPU

#define READ(b, x)           layout(set = 0, binding = b) uniform textureBuffer x
#define READ_WORDS(b, x)     layout(set = 0, binding = b) uniform utextureBuffer x
#define WRITE(b, y)          layout(set = 0, binding = b, std430) writeonly buffer Buffer_##y { vec4 y[]; }
#define LOAD4(x, i)          texelFetch(x, int((i) >> 2))
#define LOAD4_TO(x, i, end)  texelFetch(x, int((i) >> 2))
#define FOUR_TO(x, t, end)   texelFetch(x, int(t))
#define LOAD1(x, i)          pick(texelFetch(x, int((i) >> 2)), (i) & 3u)
#define STORE4(y, i, v)      y[(i) >> 2] = v
#define STORE1(y, i, v)      y[(i) >> 2][(i) & 3u] = v

#else

// A buffer may end within a vec4, which must not be touched then: hence two views of each.
#define READ(b, x)       READ_(b, x, float, vec4)
#define READ_WORDS(b, x) READ_(b, x, uint, uvec4)
#define READ_(b, x, one, four)                                                             \
    layout(set = 0, binding = b, std430) readonly buffer Buffer1_##x { one x##_1[]; };     \
    layout(set = 0, binding = b, std430) readonly buffer Buffer4_##x { four x##_4[]; };    \
    four x##_to(uint i, uint end)                                                          \
    {                                                                                      \
        if (i + 3u < end)                                                                  \
            return x##_4[i >> 2];                                                          \
        return four(x##_1[i], x##_1[min(i + 1u, end - 1u)], x##_1[min(i + 2u, end - 1u)], x##_1[end - 1u]); \
    }
#define WRITE(b, y)                                                                        \
    layout(set = 0, binding = b, std430) writeonly buffer Buffer1_##y { float y##_1[]; };  \
    layout(set = 0, binding = b, std430) writeonly buffer Buffer4_##y { vec4 y##_4[]; }
#define LOAD4(x, i)          x##_4[(i) >> 2]
#define LOAD4_TO(x, i, end)  x##_to(i, end)
#define FOUR_TO(x, t, end)   x##_to(4u * (t), end)
#define LOAD1(x, i)          x##_1[i]
#define STORE4(y, i, v)      y##_4[(i) >> 2] = v
#define STORE1(y, i, v)      y##_1[i] = v

#endif

#define STORE4_TO(y, i, end, v)                                     \
    {                                                               \
        if ((i) + 3u < (end))                                       \
            STORE4(y, i, v);                                        \
        for (uint j_ = i; j_ < (end) && (i) + 3u >= (end); j_++)    \
            STORE1(y, j_, pick(v, j_ & 3u));                     \
    }

#endif
