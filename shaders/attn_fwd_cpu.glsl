// The key loop of attn_fwd_cpu.comp for heads of at most CHUNKS * PARTS * 4 dimensions; included once per size. USED: where this one
// applies; the loops of the others end after one masked turn. LOAD, STORE: attn_cpu.glsl.
{
    // A fetch is 32 numbers, four per lane: a part of one key, or all of several.
    const uint KEYS_PER_FETCH = 8u / PARTS, FETCHES = KEYS / KEYS_PER_FETCH;
    bool used = USED;
    uint end = used ? last : first;
    vec4 qv[ROWS][CHUNKS][PARTS], acc[ROWS][CHUNKS][PARTS];
    float top[ROWS], sum[ROWS];
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        top[r] = LOWEST;
        sum[r] = 0.0;
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
            [[unroll]] for (uint i = 0u; i < PARTS; i++) {
                uint d = c * 32u + i * 4u;
                qv[r][c][i] = LOAD(q, q_at[r], d);
                acc[r][c][i] = vec4(0.0);
            }
    }
    for (uint j0 = first; j0 < end; j0 += KEYS) {
        float s[ROWS][KEYS];
        uint at[FETCHES];
        [[unroll]] for (uint f = 0u; f < FETCHES; f++)
            at[f] = kv_base + min(j0 + f * KEYS_PER_FETCH + l / PARTS, last - 1u) * kv_stride;
        [[unroll]] for (uint j = 0u; j < KEYS; j++)
            [[unroll]] for (uint r = 0u; r < ROWS; r++)
                s[r][j] = 0.0;
        // A shuffle hands a number to all lanes.
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++) {
            vec4 kf[FETCHES];
            [[unroll]] for (uint f = 0u; f < FETCHES; f++)
                kf[f] = LOAD(k, at[f], c * 32u + l % PARTS * 4u);
            [[unroll]] for (uint i = 0u; i < PARTS; i++)
                [[unroll]] for (uint e = 0u; e < 4u; e++)
                    [[unroll]] for (uint j = 0u; j < KEYS; j++) {
                        float x = subgroupShuffle(kf[j / KEYS_PER_FETCH][e], j % KEYS_PER_FETCH * PARTS + i);
                        [[unroll]] for (uint r = 0u; r < ROWS; r++)
                            s[r][j] += qv[r][c][i][e] * x;
                    }
        }
        float keep[ROWS];
        [[unroll]] for (uint r = 0u; r < ROWS; r++) {
            float was = top[r];
            [[unroll]] for (uint j = 0u; j < KEYS; j++) {
                bool seen = j0 + j <= pos[r] && (sliding_ == 0u || j0 + j + sliding_ > pos[r]);
                s[r][j] = seen ? s[r][j] * scale_ : LOWEST;
                top[r] = max(top[r], s[r][j]);
            }
            keep[r] = exp(was - top[r]);
            sum[r] *= keep[r];
            [[unroll]] for (uint j = 0u; j < KEYS; j++) {
                s[r][j] = s[r][j] > LOWEST ? exp(s[r][j] - top[r]) : 0.0;
                sum[r] += s[r][j];
            }
        }
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++) {
            vec4 vf[FETCHES];
            [[unroll]] for (uint f = 0u; f < FETCHES; f++)
                vf[f] = LOAD(v, at[f], c * 32u + l % PARTS * 4u);
            [[unroll]] for (uint i = 0u; i < PARTS; i++)
                [[unroll]] for (uint e = 0u; e < 4u; e++) {
                    float o[ROWS];
                    [[unroll]] for (uint r = 0u; r < ROWS; r++)
                        o[r] = acc[r][c][i][e] * keep[r];
                    [[unroll]] for (uint j = 0u; j < KEYS; j++) {
                        float x = subgroupShuffle(vf[j / KEYS_PER_FETCH][e], j % KEYS_PER_FETCH * PARTS + i);
                        [[unroll]] for (uint r = 0u; r < ROWS; r++)
                            o[r] += s[r][j] * x;
                    }
                    [[unroll]] for (uint r = 0u; r < ROWS; r++)
                        acc[r][c][i][e] = o[r];
                }
        }
    }
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        row_lse[r] = used ? top[r] + log(sum[r]) : row_lse[r];
        float to_one = 1.0 / sum[r];
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
            [[unroll]] for (uint i = 0u; i < PARTS; i++) {
                uint d = c * 32u + i * 4u;
                if (used && d < dim_ && q0 + r * 8u + l < ctx)
                    STORE(attn, attn2, q_at[r], d, acc[r][c][i] * to_one);
            }
    }
}
#undef PARTS
#undef CHUNKS
#undef USED
#undef LOAD
#undef STORE
