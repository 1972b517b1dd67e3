/* The strict scan: RFC 8259 and the project's own refusals, in one pass without recursion.
 *
 * A loop over `want` (what the grammar allows next) and a stack of open containers, at most JSON_MAX_DEPTH
 * deep. The names of all open objects lie on one stack of keys; when an object closes, its names are compared
 * and popped. Few are compared pairwise; many are sorted by (length, bytes), so no input makes it quadratic
 * and no hash can be attacked. A name with escapes is compared unescaped, from a copy of its own.
 *
 * Everything is O(n); memory is the key stack (40 bytes an open name) and, when asked for, the facts. */
#include "json/scan.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json/json.h"
#include "json/utf8.h"

enum { FEW_KEYS = 8, NUMBER_MAX_BYTES = 400, SAFE_EXPONENT = 300 };

enum want {
    WANT_VALUE,
    WANT_VALUE_OR_END, /* just after '[' */
    WANT_KEY,
    WANT_KEY_OR_END, /* just after '{' */
    WANT_COMMA_OR_END,
    WANT_NOTHING,
};

struct key {
    const char *at; /* its opening quote in the text */
    const char *p;  /* the unescaped name */
    size_t n;
    char *owned; /* p, when it had escapes */
};

struct level {
    bool object;
    size_t first_key; /* where its names begin on the key stack */
};

struct scan {
    const char *start, *p, *end;
    enum want want;
    struct level levels[JSON_MAX_DEPTH];
    int depth;
    size_t values;
    struct key *keys;
    size_t key_count, key_cap;
    const char *member_at; /* where the current value of the root object begins */
    struct json_facts *facts;
    struct err *err;
};

static int fail(struct scan *s, const char *at, const char *what)
{
    unsigned long line = 1;
    const char *line_start = s->start;
    for (const char *p = s->start; p < at; p++) {
        if (*p == '\n') {
            line++;
            line_start = p + 1;
        }
    }
    return err_set(s->err, ERR_BAD_JSON, "line %lu column %lu: %s", line,
                   (unsigned long)(at - line_start) + 1, what);
}

static int no_memory(struct scan *s)
{
    return err_set(s->err, ERR_NO_MEMORY, "no memory to read the JSON text");
}

/* Makes room for one more element of a growing array. */
static bool room(void *array, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return true;
    size_t bigger = *cap != 0 ? *cap * 2 : 16;
    void *old, *data;
    memcpy(&old, array, sizeof old);
    data = reallocarray(old, bigger, size);
    if (data == NULL)
        return false;
    memcpy(array, &data, sizeof data);
    *cap = bigger;
    return true;
}

/* ---- strings ---- */

static int hex4(const char *p, const char *end)
{
    if (end - p < 4)
        return -1;
    int v = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                     : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

static bool is_high(int unit)
{
    return unit >= 0xd800 && unit <= 0xdbff;
}

static bool is_low(int unit)
{
    return unit >= 0xdc00 && unit <= 0xdfff;
}

/* p stands on the 'u' of "\uXXXX"; leaves it behind the escape (both halves of a pair). */
static int scan_unicode_escape(struct scan *s)
{
    const char *at = s->p - 1;
    int unit = hex4(s->p + 1, s->end);
    if (unit < 0)
        return fail(s, at, "an incomplete \\u escape");
    if (unit == 0)
        return fail(s, at, "\\u0000 is not accepted");
    s->p += 5;
    if (is_low(unit))
        return fail(s, at, "a surrogate without its pair");
    if (!is_high(unit))
        return 0;
    if (s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u' || !is_low(hex4(s->p + 2, s->end)))
        return fail(s, at, "a surrogate without its pair");
    s->p += 6;
    return 0;
}

static int scan_escape(struct scan *s)
{
    s->p++;
    if (s->p == s->end)
        return fail(s, s->p, "a string without its end");
    if (*s->p == 'u')
        return scan_unicode_escape(s);
    if (strchr("\"\\/bfnrt", *s->p) == NULL || *s->p == '\0')
        return fail(s, s->p - 1, "an unknown escape");
    s->p++;
    return 0;
}

/* A byte that ends a plain run, other than the closing quote. */
static int scan_special(struct scan *s)
{
    if (s->p == s->end)
        return fail(s, s->p, "a string without its end");
    if ((unsigned char)*s->p < 0x20)
        return fail(s, s->p, "a control character in a string");
    size_t n = json_utf8_len(s->p, s->end);
    if (n == 0)
        return fail(s, s->p, "bytes that are not UTF-8");
    s->p += n;
    return 0;
}

/* p stands on the opening quote; *raw_out is what is between the quotes. */
static int scan_string(struct scan *s, struct str *raw_out, bool *escaped_out)
{
    const char *from = ++s->p;
    *escaped_out = false;
    for (;;) {
        s->p += json_plain_run(s->p, s->end);
        if (s->p < s->end && *s->p == '"')
            break;
        bool escape = s->p < s->end && *s->p == '\\';
        *escaped_out |= escape;
        if ((escape ? scan_escape(s) : scan_special(s)) != 0)
            return -1;
    }
    *raw_out = str_make(from, (size_t)(s->p - from));
    s->p++;
    return 0;
}

/* ---- names ---- */

static size_t put_utf8(char *to, unsigned c)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        to[i] = (char)(0x80 | (c & 0x3f));
    static const unsigned lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    to[0] = (char)(lead[n] | c);
    return n;
}

/* Unescapes one valid escape at p (on the backslash); returns where it ends. */
static const char *unescape_one(const char *p, const char *end, char *to, size_t *n)
{
    static const char from[] = "bfnrt", into[] = "\b\f\n\r\t";
    if (p[1] != 'u') {
        const char *hit = strchr(from, p[1]);
        to[(*n)++] = hit != NULL ? into[hit - from] : p[1];
        return p + 2;
    }
    unsigned c = (unsigned)hex4(p + 2, end);
    p += 6;
    if (is_high((int)c)) {
        c = 0x10000 + ((c - 0xd800) << 10) + ((unsigned)hex4(p + 2, end) - 0xdc00);
        p += 6;
    }
    *n += put_utf8(to + *n, c);
    return p;
}

/* An escape is never shorter than what it stands for, so raw.n bytes are enough. */
static size_t unescape(struct str raw, char *to)
{
    size_t n = 0;
    const char *end = raw.p + raw.n;
    for (const char *p = raw.p; p < end;) {
        if (*p == '\\')
            p = unescape_one(p, end, to, &n);
        else
            to[n++] = *p++;
    }
    return n;
}

static int push_key(struct scan *s, const char *at, struct str raw, bool escaped)
{
    if (s->key_count - s->levels[s->depth - 1].first_key >= JSON_MAX_KEYS)
        return fail(s, at, "too many members in one object");
    if (!room(&s->keys, s->key_count, &s->key_cap, sizeof *s->keys))
        return no_memory(s);
    struct key k = {.at = at, .p = raw.p, .n = raw.n};
    if (escaped) {
        k.owned = malloc(raw.n + 1);
        if (k.owned == NULL)
            return no_memory(s);
        k.n = unescape(raw, k.owned);
        k.p = k.owned;
    }
    s->keys[s->key_count++] = k;
    return 0;
}

static void pop_keys(struct scan *s, size_t down_to)
{
    while (s->key_count > down_to)
        free(s->keys[--s->key_count].owned);
}

static bool same_key(const struct key *a, const struct key *b)
{
    return a->n == b->n && memcmp(a->p, b->p, a->n) == 0;
}

static int order_keys(const void *va, const void *vb)
{
    const struct key *a = va, *b = vb;
    if (a->n != b->n)
        return a->n < b->n ? -1 : 1;
    int c = memcmp(a->p, b->p, a->n);
    return c != 0 ? c : (a->at > b->at) - (a->at < b->at);
}

/* The second of two equal names among n, or NULL. Reorders them. */
static const char *find_duplicate(struct key *keys, size_t n)
{
    if (n <= FEW_KEYS) {
        for (size_t i = 1; i < n; i++)
            for (size_t j = 0; j < i; j++)
                if (same_key(&keys[i], &keys[j]))
                    return keys[i].at;
        return NULL;
    }
    qsort(keys, n, sizeof *keys, order_keys);
    for (size_t i = 1; i < n; i++)
        if (same_key(&keys[i], &keys[i - 1]))
            return keys[i].at;
    return NULL;
}

/* ---- numbers ---- */

static size_t scan_digits(struct scan *s)
{
    const char *from = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
        s->p++;
    return (size_t)(s->p - from);
}

/* An exponent's value, cut at a million. p stands on 'e'. */
static int scan_exponent(struct scan *s, long *out)
{
    s->p++;
    bool minus = s->p < s->end && *s->p == '-';
    if (s->p < s->end && (*s->p == '-' || *s->p == '+'))
        s->p++;
    const char *from = s->p;
    if (scan_digits(s) == 0)
        return fail(s, s->p, "an exponent without digits");
    long v = 0;
    for (const char *p = from; p < s->p && v < 1000000; p++)
        v = v * 10 + (*p - '0');
    *out = minus ? -v : v;
    return 0;
}

/* Whether the number is finite as a double; only doubtful ones are converted. */
static bool in_range(const char *from, const char *end, long magnitude)
{
    if (magnitude < SAFE_EXPONENT)
        return true;
    char copy[NUMBER_MAX_BYTES + 1];
    size_t n = (size_t)(end - from);
    memcpy(copy, from, n);
    copy[n] = '\0';
    return isfinite(strtod(copy, NULL));
}

static int note_number(struct scan *s, struct str text, bool integer)
{
    struct json_facts *f = s->facts;
    if (f == NULL)
        return 0;
    if (!room(&f->numbers, f->number_count, &f->number_cap, sizeof *f->numbers))
        return no_memory(s);
    struct json_number n = {0};
    n.exact = integer && str_to_i64(text, &n.value);
    f->numbers[f->number_count++] = n;
    if (text.n <= JSON_CJSON_NUMBER_BYTES)
        return 0;
    if (!room(&f->longs, f->long_count, &f->long_cap, sizeof *f->longs))
        return no_memory(s);
    f->longs[f->long_count++] = text;
    return 0;
}

static int scan_number(struct scan *s)
{
    const char *from = s->p;
    if (*s->p == '-')
        s->p++;
    const char *digits_at = s->p;
    size_t digits = scan_digits(s);
    if (digits == 0)
        return fail(s, s->p, "a number without digits");
    if (digits > 1 && *digits_at == '0')
        return fail(s, digits_at, "a number with a leading zero");
    bool integer = true;
    long exponent = 0;
    if (s->p < s->end && *s->p == '.') {
        integer = false;
        s->p++;
        if (scan_digits(s) == 0)
            return fail(s, s->p, "a fraction without digits");
    }
    if (s->p < s->end && (*s->p | 32) == 'e') {
        integer = false;
        if (scan_exponent(s, &exponent) != 0)
            return -1;
    }
    if (s->p - from > NUMBER_MAX_BYTES)
        return fail(s, from, "a number that is too long");
    if (!in_range(from, s->p, (long)digits + exponent))
        return fail(s, from, "a number outside the range of a double");
    return note_number(s, str_make(from, (size_t)(s->p - from)), integer);
}

/* ---- structure ---- */

static int scan_literal(struct scan *s, struct str word)
{
    if ((size_t)(s->end - s->p) < word.n || memcmp(s->p, word.p, word.n) != 0)
        return fail(s, s->p, "not a JSON value");
    s->p += word.n;
    return 0;
}

static bool in_root_object(const struct scan *s)
{
    return s->depth == 1 && s->levels[0].object;
}

static int value_ended(struct scan *s)
{
    s->want = s->depth == 0 ? WANT_NOTHING : WANT_COMMA_OR_END;
    struct json_facts *f = s->facts;
    if (f == NULL || !in_root_object(s))
        return 0;
    if (!room(&f->members, f->member_count, &f->member_cap, sizeof *f->members))
        return no_memory(s);
    f->members[f->member_count++] = str_make(s->member_at, (size_t)(s->p - s->member_at));
    return 0;
}

static int open_container(struct scan *s, bool object)
{
    if (s->depth == JSON_MAX_DEPTH)
        return fail(s, s->p, "nested too deeply");
    s->levels[s->depth++] = (struct level){.object = object, .first_key = s->key_count};
    s->want = object ? WANT_KEY_OR_END : WANT_VALUE_OR_END;
    s->p++;
    return 0;
}

/* p stands on '}' or ']'. */
static int close_container(struct scan *s)
{
    struct level *l = &s->levels[s->depth - 1];
    if (l->object != (*s->p == '}'))
        return fail(s, s->p, l->object ? "expected '}'" : "expected ']'");
    if (l->object) {
        size_t n = s->key_count - l->first_key;
        const char *twice = n > 1 ? find_duplicate(s->keys + l->first_key, n) : NULL;
        if (twice != NULL)
            return fail(s, twice, "a name that occurs twice in one object");
        pop_keys(s, l->first_key);
    }
    s->depth--;
    s->p++;
    return value_ended(s);
}

static int scan_scalar(struct scan *s)
{
    struct str raw;
    bool escaped;
    switch (*s->p) {
    case '"':
        return scan_string(s, &raw, &escaped);
    case 't':
        return scan_literal(s, STR("true"));
    case 'f':
        return scan_literal(s, STR("false"));
    case 'n':
        return scan_literal(s, STR("null"));
    default:
        if (*s->p == '-' || (*s->p >= '0' && *s->p <= '9'))
            return scan_number(s);
        return fail(s, s->p, "not a JSON value");
    }
}

static int scan_value(struct scan *s)
{
    if (++s->values > JSON_MAX_VALUES)
        return fail(s, s->p, "too many values");
    if (in_root_object(s))
        s->member_at = s->p;
    if (*s->p == '{' || *s->p == '[')
        return open_container(s, *s->p == '{');
    return scan_scalar(s) != 0 ? -1 : value_ended(s);
}

static void skip_space(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
        s->p++;
}

static int scan_member_name(struct scan *s)
{
    const char *at = s->p;
    struct str raw;
    bool escaped;
    if (*s->p != '"')
        return fail(s, s->p, "expected a member's name");
    if (scan_string(s, &raw, &escaped) != 0 || push_key(s, at, raw, escaped) != 0)
        return -1;
    skip_space(s);
    if (s->p == s->end || *s->p != ':')
        return fail(s, s->p, "expected ':'");
    s->p++;
    s->want = WANT_VALUE;
    return 0;
}

static int scan_comma(struct scan *s)
{
    if (*s->p == ',') {
        s->p++;
        s->want = s->levels[s->depth - 1].object ? WANT_KEY : WANT_VALUE;
        return 0;
    }
    if (*s->p == '}' || *s->p == ']')
        return close_container(s);
    return fail(s, s->p, s->levels[s->depth - 1].object ? "expected ',' or '}'" : "expected ',' or ']'");
}

/* One token; p stands on a byte that is no space. */
static int scan_token(struct scan *s)
{
    switch (s->want) {
    case WANT_VALUE_OR_END:
        return *s->p == ']' ? close_container(s) : scan_value(s);
    case WANT_VALUE:
        return scan_value(s);
    case WANT_KEY_OR_END:
        return *s->p == '}' ? close_container(s) : scan_member_name(s);
    case WANT_KEY:
        return scan_member_name(s);
    case WANT_COMMA_OR_END:
        return scan_comma(s);
    case WANT_NOTHING:
        break;
    }
    return fail(s, s->p, "something follows the value");
}

static int scan_all(struct scan *s)
{
    for (;;) {
        skip_space(s);
        if (s->p == s->end)
            break;
        if (scan_token(s) != 0)
            return -1;
    }
    return s->want == WANT_NOTHING ? 0 : fail(s, s->p, "the text ends too early");
}

int json_scan_facts(struct str text, struct json_facts *facts, struct err *err)
{
    struct scan s = {.facts = facts, .err = err};
    s.start = s.p = text.n != 0 ? text.p : "";
    s.end = s.p + text.n;
    int rc = scan_all(&s);
    pop_keys(&s, 0);
    free(s.keys);
    return rc;
}

void json_facts_deinit(struct json_facts *facts)
{
    free(facts->numbers);
    free(facts->members);
    free(facts->longs);
    *facts = (struct json_facts){0};
}

int json_scan(struct str text, struct err *err)
{
    return json_scan_facts(text, NULL, err);
}
