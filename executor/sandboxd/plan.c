/* A plan as a message, both ways (plan.h). */
#include "plan.h"

#include <string.h>

static void put_group(struct wire_writer *w, const struct plan_group *g)
{
    wire_put_cstr(w, g->path);
    wire_put_u32(w, g->setting_count);
    for (uint32_t i = 0; i < g->setting_count; i++) {
        wire_put_cstr(w, g->settings[i].file);
        wire_put_cstr(w, g->settings[i].value);
        wire_put_u32(w, g->settings[i].optional);
    }
}

void plan_put(struct wire_writer *w, const struct plan *p)
{
    wire_put_u32(w, p->group_count);
    for (uint32_t i = 0; i < p->group_count; i++)
        put_group(w, &p->groups[i]);
    wire_put_u32(w, p->mount_count);
    for (uint32_t i = 0; i < p->mount_count; i++) {
        wire_put_cstr(w, p->mounts[i].source);
        wire_put_cstr(w, p->mounts[i].target);
    }
    wire_put_u32(w, p->deny_count);
    for (uint32_t i = 0; i < p->deny_count; i++) {
        wire_put_u32(w, p->deny[i].address);
        wire_put_u32(w, p->deny[i].prefix);
    }
    wire_put_u32(w, p->uid_base);
    wire_put_u32(w, p->run_base);
    wire_put_u32(w, p->files);
    wire_put_u32(w, p->pids);
    wire_put_u64(w, p->shm_bytes);
    wire_put_cstr(w, p->slirp);
    wire_put_cstr(w, p->bwrap);
    wire_put_cstr(w, p->layers_dir);
    wire_put_cstr(w, p->disk_dir);
    wire_put_cstr(w, p->disk_blank);
    wire_put_cstr(w, p->disk_name);
}

static uint32_t get_count(struct wire_reader *r, uint32_t max)
{
    uint32_t n = wire_get_u32(r);
    if (n > max)
        r->bad = true;
    return r->bad ? 0 : n;
}

static void get_group(struct wire_reader *r, struct plan_group *g)
{
    g->path = wire_get_cstr(r);
    g->setting_count = get_count(r, PLAN_MAX_SETTINGS);
    for (uint32_t i = 0; i < g->setting_count; i++) {
        g->settings[i].file = wire_get_cstr(r);
        g->settings[i].value = wire_get_cstr(r);
        g->settings[i].optional = wire_get_u32(r) != 0;
    }
}

bool plan_get(struct wire_reader *r, struct plan *p_out)
{
    memset(p_out, 0, sizeof *p_out);
    p_out->group_count = get_count(r, PLAN_MAX_GROUPS);
    for (uint32_t i = 0; i < p_out->group_count; i++)
        get_group(r, &p_out->groups[i]);
    p_out->mount_count = get_count(r, PLAN_MAX_MOUNTS);
    for (uint32_t i = 0; i < p_out->mount_count; i++) {
        p_out->mounts[i].source = wire_get_cstr(r);
        p_out->mounts[i].target = wire_get_cstr(r);
    }
    p_out->deny_count = get_count(r, PLAN_MAX_DENY);
    for (uint32_t i = 0; i < p_out->deny_count; i++) {
        p_out->deny[i].address = wire_get_u32(r);
        p_out->deny[i].prefix = wire_get_u32(r);
    }
    p_out->uid_base = wire_get_u32(r);
    p_out->run_base = wire_get_u32(r);
    p_out->files = wire_get_u32(r);
    p_out->pids = wire_get_u32(r);
    p_out->shm_bytes = wire_get_u64(r);
    p_out->slirp = wire_get_cstr(r);
    p_out->bwrap = wire_get_cstr(r);
    p_out->layers_dir = wire_get_cstr(r);
    p_out->disk_dir = wire_get_cstr(r);
    p_out->disk_blank = wire_get_cstr(r);
    p_out->disk_name = wire_get_cstr(r);
    return !r->bad;
}
