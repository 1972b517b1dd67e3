/* doctor's findings, as its two halves share them: doctor.c asks the gateway, doctor_services.c what stands
 * behind it. */
#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

#include "cli.h"

enum finding { FOUND_WELL, FOUND_BAD, FOUND_SKIPPED };

struct doctor {
    struct cli *cli;
    int bad;
};

/* One line, and below it what to do (fix NULL: nothing). */
void doctor_tell(struct doctor *d, enum finding what, const char *check, const char *fix, const char *fmt,
                 ...) __attribute__((format(printf, 5, 6)));

/* What an operator's settings name: the environment's, or a file's (NULL: none). 0, or the exit status when
 * they cannot be read. */
int doctor_services(struct doctor *d, const char *config_file);

#endif
