/* GGUF files as bytes. */
#ifndef TESTS_GGUF_BYTES_H
#define TESTS_GGUF_BYTES_H

/* Bytes of a file by hand: small numbers as u32 and u64, a string of one byte. */
#define Z3                         "\0\0\0"
#define Z7                         "\0\0\0\0\0\0\0"
#define U32(byte)                  byte Z3
#define U64(byte)                  byte Z7
#define STR1(c)                    U64("\1") c
#define HEAD(version, tensors, kv) "GGUF" U32(version) U64(tensors) U64(kv)
/* A key "k" of a type, and an array of an element type. */
#define KEY(type)         STR1("k") U32(type)
#define ARRAY(element, n) KEY("\x9") U32(element) U64(n)
/* A tensor of one dimension. */
#define TENSOR(name, ne0, type, offset) STR1(name) U32("\1") U64(ne0) U32(type) U64(offset)
#define ALIGN                           U64("\x11") "general.alignment"

/* Three keys and two tensors. */
static const char golden[] = HEAD("\3", "\2", "\3")                       /* 24 bytes */
    STR1("k") U32("\4") U32("\5")                                         /* k: u32 5; 17 */
    U64("\2") "s2" U32("\x8") U64("\2") "hi"                              /* s2: string "hi"; 24 */
    STR1("a") U32("\x9") U32("\5") U64("\2") "\xFF\xFF\xFF\xFF" U32("\7") /* a: i32 [-1, 7]; 33 */
    STR1("t") U32("\2") U64("\3") U64("\1") U32("\0") U64("\0")           /* t: F32 [3, 1]; 41 */
    U64("\3") "q.0" U32("\1") U64("\x20") U32("\x8") U64("\x20")          /* q.0: Q8_0 [32] at 32; 35 */
    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"                                /* 174 + 18 = 192 */
    "0123456789ab"                                                        /* 12 bytes of t */
    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"                            /* to 32 */
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh"                                  /* 34 bytes of q.0 */
    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";       /* to 64 */

#endif
