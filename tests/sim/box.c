/* Sandboxes, as far as there are any: a name, whose it is, how long it may live. */
#include <stdio.h>
#include <stdlib.h>

#include "filter.h"
#include "sim.h"

enum { PAGE_MAX = 100 };

/* ---- lives ---- */

static void make_token(const struct sim *s, struct box *b)
{
    uint8_t mac[SHA256_BYTES];
    struct buf hex;
    crypto_hmac_sha256(str_make((const char *)s->token_key, sizeof s->token_key), str_of(b->id), mac);
    buf_init(&hex, BOX_TOKEN_BYTES);
    crypto_hex(str_make((const char *)mac, sizeof mac), &hex);
    str_copy(buf_view(&hex), b->token, sizeof b->token);
    buf_deinit(&hex);
}

struct box *box_new(struct sim *s, struct str template_id, struct pairs *metadata, int64_t ttl_s)
{
    struct box *b = calloc(1, sizeof *b);
    char *name = b != NULL ? str_dup(template_id) : NULL;
    if (name == NULL) {
        free(b);
        pairs_free(metadata);
        return NULL;
    }
    b->sim = s;
    b->template_id = name;
    b->metadata = *metadata;
    b->number = s->first_number + s->created++;
    b->started = wall_now();
    b->until = (wall_t){.us = b->started.us + ttl_s * 1000000};
    snprintf(b->id, sizeof b->id, "i%020llu", (unsigned long long)b->number);
    make_token(s, b);
    HASH_ADD_STR(s->boxes, id, b);
    if (HASH_COUNT(s->boxes) > s->peak_live)
        s->peak_live = HASH_COUNT(s->boxes);
    return b;
}

struct box *box_find(struct sim *s, struct str id)
{
    struct box *b = NULL;
    if (id.n > 0 && id.n < BOX_ID_BYTES)
        HASH_FIND(hh, s->boxes, id.p, id.n, b);
    return b;
}

void box_end(struct box *b, enum box_end how)
{
    struct sim *s = b->sim;
    s->deleted += how == BOX_DELETED;
    s->expired += how == BOX_EXPIRED;
    s->vanished += how == BOX_VANISHED;
    ledger_put(s, b, how);
    programs_drop(b);
    files_drop(b);
    HASH_DEL(s->boxes, b);
    pairs_free(&b->metadata);
    free(b->template_id);
    free(b);
}

void box_expire_due(struct sim *s)
{
    wall_t now = wall_now();
    for (struct box *b = s->boxes, *next; b != NULL; b = next) {
        next = b->hh.next;
        if (b->until.us <= now.us)
            box_end(b, BOX_EXPIRED);
    }
}

/* ---- shown ---- */

void box_write_metadata(struct json_writer *w, const struct box *b)
{
    jw_key(w, "metadata");
    jw_object(w);
    for (size_t i = 0; i < b->metadata.count; i++) {
        jw_key_str(w, str_of(b->metadata.items[i].name));
        jw_str(w, str_of(b->metadata.items[i].value));
    }
    jw_object_end(w);
}

void box_write(struct json_writer *w, const struct box *b, bool detail)
{
    jw_object(w);
    jw_kcstr(w, "sandboxID", b->id);
    jw_kcstr(w, "templateID", b->template_id);
    jw_kcstr(w, "clientID", "sim");
    jw_kcstr(w, "alias", b->template_id);
    jw_kcstr(w, "envdVersion", "0.5.7");
    jw_kcstr(w, "envdAccessToken", b->token);
    jw_knull(w, "domain");
    if (detail) {
        jw_kcstr(w, "state", "running");
        jw_ktime(w, "startedAt", b->started);
        jw_ktime(w, "endAt", b->until);
        jw_kint(w, "cpuCount", 2);
        jw_kint(w, "memoryMB", 512);
        jw_kint(w, "diskSizeMB", 1024);
        box_write_metadata(w, b);
    }
    jw_object_end(w);
}

/* ---- lists ---- */

struct listing {
    struct pairs filter;
    uint64_t limit, after; /* the number of the last one of the page before; 0: from the start */
    bool ascending, paged;
};

static bool read_listing(struct http_request *r, struct listing *l, struct err *err)
{
    struct str text;
    l->limit = PAGE_MAX;
    if (http_query_get(r, "order", &text, err) == 1)
        l->ascending = str_eq_c(text, "asc");
    if (http_query_get(r, "limit", &text, err) == 1 &&
        (!str_to_u64(text, &l->limit) || l->limit < 1 || l->limit > PAGE_MAX))
        return err_set(err, ERR_BAD_QUERY, "limit: 1 to %d is expected", PAGE_MAX) == 0;
    if (http_query_get(r, "nextToken", &text, err) == 1 && !str_to_u64(text, &l->after))
        return err_set(err, ERR_BAD_QUERY, "nextToken: not one of ours") == 0;
    if (http_query_get(r, "metadata", &text, err) == 1)
        return filter_parse(text, &l->filter, err);
    return err->code == ERR_NONE;
}

static struct box *first(struct sim *s, const struct listing *l)
{
    if (s->boxes == NULL || l->ascending)
        return s->boxes;
    return ELMT_FROM_HH(s->boxes->hh.tbl, s->boxes->hh.tbl->tail);
}

static bool past(const struct listing *l, const struct box *b)
{
    return l->after == 0 || (l->ascending ? b->number > l->after : b->number < l->after);
}

void box_list(struct sim *s, struct http_request *r, bool paged)
{
    struct listing l = {.paged = paged};
    struct err err = ERR_INIT;
    struct buf body;
    char token[24];
    if (!read_listing(r, &l, &err)) {
        api_error(r, 400, err.msg);
        return;
    }
    buf_init(&body, 64 * (size_t)ANSWER_MAX_BYTES);
    struct json_writer w = json_writer(&body);
    uint64_t given = 0, last = 0;
    jw_array(&w);
    for (struct box *b = first(s, &l); b != NULL; b = l.ascending ? b->hh.next : b->hh.prev) {
        if (!past(&l, b) || !filter_match(&l.filter, &b->metadata))
            continue;
        if (l.paged && given == l.limit) {
            snprintf(token, sizeof token, "%llu", (unsigned long long)last);
            http_set_header(r, "X-Next-Token", str_of(token));
            break;
        }
        box_write(&w, b, true);
        last = b->number;
        given++;
    }
    jw_array_end(&w);
    pairs_free(&l.filter);
    http_set_header_int(r, "X-Total-Running", (int64_t)HASH_COUNT(s->boxes));
    api_later(r, &s->o.list_span, 200, &body);
}
