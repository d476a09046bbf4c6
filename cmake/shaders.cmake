# Compiles shaders/*.comp with glslc (cmake/deps.cmake finds it) and embeds the SPIR-V. Which kernels and variants there are:
# shaders/variants.cmake, whose head comment explains the kernel() line. The result is one C file with the table of host/gpu/kernel_table.h.
set(GSQ_GLSLC_FLAGS --target-env=vulkan1.3 -O -I${CMAKE_SOURCE_DIR}/shaders)

# Whether this glslc compiles shaders/probe/NAME.comp; asked once per configure run.
function(gsq_shader_probe probe result)
    get_property(known GLOBAL PROPERTY gsq_probe_${probe})
    if("${known}" STREQUAL "")
        execute_process(
            COMMAND ${GSQ_GLSLC} ${GSQ_GLSLC_FLAGS} ${CMAKE_SOURCE_DIR}/shaders/probe/${probe}.comp
                    -o ${CMAKE_BINARY_DIR}/shaders/probe.${probe}.spv
            RESULT_VARIABLE rc OUTPUT_QUIET ERROR_QUIET)
        set(known OFF)
        if(rc EQUAL 0)
            set(known ON)
        endif()
        set_property(GLOBAL PROPERTY gsq_probe_${probe} ${known})
        set_property(DIRECTORY ${CMAKE_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
                     ${CMAKE_SOURCE_DIR}/shaders/probe/${probe}.comp)
    endif()
    set(${result} ${known} PARENT_SCOPE)
endfunction()

function(kernel name variant)
    cmake_parse_arguments(PARSE_ARGV 2 K "TUNE" "PROBE;WG;FILE;OPT;SUBGROUP_SIZE" "NEEDS;DEFINES;SPEC;WHERE")
    if(K_UNPARSED_ARGUMENTS OR K_KEYWORDS_MISSING_VALUES)
        message(FATAL_ERROR "kernel(${name} ${variant}): cannot read '${K_UNPARSED_ARGUMENTS}${K_KEYWORDS_MISSING_VALUES}'")
    endif()
    if(K_PROBE)
        gsq_shader_probe(${K_PROBE} ok)
        if(NOT ok)
            message(STATUS "kernel ${name}: variant ${variant} left out, ${GSQ_GLSLC} cannot compile probe/${K_PROBE}.comp")
            return()
        endif()
    endif()
    if(NOT K_FILE)
        set(K_FILE ${name}.comp)
    endif()
    set(source ${CMAKE_SOURCE_DIR}/shaders/${K_FILE})
    if(NOT EXISTS ${source})
        message(FATAL_ERROR "kernel(${name} ${variant}): shaders/${K_FILE} does not exist")
    endif()
    list(TRANSFORM K_DEFINES PREPEND -D)
    set(out shaders/${name}.${variant}.inc)
    add_custom_command(
        OUTPUT ${CMAKE_BINARY_DIR}/${out}
        COMMAND ${GSQ_GLSLC} ${GSQ_GLSLC_FLAGS} ${K_OPT} -mfmt=c ${K_DEFINES} -MD -MF ${CMAKE_BINARY_DIR}/${out}.d
                -MT ${CMAKE_BINARY_DIR}/${out} ${source} -o ${CMAKE_BINARY_DIR}/${out}
        DEPENDS ${source}
        DEPFILE ${CMAKE_BINARY_DIR}/${out}.d
        COMMENT "Shader ${name}.${variant}" VERBATIM)

    set(needs 0)
    foreach(need ${K_NEEDS})
        string(APPEND needs " | GPU_CAP_${need}")
    endforeach()
    if(NOT K_WG)
        set(K_WG 64)
    elseif(K_WG STREQUAL SUBGROUP)
        set(K_WG KERNEL_WG_SUBGROUP)
    endif()
    set(spec "")
    set(n_spec 0)
    foreach(pair ${K_SPEC})
        if(NOT pair MATCHES "^([A-Z_]+)=([0-9]+)$")
            message(FATAL_ERROR "kernel(${name} ${variant}): SPEC takes NAME=value, SPEC_NAME being in limits.h, not '${pair}'")
        endif()
        string(APPEND spec "{SPEC_${CMAKE_MATCH_1}, ${CMAKE_MATCH_2}}, ")
        math(EXPR n_spec "${n_spec} + 1")
    endforeach()
    if(n_spec EQUAL 0)
        set(spec "{0, 0}")
    endif()
    set(tune false)
    if(K_TUNE)
        set(tune true)
    endif()
    if(NOT K_SUBGROUP_SIZE)
        set(K_SUBGROUP_SIZE usual)
    endif()
    string(TOUPPER ${K_SUBGROUP_SIZE} size)
    if(NOT size MATCHES "^(USUAL|SMALLEST|LARGEST)$")
        message(FATAL_ERROR "kernel(${name} ${variant}): SUBGROUP_SIZE takes smallest or largest, not '${K_SUBGROUP_SIZE}'")
    endif()
    set(where "0, 0, 0")
    if(K_WHERE)
        list(GET K_WHERE 0 constant)
        list(GET K_WHERE 1 step)
        list(GET K_WHERE 2 most)
        set(where "offsetof(struct ${name}_args, ${constant}), ${step}, ${most}")
    endif()
    set_property(GLOBAL APPEND PROPERTY gsq_shader_files ${CMAKE_BINARY_DIR}/${out})
    set_property(GLOBAL APPEND_STRING PROPERTY gsq_shader_words
                 "static const uint32_t words_${name}_${variant}[] =\n#include \"${out}\"\n    ;\n")
    set_property(GLOBAL APPEND_STRING PROPERTY gsq_shader_rows
                 "    {KERNEL_ID_${name}, \"${variant}\", ${needs}, words_${name}_${variant},\n     sizeof words_${name}_${variant} / 4, ${K_WG}, ${tune}, KERNEL_SUBGROUP_${size}, {${where}}, ${n_spec}, {${spec}}},\n")
endfunction()

# Adds the table of all variants to a library. Called from the top folder, once.
function(gsq_embed_shaders target)
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/shaders)
    include(${CMAKE_SOURCE_DIR}/shaders/variants.cmake)
    get_property(files GLOBAL PROPERTY gsq_shader_files)
    get_property(words GLOBAL PROPERTY gsq_shader_words)
    get_property(rows GLOBAL PROPERTY gsq_shader_rows)
    set(table ${CMAKE_BINARY_DIR}/shaders/kernel_table.c)
    file(CONFIGURE OUTPUT ${table} @ONLY CONTENT [[/* Made by cmake/shaders.cmake from shaders/variants.cmake. */
#include "host/gpu/kernel_table.h"
#include "host/gpu/kernels.h"

#include <stddef.h>

@words@
const struct kernel_variant kernel_variants[] = {
@rows@    {KERNEL_COUNT, "", 0, 0, 0, 0, false, KERNEL_SUBGROUP_USUAL, {0, 0, 0}, 0, {{0, 0}}},
};
]])
    target_sources(${target} PRIVATE ${table} ${files})
endfunction()
