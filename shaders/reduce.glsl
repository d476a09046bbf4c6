// Sums and maxima over a workgroup, in a fixed order, so that a run repeats bit for bit. The workgroup is a power of two,
// at most WORKGROUP_MAX. Every invocation gets the result; all must call.
#ifndef REDUCE_GLSL
#define REDUCE_GLSL

shared float reduce_values[WORKGROUP_MAX];
shared uint reduce_indices[WORKGROUP_MAX];

float wg_sum(float v)
{
    uint l = gl_LocalInvocationID.x;
    barrier(); // the result of the call before may still be being read
    reduce_values[l] = v;
    barrier();
    for (uint s = gl_WorkGroupSize.x / 2u; s > 0u; s >>= 1) {
        if (l < s)
            reduce_values[l] += reduce_values[l + s];
        barrier();
    }
    return reduce_values[0];
}

float wg_max(float v)
{
    uint l = gl_LocalInvocationID.x;
    barrier();
    reduce_values[l] = v;
    barrier();
    for (uint s = gl_WorkGroupSize.x / 2u; s > 0u; s >>= 1) {
        if (l < s)
            reduce_values[l] = max(reduce_values[l], reduce_values[l + s]);
        barrier();
    }
    return reduce_values[0];
}

// The largest value and, among equals, the smallest index.
void wg_argmax(inout float v, inout uint index)
{
    uint l = gl_LocalInvocationID.x;
    barrier();
    reduce_values[l] = v;
    reduce_indices[l] = index;
    barrier();
    for (uint s = gl_WorkGroupSize.x / 2u; s > 0u; s >>= 1) {
        if (l < s) {
            float other = reduce_values[l + s];
            uint at = reduce_indices[l + s];
            if (other > reduce_values[l] || (other == reduce_values[l] && at < reduce_indices[l])) {
                reduce_values[l] = other;
                reduce_indices[l] = at;
            }
        }
        barrier();
    }
    v = reduce_values[0];
    index = reduce_indices[0];
}

#endif
