/* What a stranger may put into a list's query: filters and a cursor. The input is a query without
 * percent-encoding; its `cursor` is read under the scope of its other parameters.
 *
 * Filters: taken or refused with a text; equal filters have one scope, in whatever order they come. Cursors:
 * what reads is a text that cursor_write makes, and no other tenant or scope reads it. */
#include <stdlib.h>

#include "base/buf.h"
#include "cursor.h"
#include "model/listing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct cursor_key key = {.b = {1, 2, 3}};
static const wall_t now = {.us = INT64_C(1795246200000000)};

static void check(bool ok)
{
    if (!ok)
        abort();
}

/* Takes the parameters in order, or in reverse. False when one is refused. */
static bool take(struct str query, bool reverse, struct listing *l, struct str *cursor)
{
    struct str pairs[32], name, value;
    int n = 0;
    while (n < 32 && str_split(&query, '&', &pairs[n]))
        n++;
    for (int i = 0; i < n; i++) {
        struct err err = ERR_INIT;
        value = pairs[reverse ? n - 1 - i : i];
        str_split(&value, '=', &name);
        int took = listing_take(l, name, value.p != NULL ? value : STR(""), &err);
        check((took < 0) == (err.code != ERR_NONE) && (took >= 0 || err.msg[0] != '\0'));
        if (took < 0)
            return false;
        if (took == 0 && str_eq_c(name, "cursor"))
            *cursor = value;
    }
    return true;
}

static void check_bounds(const struct listing *l)
{
    struct uuid low, high;
    struct err err;
    if (listing_bounds(l, now, &low, &high, &err) == 0 && l->pair_count > 0 && l->has_before)
        check(uuid_time(high).us - uuid_time(low).us <= LISTING_METADATA_WINDOW_MS * INT64_C(1000) + 1000);
}

/* A cursor of ours reads, for its tenant and scope alone; the one given is changed in one place at most. */
static void check_cursor(struct str scope, struct str text)
{
    struct buf made, position;
    struct err err;
    buf_init(&made, CURSOR_TEXT_MAX);
    buf_init(&position, CURSOR_POSITION_MAX);
    struct str raw = str_make(text.p, text.n < CURSOR_POSITION_MAX ? text.n : CURSOR_POSITION_MAX);
    if (raw.n > 0) {
        cursor_write(&key, 7, scope, raw, &made);
        check(!made.failed && cursor_read(&key, 7, scope, buf_view(&made), &position, &err) == 0);
        check(str_eq(buf_view(&position), raw));
        buf_clear(&position);
        check(cursor_read(&key, 8, scope, buf_view(&made), &position, &err) != 0 && position.len == 0);
        check(cursor_read(&key, 7, STR("another"), buf_view(&made), &position, &err) != 0);
        made.data[(size_t)raw.p[0] % made.len] ^= 1;
        check(cursor_read(&key, 7, scope, buf_view(&made), &position, &err) != 0);
        buf_clear(&made);
    }
    if (cursor_read(&key, 7, scope, text, &position, &err) == 0) {
        cursor_write(&key, 7, scope, buf_view(&position), &made);
        check(str_eq(buf_view(&made), text));
    }
    buf_deinit(&made);
    buf_deinit(&position);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct listing there = {0}, back = {0};
    struct str query = str_make((const char *)data, size), cursor = STR(""), unused = STR("");
    struct buf scope, again;
    if (!take(query, false, &there, &cursor))
        return 0;
    check(take(query, true, &back, &unused));
    buf_init(&scope, 1 << 20);
    buf_init(&again, 1 << 20);
    listing_scope(&there, &scope);
    listing_scope(&back, &again);
    check(!scope.failed && str_eq(buf_view(&scope), buf_view(&again)));
    check_bounds(&there);
    check_cursor(buf_view(&scope), cursor);
    buf_deinit(&scope);
    buf_deinit(&again);
    return 0;
}
