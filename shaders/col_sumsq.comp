#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "lanes.glsl"

READ(0, x);
layout(set = 0, binding = 1, std430) buffer Sums { float sums[]; };
layout(push_constant) uniform Push { uint rows, cols; };

// The sum keeps what its additions lose (Kahan).
#define ADD_SQUARES(type)                                       \
    void add_squares(inout type sum, inout type lost, type v)   \
    {                                                           \
        precise type term = v * v - lost;                       \
        precise type next = sum + term;                         \
        lost = next - sum - term;                               \
        sum = next;                                             \
    }
ADD_SQUARES(float)
ADD_SQUARES(vec4)

#ifdef CPU
// Four columns per invocation: a texel of each row where rows are whole texels, else one by one.
void main()
{
    uint c = item_index() * 4u, n = cols, last = rows * cols - 1u;
    bool four = (n & 3u) == 0u;
    uint whole = four && c < n ? rows : 0u, odd = !four && c < n ? rows : 0u;
    vec4 sum = vec4(0.0), lost = vec4(0.0);
    for (uint r = 0u; r < whole; r++)
        add_squares(sum, lost, LOAD4(x, r * n + c));
    for (uint r = 0u; r < odd; r++) {
        uint i = r * n + c;
        add_squares(sum, lost, vec4(LOAD1(x, i), LOAD1(x, min(i + 1u, last)), LOAD1(x, min(i + 2u, last)),
                                    LOAD1(x, min(i + 3u, last))));
    }
    for (uint j = 0u; j < 4u && c + j < n; j++)
        sums[c + j] += pick(sum, j);
}
#else
// One invocation per column: neighbours read neighbours, and there are more of them than with four.
void main()
{
    uint c = item_index();
    if (c >= cols)
        return;
    float sum = 0.0, lost = 0.0;
    for (uint r = 0u; r < rows; r++)
        add_squares(sum, lost, LOAD1(x, r * cols + c));
    sums[c] += sum;
}
#endif
