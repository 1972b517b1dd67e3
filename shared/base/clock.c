/* Clocks and RFC 3339. */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

#include "base/failpoint.h"

/* Process-wide, as the clocks are. */
static _Atomic int64_t ahead_us; /* of the monotonic clock */
static _Atomic bool is_set;

static int64_t read_clock(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

mono_t mono_now(void)
{
    return (mono_t){.us = read_clock(CLOCK_MONOTONIC)};
}

wall_t wall_now(void)
{
    if (is_set)
        return (wall_t){.us = mono_now().us + ahead_us};
    return (wall_t){.us = read_clock(CLOCK_REALTIME) + failpoint_clock_us()};
}

void wall_set(wall_t now)
{
    ahead_us = now.us - mono_now().us;
    is_set = true;
}

void wall_format(wall_t t, char out[WALL_TEXT_BYTES])
{
    int64_t sec = t.us / 1000000, us = t.us % 1000000;
    if (us < 0) {
        us += 1000000;
        sec--;
    }
    time_t when = (time_t)sec;
    struct tm tm;
    gmtime_r(&when, &tm);
    size_t n = strftime(out, WALL_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, WALL_TEXT_BYTES - n, ".%03dZ", (int)(us / 1000));
}

/* Reads exactly n digits at *at and moves on. */
static bool digits(struct str s, size_t *at, size_t n, int *out)
{
    uint64_t v;
    if (s.n - *at < n || !str_to_u64(str_make(s.p + *at, n), &v))
        return false;
    *out = (int)v;
    *at += n;
    return true;
}

static bool expect(struct str s, size_t *at, const char *any)
{
    if (*at >= s.n || s.p[*at] == '\0' || strchr(any, s.p[*at]) == NULL)
        return false;
    ++*at;
    return true;
}

static bool fraction(struct str s, size_t *at, int64_t *us_out)
{
    *us_out = 0;
    if (*at >= s.n || s.p[*at] != '.')
        return true;
    int64_t unit = 100000;
    size_t from = ++*at;
    for (; *at < s.n && s.p[*at] >= '0' && s.p[*at] <= '9'; ++*at, unit /= 10)
        *us_out += (s.p[*at] - '0') * unit;
    return *at > from && *at - from <= 9;
}

static bool offset(struct str s, size_t *at, int64_t *sec_out)
{
    *sec_out = 0;
    if (expect(s, at, "Zz"))
        return *at == s.n;
    int sign = *at < s.n && s.p[*at] == '-' ? -1 : 1, h, m;
    if (!expect(s, at, "+-") || !digits(s, at, 2, &h) || !expect(s, at, ":") || !digits(s, at, 2, &m))
        return false;
    *sec_out = sign * (h * 3600 + m * 60);
    return *at == s.n && h < 24 && m < 60;
}

/* timegm makes the 3rd of March of the 31st of February. */
static bool day_exists(struct tm tm)
{
    struct tm date = {.tm_year = tm.tm_year, .tm_mon = tm.tm_mon, .tm_mday = tm.tm_mday};
    timegm(&date);
    return date.tm_mday == tm.tm_mday;
}

bool wall_parse(struct str s, wall_t *out)
{
    struct tm tm = {0};
    size_t at = 0;
    int64_t us, off;
    bool ok = digits(s, &at, 4, &tm.tm_year) && expect(s, &at, "-") && digits(s, &at, 2, &tm.tm_mon) &&
              expect(s, &at, "-") && digits(s, &at, 2, &tm.tm_mday) && expect(s, &at, "Tt ") &&
              digits(s, &at, 2, &tm.tm_hour) && expect(s, &at, ":") && digits(s, &at, 2, &tm.tm_min) &&
              expect(s, &at, ":") && digits(s, &at, 2, &tm.tm_sec) && fraction(s, &at, &us) &&
              offset(s, &at, &off);
    if (!ok || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 ||
        tm.tm_min > 59 || tm.tm_sec > 60)
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    if (!day_exists(tm))
        return false;
    out->us = ((int64_t)timegm(&tm) - off) * 1000000 + us;
    return true;
}
