/* Leak checking at the right moment. */
#ifndef BASE_LEAKS_H
#define BASE_LEAKS_H

/* In a build with LeakSanitizer: reports what is unreachable now, and ends with status 23 when there is
 * something. Else does nothing. Daemons call it when their loop has ended and nothing has been closed yet:
 * requests under way are still reachable from their drivers then; afterwards their arguments are nobody's,
 * and the process ends anyway (tests run with leak_check_at_exit=0). */
void leaks_check(void);

#endif
