/* Output of running programs: the first SPOOL_MEMORY_BYTES in memory, the rest in an unlinked file, up to a
 * cap; all files of the process under one byte budget. What exceeds cap or budget is dropped and marked
 * `truncated`; the reader goes on draining, so that the program never blocks on it. */
#ifndef EXECUTOR_SPOOL_H
#define EXECUTOR_SPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum { SPOOL_MEMORY_BYTES = 16 * 1024 };

struct spool_budget {
    const char *dir;   /* borrowed */
    int64_t max, used; /* bytes on disk */
};

struct spool {
    struct spool_budget *budget;
    struct buf head;
    int fd;       /* -1: everything is in memory */
    int64_t size; /* bytes kept */
    int64_t cap;
    int64_t seen;   /* bytes offered */
    bool truncated; /* it was cut there: nothing may follow */
    bool gap;       /* some may be missing in between */
};

/* Whether unlinked files can be made in dir. The error names the directory and what is wrong. */
int spool_check(const char *dir, struct err *err);

void spool_init(struct spool *s, struct spool_budget *budget, int64_t cap);
void spool_deinit(struct spool *s); /* closes, gives the budget back; fine twice */

/* Keeps what fits. */
void spool_put(struct spool *s, struct str piece);

/* Drops the part of a UTF-8 character that a truncation left at the very end, when what stands before
 * it is text. Call once, at the end. */
void spool_finish(struct spool *s);

/* Reads up to n bytes at offset into out; the count read, -1 on failure. */
int64_t spool_read(const struct spool *s, int64_t offset, char *out, size_t n);

#endif
