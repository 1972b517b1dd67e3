/* cron: fields, names, days, the next minute. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "model/cron.h"

static struct cron_minute at(const char *text)
{
    struct cron_minute m;
    assert_int_equal(sscanf(text, "%d-%d-%d %d:%d", &m.year, &m.month, &m.day, &m.hour, &m.minute), 5);
    return m;
}

static void expect_next(const char *cron, const char *after, const char *want)
{
    struct cron c;
    struct err err;
    struct cron_minute next;
    char got[80];
    assert_int_equal(cron_parse(str_of(cron), &c, &err), 0);
    assert_true(cron_next(&c, at(after), &next));
    snprintf(got, sizeof got, "%04d-%02d-%02d %02d:%02d", next.year, next.month, next.day, next.hour,
             next.minute);
    assert_string_equal(got, want);
}

static void minutes_that_fit(void **state)
{
    (void)state;
    expect_next("* * * * *", "2026-11-21 14:59", "2026-11-21 15:00");
    expect_next("*/15 * * * *", "2026-11-21 14:45", "2026-11-21 15:00");
    expect_next("5/20 * * * *", "2026-11-21 14:05", "2026-11-21 14:25");
    expect_next("0 9-17/4 * * *", "2026-11-21 14:00", "2026-11-21 17:00");
    expect_next("30 2 * * *", "2026-12-31 02:30", "2027-01-01 02:30");
    expect_next("59 23 31 12 *", "2026-01-01 00:00", "2026-12-31 23:59");
    expect_next("0 0 29 2 *", "2096-03-01 00:00", "2104-02-29 00:00"); /* 2100 has none */
    expect_next("0 12 * * mon-fri", "2026-11-20 12:00", "2026-11-23 12:00");
    expect_next("0 12 * JAN,Jul SUN", "2026-11-21 00:00", "2027-01-03 12:00");
    expect_next("0 0 * * 7", "2026-11-21 00:00", "2026-11-22 00:00");
    expect_next("0 0 1,15 * 3", "2026-11-21 00:00", "2026-11-25 00:00"); /* either day */
    expect_next("0 0 */10 * 3", "2026-11-21 00:00", "2027-03-31 00:00"); /* `*` first: both days */
    expect_next("  0   4\t* * *  ", "2026-11-21 00:00", "2026-11-21 04:00");
}

static void words_for_whole_expressions(void **state)
{
    (void)state;
    expect_next("@hourly", "2026-11-21 14:00", "2026-11-21 15:00");
    expect_next("@daily", "2026-11-21 14:00", "2026-11-22 00:00");
    expect_next("@midnight", "2026-11-21 14:00", "2026-11-22 00:00");
    expect_next("@weekly", "2026-11-21 14:00", "2026-11-22 00:00");
    expect_next("@monthly", "2026-11-21 14:00", "2026-12-01 00:00");
    expect_next("@Yearly", "2026-11-21 14:00", "2027-01-01 00:00");
}

static void what_is_refused_says_why(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "five fields"},        {"* * * *", "this has 4"},   {"* * * * * *", "this has 6"},
        {"60 * * * *", "minute"},   {"* 24 * * *", "hour"},      {"* * 0 * *", "day of month"},
        {"* * 32 * *", "day of"},   {"* * * 13 *", "month"},     {"* * * * 8", "day of week"},
        {"*/0 * * * *", "minute"},  {"5-3 * * * *", "minute"},   {"1,,2 * * * *", "minute"},
        {"-5 * * * *", "minute"},   {"5- * * * *", "minute"},    {"* * * foo *", "month"},
        {"*/x * * * *", "minute"},  {"1-2-3 * * * *", "minute"}, {"0 0 30 2 *", "never comes"},
        {"0 0 31 4,6 *", "never"},  {"@often", "this has 1"},    {"**", "this has 1"},
        {"1 * * * mon-", "day of"}, {"+1 * * * *", "minute"},    {"*/99 * * * *", "minute"},
        {"001 * * * *", "minute"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct cron c;
        struct err err = ERR_INIT;
        assert_int_equal(cron_parse(str_of(bad[i][0]), &c, &err), -1);
        assert_int_equal(err.code, ERR_BAD_FIELD);
        if (strstr(err.msg, bad[i][1]) == NULL)
            fail_msg("\"%s\": %s", bad[i][0], err.msg);
    }
    char big[300];
    memset(big, '1', sizeof big);
    struct cron c;
    struct err err;
    assert_int_equal(cron_parse(str_make(big, sizeof big), &c, &err), -1);
}

/* Minute by minute, as the definition says. */
static struct cron_minute slowly(const struct cron *c, struct cron_minute after)
{
    struct tm t = {.tm_year = after.year - 1900,
                   .tm_mon = after.month - 1,
                   .tm_mday = after.day,
                   .tm_hour = after.hour,
                   .tm_min = after.minute};
    for (;;) {
        t.tm_min++;
        timegm(&t);
        bool day = (c->days >> t.tm_mday & 1) != 0, weekday = (c->weekdays >> t.tm_wday & 1) != 0;
        bool either = !c->any_day && !c->any_weekday;
        if ((c->minutes >> t.tm_min & 1) != 0 && (c->hours >> t.tm_hour & 1) != 0 &&
            (c->months >> (t.tm_mon + 1) & 1) != 0 && (either ? day || weekday : day && weekday))
            return (struct cron_minute){t.tm_year + 1900, t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min};
    }
}

static void the_next_minute_is_what_counting_finds(void **state)
{
    (void)state;
    srand(7);
    for (int i = 0; i < 300; i++) {
        char text[100];
        struct cron c;
        struct err err;
        snprintf(text, sizeof text, "%d-59/%d %d,%d %s%d %s %s%d", rand() % 60, 1 + rand() % 30, rand() % 24,
                 rand() % 24, rand() % 2 ? "*/" : "", 1 + rand() % 28, rand() % 2 ? "*" : "2-11/3",
                 rand() % 2 ? "*/" : "", 1 + rand() % 6);
        assert_int_equal(cron_parse(str_of(text), &c, &err), 0);
        struct cron_minute from = {2024 + rand() % 5, 1 + rand() % 12, 1 + rand() % 28, rand() % 24,
                                   rand() % 60},
                           next;
        assert_true(cron_next(&c, from, &next));
        struct cron_minute want = slowly(&c, from);
        assert_memory_equal(&next, &want, sizeof next);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(minutes_that_fit),
        cmocka_unit_test(words_for_whole_expressions),
        cmocka_unit_test(what_is_refused_says_why),
        cmocka_unit_test(the_next_minute_is_what_counting_finds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
