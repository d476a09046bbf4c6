#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "subgroup8.glsl"
#include "texel.glsl"

layout(set = 0, binding = 0) uniform textureBuffer x;
layout(set = 0, binding = 1) uniform textureBuffer w;
layout(set = 0, binding = 2) uniform textureBuffer dy;
layout(set = 0, binding = 3, std430) writeonly buffer Dx { vec4 dx[]; };
layout(push_constant) uniform Push { uint rows, cols; float eps; };

float sum_of(vec4 v)
{
    return v.x + v.y + v.z + v.w;
}

// One subgroup per row.
void main()
{
    uint row = wg_index(), l = gl_LocalInvocationID.x, n = cols;
    if (row >= rows)
        return;
    uint at = row * n;
    uint n4 = (n & 3u) == 0u ? n : 0u; // columns done four at a time: all or none
    vec4 square4 = vec4(0.0), product4 = vec4(0.0);
    for (uint c = 4u * l; c < n4; c += 32u) {
        vec4 v = TEXEL4(x, at + c);
        square4 += v * v;
        product4 += TEXEL4(w, c) * TEXEL4(dy, at + c) * v;
    }
    float square = sum_of(square4), product = sum_of(product4);
    for (uint c = n4 + l; c < n; c += 8u) {
        float v = TEXEL1(x, at + c);
        square += v * v;
        product += TEXEL1(w, c) * TEXEL1(dy, at + c) * v;
    }
    float r = 1.0 / sqrt(sum8(square) / float(n) + eps);
    float along = r * r * r / float(n) * sum8(product);
    for (uint c = 4u * l; c < n4; c += 32u)
        dx[(at + c) >> 2] = r * TEXEL4(w, c) * TEXEL4(dy, at + c) - along * TEXEL4(x, at + c);
    for (uint c = n4 + l; c < n; c += 8u)
        dx[(at + c) >> 2][(at + c) & 3u] =
            r * TEXEL1(w, c) * TEXEL1(dy, at + c) - along * TEXEL1(x, at + c);
}
