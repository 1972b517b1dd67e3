/* The two directions of /files, for api_files.c. */
#ifndef SANDBOXD_FILES_H
#define SANDBOXD_FILES_H

#include "api.h"

/* Carries out an admitted request. */
void files_transfer(struct api *a, struct http_request *r, struct sandbox *s);

/* Answers with the file's content. */
void files_download(struct api *a, struct http_request *r, struct sandbox *s, struct str path);

/* Takes the body: multipart/form-data, or the file itself. path is empty when the query has none. */
void files_upload(struct api *a, struct http_request *r, struct sandbox *s, struct str path);

#endif
