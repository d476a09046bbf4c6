#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_samplerless_texture_functions : require
#include "common.glsl"
#include "texel.glsl"
layout(constant_id = SPEC_TILE) const uint TILE = 32;

layout(set = 0, binding = 0) uniform textureBuffer src;
layout(set = 0, binding = 1, std430) writeonly buffer Dst { vec4 dst[]; };
layout(push_constant) uniform Push { uint rows, cols, lds, ldd; };

// One workgroup per TILE x TILE tile of src, each invocation 4 x 4 blocks of it.
void main()
{
    uint tiles_c = (cols + TILE - 1u) / TILE, t = wg_index();
    uint r0 = t / tiles_c * TILE, c0 = t % tiles_c * TILE;
    uint n_r = rows, n_c = cols, ls = lds, ld = ldd;
    bool four = ((ls | ld) & 3u) == 0u;
    for (uint b = gl_LocalInvocationID.x; b < TILE * TILE / 16u; b += gl_WorkGroupSize.x) {
        uint r = r0 + b / (TILE / 4u) * 4u, c = c0 + b % (TILE / 4u) * 4u;
        bool whole = four && r + 3u < n_r && c + 3u < n_c;
        if (whole) {
            uint at = r * ls + c, to = c * ld + r;
            mat4 x = transpose(mat4(TEXEL4(src, at), TEXEL4(src, at + ls), TEXEL4(src, at + 2u * ls), TEXEL4(src, at + 3u * ls)));
            dst[to >> 2] = x[0];
            dst[(to + ld) >> 2] = x[1];
            dst[(to + 2u * ld) >> 2] = x[2];
            dst[(to + 3u * ld) >> 2] = x[3];
        }
        for (uint i = 0u; i < 16u && !whole; i++) {
            uint rr = r + i / 4u, cc = c + i % 4u, to = cc * ld + rr;
            if (rr < n_r && cc < n_c)
                dst[to >> 2][to & 3u] = TEXEL1(src, rr * ls + cc);
        }
    }
}
