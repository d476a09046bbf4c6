# gsq.exe's icon, version and manifest.
function(gsq_windows_resources target)
    enable_language(RC)
    configure_file(${CMAKE_SOURCE_DIR}/packaging/windows/gsq.manifest ${CMAKE_BINARY_DIR}/gsq.manifest @ONLY)
    configure_file(${CMAKE_SOURCE_DIR}/packaging/windows/gsq.rc.in ${CMAKE_BINARY_DIR}/gsq.rc @ONLY)
    set_source_files_properties(${CMAKE_BINARY_DIR}/gsq.rc PROPERTIES
        OBJECT_DEPENDS "${CMAKE_BINARY_DIR}/gsq.manifest;${CMAKE_SOURCE_DIR}/packaging/windows/gsq.ico")
    target_sources(${target} PRIVATE ${CMAKE_BINARY_DIR}/gsq.rc)
    if(MSVC)
        target_link_options(${target} PRIVATE /MANIFEST:NO) # ours is in the .rc
    endif()
endfunction()
