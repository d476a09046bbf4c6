# Release unless told otherwise; asserts guard invariants and stay on in every build.
if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug or Release" FORCE)
endif()
string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELEASE "${CMAKE_C_FLAGS_RELEASE}")
string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELWITHDEBINFO "${CMAKE_C_FLAGS_RELWITHDEBINFO}")

# Flags that every target of ours gets.
add_library(gsq_options INTERFACE)
target_include_directories(gsq_options INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
target_compile_definitions(gsq_options INTERFACE GSQ_VERSION="${PROJECT_VERSION}")
if(MSVC)
    # C11 atomics are an option of MSVC 2022.
    target_compile_options(gsq_options INTERFACE /W4 /WX /utf-8 /experimental:c11atomics)
    target_compile_definitions(gsq_options INTERFACE _CRT_SECURE_NO_WARNINGS)
else()
    # -fno-fast-math is the default; -ffp-contract=off keeps results equal between compilers.
    target_compile_options(gsq_options INTERFACE -Wall -Wextra -Wshadow -Werror -ffp-contract=off)
    if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
        # Guesses of gcc's optimiser that come and go with its version and -O level; snprintf cuts on purpose here, and
        # clang and the sanitizers look for what is really unset.
        target_compile_options(gsq_options INTERFACE -Wno-maybe-uninitialized -Wno-format-truncation)
    endif()
    target_link_libraries(gsq_options INTERFACE m)
endif()
if(WIN32)
    target_compile_definitions(gsq_options INTERFACE UNICODE _UNICODE WIN32_LEAN_AND_MEAN __USE_MINGW_ANSI_STDIO=1)
endif()
if(GSQ_SANITIZE)
    target_compile_definitions(gsq_options INTERFACE GSQ_SANITIZE)
    target_compile_options(gsq_options INTERFACE -fsanitize=${GSQ_SANITIZE} -fno-omit-frame-pointer
                                                 -fno-sanitize-recover=all)
    target_link_options(gsq_options INTERFACE -fsanitize=${GSQ_SANITIZE})
endif()
