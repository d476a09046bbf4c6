/* Which gsq this is. */
#ifndef BASE_VERSION_H
#define BASE_VERSION_H

/* "0.1.0 (5fc8479)": the release, and the commit it was built from; "-dirty" behind it where files differed from that, and
 * the release alone where there was no git checkout. For people and records: what is written into models names the release
 * alone (GSQ_VERSION), so that a commit that changes nothing in them changes nothing. */
const char *version_text(void);

#endif
