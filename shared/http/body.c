/* Collected bodies and the budget that they share.
 *
 * What all bodies of a server hold is one number, counted by allocated bytes as they come (a length that was
 * only announced costs its sender nothing, so it counts nothing). Large bodies stop at seven eighths of the
 * budget, so that while they fill it small ones are still served. A body may outlive its request
 * (http_body_take); the budget therefore lives as long as the last of them. */
#include <stdlib.h>

#include "http/conn.h"

enum { SMALL_BYTES = 64 * 1024 };

struct http_body {
    struct body_budget *budget;
    struct buf bytes;
    size_t held;
};

struct body_budget *body_budget_new(size_t max)
{
    struct body_budget *b = calloc(1, sizeof *b);
    if (b != NULL)
        *b = (struct body_budget){.max = max, .refs = 1};
    return b;
}

void body_budget_release(struct body_budget **budget)
{
    struct body_budget *b = *budget;
    *budget = NULL;
    if (b != NULL && --b->refs == 0)
        free(b);
}

bool body_fits(const struct http_request *r, size_t total)
{
    const struct body_budget *b = r->c->s->budget;
    size_t max = total > SMALL_BYTES ? b->max - b->max / 8 : b->max, others = b->held - r->body_held;
    return others <= max && total <= max - others;
}

char *body_reserve(struct http_request *r, size_t n)
{
    if (!body_fits(r, r->body.len + n))
        return NULL;
    char *to = buf_reserve(&r->body, n);
    r->c->s->budget->held += r->body.cap - r->body_held;
    r->body_held = r->body.cap;
    return to;
}

void body_drop(struct http_request *r)
{
    buf_deinit(&r->body);
    r->c->s->budget->held -= r->body_held;
    r->body_held = 0;
}

void http_secret_body(struct http_request *r)
{
    r->body.secret = true;
}

void http_body_secret(struct http_body *b)
{
    b->bytes.secret = true;
}

struct http_body *http_body_take(struct http_request *r)
{
    struct http_body *b = calloc(1, sizeof *b);
    if (b == NULL)
        return NULL;
    *b = (struct http_body){.budget = r->c->s->budget, .bytes = r->body, .held = r->body_held};
    b->budget->refs++;
    buf_init(&r->body, 0);
    r->body_held = 0;
    return b;
}

struct str http_body_view(const struct http_body *b)
{
    return buf_view(&b->bytes);
}

void http_body_free(struct http_body **body)
{
    struct http_body *b = *body;
    *body = NULL;
    if (b == NULL)
        return;
    buf_deinit(&b->bytes);
    b->budget->held -= b->held;
    body_budget_release(&b->budget);
    free(b);
}
