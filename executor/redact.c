/* Redaction by Aho and Corasick's automaton: one step a byte, whatever the values are.
 *
 * A state is a node of the trie of all values: the longest end of what was read that is the beginning of a
 * value. The longest that may still become more of one is `held`: what stands before the last `held` bytes is
 * decided, and those held back are the end of the state's own path, which needs no copy: it stands at the
 * beginning of a value. An occurrence ends at a byte when a value ends at the state, or at a state that it
 * leads to by failure links; the longest of them begins first and covers the others.
 *
 * Occurrences become spans, merged where they overlap, in the order of their ends. A span lies in what is
 * held back, or reaches into it, until it is decided: there are no more of those than the longest value has
 * room for, so the array is as long as that, and what exceeds it is decided and written first.
 *
 * Positions count bytes read since the beginning. */
#include "redact.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "crypto/crypto.h"
#include "model/environment.h"

struct node {
    uint32_t child, sibling; /* 0: none */
    uint32_t fail;
    uint32_t depth;
    uint32_t
        held; /* depth, or when no value goes on here, that of the next by failure links where one does */
    uint32_t ends; /* the longest value that ends here or at what `fail` leads to, and its number; 0: none */
    uint16_t ends_name;
    uint16_t owner; /* a value whose beginning this is: of those the shortest */
    unsigned char byte;
};

struct stored {
    uint32_t name, name_n, value, value_n; /* places in `text` */
};

struct redact_values {
    int refs;
    size_t n, nodes_n;
    uint32_t longest;
    uint32_t first[256]; /* children of the root */
    struct stored *values;
    struct node *nodes; /* the root is 0 */
    char *text;
};

struct span {
    uint64_t from, to;
    uint16_t name;
    bool written; /* its mark is out */
};

struct redactor {
    struct redact_values *v;
    redact_put_fn *put;
    void *arg;
    uint32_t state;
    uint64_t at, out; /* read; written or taken out */
    size_t spans_n, spans_max;
    bool hit;
    struct span spans[];
};

/* ---- the automaton ---- */

static uint32_t child_of(const struct redact_values *v, uint32_t node, unsigned char byte)
{
    if (node == 0)
        return v->first[byte];
    uint32_t c = v->nodes[node].child;
    while (c != 0 && v->nodes[c].byte != byte)
        c = v->nodes[c].sibling;
    return c;
}

static uint32_t add_child(struct redact_values *v, uint32_t node, unsigned char byte, uint16_t owner)
{
    uint32_t c = (uint32_t)v->nodes_n++;
    v->nodes[c] = (struct node){.byte = byte, .depth = v->nodes[node].depth + 1, .owner = owner};
    if (node == 0) {
        v->first[byte] = c;
    } else {
        v->nodes[c].sibling = v->nodes[node].child;
        v->nodes[node].child = c;
    }
    return c;
}

static void add_value(struct redact_values *v, uint16_t number)
{
    const struct stored *s = &v->values[number];
    uint32_t at = 0;
    for (uint32_t i = 0; i < s->value_n; i++) {
        unsigned char byte = (unsigned char)v->text[s->value + i];
        uint32_t next = child_of(v, at, byte);
        at = next != 0 ? next : add_child(v, at, byte, number);
    }
    if (v->nodes[at].ends != 0)
        return; /* the same value under another name: the first one's counts */
    v->nodes[at].ends = s->value_n;
    v->nodes[at].ends_name = number;
}

static uint32_t step(const struct redact_values *v, uint32_t state, unsigned char byte)
{
    uint32_t next;
    while ((next = child_of(v, state, byte)) == 0 && state != 0)
        state = v->nodes[state].fail;
    return next;
}

static void link_node(struct redact_values *v, uint32_t node, uint32_t parent)
{
    struct node *x = &v->nodes[node];
    x->fail = parent == 0 ? 0 : step(v, v->nodes[parent].fail, x->byte);
    x->held = x->child != 0 ? x->depth : v->nodes[x->fail].held;
    if (x->ends == 0) {
        x->ends = v->nodes[x->fail].ends;
        x->ends_name = v->nodes[x->fail].ends_name;
    }
}

/* By breadth: a node's failure link leads to a shorter one. order is as long as there are nodes. */
static void link_all(struct redact_values *v, uint32_t *order)
{
    size_t n = 0;
    for (int b = 0; b < 256; b++)
        if (v->first[b] != 0)
            link_node(v, order[n++] = v->first[b], 0);
    for (size_t i = 0; i < n; i++)
        for (uint32_t c = v->nodes[order[i]].child; c != 0; c = v->nodes[c].sibling)
            link_node(v, order[n++] = c, order[i]);
}

static bool is_looked_for(const struct redact_value *x)
{
    return x->value.n >= REDACTED_MIN_BYTES;
}

static uint32_t keep(struct redact_values *v, size_t *at, struct str s)
{
    uint32_t place = (uint32_t)*at;
    memcpy(v->text + place, s.p, s.n);
    *at += s.n;
    return place;
}

/* Shorter ones first: so a node's owner is the shortest that passes it. */
static void store_values(struct redact_values *v, const struct redact_value *list, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_looked_for(&list[i]))
            continue;
        size_t to = v->n++;
        for (; to > 0 && v->values[to - 1].value_n > list[i].value.n; to--)
            v->values[to] = v->values[to - 1];
        struct stored *s = &v->values[to];
        s->name_n = (uint32_t)list[i].name.n;
        s->value_n = (uint32_t)list[i].value.n;
        s->name = keep(v, &at, list[i].name);
        s->value = keep(v, &at, list[i].value);
        v->longest = s->value_n > v->longest ? s->value_n : v->longest;
    }
}

struct redact_values *redact_values_new(const struct redact_value *list, size_t n)
{
    size_t values = 0, text = 0, nodes = 1;
    for (size_t i = 0; i < n; i++)
        if (is_looked_for(&list[i])) {
            values++;
            nodes += list[i].value.n;
            text += list[i].name.n + list[i].value.n;
        }
    if (values > UINT16_MAX || nodes > UINT32_MAX / 2)
        return NULL;
    struct redact_values *v =
        crypto_guarded_new(sizeof *v + nodes * sizeof *v->nodes + values * sizeof *v->values + text);
    uint32_t *order = calloc(nodes, sizeof *order);
    if (v == NULL || order == NULL) {
        crypto_guarded_free(v);
        free(order);
        return NULL;
    }
    v->refs = 1;
    v->nodes_n = 1;
    v->nodes = (struct node *)(void *)(v + 1);
    v->values = (struct stored *)(void *)(v->nodes + nodes);
    v->text = (char *)(v->values + values);
    store_values(v, list, n);
    for (size_t i = 0; i < v->n; i++)
        add_value(v, (uint16_t)i);
    link_all(v, order);
    free(order);
    return v;
}

struct redact_values *redact_values_keep(struct redact_values *v)
{
    v->refs++;
    return v;
}

void redact_values_free(struct redact_values **pv)
{
    struct redact_values *v = *pv;
    *pv = NULL;
    if (v != NULL && --v->refs == 0)
        crypto_guarded_free(v);
}

bool redact_values_none(const struct redact_values *v)
{
    return v == NULL || v->n == 0;
}

/* ---- a stream ---- */

struct redactor *redactor_new(struct redact_values *values, redact_put_fn *put, void *arg)
{
    size_t spans = values->longest / REDACTED_MIN_BYTES + 2;
    struct redactor *r = malloc(sizeof *r + spans * sizeof *r->spans);
    if (r != NULL)
        *r = (struct redactor){.v = redact_values_keep(values), .put = put, .arg = arg, .spans_max = spans};
    return r;
}

void redactor_free(struct redactor **pr)
{
    if (*pr != NULL)
        redact_values_free(&(*pr)->v);
    free(*pr);
    *pr = NULL;
}

bool redactor_hit(const struct redactor *r)
{
    return r->hit;
}

/* What is being fed: the bytes from `base` on, and before them the path of the state at its beginning. */
struct feed {
    uint64_t base;
    const char *path; /* of the bytes before base */
    uint32_t path_n;
    struct str piece;
};

static void write_bytes(struct redactor *r, const struct feed *f, uint64_t from, uint64_t to)
{
    if (from < f->base) {
        uint64_t end = to < f->base ? to : f->base;
        r->put(r->arg, str_make(f->path + (from + f->path_n - f->base), (size_t)(end - from)));
        from = end;
    }
    if (from < to)
        r->put(r->arg, str_make(f->piece.p + (from - f->base), (size_t)(to - from)));
}

static void write_mark(struct redactor *r, struct span *s)
{
    char mark[ENV_NAME_MAX_BYTES + 16];
    const struct stored *x = &r->v->values[s->name];
    size_t n = x->name_n <= ENV_NAME_MAX_BYTES ? x->name_n : ENV_NAME_MAX_BYTES;
    if (s->written)
        return;
    s->written = r->hit = true;
    memcpy(mark, "[redacted:", 10);
    memcpy(mark + 10, r->v->text + x->name, n);
    mark[10 + n] = ']';
    r->put(r->arg, str_make(mark, n + 11));
}

/* Writes what stands before `until`, which is decided. */
static void decide(struct redactor *r, const struct feed *f, uint64_t until)
{
    size_t gone = 0;
    for (; gone < r->spans_n && r->spans[gone].from < until; gone++) {
        struct span *s = &r->spans[gone];
        if (r->out < s->from)
            write_bytes(r, f, r->out, s->from);
        write_mark(r, s);
        r->out = s->to < until ? s->to : until;
        if (s->to > until)
            break; /* it reaches into what is held back, and may grow */
    }
    if (gone > 0) {
        r->spans_n -= gone;
        memmove(r->spans, r->spans + gone, r->spans_n * sizeof *r->spans);
    }
    if ((r->spans_n == 0 || r->spans[0].from >= until) && r->out < until) {
        write_bytes(r, f, r->out, until);
        r->out = until;
    }
}

static void add_span(struct redactor *r, const struct feed *f, const struct node *x)
{
    struct span s = {.from = r->at - x->ends, .to = r->at, .name = x->ends_name};
    while (r->spans_n > 0 && r->spans[r->spans_n - 1].to > s.from) {
        const struct span *last = &r->spans[--r->spans_n];
        if (last->from < s.from || last->written) {
            s.from = last->from;
            s.name = last->name;
            s.written = last->written;
        }
    }
    if (r->spans_n == r->spans_max)
        decide(r, f, s.from < r->at - x->held ? s.from : r->at - x->held);
    INVARIANT(r->spans_n < r->spans_max); /* those left lie in less than the longest value */
    r->spans[r->spans_n++] = s;
}

/* While nothing has begun: the bytes with which no value begins. */
static size_t skip(const struct redact_values *v, const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && v->first[(unsigned char)p[i]] == 0)
        i++;
    return i;
}

static const char *path_of(const struct redactor *r)
{
    return r->v->n > 0 ? r->v->text + r->v->values[r->v->nodes[r->state].owner].value : NULL;
}

void redactor_feed(struct redactor *r, struct str piece)
{
    const struct redact_values *v = r->v;
    const struct feed f = {
        .base = r->at, .path = path_of(r), .path_n = v->nodes[r->state].depth, .piece = piece};
    for (size_t i = 0; i < piece.n; i++) {
        if (r->state == 0) {
            size_t n = skip(v, piece.p + i, piece.n - i);
            r->at += n;
            i += n;
            if (i == piece.n)
                break;
        }
        r->state = step(v, r->state, (unsigned char)piece.p[i]);
        r->at++;
        if (v->nodes[r->state].ends != 0)
            add_span(r, &f, &v->nodes[r->state]);
    }
    decide(r, &f, r->at - v->nodes[r->state].held);
}

void redactor_end(struct redactor *r)
{
    while (r->state != 0 && r->v->nodes[r->state].child == 0)
        r->state = r->v->nodes[r->state].fail; /* what may go on */
    const struct node *x = &r->v->nodes[r->state];
    const struct feed f = {.base = r->at, .path = path_of(r), .path_n = x->depth};
    if (x->depth >= REDACTED_MIN_BYTES && x->depth > r->v->values[x->owner].value_n / 2) {
        struct node most = *x; /* as an occurrence of its shortest value */
        most.ends = x->depth;
        most.ends_name = x->owner;
        add_span(r, &f, &most);
    }
    decide(r, &f, r->at);
    r->state = 0;
    r->spans_n = 0;
}
