/* Lets the compiler check the arguments of functions that format: number of the format string, of the first argument. */
#ifndef BASE_PRINTF_LIKE_H
#define BASE_PRINTF_LIKE_H

#if defined(__MINGW32__) && !defined(__clang__) /* C's printf, not the DLL's: see __USE_MINGW_ANSI_STDIO */
#define PRINTF_LIKE(fmt, args) __attribute__((format(gnu_printf, fmt, args)))
#elif defined(__GNUC__) || defined(__clang__)
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define PRINTF_LIKE(fmt, args)
#endif

#endif
