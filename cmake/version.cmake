# Writes host/base/version.h's source: the release, and the commit it is built from where the source is a git checkout of its own (a source
# package that lies in somebody else's repository is not). Run at every build as a script, so that the commit is never an
# older one; the file is touched only when it changes. Wants SOURCE, OUT and VERSION; COMMIT, if not empty, is the commit.
cmake_minimum_required(VERSION 3.25)
find_package(Git QUIET)
set(commit "${COMMIT}")
if(GIT_FOUND AND NOT commit)
    execute_process(COMMAND ${GIT_EXECUTABLE} rev-parse --show-cdup WORKING_DIRECTORY ${SOURCE}
                    OUTPUT_VARIABLE up RESULT_VARIABLE rc OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(rc EQUAL 0 AND up STREQUAL "")
        # --exclude: the commit itself, whatever tags there are; the release's name is in VERSION.
        execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty --exclude "*" WORKING_DIRECTORY ${SOURCE}
                        OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
endif()
set(text "${VERSION}")
if(commit)
    string(APPEND text " (${commit})")
endif()
file(CONFIGURE OUTPUT ${OUT} @ONLY CONTENT [[/* Made by cmake/version.cmake. */
#include "host/base/version.h"

const char *version_text(void)
{
    return "@text@";
}
]])
