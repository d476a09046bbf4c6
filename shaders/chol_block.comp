#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(set = 0, binding = 0, std430) buffer A { float a[]; };
layout(set = 0, binding = 1, std430) writeonly buffer Inv { float inv[]; };
layout(set = 0, binding = 2, std430) buffer Status { uint status[]; };
layout(push_constant) uniform Push { uint nb, lda; };

// One workgroup of N lanes, lane = row of L, then column of L^-1. The tile is held transposed, element (row, col) at
// [col * N + row], so that lanes read neighbours. Shared memory is 16 KiB, all that Vulkan promises: below the
// diagonal it holds L (the diagonal itself keeps the pivots), above it L^-1 transposed.
const uint N = CHOL_BLOCK;
shared float tile[N * N];

void main()
{
    uint lane = gl_LocalInvocationID.x;
    if (wg_index() > 0u)
        return;
    // The lower triangle is the matrix; what lies above is not read.
    if (lane < nb)
        for (uint col = 0u; col <= lane; col++)
            tile[col * N + lane] = a[lane * lda + col];

    bool good = true;
    for (uint k = 0u; k < nb; k++) {
        barrier();
        // Left-looking: column k less what the columns before it contribute.
        float sum = 0.0;
        if (lane >= k && lane < nb) {
            sum = tile[k * N + lane];
            for (uint c = 0u; c < k; c++)
                sum -= tile[c * N + lane] * tile[c * N + k];
            tile[k * N + lane] = sum;
        }
        barrier();
        float pivot = tile[k * N + k];
        if (!(pivot > 0.0 && pivot < 3.0e38)) {
            good = false;
            pivot = 1.0;
        }
        if (lane > k && lane < nb)
            tile[k * N + lane] = sum * inversesqrt(pivot);
    }
    barrier();
    if (lane == 0u && !good)
        status[0] += 1u;
    if (lane >= nb)
        return;

    // Column `lane` of X = L^-1: X[i] = -(sum over k in lane..i-1 of L[i][k] X[k]) / L[i][i].
    float pivot = tile[lane * N + lane];
    float own = pivot > 0.0 ? inversesqrt(pivot) : 1.0;
    for (uint i = 0u; i < nb; i++) {
        float d = tile[i * N + i];
        float x = i == lane ? own : 0.0;
        if (i > lane) {
            float sum = tile[lane * N + i] * own;
            for (uint k = lane + 1u; k < i; k++)
                sum += tile[k * N + i] * tile[k * N + lane];
            x = -sum * (d > 0.0 ? inversesqrt(d) : 1.0);
            tile[i * N + lane] = x;
        }
        inv[i * nb + lane] = x;
    }
    // Row `lane` of L: own part of the lower triangle, which nobody changes any more.
    for (uint col = 0u; col < nb; col++)
        a[lane * lda + col] =
            col < lane ? tile[col * N + lane] : col == lane ? sqrt(max(pivot, 0.0)) : 0.0;
}
