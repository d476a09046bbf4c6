#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#include "common.glsl"
#include "quant.glsl"
#include "texel.glsl"

layout(set = 0, binding = 0) uniform textureBuffer grad;
layout(set = 0, binding = 1) uniform utextureBuffer codes;
layout(set = 0, binding = 2, std430) buffer Dscales { float dscales[]; };
layout(push_constant) uniform Push { uint rows, cols, group, groups, ldc, offsets; };

uint codes_word(uint at)
{
    uvec4 v = texelFetch(codes, int(at >> 2));
    uint e = at & 3u;
    return e == 0u ? v.x : e == 1u ? v.y : e == 2u ? v.z : v.w;
}

// One invocation per (row, group); four columns at a time where groups and rows start on texels, one where not.
void main()
{
    uint unit = item_index(), n = cols;
    if (unit >= rows * groups)
        return;
    uint row = unit / groups;
    uint begin = (unit % groups) * group;
    uint end = min(begin + group, n);
    uint at0 = row * n, codes0 = row * ldc;
    bool four = ((n | group) & 3u) == 0u;
    vec4 sum = vec4(0.0), total = vec4(0.0);
    for (uint col = begin; col < end && four; col += 4u) {
        uint word = codes_word(codes0 + col / 4u);
        vec4 code = vec4(code_at(word, 0u), code_at(word, 1u), code_at(word, 2u), code_at(word, 3u));
        vec4 g = TEXEL4(grad, at0 + col);
        sum += g * code;
        total += g;
    }
    for (uint col = begin; col < end && !four; col++) {
        float g = TEXEL1(grad, at0 + col);
        sum.x += g * float(code_at(codes_word(codes0 + col / 4u), col & 3u));
        total.x += g;
    }
    uint place = scale_place(row, unit % groups, groups, offsets);
    dscales[place] += sum.x + sum.y + (sum.z + sum.w);
    if (offsets != 0u)
        dscales[place + groups] += total.x + total.y + (total.z + total.w);
}
