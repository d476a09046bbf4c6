#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) writeonly buffer Out { float o[]; };
layout(push_constant) uniform Push { uint n, turns; float by; };

// 12 independent chains: enough to hide an addition by the others, few enough for 16 vector registers.
const uint CHAINS = 12u;

void main()
{
    uint i = item_index();
    float x[CHAINS], a = by, b = float(i & 7u) * 0.125;
    [[unroll]] for (uint c = 0u; c < CHAINS; c++)
        x[c] = float(c);
    for (uint t = 0u; t < turns; t++)
        [[unroll]] for (uint u = 0u; u < 8u; u++)
            [[unroll]] for (uint c = 0u; c < CHAINS; c++)
                x[c] = x[c] * a + b;
    float sum = 0.0;
    [[unroll]] for (uint c = 0u; c < CHAINS; c++)
        sum += x[c];
    if (i < n)
        o[i] = sum;
}
