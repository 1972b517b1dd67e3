/* Output of running programs, to the gateways that ask for it (store/queue_output.h).
 *
 * The spool is the buffer: what is asked for is read from where the program's output is kept anyway, at the
 * offset asked for. So a reader that is slow, or comes late, costs the program nothing and loses nothing, and
 * an attempt that nobody asks for costs a test for NULL a piece.
 *
 * An attempt that ends and is followed by another one has its output nowhere else: it stays here for some
 * seconds when somebody watched. That of an invocation's last attempt is in PostgreSQL by then. */
#ifndef EXECUTOR_MIRROR_H
#define EXECUTOR_MIRROR_H

#include "executor.h"
#include "job.h"

struct mirror;
struct mirror *mirror_new(struct executor *x, struct err *err);
void mirror_free(struct mirror **m); /* after the jobs */

/* There is more output, or the program has started. */
void mirror_moved(struct job *j);

/* The job is about to be freed; may take its spools. */
void mirror_over(struct job *j);

#endif
