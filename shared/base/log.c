/* JSON log lines. The two process-wide values here (name, level) are set once, before the loop runs. */
#include "base/log.h"

#include <stdio.h>
#include <unistd.h>

#include "base/buf.h"

enum { LINE_MAX_BYTES = 4096 };

static const char *daemon_name = "sandpiper";
static enum log_level least_level = LOG_INFO;
static uint64_t dropped = 0;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_setup(const char *daemon, enum log_level least)
{
    daemon_name = daemon;
    least_level = least;
}

bool log_level_parse(struct str s, enum log_level *out)
{
    for (int i = LOG_DEBUG; i <= LOG_ERROR; i++)
        if (str_eq_c(s, level_names[i])) {
            *out = (enum log_level)i;
            return true;
        }
    return false;
}

int log_level_check(const char *name, struct err *err)
{
    enum log_level level;
    return log_level_parse(str_of(name), &level)
               ? 0
               : err_set(err, ERR_CONFIG, "\"%.40s\" must be debug, info, warn or error", name);
}

bool log_enabled(enum log_level level)
{
    return level >= least_level;
}

static void put_string(struct buf *b, struct str s)
{
    bool utf8 = str_is_utf8(s);
    buf_byte(b, '"');
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\')
            buf_byte(b, '\\');
        if (c < 0x20 || c == 0x7F || (c >= 0x80 && !utf8))
            buf_printf(b, "\\u%04x", c);
        else
            buf_byte(b, (char)c);
    }
    buf_byte(b, '"');
}

static void put_field(struct buf *b, const struct log_field *f)
{
    buf_byte(b, ',');
    put_string(b, str_of(f->key));
    buf_byte(b, ':');
    switch (f->kind) {
    case LOG_FIELD_STR:
        put_string(b, str_make(f->s.p, f->s.n < 1024 ? f->s.n : 1024));
        break;
    case LOG_FIELD_INT:
        buf_i64(b, f->i);
        break;
    case LOG_FIELD_BOOL:
        buf_cstr_append(b, f->i != 0 ? "true" : "false");
        break;
    case LOG_FIELD_DOUBLE:
        buf_printf(b, "%.6g", f->d);
        break;
    }
}

void log_write(enum log_level level, const char *msg, const struct log_field *fields, size_t n)
{
    if (!log_enabled(level))
        return;
    char now[WALL_TEXT_BYTES];
    wall_format(wall_now(), now);
    struct buf b;
    buf_init(&b, LINE_MAX_BYTES);
    buf_printf(&b, "{\"time\":\"%s\",\"level\":\"%s\",\"daemon\":\"%s\",\"pid\":%d,\"msg\":", now,
               level_names[level], daemon_name, (int)getpid());
    put_string(&b, str_of(msg));
    if (dropped > 0)
        put_field(&b, &LF_INT("log_lines_dropped", dropped));
    size_t good = b.len;
    for (size_t i = 0; i < n; i++) {
        put_field(&b, &fields[i]);
        if (b.failed || b.len > LINE_MAX_BYTES - 2)
            break;
        good = b.len;
    }
    b.failed = false;
    b.len = good;
    buf_append(&b, "}\n", 2);
    ssize_t wrote = write(STDOUT_FILENO, b.data, b.len);
    dropped = wrote == (ssize_t)b.len ? 0 : dropped + 1;
    buf_deinit(&b);
}
