# libgsq, shared and static, from the objects of every layer but app. Only gsq_* leaves it: the layers are compiled with
# hidden visibility; on ELF systems the static library is linked into one object first, whose hidden symbols become local.
if(NOT GSQ_LIBRARY OR GSQ_FUZZ)
    return()
endif()
include(GNUInstallDirs)

set(gsq_layers gsq_base gsq_arch gsq_formats gsq_gpu gsq_model gsq_quant gsq_eval gsq_convert gsq_lib)
set(gsq_objects "")
foreach(layer ${gsq_layers})
    list(APPEND gsq_objects $<TARGET_OBJECTS:${layer}>)
endforeach()
set(gsq_private_libs gsq_dep_cjson gsq_dep_pcre2 gsq_dep_utf8proc gsq_dep_zlib gsq_dep_zstd gsq_dep_vulkan)

add_library(gsq_shared SHARED ${gsq_objects})
target_link_libraries(gsq_shared PRIVATE gsq_options ${gsq_private_libs})
if(GSQ_STATIC_DEPS AND NOT WIN32)
    target_link_options(gsq_shared PRIVATE -Wl,--exclude-libs,ALL) # what is linked in statically stays inside
endif()
set_target_properties(gsq_shared PROPERTIES OUTPUT_NAME gsq LINKER_LANGUAGE C
    VERSION ${PROJECT_VERSION} SOVERSION 0 LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})

find_program(GSQ_OBJCOPY NAMES ${CMAKE_OBJCOPY} objcopy llvm-objcopy)
if(UNIX AND NOT APPLE AND GSQ_OBJCOPY)
    set(one ${CMAKE_BINARY_DIR}/gsq_one.o)
    add_custom_command(OUTPUT ${one}
        COMMAND ${CMAKE_LINKER} -r -o ${one} ${gsq_objects}
        COMMAND ${GSQ_OBJCOPY} --localize-hidden ${one}
        DEPENDS ${gsq_objects} ${gsq_layers} COMMAND_EXPAND_LISTS VERBATIM COMMENT "One object of libgsq.a")
    add_library(gsq_static STATIC ${one})
    set_source_files_properties(${one} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
else()
    add_library(gsq_static STATIC ${gsq_objects})
endif()
# On Windows the DLL's import library has the plain name.
set_target_properties(gsq_static PROPERTIES OUTPUT_NAME $<IF:$<BOOL:${WIN32}>,gsq_static,gsq> LINKER_LANGUAGE C
    ARCHIVE_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})

# Found from where gsq.pc lies, so that the installed tree can be moved.
file(RELATIVE_PATH GSQ_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" GSQ_PC_TO_PREFIX ${GSQ_PC_TO_PREFIX})
configure_file(${CMAKE_SOURCE_DIR}/cmake/gsq.pc.in ${CMAKE_BINARY_DIR}/gsq.pc @ONLY)
install(TARGETS gsq_shared gsq_static
    RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT library
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library)
install(FILES lib/gsq.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT library)
install(FILES ${CMAKE_BINARY_DIR}/gsq.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT library)
