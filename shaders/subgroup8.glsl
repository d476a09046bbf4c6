// Sums and maxima over a workgroup that is one subgroup of 8 invocations (NEEDS LANES8, WG 8), in a fixed order; every
// invocation gets the result.
#ifndef SUBGROUP8_GLSL
#define SUBGROUP8_GLSL

float sum8(float v)
{
    uint l = gl_LocalInvocationID.x;
    v += subgroupShuffle(v, l ^ 1u);
    v += subgroupShuffle(v, l ^ 2u);
    return v + subgroupShuffle(v, l ^ 4u);
}

float max8(float v)
{
    uint l = gl_LocalInvocationID.x;
    v = max(v, subgroupShuffle(v, l ^ 1u));
    v = max(v, subgroupShuffle(v, l ^ 2u));
    return max(v, subgroupShuffle(v, l ^ 4u));
}

// The largest value and, among equals, the smallest index.
void argmax8(inout float v, inout uint index)
{
    for (uint s = 1u; s < 8u; s *= 2u) {
        float other = subgroupShuffle(v, gl_LocalInvocationID.x ^ s);
        uint at = subgroupShuffle(index, gl_LocalInvocationID.x ^ s);
        bool better = other > v || (other == v && at < index);
        v = better ? other : v;
        index = better ? at : index;
    }
}

#endif
