/* cron's five fields. */
#include "model/cron.h"

#include <string.h>
#include <time.h>

enum { YEARS_AHEAD = 12 /* 29 February may be eight years off */, FIELDS = 5 };

static const char *const months[] = {"jan", "feb", "mar", "apr", "may", "jun",
                                     "jul", "aug", "sep", "oct", "nov", "dec"};
static const char *const weekdays[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};

struct field {
    const char *name;
    int min, max;
    const char *const *names; /* of the values from min on, or NULL */
    int name_count;
};

static const struct field fields[FIELDS] = {
    {"minute", 0, 59, NULL, 0},   {"hour", 0, 23, NULL, 0},           {"day of month", 1, 31, NULL, 0},
    {"month", 1, 12, months, 12}, {"day of week", 0, 7, weekdays, 7},
};

/* ---- reading ---- */

static bool read_value(const struct field *f, struct str s, int *out)
{
    uint64_t n;
    for (int i = 0; i < f->name_count; i++)
        if (str_eq_nocase(s, str_of(f->names[i]))) {
            *out = f->min + i;
            return true;
        }
    if (s.n > 2 || !str_to_u64(s, &n) || (int)n < f->min || (int)n > f->max)
        return false;
    *out = (int)n;
    return true;
}

/* One item of a list. */
static bool read_item(const struct field *f, struct str s, uint64_t *bits)
{
    struct str step = str_of(NULL), from, to;
    int low = f->min, high = f->max;
    uint64_t every = 1;
    bool stepped = memchr(s.p, '/', s.n) != NULL;
    if (stepped) {
        step = s;
        str_split(&step, '/', &s);
        if (!str_to_u64(step, &every) || every == 0 || every > 60)
            return false;
    }
    if (!str_eq_c(s, "*")) {
        to = s;
        str_split(&to, '-', &from);
        bool range = memchr(s.p, '-', s.n) != NULL;
        if (!read_value(f, from, &low) || (range && !read_value(f, to, &high)))
            return false;
        if (!range && !stepped)
            high = low; /* "5/10" goes from 5 to the end */
    }
    for (int v = low; v <= high; v += (int)every)
        *bits |= 1ULL << v;
    return low <= high;
}

static int read_field(const struct field *f, struct str s, uint64_t *bits, struct err *err)
{
    struct str rest = s, item;
    *bits = 0;
    while (str_split(&rest, ',', &item))
        if (item.n == 0 || !read_item(f, item, bits))
            return err_set(err, ERR_BAD_FIELD, "cron: \"%.*s\" is no %s (%d to %d%s)", STR_ARG(s), f->name,
                           f->min, f->max, f->names != NULL ? ", or a name" : "");
    return 0;
}

static struct str expand(struct str text)
{
    static const char *const words[][2] = {{"@hourly", "0 * * * *"},   {"@daily", "0 0 * * *"},
                                           {"@midnight", "0 0 * * *"}, {"@weekly", "0 0 * * 0"},
                                           {"@monthly", "0 0 1 * *"},  {"@yearly", "0 0 1 1 *"},
                                           {"@annually", "0 0 1 1 *"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (str_eq_nocase(text, str_of(words[i][0])))
            return str_of(words[i][1]);
    return text;
}

static bool next_word(struct str *rest, struct str *word)
{
    *rest = str_trim(*rest);
    size_t n = 0;
    while (n < rest->n && rest->p[n] != ' ' && rest->p[n] != '\t')
        n++;
    *word = str_make(rest->p, n);
    *rest = str_make(rest->p + n, rest->n - n);
    return n > 0;
}

int cron_parse(struct str text, struct cron *out, struct err *err)
{
    struct str rest = expand(str_trim(text)), word, words[FIELDS];
    uint64_t bits[FIELDS];
    int n = 0;
    if (text.n > CRON_TEXT_MAX)
        return err_set(err, ERR_BAD_FIELD, "cron has more than %d characters", CRON_TEXT_MAX);
    for (; next_word(&rest, &word); n++)
        if (n < FIELDS)
            words[n] = word;
    if (n != FIELDS)
        return err_set(
            err, ERR_BAD_FIELD,
            "cron has five fields (minute, hour, day of month, month, day of week), or is a word such as "
            "@daily; this has %d",
            n);
    for (int i = 0; i < FIELDS; i++)
        if (read_field(&fields[i], words[i], &bits[i], err) != 0)
            return -1;
    *out = (struct cron){.minutes = bits[0],
                         .hours = (uint32_t)bits[1],
                         .days = (uint32_t)bits[2],
                         .months = (uint32_t)bits[3],
                         .weekdays = (uint32_t)((bits[4] | bits[4] >> 7) & 0x7F),
                         .any_day = words[2].p[0] == '*',
                         .any_weekday = words[4].p[0] == '*'};
    struct cron_minute ever;
    if (!cron_next(out, (struct cron_minute){2024, 1, 1, 0, 0}, &ever))
        return err_set(err, ERR_BAD_FIELD, "cron: that day never comes");
    return 0;
}

/* ---- the next minute ---- */

static bool day_fits(const struct cron *c, const struct tm *day)
{
    bool by_day = (c->days >> day->tm_mday & 1) != 0, by_weekday = (c->weekdays >> day->tm_wday & 1) != 0;
    if ((c->months >> (day->tm_mon + 1) & 1) == 0)
        return false;
    return c->any_day || c->any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

/* The first fitting hour and minute from the given ones on, within a day. */
static bool time_from(const struct cron *c, int *hour, int *minute)
{
    for (int h = *hour, m = *minute; h < 24; h++, m = 0) {
        if ((c->hours >> h & 1) == 0)
            continue;
        for (; m < 60; m++)
            if ((c->minutes >> m & 1) != 0) {
                *hour = h;
                *minute = m;
                return true;
            }
    }
    return false;
}

/* timegm makes a real day of any (32 January, month 13) and finds its weekday; UTC knows no leaps of the
 * clock. */
static void settle(struct tm *day)
{
    timegm(day);
}

bool cron_next(const struct cron *c, struct cron_minute after, struct cron_minute *next_out)
{
    struct tm day = {.tm_year = after.year - 1900, .tm_mon = after.month - 1, .tm_mday = after.day};
    int hour = after.hour, minute = after.minute + 1, last = after.year + YEARS_AHEAD;
    for (settle(&day); day.tm_year + 1900 <= last; hour = minute = 0) {
        if (day_fits(c, &day) && time_from(c, &hour, &minute)) {
            *next_out = (struct cron_minute){day.tm_year + 1900, day.tm_mon + 1, day.tm_mday, hour, minute};
            return true;
        }
        day.tm_mday++;
        settle(&day);
    }
    return false;
}

bool cron_every_hour(const struct cron *c)
{
    return c->hours == 0xFFFFFF;
}
