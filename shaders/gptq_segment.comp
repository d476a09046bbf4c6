#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "quant.glsl"
layout(local_size_x_id = 0) in;

layout(set = 0, binding = 0, std430) readonly buffer W { float w[]; };
layout(set = 0, binding = 1, std430) readonly buffer R { float r[]; };
layout(set = 0, binding = 2, std430) readonly buffer Scales { float scales[]; };
layout(set = 0, binding = 3, std430) writeonly buffer Codes { uint codes[]; };
layout(set = 0, binding = 4, std430) writeonly buffer Err { float err[]; };
layout(push_constant) uniform Push
{
    uint rows, ldw, ldr, r0, col0, count, g, groups, ldc;
    int lo, hi;
};

// One lane per row. Left-looking: a column first collects the errors of all columns before it, BLOCK columns at a time,
// so that an earlier error is loaded once for BLOCK products; R is the same for all lanes.
const uint BLOCK = 8u;
const uint MOST = 128u;
#ifdef PRIVATE_ERRORS
float past[MOST];
#define PAST(i) past[i]
#else
// A GPU would spill a private array; 32 rows fill the 16 KiB of shared memory that Vulkan promises.
shared float past[MOST * gl_WorkGroupSize.x];
#define PAST(i) past[(i)*gl_WorkGroupSize.x + gl_LocalInvocationID.x]
#endif

void main()
{
    uint row = item_index();
    if (row >= rows)
        return;
    float s = scales[row * groups + g];
    float inverse = inverse_scale(s);
    for (uint j0 = 0u; j0 < count; j0 += BLOCK) {
        float x[BLOCK];
        uint r_row[BLOCK];
        [[unroll]] for (uint k = 0u; k < BLOCK; k++) {
            // Columns past the end repeat the last one; nothing of them is kept.
            uint j = min(j0 + k, count - 1u);
            x[k] = w[row * ldw + col0 + j];
            r_row[k] = r0 + j * ldr;
        }
        for (uint i = 0u; i < j0; i++) {
            float e = PAST(i);
            [[unroll]] for (uint k = 0u; k < BLOCK; k++)
                x[k] -= e * r[r_row[k] + i];
        }
        uint word[BLOCK / 4u];
        [[unroll]] for (uint k = 0u; k < BLOCK; k++) {
            uint j = j0 + k;
            float level = quantized_level(x[k], inverse, float(lo), float(hi));
            float e = (x[k] - s * level) / r[r_row[k] + min(j, count - 1u)];
            [[unroll]] for (uint later = k + 1u; later < BLOCK; later++)
                x[later] -= e * r[r_row[later] + min(j, count - 1u)];
            if (k % 4u == 0u)
                word[k / 4u] = 0u;
            if (j < count) {
                PAST(j) = e;
                err[row * count + j] = e;
                word[k / 4u] |= code_to_lane(level, k % 4u);
            }
        }
        uint at = row * ldc + (col0 + j0) / 4u;
        codes[at] = word[0];
        if (j0 + 4u < count)
            codes[at + 1u] = word[1];
    }
}
