#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#include "common.glsl"
#include "texel.glsl"
layout(constant_id = SPEC_ITEMS) const uint ITEMS = 4;

layout(set = 0, binding = 0) uniform textureBuffer x;
layout(set = 0, binding = 1, std430) buffer Sums { float sums[]; };
layout(push_constant) uniform Push { uint rows, cols; };

// What additions lose is kept, as in the plain variant.
void add_squares(inout vec4 sum, inout vec4 lost, vec4 v)
{
    precise vec4 term = v * v - lost;
    precise vec4 next = sum + term;
    lost = next - sum - term;
    sum = next;
}

// Four columns per invocation: a texel of each row where rows are whole texels, else one by one.
void main()
{
    uint c = item_index() * ITEMS, n = cols, last = rows * cols - 1u;
    bool four = (n & 3u) == 0u;
    uint whole = four && c < n ? rows : 0u, odd = !four && c < n ? rows : 0u;
    vec4 sum = vec4(0.0), lost = vec4(0.0);
    for (uint r = 0u; r < whole; r++)
        add_squares(sum, lost, TEXEL4(x, r * n + c));
    for (uint r = 0u; r < odd; r++) {
        uint i = r * n + c;
        add_squares(sum, lost, vec4(TEXEL1(x, i), TEXEL1(x, min(i + 1u, last)), TEXEL1(x, min(i + 2u, last)),
                                    TEXEL1(x, min(i + 3u, last))));
    }
    for (uint j = 0u; j < 4u && c + j < n; j++)
        sums[c + j] += pick(sum, j);
}
