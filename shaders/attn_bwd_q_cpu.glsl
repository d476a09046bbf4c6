// The key loop of attn_bwd_q_cpu.comp for heads of at most CHUNKS * PARTS * 4 dimensions, KEYS keys per turn; included once
// per size. USED: where this one applies; the loops of the others end after one masked turn. LOAD, STORE: attn_cpu.glsl.
{
    // A fetch is 32 numbers, four per lane: a part of one key, or all of several.
    const uint KEYS_PER_FETCH = 8u / PARTS, FETCHES = KEYS / KEYS_PER_FETCH;
    bool used = USED;
    uint end = used ? last : first;
    vec4 qv[ROWS][CHUNKS][PARTS], dov[ROWS][CHUNKS][PARTS], acc[ROWS][CHUNKS][PARTS];
    [[unroll]] for (uint r = 0u; r < ROWS; r++)
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
            [[unroll]] for (uint i = 0u; i < PARTS; i++) {
                uint d = c * 32u + i * 4u;
                qv[r][c][i] = LOAD(q, at[r], d);
                dov[r][c][i] = LOAD(dout, at[r], d);
                acc[r][c][i] = vec4(0.0);
            }
    for (uint j0 = first; j0 < end; j0 += KEYS) {
        vec4 kf[CHUNKS][FETCHES], vf[CHUNKS][FETCHES];
        [[unroll]] for (uint f = 0u; f < FETCHES; f++) {
            uint key_at = kv_base + min(j0 + f * KEYS_PER_FETCH + l / PARTS, last - 1u) * kv_stride;
            [[unroll]] for (uint c = 0u; c < CHUNKS; c++) {
                uint d = c * 32u + l % PARTS * 4u;
                kf[c][f] = LOAD(k, key_at, d);
                vf[c][f] = LOAD(v, key_at, d);
            }
        }
        float s[ROWS][KEYS], dp[ROWS][KEYS];
        [[unroll]] for (uint j = 0u; j < KEYS; j++) {
            [[unroll]] for (uint r = 0u; r < ROWS; r++) {
                s[r][j] = 0.0;
                dp[r][j] = 0.0;
            }
        }
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
            [[unroll]] for (uint i = 0u; i < PARTS; i++)
                [[unroll]] for (uint e = 0u; e < 4u; e++)
                    [[unroll]] for (uint j = 0u; j < KEYS; j++) {
                        float kb = subgroupShuffle(kf[c][j / KEYS_PER_FETCH][e], j % KEYS_PER_FETCH * PARTS + i);
                        [[unroll]] for (uint r = 0u; r < ROWS; r++)
                            s[r][j] += qv[r][c][i][e] * kb;
                    }
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
            [[unroll]] for (uint i = 0u; i < PARTS; i++)
                [[unroll]] for (uint e = 0u; e < 4u; e++)
                    [[unroll]] for (uint j = 0u; j < KEYS; j++) {
                        float vb = subgroupShuffle(vf[c][j / KEYS_PER_FETCH][e], j % KEYS_PER_FETCH * PARTS + i);
                        [[unroll]] for (uint r = 0u; r < ROWS; r++)
                            dp[r][j] += dov[r][c][i][e] * vb;
                    }
        [[unroll]] for (uint j = 0u; j < KEYS; j++)
            [[unroll]] for (uint r = 0u; r < ROWS; r++) {
                bool seen = j0 + j <= pos[r] && (sliding_ == 0u || j0 + j + sliding_ > pos[r]);
                float p = seen ? exp2(s[r][j] * (scale_ * LOG2E) - row_lse[r]) : 0.0;
                s[r][j] = p * (dp[r][j] - row_delta[r]);
            }
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
            [[unroll]] for (uint i = 0u; i < PARTS; i++)
                [[unroll]] for (uint e = 0u; e < 4u; e++) {
                    [[unroll]] for (uint j = 0u; j < KEYS; j++) {
                        float kb = subgroupShuffle(kf[c][j / KEYS_PER_FETCH][e], j % KEYS_PER_FETCH * PARTS + i);
                        [[unroll]] for (uint r = 0u; r < ROWS; r++)
                            acc[r][c][i][e] += s[r][j] * kb;
                    }
                }
    }
    [[unroll]] for (uint r = 0u; r < ROWS; r++)
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
            [[unroll]] for (uint i = 0u; i < PARTS; i++) {
                uint d = c * 32u + i * 4u;
                if (used && d < dim_ && q0 + r * 8u + l < ctx)
                    STORE(dq, dq2, at[r], d, acc[r][c][i] * scale_);
            }
}
#undef PARTS
#undef CHUNKS
#undef KEYS
#undef USED
#undef LOAD
#undef STORE
