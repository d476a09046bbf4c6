# Builds for any x86-64 Linux with glibc 2.31 or later: the host's compiler with the C library of Debian 11. Libraries
# come from scripts/static-deps.sh portable, never from /usr, and are static.
get_filename_component(GSQ_PORTABLE ${CMAKE_CURRENT_LIST_DIR}/../build/portable-deps ABSOLUTE)
set(GSQ_DEPS_SCRIPT "scripts/static-deps.sh portable")
set(GSQ_STATIC_DEPS ON CACHE BOOL "Link the libraries statically")
set(CMAKE_SYSROOT ${GSQ_PORTABLE}/sysroot)
# gcc looks beside itself before it looks into the sysroot: -B goes before both.
set(CMAKE_C_FLAGS_INIT "-B${CMAKE_SYSROOT}/usr/lib/x86_64-linux-gnu")
set(CMAKE_FIND_ROOT_PATH ${GSQ_PORTABLE}/prefix)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
