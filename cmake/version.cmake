# Which code this is: the release, and behind it in brackets what `git describe` says of the commit, where the source is a git
# checkout of its own (a source package that lies in somebody else's repository is not):
#
#     0.2.0                                  a release: its tag v0.2.0, or a source package without git
#     0.2.0 (9feafdd1a2)                     a commit; (v0.1.0-57-g9feafdd1a2) where an earlier release is tagged
#     0.2.0 (9feafdd1a2-dirty.1a2b3c4d)      files of the program differ from that commit: a hash of them
#     0.2.0 (files.1a2b3c4d)                 a checkout that git does not answer for (not installed, another user's): a hash of all
#
# Equal for every build of the same files: system, compiler, build type and what differs in tests or documents do not count.
#
# Writes host/base/version.h's source. Run at every build as a script, so that the commit is never an older one; the file is
# touched only when it changes. Wants SOURCE, OUT and VERSION; COMMIT, if not empty, is what would stand in the brackets.
# Without OUT: prints that (scripts/release.sh; Dockerfile), nothing where there is none.
cmake_minimum_required(VERSION 3.25)
find_package(Git QUIET)
# What the program is made of.
set(of_program app arch lib host formats shaders cmake packaging CMakeLists.txt)

function(git_says result)
    execute_process(COMMAND ${GIT_EXECUTABLE} ${ARGN} WORKING_DIRECTORY ${SOURCE}
                    OUTPUT_VARIABLE text RESULT_VARIABLE rc OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(rc EQUAL 0)
        set(${result} "${text}" PARENT_SCOPE)
    else()
        set(${result} "none" PARENT_SCOPE)
    endif()
endfunction()

# Eight digits for these files.
function(hash_files result)
    set(files ${ARGN})
    list(SORT files)
    set(sums "")
    foreach(file ${files})
        set(sum gone)
        if(EXISTS ${SOURCE}/${file})
            file(SHA256 ${SOURCE}/${file} sum)
        endif()
        string(APPEND sums "${file} ${sum}\n")
    endforeach()
    string(SHA256 sum "${sums}")
    string(SUBSTRING ${sum} 0 8 sum)
    set(${result} ${sum} PARENT_SCOPE)
endfunction()

# "-dirty.HASH", or nothing.
function(find_changes result)
    git_says(changed diff --name-only --no-renames HEAD -- ${of_program})
    git_says(new ls-files --others --exclude-standard -- ${of_program})
    string(REGEX REPLACE "[\r\n]+" ";" files "${changed};${new}")
    list(REMOVE_ITEM files "" none)
    set(text "")
    if(files)
        hash_files(sum ${files})
        set(text "-dirty.${sum}")
    endif()
    set(${result} "${text}" PARENT_SCOPE)
endfunction()

function(find_files result)
    set(globs ${of_program})
    list(TRANSFORM globs PREPEND ${SOURCE}/)
    list(TRANSFORM globs APPEND /* REGEX "/[a-z]+$")
    file(GLOB_RECURSE files RELATIVE ${SOURCE} ${globs})
    hash_files(sum ${files})
    set(${result} files.${sum} PARENT_SCOPE)
endfunction()

if(NOT SOURCE)
    set(SOURCE ${CMAKE_CURRENT_LIST_DIR}/..)
endif()
set(commit "${COMMIT}")
if(NOT commit)
    set(up none)
    if(GIT_FOUND)
        git_says(up rev-parse --show-cdup)
    endif()
    if(up STREQUAL "none" AND EXISTS ${SOURCE}/.git)
        find_files(commit)
    elseif(up STREQUAL "")
        git_says(commit describe --tags --always --abbrev=10 --match "v[0-9]*")
        find_changes(changes)
        if(commit STREQUAL none) # no commit yet
            set(commit "")
        else()
            string(APPEND commit "${changes}")
        endif()
    endif()
endif()
if(NOT OUT)
    execute_process(COMMAND ${CMAKE_COMMAND} -E echo "${commit}")
    return()
endif()
set(text "${VERSION}")
if(commit AND NOT commit STREQUAL "v${VERSION}")
    if(commit MATCHES "^v[0-9.]+$")
        message(WARNING "the tag is ${commit}, CMakeLists.txt says ${VERSION}: one of them is wrong")
    endif()
    string(APPEND text " (${commit})")
endif()
file(CONFIGURE OUTPUT ${OUT} @ONLY CONTENT [[/* Made by cmake/version.cmake. */
#include "host/base/version.h"

const char *version_text(void)
{
    return "@text@";
}
]])
