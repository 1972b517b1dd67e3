/* A file-system entry as the supervisor reports it, in E2B's JSON. */
#ifndef SANDBOXD_ENTRY_H
#define SANDBOXD_ENTRY_H

#include "json/writer.h"
#include "wire.h"

/* EntryInfo of filesystem.Filesystem. */
void entry_put(struct json_writer *w, struct wire_reader *r);

/* What POST /files answers for each file: path, name, type. */
void entry_put_written(struct json_writer *w, const struct wire_entry *e);

#endif
