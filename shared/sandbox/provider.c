/* Dispatch to the provider behind the interface. */
#include "sandbox/provider_ops.h"

struct sandbox_request *sandbox_create(struct provider *p, const struct sandbox_create *spec,
                                       sandbox_created_fn *fn, void *arg)
{
    return p->ops->create(p, spec, fn, arg);
}

struct sandbox_request *sandbox_destroy(struct provider *p, const char *sandbox_id, int64_t deadline_ms,
                                        sandbox_done_fn *fn, void *arg)
{
    return p->ops->destroy(p, sandbox_id, deadline_ms, fn, arg);
}

struct sandbox_request *sandbox_set_ttl(struct provider *p, const char *sandbox_id, int64_t ttl_ms,
                                        int64_t deadline_ms, sandbox_done_fn *fn, void *arg)
{
    return p->ops->set_ttl(p, sandbox_id, ttl_ms, deadline_ms, fn, arg);
}

struct sandbox_request *sandbox_spawn(struct provider *p, const struct sandbox_spawn *spec,
                                      const struct sandbox_process_events *events)
{
    return p->ops->spawn(p, spec, events);
}

struct sandbox_request *sandbox_signal(struct provider *p, const struct sandbox *sandbox, int64_t pid,
                                       bool kill, int64_t deadline_ms, sandbox_done_fn *fn, void *arg)
{
    return p->ops->send_signal(p, sandbox, pid, kill, deadline_ms, fn, arg);
}

struct sandbox_request *sandbox_send_input(struct provider *p, const struct sandbox *sandbox, int64_t pid,
                                           struct str data, int64_t deadline_ms, sandbox_done_fn *fn,
                                           void *arg)
{
    return p->ops->send_input(p, sandbox, pid, data, deadline_ms, fn, arg);
}

struct sandbox_request *sandbox_close_input(struct provider *p, const struct sandbox *sandbox, int64_t pid,
                                            int64_t deadline_ms, sandbox_done_fn *fn, void *arg)
{
    return p->ops->close_input(p, sandbox, pid, deadline_ms, fn, arg);
}

struct sandbox_request *sandbox_write_file(struct provider *p, const struct sandbox *sandbox,
                                           const char *path, struct str data, int64_t deadline_ms,
                                           sandbox_done_fn *fn, void *arg)
{
    return p->ops->write_file(p, sandbox, path, data, deadline_ms, fn, arg);
}

struct sandbox_request *sandbox_read_file(struct provider *p, const struct sandbox *sandbox, const char *path,
                                          size_t max_bytes, int64_t deadline_ms, sandbox_file_fn *fn,
                                          void *arg)
{
    return p->ops->read_file(p, sandbox, path, max_bytes, deadline_ms, fn, arg);
}

struct sandbox_request *sandbox_read_range(struct provider *p, const struct sandbox *sandbox,
                                           const char *path, int64_t offset, size_t bytes,
                                           int64_t deadline_ms, sandbox_file_fn *fn, void *arg)
{
    return p->ops->read_range(p, sandbox, path, offset, bytes, deadline_ms, fn, arg);
}

struct sandbox_request *sandbox_stat(struct provider *p, const struct sandbox *sandbox, const char *path,
                                     int64_t deadline_ms, sandbox_entries_fn *fn, void *arg)
{
    return p->ops->stat(p, sandbox, path, deadline_ms, fn, arg);
}

struct sandbox_request *sandbox_list_dir(struct provider *p, const struct sandbox *sandbox, const char *path,
                                         int depth, int64_t deadline_ms, sandbox_entries_fn *fn, void *arg)
{
    return p->ops->list_dir(p, sandbox, path, depth, deadline_ms, fn, arg);
}

struct sandbox_request *sandbox_snapshot(struct provider *p, const struct sandbox *sandbox, const char *name,
                                         int64_t deadline_ms, sandbox_snapshot_fn *fn, void *arg)
{
    return p->ops->snapshot(p, sandbox, name, deadline_ms, fn, arg);
}

struct sandbox_request *sandbox_snapshot_delete(struct provider *p, const char *snapshot_id,
                                                int64_t deadline_ms, sandbox_done_fn *fn, void *arg)
{
    return p->ops->snapshot_delete(p, snapshot_id, deadline_ms, fn, arg);
}

struct sandbox_request *sandbox_snapshots(struct provider *p, int64_t deadline_ms, sandbox_snapshots_fn *fn,
                                          void *arg)
{
    return p->ops->snapshots(p, deadline_ms, fn, arg);
}

struct sandbox_request *sandbox_list(struct provider *p, struct uuid deployment, struct uuid nonce,
                                     int64_t deadline_ms, sandbox_list_fn *fn, void *arg)
{
    return p->ops->list(p, deployment, nonce, deadline_ms, fn, arg);
}

void sandbox_cancel(struct sandbox_request **r)
{
    if (r == NULL || *r == NULL)
        return;
    struct sandbox_request *request = *r;
    *r = NULL;
    request->cancel(request);
}

void provider_close(struct provider **p)
{
    if (p == NULL || *p == NULL)
        return;
    struct provider *provider = *p;
    *p = NULL;
    provider->ops->close(provider);
}

bool provider_healthy(const struct provider *p)
{
    return p->ops->healthy(p);
}
