/* The HTTP side: what its parts share. One port serves both of E2B's planes; a request that names a sandbox
 * (E2b-Sandbox-Id, or a Host of "<port>-<id>.…") is for that sandbox's data plane, any other for the control
 * plane.
 *
 *   api.c           routing, access, errors
 *   api_control.c   /sandboxes, and which of the next two:
 *   api_list.c      the list
 *   api_snapshots.c /snapshots, /templates
 *   api_process.c   process.Process
 *   api_files.c     /files
 *   api_tree.c      filesystem.Filesystem */
#ifndef SANDBOXD_API_H
#define SANDBOXD_API_H

#include "http/server.h"
#include "json/json.h"
#include "json/writer.h"
#include "options.h"
#include "sandbox.h"
#include "snapshot.h"

enum { ENVD_PORT = 49983, API_MAX_BODY = 1 << 20, API_MAX_ANSWER = 16 << 20 };

#define API_ENVD_VERSION "0.5.7"

struct api {
    struct loop *loop;
    struct host *host;
    struct snapshots *snapshots;
    const struct options *options;
};

/* What a request that is answered later hangs on the request (http_set_data); first member of the owner. */
struct api_pending {
    void (*on_gone)(struct api_pending *self); /* the client left: free yourself */
};

/* The server's callbacks; arg is the struct api. */
struct http_app api_app(void);

/* E2B's error shape: {"code":status,"message":…}. */
void api_error(struct http_request *r, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* An err as such an answer; 429 and 503 as E2B has them. */
void api_error_of(struct http_request *r, const struct err *err);
/* A JSON answer; takes the content out of body and deinits it. 500 when it has failed. */
void api_json(struct http_request *r, int status, struct buf *body);
void api_empty(struct http_request *r, int status);

/* The sandbox that a data-plane request names and may use; otherwise the request is answered and NULL
 * returned. Look it up again after every wait. */
struct sandbox *api_sandbox(struct api *a, struct http_request *r, bool need_token);
/* The E2B user that Basic authorization or ?username= names; empty: the default. */
struct str api_user(struct http_request *r);

/* Connect RPC, unary: an error, and the parsed body (answered and NULL when malformed; free it). */
void api_rpc_error(struct http_request *r, const char *code, const char *text);
struct json *api_rpc_body(struct http_request *r, struct str body);
const char *api_fault_code(enum wire_fault fault);

/* lowerCamelCase, else the proto's own snake_case name. */
const struct json_value *api_field(const struct json_value *object, const char *camel, const char *snake);

void control_request(struct api *a, struct http_request *r);
void process_request(struct api *a, struct http_request *r, struct str method);
void files_request(struct api *a, struct http_request *r);
/* A /files request that names no sandbox: true when its signature fits one, and it is being served. */
bool files_signed_anonymous(struct api *a, struct http_request *r);
void tree_request(struct api *a, struct http_request *r, struct str method);

#endif
