# Run by cpack on the folder that becomes a .deb: what Debian's policy wants otherwise than `cmake --install` has it.
if(NOT CPACK_GENERATOR STREQUAL DEB)
    return()
endif()
# The copyright file is each package's own; the rest belongs to the program.
set(share ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/program/usr/share)
file(READ ${share}/doc/gsq/LICENSE.txt licence)
file(READ ${share}/doc/gsq/THIRD-PARTY.txt others)
file(WRITE ${share}/doc/gsq/copyright "gsq is licensed under the Apache License, version 2.0 (/usr/share/common-licenses/Apache-2.0).\n\n${others}")
if(EXISTS ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/library)
    file(COPY ${share}/doc/gsq/copyright DESTINATION ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/library/usr/share/doc/libgsq-dev)
endif()
file(REMOVE ${share}/doc/gsq/LICENSE.txt ${share}/doc/gsq/THIRD-PARTY.txt)
file(RENAME ${share}/doc/gsq/CHANGELOG.md ${share}/doc/gsq/changelog)
execute_process(COMMAND gzip -9n ${share}/doc/gsq/changelog ${share}/man/man1/gsq.1 COMMAND_ERROR_IS_FATAL ANY)
file(MAKE_DIRECTORY ${share}/zsh/vendor-completions) # where Debian's zsh looks
file(RENAME ${share}/zsh/site-functions/_gsq ${share}/zsh/vendor-completions/_gsq)
file(REMOVE_RECURSE ${share}/zsh/site-functions)
