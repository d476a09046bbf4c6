# What `cmake --install` puts where: the program, its manual page and completions (made by the build from the table of
# options), README, licences. And the same as packages, by cpack: .deb on Debian and Ubuntu, .tar.gz of the preset
# portable, .zip for Windows. scripts/release.sh makes them all.
if(WIN32)
    set(CMAKE_INSTALL_BINDIR .) # a folder to unpack and use
    set(CMAKE_INSTALL_DOCDIR .)
endif()
include(GNUInstallDirs)
set_source_files_properties(formats/shipped_text.c TARGET_DIRECTORY gsq_formats
    PROPERTIES COMPILE_DEFINITIONS "GSQ_DATA_DIR=\"${CMAKE_INSTALL_FULL_DATADIR}/gsq\"")
install(TARGETS gsq RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT program)
install(FILES README.md CHANGELOG.md ${GSQ_LICENCES} DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program)
# What the README names.
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program)
install(FILES ${GSQ_CALIBRATION} data/README.md DESTINATION ${CMAKE_INSTALL_DATADIR}/gsq COMPONENT program)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program RENAME LICENSE.txt)

if(NOT CMAKE_CROSSCOMPILING AND NOT WIN32)
    add_executable(gsq_manual tools/manual.c)
    target_link_libraries(gsq_manual PRIVATE gsq_app)
    function(gsq_text kind folder file)
        set(out ${CMAKE_BINARY_DIR}/share/${file})
        add_custom_command(OUTPUT ${out}
            COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/share
            COMMAND gsq_manual ${kind} ${out} DEPENDS gsq_manual COMMENT "Text ${file}" VERBATIM)
        add_custom_target(gsq_text_${kind} ALL DEPENDS ${out})
        install(FILES ${out} DESTINATION ${folder} COMPONENT program RENAME ${ARGV3})
    endfunction()
    gsq_text(man ${CMAKE_INSTALL_MANDIR}/man1 gsq.1 gsq.1)
    gsq_text(bash ${CMAKE_INSTALL_DATADIR}/bash-completion/completions gsq.bash gsq)
    gsq_text(zsh ${CMAKE_INSTALL_DATADIR}/zsh/site-functions _gsq _gsq)
    gsq_text(fish ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d gsq.fish gsq.fish)
endif()

set(CPACK_PACKAGE_VENDOR gsq)
set(CPACK_PACKAGE_CONTACT ${GSQ_MAINTAINER})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "quantizes language models to 2-4 bits on any Vulkan device")
set(CPACK_PACKAGE_DESCRIPTION "Learns by Gumbel-Softmax sampling which level of the grid every weight of a language model takes
and writes what llama.cpp, vLLM, Transformers, SGLang and MLX load. Runs on AMD, Intel and NVIDIA GPUs
through Vulkan 1.3, and on the CPU through Mesa's lavapipe.")
set(CPACK_STRIP_FILES ON)
set(CPACK_VERBATIM_VARIABLES ON)
if(WIN32)
    set(CPACK_GENERATOR ZIP)
    set(CPACK_INSTALL_CMAKE_PROJECTS ${CMAKE_BINARY_DIR} gsq program /) # the program alone
    set(CPACK_PACKAGE_FILE_NAME gsq-${PROJECT_VERSION}-windows-x86_64)
else()
    set(CPACK_GENERATOR TGZ)
    set(CPACK_PACKAGE_FILE_NAME gsq-${PROJECT_VERSION}-linux-x86_64)
endif()
# A .deb depends on the libraries of the release it is built on: one for each, told apart by its version.
if(EXISTS /etc/debian_version AND NOT GSQ_STATIC_DEPS AND NOT WIN32)
    file(STRINGS /etc/os-release release REGEX "^(ID|VERSION_ID)=")
    string(REGEX REPLACE "[^;]*=\"?([^;\"]*)\"?" "\\1" release "${release}")
    list(SORT release ORDER DESCENDING) # the name, then the number
    list(JOIN release "" release)
    set(CPACK_GENERATOR DEB)
    set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
    set(CPACK_COMPONENTS_ALL program)
    set(CPACK_DEB_COMPONENT_INSTALL ON)
    set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
    set(CPACK_DEBIAN_PACKAGE_RELEASE 1~${release})
    set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
    set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME gsq)
    set(CPACK_DEBIAN_PROGRAM_PACKAGE_SECTION science)
    set(CPACK_DEBIAN_PROGRAM_PACKAGE_DEPENDS libvulkan1) # loaded at run time, so not seen by shlibdeps
    set(CPACK_DEBIAN_PROGRAM_PACKAGE_RECOMMENDS "mesa-vulkan-drivers | vulkan-icd")
    if(GSQ_LIBRARY AND NOT GSQ_FUZZ)
        list(APPEND CPACK_COMPONENTS_ALL library)
        set(CPACK_COMPONENT_LIBRARY_DESCRIPTION "libgsq, shared and static, with gsq.h: the work of the program gsq for other programs.")
        set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME libgsq-dev)
        set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libdevel)
        set(CPACK_DEBIAN_LIBRARY_PACKAGE_DEPENDS libvulkan1)
        set(CPACK_DEBIAN_LIBRARY_PACKAGE_RECOMMENDS gsq) # the text of "default" is there
    endif()
    set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_SOURCE_DIR}/cmake/deb_files.cmake)
endif()
include(CPack)
