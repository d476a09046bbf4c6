// The key loop of attn_fwd_cpu.comp for heads of at most CHUNKS * PARTS * 4 dimensions; included once per size. USED: where this one
// applies; the loops of the others end after one masked turn. LOAD, STORE: attn_cpu.glsl.
{
    bool used = USED;
    uint end = used ? last : first;
    vec4 qv[CHUNKS][PARTS], acc[CHUNKS][PARTS];
    [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
        [[unroll]] for (uint i = 0u; i < PARTS; i++) {
            uint d = c * 32u + i * 4u;
            qv[c][i] = LOAD(q, q_at, d);
            acc[c][i] = vec4(0.0);
        }
    float top = LOWEST, sum = 0.0;
    for (uint j0 = first; j0 < end; j0 += KEYS) {
        float s[KEYS];
        uint at[KEYS];
        [[unroll]] for (uint j = 0u; j < KEYS; j++) {
            s[j] = 0.0;
            at[j] = kv_base + min(j0 + j, last - 1u) * kv_stride;
        }
        // A fetch is 32 dimensions of one key, four per lane; a shuffle hands each of them to all lanes.
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++) {
            vec4 kf[KEYS];
            [[unroll]] for (uint j = 0u; j < KEYS; j++)
                kf[j] = LOAD(k, at[j], c * 32u + 4u * l);
            [[unroll]] for (uint i = 0u; i < PARTS; i++)
                [[unroll]] for (uint e = 0u; e < 4u; e++)
                    [[unroll]] for (uint j = 0u; j < KEYS; j++)
                        s[j] += qv[c][i][e] * subgroupShuffle(kf[j][e], i);
        }
        float was = top;
        [[unroll]] for (uint j = 0u; j < KEYS; j++) {
            bool seen = j0 + j <= pos && (sliding_ == 0u || j0 + j + sliding_ > pos);
            s[j] = seen ? s[j] * scale_ : LOWEST;
            top = max(top, s[j]);
        }
        float keep = exp(was - top);
        sum *= keep;
        [[unroll]] for (uint j = 0u; j < KEYS; j++) {
            s[j] = s[j] > LOWEST ? exp(s[j] - top) : 0.0;
            sum += s[j];
        }
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++) {
            vec4 vf[KEYS];
            [[unroll]] for (uint j = 0u; j < KEYS; j++)
                vf[j] = LOAD(v, at[j], c * 32u + 4u * l);
            [[unroll]] for (uint i = 0u; i < PARTS; i++)
                [[unroll]] for (uint e = 0u; e < 4u; e++) {
                    float o = acc[c][i][e] * keep;
                    [[unroll]] for (uint j = 0u; j < KEYS; j++)
                        o += s[j] * subgroupShuffle(vf[j][e], i);
                    acc[c][i][e] = o;
                }
        }
    }
    row_lse = used ? top + log(sum) : row_lse;
    float r = 1.0 / sum;
    [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
        [[unroll]] for (uint i = 0u; i < PARTS; i++) {
            uint d = c * 32u + i * 4u;
            if (used && d < dim_ && q0 + l < ctx)
                STORE(attn, attn2, q_at, d, acc[c][i] * r);
        }
}
#undef CHUNKS
#undef USED
#undef LOAD
#undef STORE
