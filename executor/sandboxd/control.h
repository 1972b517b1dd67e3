/* What the files of the control plane share. */
#ifndef SANDBOXD_CONTROL_H
#define SANDBOXD_CONTROL_H

#include "api.h"

enum { MAX_SEGMENTS = 5 };

/* A path cut at '/': /v2/sandboxes/x/connect -> version 2, {"sandboxes","x","connect"}. */
struct route {
    int version;
    struct str seg[MAX_SEGMENTS];
    int count;
};

bool control_cut_path(struct http_request *r, struct route *out);

/* The sandbox that the path names, for requests with a body; NULL: answered. */
struct sandbox *control_named(struct api *a, struct http_request *r, struct route *route);

/* The members that a list and a single read share; the object stays open. */
void control_put_listed(struct json_writer *w, const struct api *a, const struct sandbox *s);

/* api_list.c */
void control_list(struct api *a, struct http_request *r, int version);

/* api_snapshots.c */
void control_take_snapshot(void *arg, struct http_request *r, struct str body);
void control_list_snapshots(struct api *a, struct http_request *r);
void control_delete_template(struct api *a, struct http_request *r, struct str id);

#endif
