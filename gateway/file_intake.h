/* Files on their way into PostgreSQL: the set that a submission will refer to. What comes is stored as it
 * comes, in constant memory: one piece is filled while the one before it is written. */
#ifndef GATEWAY_FILE_INTAKE_H
#define GATEWAY_FILE_INTAKE_H

#include "call.h"
#include "model/file_path.h"

struct file_intake;

struct file_intake_events {
    void (*on_room)(void *arg);                       /* after file_intake_waits was true */
    void (*on_stored)(void *arg);                     /* the whole set, after file_intake_finish */
    void (*on_failed)(void *arg, const struct err *); /* it cannot be stored: give it up */
};

/* Belongs to the call: it is entered while a statement is under way, and nothing is told once the call has
 * ended. NULL and *err: no memory, or as many are on their way as may be. */
struct file_intake *file_intake_new(struct call *c, const struct file_intake_events *events, void *arg,
                                    struct err *err);

/* A file begins, has bytes, ends. ERR_BAD_FILE, ERR_FILES_TOO_LARGE: the caller's fault; nothing may follow
 * then. */
int file_intake_begin(struct file_intake *in, struct str path, int mode, struct err *err);
int file_intake_put(struct file_intake *in, struct str piece, struct err *err);
void file_intake_end(struct file_intake *in);

/* Whether the sender should pause until on_room. */
bool file_intake_waits(const struct file_intake *in);

/* No further file comes. */
void file_intake_finish(struct file_intake *in);

struct uuid file_intake_id(const struct file_intake *in);
int file_intake_count(const struct file_intake *in);

/* What became of it: the row that refers to it is committed; or nobody knows (then a sweep finds out). */
void file_intake_keep(struct file_intake *in);
void file_intake_leave(struct file_intake *in);

/* Drops what is stored, unless it was kept or left. */
void file_intake_free(struct file_intake **in);

#endif
