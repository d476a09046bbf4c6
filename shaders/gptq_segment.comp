#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "quant.glsl"

layout(set = 0, binding = 0, std430) readonly buffer W { float w[]; };
layout(set = 0, binding = 1, std430) readonly buffer R { float r[]; };
layout(set = 0, binding = 2, std430) readonly buffer Scales { float scales[]; };
layout(set = 0, binding = 3, std430) writeonly buffer Codes { uint codes[]; };
layout(set = 0, binding = 4, std430) writeonly buffer Err { float err[]; };
layout(push_constant) uniform Push
{
    uint rows, ldw, ldr, r0, col0, count, group, groups, ldc;
    int lo, hi;
    uint offsets;
    GRID_PUSH
};

// Left-looking: a column first collects the errors of all columns before it, BLOCK columns at a time, so that an earlier
// error is loaded once for BLOCK products. A lane has PER_LANE rows, neighbours LANES apart: R is the same for all rows, so
// each of its elements is loaded once for PER_LANE products.
layout(constant_id = SPEC_ROWS_PER_LANE) const uint PER_LANE = 1u;
const uint BLOCK = SEGMENT_GROUP;
const uint MOST = SEGMENT_MAX;
#ifdef PRIVATE_ERRORS
float past[MOST * PER_LANE];
#define PAST(i, m) past[(i)*PER_LANE + (m)]
#else
// A GPU would spill a private array; 32 rows fill the 16 KiB of shared memory that Vulkan promises.
shared float past[MOST * PER_LANE * gl_WorkGroupSize.x];
#define PAST(i, m) past[((i)*PER_LANE + (m)) * gl_WorkGroupSize.x + gl_LocalInvocationID.x]
#endif

void main()
{
    const uint LANES = gl_WorkGroupSize.x;
    uint first = wg_index() * LANES * PER_LANE + gl_LocalInvocationID.x;
    if (first >= rows)
        return;
    // Rows past the end repeat the last one; nothing of them is kept.
    uint row[PER_LANE];
    [[unroll]] for (uint m = 0u; m < PER_LANE; m++)
        row[m] = min(first + m * LANES, rows - 1u);
    for (uint j0 = 0u; j0 < count; j0 += BLOCK) {
        // BLOCK columns are of one group.
        float s[PER_LANE];
        float o[PER_LANE];
        float inverse[PER_LANE];
        [[unroll]] for (uint m = 0u; m < PER_LANE; m++) {
            uint at = scale_place(row[m], (col0 + j0) / group, groups, offsets);
            s[m] = scales[at];
            o[m] = offsets != 0u ? scales[at + groups] : 0.0;
            inverse[m] = inverse_scale(s[m]);
        }
        float x[BLOCK][PER_LANE];
        uint r_row[BLOCK];
        [[unroll]] for (uint k = 0u; k < BLOCK; k++) {
            uint j = min(j0 + k, count - 1u); // likewise columns
            r_row[k] = r0 + j * ldr;
            [[unroll]] for (uint m = 0u; m < PER_LANE; m++)
                x[k][m] = w[row[m] * ldw + col0 + j];
        }
        for (uint i = 0u; i < j0; i++) {
            float e[PER_LANE];
            [[unroll]] for (uint m = 0u; m < PER_LANE; m++)
                e[m] = PAST(i, m);
            [[unroll]] for (uint k = 0u; k < BLOCK; k++) {
                float factor = r[r_row[k] + i];
                [[unroll]] for (uint m = 0u; m < PER_LANE; m++)
                    x[k][m] -= e[m] * factor;
            }
        }
        uint word[BLOCK / 4u][PER_LANE];
        [[unroll]] for (uint k = 0u; k < BLOCK; k++) {
            uint j = j0 + k;
            uint j_r = min(j, count - 1u);
            float diagonal = r[r_row[k] + j_r];
            float level[PER_LANE];
            float e[PER_LANE];
            [[unroll]] for (uint m = 0u; m < PER_LANE; m++) {
                float y = x[k][m] - o[m];
                level[m] = nearest_level(y * inverse[m], GRID);
                e[m] = (y - s[m] * level[m]) / diagonal;
                if (k % 4u == 0u)
                    word[k / 4u][m] = 0u;
            }
            [[unroll]] for (uint later = k + 1u; later < BLOCK; later++) {
                float factor = r[r_row[later] + j_r];
                [[unroll]] for (uint m = 0u; m < PER_LANE; m++)
                    x[later][m] -= e[m] * factor;
            }
            if (j < count) {
                [[unroll]] for (uint m = 0u; m < PER_LANE; m++) {
                    PAST(j, m) = e[m];
                    word[k / 4u][m] |= code_to_lane(level[m], k % 4u);
                    if (first + m * LANES < rows)
                        err[row[m] * count + j] = e[m];
                }
            }
        }
        [[unroll]] for (uint m = 0u; m < PER_LANE; m++) {
            uint at = row[m] * ldc + (col0 + j0) / 4u;
            if (first + m * LANES < rows) {
                codes[at] = word[0][m];
                if (j0 + 4u < count)
                    codes[at + 1u] = word[1][m];
            }
        }
    }
}
