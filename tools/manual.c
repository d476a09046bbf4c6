/* Writes gsq's manual page and completions; the build runs it. usage: gsq_manual man|bash|zsh|fish FILE */
#include <string.h>

#include "app/manual.h"
#include "host/base/os.h"

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*write)(FILE *);
    } texts[] = {{"man", manual_page}, {"bash", completion_bash}, {"zsh", completion_zsh}, {"fish", completion_fish}};
    for (size_t i = 0; argc == 3 && i < sizeof texts / sizeof *texts; i++) {
        if (strcmp(argv[1], texts[i].name) != 0)
            continue;
        struct err e = {0};
        struct os_out out;
        if (os_out_open(&out, argv[2], &e)) {
            texts[i].write(out.file);
            if (os_out_close(&out, &e))
                return 0;
        }
        fprintf(stderr, "error: %s\n", e.msg);
        return os_exit_code(&e);
    }
    fprintf(stderr, "usage: gsq_manual man|bash|zsh|fish FILE\n");
    return 2;
}
