// The base variants of attention walk a head's dimensions in chunks of 32 and keep a sum for each in registers.
#ifndef ATTN_CHUNKS_GLSL
#define ATTN_CHUNKS_GLSL

const uint CHUNK = 32u, STRIDE = CHUNK + 1u; // of a row in shared memory

// Dimensions of a head whose sums are kept, at most: 128, or all there may be.
#ifndef HEAD_MAX
#define HEAD_MAX HEAD_DIM_MAX
#define EACH_CHUNK(F) F(0u) F(1u) F(2u) F(3u) F(4u) F(5u) F(6u) F(7u)
#else
#define EACH_CHUNK(F) F(0u) F(1u) F(2u) F(3u)
#endif
const uint MAX_CHUNKS = HEAD_MAX / CHUNK;

// EACH_CHUNK and not a loop: compilers do not unroll one with barriers, whatever is asked for, and then find a private
// sum's place by a ladder of conditions, or keep all of them in memory.

#endif
