/* Programs' reports of their usage. */
#include "model/usage_report.h"

#include <stdlib.h>

#include "base/buf.h"
#include "json/json.h"

enum { LINE_MAX_BYTES = 1024 * 1024 };
#define TOKENS_MAX 1000000000000LL
#define COST_MAX 1e6

struct report {
    const struct json *doc;
    struct inv_cost *out;
    struct err *err;
};

/* Adds a count, when it is there, to *to. */
static int add_tokens(struct report *r, const struct json_value *object, const char *name, int64_t *to,
                      bool *has)
{
    int64_t n;
    const struct json_value *v = json_get(object, name);
    if (v == NULL || json_type_of(v) == JSON_NULL)
        return 0;
    if (!json_int(r->doc, v, &n) || n < 0 || n > TOKENS_MAX)
        return err_set(r->err, ERR_BAD_FIELD, "%s must be a whole number from 0 to 10^12", name);
    *to += n;
    *has = true;
    return 0;
}

static int read_tokens(struct report *r, const struct json_value *object)
{
    static const char *const in[] = {"input_tokens", "cache_creation_input_tokens",
                                     "cache_read_input_tokens"};
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        if (add_tokens(r, object, in[i], &r->out->input_tokens, &r->out->has_input) != 0)
            return -1;
    return add_tokens(r, object, "output_tokens", &r->out->output_tokens, &r->out->has_output);
}

static int read_cost(struct report *r, const struct json_value *root, const char *name)
{
    double cost;
    const struct json_value *v = json_get(root, name);
    if (v == NULL || json_type_of(v) == JSON_NULL || r->out->has_cost)
        return 0;
    if (!json_double(v, &cost) || !(cost >= 0 && cost <= COST_MAX))
        return err_set(r->err, ERR_BAD_FIELD, "%s must be a number from 0 to 10^6", name);
    r->out->cost_usd = cost;
    r->out->has_cost = true;
    return 0;
}

static int read_report(const struct json *doc, struct inv_cost *out, struct err *err)
{
    struct report r = {.doc = doc, .out = out, .err = err};
    const struct json_value *root = json_root(doc), *usage = json_get(root, "usage");
    *out = (struct inv_cost){0};
    if (json_type_of(root) != JSON_OBJECT)
        return err_set(err, ERR_BAD_FIELD, "it must be a JSON object");
    if (usage != NULL && json_type_of(usage) != JSON_OBJECT)
        return err_set(err, ERR_BAD_FIELD, "usage must be an object");
    if (read_tokens(&r, usage != NULL ? usage : root) != 0 || read_cost(&r, root, "cost_usd") != 0 ||
        read_cost(&r, root, "total_cost_usd") != 0)
        return -1;
    if (!out->has_input && !out->has_output && !out->has_cost)
        return err_set(err, ERR_BAD_FIELD, "it has neither input_tokens, output_tokens nor cost_usd");
    return 0;
}

int usage_report_parse(struct str text, struct inv_cost *out, struct err *err)
{
    struct json *doc = json_parse(text, err);
    int rc = doc != NULL ? read_report(doc, out, err) : -1;
    json_free(&doc);
    if (rc != 0)
        *out = (struct inv_cost){0};
    return rc;
}

/* ---- events on stdout ---- */

struct usage_scan {
    struct buf line;
    bool skipping; /* the line is too long */
    int found;     /* as usage_scan_end tells */
    struct inv_cost cost;
    struct err err;
};

struct usage_scan *usage_scan_new(void)
{
    struct usage_scan *s = calloc(1, sizeof *s);
    if (s != NULL)
        buf_init(&s->line, LINE_MAX_BYTES);
    return s;
}

void usage_scan_free(struct usage_scan **s)
{
    if (*s == NULL)
        return;
    buf_deinit(&(*s)->line);
    free(*s);
    *s = NULL;
}

/* What is no JSON is the program's other output. */
static void take_line(struct usage_scan *s)
{
    struct str type;
    struct str line = buf_view(&s->line);
    bool candidate = !s->skipping && line.n > 0 && memmem(line.p, line.n, "\"result\"", 8) != NULL;
    struct json *doc = candidate ? json_parse(line, NULL) : NULL;
    if (doc != NULL && json_str(json_get(json_root(doc), "type"), &type) && str_eq_c(type, "result"))
        s->found = read_report(doc, &s->cost, &s->err) == 0 ? 1 : -1;
    json_free(&doc);
    s->skipping = false;
    buf_clear(&s->line);
}

void usage_scan_feed(struct usage_scan *s, struct str piece)
{
    struct str rest = piece, part;
    while (rest.p != NULL && str_split(&rest, '\n', &part)) {
        if (!s->skipping && !buf_str(&s->line, part)) {
            s->skipping = true;
            buf_clear(&s->line);
        }
        if (rest.p != NULL)
            take_line(s);
    }
}

int usage_scan_end(struct usage_scan *s, struct inv_cost *out, struct err *err)
{
    take_line(s);
    *out = s->found == 1 ? s->cost : (struct inv_cost){0};
    if (s->found < 0 && err != NULL)
        *err = s->err;
    return s->found;
}
