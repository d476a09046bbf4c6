#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "lanes.glsl"

layout(constant_id = SPEC_TILE) const uint TILE = 32;

READ(0, src);
WRITE(1, dst);
layout(push_constant) uniform Push { uint rows, cols, lds, ldd; };

// One workgroup per TILE x TILE tile of src: on a CPU device each invocation turns blocks of 4 x 4 in registers, on a GPU the
// tile passes through shared memory, so that both sides are read and written along rows. Four at a time where rows start on
// fours.
#ifdef CPU
void main()
{
    uint tiles_c = (cols + TILE - 1u) / TILE, t = wg_index();
    uint r0 = t / tiles_c * TILE, c0 = t % tiles_c * TILE;
    uint n_r = rows, n_c = cols, ls = lds, ld = ldd;
    bool four = ((ls | ld) & 3u) == 0u;
    for (uint b = LANE; b < TILE * TILE / 16u; b += gl_WorkGroupSize.x) {
        uint r = r0 + b / (TILE / 4u) * 4u, c = c0 + b % (TILE / 4u) * 4u;
        bool whole = four && r + 3u < n_r && c + 3u < n_c;
        if (whole) {
            uint at = r * ls + c, to = c * ld + r;
            mat4 x = transpose(mat4(LOAD4(src, at), LOAD4(src, at + ls), LOAD4(src, at + 2u * ls), LOAD4(src, at + 3u * ls)));
            STORE4(dst, to, x[0]);
            STORE4(dst, to + ld, x[1]);
            STORE4(dst, to + 2u * ld, x[2]);
            STORE4(dst, to + 3u * ld, x[3]);
        }
        for (uint i = 0u; i < 16u && !whole; i++) {
            uint rr = r + i / 4u, cc = c + i % 4u, to = cc * ld + rr;
            if (rr < n_r && cc < n_c)
                STORE1(dst, to, LOAD1(src, rr * ls + cc));
        }
    }
}
#else
const uint STRIDE = TILE + 1u; // one column of padding: no bank is hit twice
shared float tile[TILE * STRIDE];

void main()
{
    uint tiles_c = (cols + TILE - 1u) / TILE, t = wg_index();
    uint r0 = t / tiles_c * TILE, c0 = t % tiles_c * TILE;
    if (r0 >= rows)
        return;
    bool four = ((lds | ldd) & 3u) == 0u;
    for (uint i = LANE; i < TILE * TILE / 4u; i += gl_WorkGroupSize.x) {
        uint r = i / (TILE / 4u), c = i % (TILE / 4u) * 4u, from = (r0 + r) * lds + c0 + c, at = r * STRIDE + c;
        uint n = r0 + r < rows ? min(cols - min(c0 + c, cols), 4u) : 0u; // elements there are
        vec4 v = vec4(0.0);
        if (four && n == 4u)
            v = LOAD4(src, from);
        [[unroll]] for (uint e = 0u; e < 4u; e++)
            if (e < n && !(four && n == 4u))
                v[e] = LOAD1(src, from + e);
        [[unroll]] for (uint e = 0u; e < 4u; e++)
            tile[at + e] = v[e];
    }
    barrier();
    for (uint i = LANE; i < TILE * TILE / 4u; i += gl_WorkGroupSize.x) {
        uint c = i / (TILE / 4u), r = i % (TILE / 4u) * 4u, to = (c0 + c) * ldd + r0 + r, at = r * STRIDE + c;
        uint n = c0 + c < cols ? min(rows - min(r0 + r, rows), 4u) : 0u;
        vec4 v = vec4(tile[at], tile[at + STRIDE], tile[at + 2u * STRIDE], tile[at + 3u * STRIDE]);
        if (four && n == 4u)
            STORE4(dst, to, v);
        for (uint e = 0u; e < n && !(four && n == 4u); e++)
            STORE1(dst, to + e, pick(v, e));
    }
}
#endif
