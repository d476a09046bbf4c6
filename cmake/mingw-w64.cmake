# Cross-compiles for 64-bit Windows with Debian's mingw-w64. Libraries come from scripts/mingw-deps.sh, never from /usr.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)

get_filename_component(GSQ_MINGW_PREFIX ${CMAKE_CURRENT_LIST_DIR}/../build/mingw-deps/prefix ABSOLUTE)
set(GSQ_DEPS_SCRIPT scripts/mingw-deps.sh)
set(CMAKE_FIND_ROOT_PATH ${GSQ_MINGW_PREFIX} /usr/x86_64-w64-mingw32)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
# One .exe without DLLs of the compiler.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-static")
