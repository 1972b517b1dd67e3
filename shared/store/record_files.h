/* Inside the store, and for the list of artifacts: the files of a record. */
#ifndef STORE_RECORD_FILES_H
#define STORE_RECORD_FILES_H

#include "json/writer.h"
#include "store/records.h"

/* The member `files`: what came along. */
void record_files_write(const struct record *r, struct json_writer *w);

/* The members `artifacts` and `artifacts_truncated`: what the program left. */
void record_artifacts_write(const struct record *r, struct json_writer *w);

/* A path's bytes as they stand in a URL: all but unreserved characters and '/' are percent-encoded. */
void record_path_encode(struct str path, struct buf *out);

#endif
