#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"

// The state S [dim, values] of a head in registers: LANES invocations have a column, each every LANES-th number of it. SPAN: the most
// dimensions. Two sums over the old state give what it knows of k and of q; the new one's output follows from them.

layout(set = 0, binding = 0, std430) readonly buffer Qkv { float qkv[]; };
layout(set = 0, binding = 1, std430) readonly buffer B { float b[]; };
layout(set = 0, binding = 2, std430) readonly buffer A { float a[]; };
layout(set = 0, binding = 3, std430) readonly buffer Rate { float rate[]; };
layout(set = 0, binding = 4, std430) readonly buffer Bias { float bias[]; };
layout(set = 0, binding = 5, std430) writeonly buffer Out { float result[]; };
layout(push_constant) uniform Push { uint windows, ctx, heads, kv_heads, dim, values, ldb, grouped, run; };

const uint LANES = DELTA_LANES, COLUMNS = WORKGROUP_MAX / LANES, PER = SPAN / LANES;

shared float keys[2][SPAN], queries[2][SPAN];
shared vec4 parts[WORKGROUP_MAX];

float softplus(float v)
{
    return max(v, 0.0) + log(1.0 + exp(-abs(v)));
}

void main()
{
    uint id = gl_LocalInvocationID.x, lane = id % LANES, tiles = (values + COLUMNS - 1u) / COLUMNS;
    uint column = wg_index() % tiles * COLUMNS + id / LANES, head = wg_index() / tiles % heads;
    uint window = wg_index() / tiles / heads, share = heads / kv_heads, key = head / run % kv_heads;
    if (window >= windows)
        return;
    uint width = 2u * kv_heads * dim + heads * values;
    uint b_at = grouped != 0u ? key * 2u * share + head % share : head, a_at = grouped != 0u ? b_at + share : head;
    float scale = 1.0 / sqrt(float(dim)), head_rate = rate[head], head_bias = bias[head];
    float s[PER];
    [[unroll]] for (uint p = 0u; p < PER; p++)
        s[p] = 0.0;
    for (uint t = 0u; t < ctx; t++) {
        uint row = window * ctx + t, from = row * width, now = t & 1u;
        for (uint i = id; i < SPAN; i += WORKGROUP_MAX) {
            queries[now][i] = i < dim ? qkv[from + key * dim + i] * scale : 0.0;
            keys[now][i] = i < dim ? qkv[from + (kv_heads + key) * dim + i] : 0.0;
        }
        float v = column < values ? qkv[from + 2u * kv_heads * dim + head * values + column] : 0.0;
        float beta = 1.0 / (1.0 + exp(-b[row * ldb + b_at]));
        float decay = exp(head_rate * softplus(a[row * ldb + a_at] + head_bias));
        barrier();
        vec4 part = vec4(0.0);
        [[unroll]] for (uint p = 0u; p < PER; p++) {
            float k = keys[now][p * LANES + lane], q = queries[now][p * LANES + lane];
            part += vec4(s[p] * k, s[p] * q, k * q, 0.0);
        }
        parts[id] = part;
        barrier();
        vec4 sum = vec4(0.0);
        [[unroll]] for (uint p = 0u; p < LANES; p++)
            sum += parts[id - lane + p];
        float delta = beta * (v - decay * sum.x);
        [[unroll]] for (uint p = 0u; p < PER; p++)
            s[p] = decay * s[p] + keys[now][p * LANES + lane] * delta;
        if (lane == 0u && column < values)
            result[(row * heads + head) * values + column] = decay * sum.y + sum.z * delta;
    }
}
