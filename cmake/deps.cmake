# Libraries, found as Debian and vcpkg install them: a header folder and, where it is not header-only, a library.
# For mingw, CMAKE_PREFIX_PATH points at what scripts/mingw-deps.sh built.
function(gsq_dep name header)
    add_library(gsq_dep_${name} INTERFACE)
    find_path(GSQ_${name}_INCLUDE ${header} REQUIRED)
    target_include_directories(gsq_dep_${name} SYSTEM INTERFACE ${GSQ_${name}_INCLUDE})
    if(ARGN)
        find_library(GSQ_${name}_LIBRARY NAMES ${ARGN} REQUIRED)
        target_link_libraries(gsq_dep_${name} INTERFACE ${GSQ_${name}_LIBRARY})
    endif()
endfunction()

gsq_dep(xxhash xxhash.h)
gsq_dep(cjson cjson/cJSON.h cjson)
gsq_dep(pcre2 pcre2.h pcre2-8 pcre2-8-static)
gsq_dep(utf8proc utf8proc.h utf8proc)
gsq_dep(vulkan volk.h) # header-only use; volk loads the loader at run time
find_path(GSQ_vulkan_headers vulkan/vulkan.h REQUIRED)
target_include_directories(gsq_dep_vulkan SYSTEM INTERFACE ${GSQ_vulkan_headers})
target_link_libraries(gsq_dep_vulkan INTERFACE ${CMAKE_DL_LIBS})
if(WIN32)
    # The mingw builds of these are static; their headers must not ask for a DLL.
    target_compile_definitions(gsq_dep_pcre2 INTERFACE PCRE2_STATIC)
    target_compile_definitions(gsq_dep_utf8proc INTERFACE UTF8PROC_STATIC)
    target_compile_definitions(gsq_dep_cjson INTERFACE CJSON_HIDE_SYMBOLS)
endif()
