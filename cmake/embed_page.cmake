# Writes OUT, the C source of lib/report_page.h, from the page IN: its bytes, and where its one @RUN@ was, which is left out.
# A script of the build: cmake -DIN=... -DOUT=... -P embed_page.cmake
cmake_minimum_required(VERSION 3.25)
file(READ ${IN} page)
if(NOT page MATCHES "^[\t\r\n -~]*$")
    message(FATAL_ERROR "${IN} holds more than ASCII: \\u escapes and entities mean the same whatever reads it")
endif()
string(FIND "${page}" "@RUN@" at)
string(FIND "${page}" "@RUN@" last REVERSE)
if(at LESS 0 OR NOT at EQUAL last)
    message(FATAL_ERROR "${IN} must hold @RUN@ once, where the run goes")
endif()
string(REPLACE "@RUN@" "" page "${page}")
string(HEX "${page}" bytes)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
string(REPEAT "....." 20 line)
string(REGEX REPLACE "(${line})" "\\1\n" bytes "${bytes}")
file(WRITE ${OUT} "/* Made by cmake/embed_page.cmake. */
#include \"lib/report_page.h\"

const char report_page[] = {
${bytes}0};
const size_t report_page_size = sizeof report_page - 1, report_page_run = ${at};
")
