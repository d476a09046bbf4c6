// The query loop of attn_bwd_kv_cpu.comp for heads of at most CHUNKS * PARTS * 4 dimensions, QUERIES queries per turn;
// included once per size. USED: where this one applies; the loops of the others end after one masked turn. LOAD, STORE:
// attn_cpu.glsl.
{
    // A fetch is 32 numbers, four per lane: a part of one query, or all of several.
    const uint ROWS_PER_FETCH = 8u / PARTS, FETCHES = QUERIES / ROWS_PER_FETCH;
    bool used = USED;
    uint end = used ? last : k0, head_end = used ? group : 0u;
    vec4 kv[ROWS][CHUNKS][PARTS], acc_v[ROWS][CHUNKS][PARTS];
#ifndef ONLY_V
    vec4 vv[ROWS][CHUNKS][PARTS], acc_k[ROWS][CHUNKS][PARTS];
#endif
    [[unroll]] for (uint r = 0u; r < ROWS; r++)
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
            [[unroll]] for (uint i = 0u; i < PARTS; i++) {
                uint d = c * 32u + i * 4u;
                kv[r][c][i] = LOAD(k, at[r], d);
                acc_v[r][c][i] = vec4(0.0);
#ifndef ONLY_V
                vv[r][c][i] = LOAD(v, at[r], d);
                acc_k[r][c][i] = vec4(0.0);
#endif
            }
    for (uint head = 0u; head < head_end; head++)
        for (uint i0 = k0; i0 < end; i0 += QUERIES) {
            vec4 qf[CHUNKS][FETCHES], of[CHUNKS][FETCHES];
            [[unroll]] for (uint f = 0u; f < FETCHES; f++) {
                uint row = row0 + min(i0 + f * ROWS_PER_FETCH + l / PARTS, last - 1u) * heads_ + head;
                [[unroll]] for (uint c = 0u; c < CHUNKS; c++) {
                    uint d = c * 32u + l % PARTS * 4u;
                    qf[c][f] = LOAD(q, row * dim_, d);
                    of[c][f] = LOAD(dout, row * dim_, d);
                }
            }
            uint my_row = row0 + min(i0 + l, last - 1u) * heads_ + head;
            float my_lse = TEXEL1(lse, my_row) * LOG2E;
            float s[ROWS][QUERIES];
            [[unroll]] for (uint j = 0u; j < QUERIES; j++)
                [[unroll]] for (uint r = 0u; r < ROWS; r++)
                    s[r][j] = 0.0;
            [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
                [[unroll]] for (uint i = 0u; i < PARTS; i++)
                    [[unroll]] for (uint e = 0u; e < 4u; e++)
                        [[unroll]] for (uint j = 0u; j < QUERIES; j++) {
                            float x = subgroupShuffle(qf[c][j / ROWS_PER_FETCH][e], j % ROWS_PER_FETCH * PARTS + i);
                            [[unroll]] for (uint r = 0u; r < ROWS; r++)
                                s[r][j] += kv[r][c][i][e] * x;
                        }
            [[unroll]] for (uint j = 0u; j < QUERIES; j++) {
                float row_lse = subgroupShuffle(my_lse, j);
                uint query = i0 + j;
                [[unroll]] for (uint r = 0u; r < ROWS; r++) {
                    bool seen = query < last && query >= pos[r] && (sliding_ == 0u || pos[r] + sliding_ > query);
                    s[r][j] = seen ? exp2(s[r][j] * (scale_ * LOG2E) - row_lse) : 0.0;
                }
            }
            [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
                [[unroll]] for (uint i = 0u; i < PARTS; i++)
                    [[unroll]] for (uint e = 0u; e < 4u; e++)
                        [[unroll]] for (uint j = 0u; j < QUERIES; j++) {
                            float x = subgroupShuffle(of[c][j / ROWS_PER_FETCH][e], j % ROWS_PER_FETCH * PARTS + i);
                            [[unroll]] for (uint r = 0u; r < ROWS; r++)
                                acc_v[r][c][i][e] += s[r][j] * x;
                        }
#ifndef ONLY_V
            float my_delta = TEXEL1(delta, my_row);
            float dp[ROWS][QUERIES];
            [[unroll]] for (uint j = 0u; j < QUERIES; j++)
                [[unroll]] for (uint r = 0u; r < ROWS; r++)
                    dp[r][j] = 0.0;
            [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
                [[unroll]] for (uint i = 0u; i < PARTS; i++)
                    [[unroll]] for (uint e = 0u; e < 4u; e++)
                        [[unroll]] for (uint j = 0u; j < QUERIES; j++) {
                            float x = subgroupShuffle(of[c][j / ROWS_PER_FETCH][e], j % ROWS_PER_FETCH * PARTS + i);
                            [[unroll]] for (uint r = 0u; r < ROWS; r++)
                                dp[r][j] += vv[r][c][i][e] * x;
                        }
            [[unroll]] for (uint j = 0u; j < QUERIES; j++) {
                float row_delta = subgroupShuffle(my_delta, j);
                [[unroll]] for (uint r = 0u; r < ROWS; r++)
                    dp[r][j] = s[r][j] * (dp[r][j] - row_delta);
            }
            [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
                [[unroll]] for (uint i = 0u; i < PARTS; i++)
                    [[unroll]] for (uint e = 0u; e < 4u; e++)
                        [[unroll]] for (uint j = 0u; j < QUERIES; j++) {
                            float x = subgroupShuffle(qf[c][j / ROWS_PER_FETCH][e], j % ROWS_PER_FETCH * PARTS + i);
                            [[unroll]] for (uint r = 0u; r < ROWS; r++)
                                acc_k[r][c][i][e] += dp[r][j] * x;
                        }
#endif
        }
    [[unroll]] for (uint r = 0u; r < ROWS; r++)
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
            [[unroll]] for (uint i = 0u; i < PARTS; i++) {
                uint d = c * 32u + i * 4u;
                if (used && d < dim_ && k0 + r * 8u + l < ctx) {
                    STORE(dv, dv2, at[r], d, acc_v[r][c][i]);
#ifndef ONLY_V
                    STORE(dk, dk2, at[r], d, acc_k[r][c][i] * scale_);
#endif
                }
            }
}
#undef PARTS
#undef CHUNKS
#undef QUERIES
#undef USED
#undef LOAD
#undef STORE
