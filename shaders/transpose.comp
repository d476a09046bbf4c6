#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
layout(constant_id = SPEC_TILE) const uint TILE = 32;

layout(set = 0, binding = 0, std430) readonly buffer Src { float src[]; };
layout(set = 0, binding = 1, std430) writeonly buffer Dst { float dst[]; };
layout(push_constant) uniform Push { uint rows, cols, lds, ldd; };

shared float tile[TILE * (TILE + 1u)]; // one column of padding: no bank is hit twice

// One workgroup per TILE x TILE tile of src, through shared memory so that both sides are read and written along rows.
void main()
{
    uint tiles_c = (cols + TILE - 1u) / TILE;
    uint t = wg_index();
    uint r0 = t / tiles_c * TILE, c0 = t % tiles_c * TILE;
    if (r0 >= rows)
        return;
    for (uint i = gl_LocalInvocationID.x; i < TILE * TILE; i += gl_WorkGroupSize.x) {
        uint r = i / TILE, c = i % TILE;
        if (r0 + r < rows && c0 + c < cols)
            tile[r * (TILE + 1u) + c] = src[(r0 + r) * lds + c0 + c];
    }
    barrier();
    for (uint i = gl_LocalInvocationID.x; i < TILE * TILE; i += gl_WorkGroupSize.x) {
        uint c = i / TILE, r = i % TILE;
        if (r0 + r < rows && c0 + c < cols)
            dst[(c0 + c) * ldd + r0 + r] = tile[r * (TILE + 1u) + c];
    }
}
