#!/usr/bin/env bash
# scripts/gpu-loops.py on loops of few instructions, whose counts are done by hand: one of each vendor's listings.
set -euo pipefail
cd "${GSQ_SOURCE:-$(dirname "$0")/..}"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp"/{navi31,ampere,bmg}

# Before the loop a matrix instruction that does not count. In it: one side of a branch that loads (16 bytes of 32 lanes, not the
# other side's, too), one that is rare and only computes (200 cycles), two matrix instructions of 32 cycles, 64 cycles beside them.
{
    echo "BB0:"
    echo "	v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7] ; 00"
    echo "BB1:"
    echo "	s_cbranch_scc1 BB9 ; 00"
    echo "BB2:"
    echo "	s_and_saveexec_b32 s0, vcc_lo ; 00"
    echo "	s_cbranch_execz BB4 ; 00"
    echo "BB3:"
    echo "	buffer_load_b128 v[0:3], v9, s[20:23], 0 offen ; 00"
    echo "BB4:"
    echo "	s_and_not1_b32 exec_lo, s0, exec_lo ; 00"
    echo "	s_cbranch_execz BB6 ; 00"
    echo "BB5:"
    echo "	buffer_load_b128 v[0:3], v9, s[24:27], 0 offen ; 00"
    echo "BB6:"
    echo "	s_mov_b32 exec_lo, -1 ; 00"
    echo "	s_cbranch_scc0 BB8 ; 00"
    echo "BB7:"
    for ((i = 0; i < 200; i++)); do echo "	v_mul_f32_e32 v1, v2, v3 ; 00"; done
    echo "BB8:"
    for ((i = 0; i < 64; i++)); do echo "	v_max_f32_e32 v1, v2, v3 ; 00"; done
    echo "	v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7] ; 00"
    echo "	v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7] ; 00"
    echo "	s_branch BB1 ; 00"
    echo "BB9:"
    echo "	s_endpgm ; 00"
} >"$tmp/navi31/gemm_half.coopmat.32.txt"

# Shared memory bounds it: 512 bytes a load are 16 cycles of a sub-core, 10 multiply-adds 10.
{
    echo "block.u 0 L2 [] -> {"
    echo "      r0       = mov rZ      // delay=1"
    echo "} -> [1]"
    echo "block.u 1 L3 [0, 1] -> {"
    echo "      r4..8    = ld.shared.strong.cta.b128 [r3], pT // delay=2 wr:0"
    for ((i = 0; i < 10; i++)); do echo "      r1       = ffma.ftz r2 r3 r4 // delay=1"; done
    echo "@p0              bra pT L3   // delay=1"
    echo "} -> [1, 2]"
    echo "block 2 L4 [1] -> {"
    echo "                 exit        // delay=1"
    echo "} -> []"
} >"$tmp/ampere/gemm.base.32.txt"

# 16 cycles of matrices, 33 of integers (two are the jumps), in units of their own.
{
    echo "LABEL1:"
    echo "(+f0.0) break(16) JIP:  LABEL2        UIP:  LABEL2              { align1 1H };"
    for ((i = 0; i < 31; i++)); do echo "add(16)         g1<1>D          g2<8,8,1>D      63D             { align1 1H };"; done
    echo "sync nop(1)                     null<0,1,0>UB                   { align1 WE_all 1N I@1 };"
    echo "dpas.8x8(16)    g4<1>F          g44<1,1,0>F     g20<1,1,0>HF    g36<1,1,0>HF { align1 WE_all 1H \$6 };"
    echo
    echo "LABEL2:"
    echo "while(16)       JIP:  LABEL1                                    { align1 1H };"
    echo "mul(16)         g1<1>F          g2<8,8,1>F      g2<8,8,1>F      { align1 1H };"
} >"$tmp/bmg/gemm_half.coopmat.16.txt"

# kernel variant card registers spilled local shared waves matrix cycles
all() { # waves of navi31
    echo "gemm_half coopmat navi31 96 0 0 0 $1 3 0"
    echo "gemm base ampere 96 0 0 - 48 0 0"
    echo "gemm_half coopmat bmg 96 0 0 0 16 1 0"
} >"$tmp/all.txt"

same() { # WHAT EXPECTED
    local got
    got=$(scripts/gpu-loops.py "$tmp" --rows)
    [[ $got == "$2" ]] || { printf '%s:\n%s\ninstead of:\n%s\n' "$1" "$got" "$2" && exit 1; }
}
all 16
same "counts" 'gemm_half coopmat navi31 2 matrix 0.500
gemm_half coopmat bmg 1 matrix 0.485
gemm base ampere 0 f32 0.625'
# Alone: 128 cycles, 8 of the CU's cache for the load, 400 for its answer, 40: with one subgroup 64 of 576.
all 1
same "one subgroup" 'gemm_half coopmat navi31 2 matrix 0.111
gemm_half coopmat bmg 1 matrix 0.485
gemm base ampere 0 f32 0.625'
echo "gpu-loops: counts are as by hand"
