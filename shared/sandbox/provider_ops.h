/* Inside shared/sandbox: what a provider implements. provider.c dispatches; each provider has one static
 * table. To add a provider: fill the table, begin its struct with `struct provider`, its requests with
 * `struct sandbox_request`, and declare its open function in provider.h. */
#ifndef SANDBOX_PROVIDER_OPS_H
#define SANDBOX_PROVIDER_OPS_H

#include "sandbox/provider.h"

struct provider_ops {
    struct sandbox_request *(*create)(struct provider *, const struct sandbox_create *, sandbox_created_fn *,
                                      void *);
    struct sandbox_request *(*destroy)(struct provider *, const char *id, int64_t deadline_ms,
                                       sandbox_done_fn *, void *);
    struct sandbox_request *(*set_ttl)(struct provider *, const char *id, int64_t ttl_ms, int64_t deadline_ms,
                                       sandbox_done_fn *, void *);
    struct sandbox_request *(*spawn)(struct provider *, const struct sandbox_spawn *,
                                     const struct sandbox_process_events *);
    struct sandbox_request *(*send_signal)(struct provider *, const struct sandbox *, int64_t pid, bool kill,
                                           int64_t deadline_ms, sandbox_done_fn *, void *);
    struct sandbox_request *(*send_input)(struct provider *, const struct sandbox *, int64_t pid,
                                          struct str data, int64_t deadline_ms, sandbox_done_fn *, void *);
    struct sandbox_request *(*close_input)(struct provider *, const struct sandbox *, int64_t pid,
                                           int64_t deadline_ms, sandbox_done_fn *, void *);
    struct sandbox_request *(*write_file)(struct provider *, const struct sandbox *, const char *path,
                                          struct str data, int64_t deadline_ms, sandbox_done_fn *, void *);
    struct sandbox_request *(*read_file)(struct provider *, const struct sandbox *, const char *path,
                                         size_t max_bytes, int64_t deadline_ms, sandbox_file_fn *, void *);
    struct sandbox_request *(*read_range)(struct provider *, const struct sandbox *, const char *path,
                                          int64_t offset, size_t bytes, int64_t deadline_ms,
                                          sandbox_file_fn *, void *);
    struct sandbox_request *(*stat)(struct provider *, const struct sandbox *, const char *path,
                                    int64_t deadline_ms, sandbox_entries_fn *, void *);
    struct sandbox_request *(*list_dir)(struct provider *, const struct sandbox *, const char *path,
                                        int depth, int64_t deadline_ms, sandbox_entries_fn *, void *);
    struct sandbox_request *(*snapshot)(struct provider *, const struct sandbox *, const char *name,
                                        int64_t deadline_ms, sandbox_snapshot_fn *, void *);
    struct sandbox_request *(*snapshot_delete)(struct provider *, const char *snapshot_id,
                                               int64_t deadline_ms, sandbox_done_fn *, void *);
    struct sandbox_request *(*snapshots)(struct provider *, int64_t deadline_ms, sandbox_snapshots_fn *,
                                         void *);
    struct sandbox_request *(*list)(struct provider *, struct uuid deployment, struct uuid nonce,
                                    int64_t deadline_ms, sandbox_list_fn *, void *);
    void (*close)(struct provider *);
    bool (*healthy)(const struct provider *);
};

struct provider {
    const struct provider_ops *ops;
};

struct sandbox_request {
    void (*cancel)(struct sandbox_request *);
};

#endif
