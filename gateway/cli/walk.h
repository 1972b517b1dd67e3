/* Walking a list of the API. */
#ifndef CLI_WALK_H
#define CLI_WALK_H

#include "cli.h"

/* A walk over a list. take shows the records of a page; it is called for pages without any, too. */
struct walk {
    struct cli *cli;
    const char *member; /* of the answer: the array of records */
    struct buf path;    /* up to where cursor and limit are added to the query */
    int page;           /* records a page */
    int64_t left;       /* still to show; -1: all */
    int64_t shown;
    const char *hint; /* told with a query that was refused; may be NULL */
    bool more;        /* there were more than were asked for */
    bool silent;      /* take is called with --json, too, and nothing is printed */
    void (*take)(struct walk *w, const struct reply *r, const struct json_value *records);
    void *arg; /* take's own */
};

/* path up to its '?'; filters are added by walk_parameter. */
void walk_begin(struct walk *w, const char *path);
void walk_parameter(struct buf *path, const char *name, struct str value); /* NAME=VALUE& */
void walk_escaped(struct buf *path, struct str s);
/* A moment that an option was given, as cli_when reads it. 0, or told and the exit status. */
int walk_when(struct buf *path, const char *name, const char *option, const char *text);
/* Shows what was asked for; the exit status. The caller deinits w->path. */
int walk_pages(struct walk *w);

#endif
