/* Which gsq this is. */
#ifndef BASE_VERSION_H
#define BASE_VERSION_H

/* "0.2.0" for a release, "0.2.0 (9feafdd1a2)" for another commit, "0.2.0 (9feafdd1a2-dirty.1a2b3c4d)" where the program's files
 * differ from that, and more in cmake/version.cmake. The same for every build of the same files. For people, records, and to know whether
 * a work folder is of the same code; what is written into models names the release alone (GSQ_VERSION), so that a commit that
 * changes nothing in them changes nothing. */
const char *version_text(void);

#endif
