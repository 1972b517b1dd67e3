/* Reports of usage: a stream tells the same whole as in pieces (the first byte is the pieces' size), and what
 * is taken is plausible. */
#include <stdint.h>
#include <stdlib.h>

#include "model/usage_report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int scan(struct str text, size_t step, struct inv_cost *out)
{
    struct usage_scan *s = usage_scan_new();
    for (size_t at = 0; at < text.n; at += step)
        usage_scan_feed(s, str_make(text.p + at, text.n - at < step ? text.n - at : step));
    int found = usage_scan_end(s, out, NULL);
    usage_scan_free(&s);
    return found;
}

static void check(const struct inv_cost *c)
{
    if ((c->has_input && c->input_tokens < 0) || (c->has_output && c->output_tokens < 0) ||
        (c->has_cost && !(c->cost_usd >= 0)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct inv_cost whole, pieces, one;
    struct err err = ERR_INIT;
    if (size < 2)
        return 0;
    struct str text = str_make((const char *)data + 1, size - 1);
    int a = scan(text, text.n, &whole), b = scan(text, (size_t)data[0] + 1, &pieces);
    if (a != b || whole.input_tokens != pieces.input_tokens || whole.has_cost != pieces.has_cost)
        abort();
    check(&whole);
    if (usage_report_parse(text, &one, &err) == 0 && !one.has_input && !one.has_output && !one.has_cost)
        abort();
    check(&one);
    return 0;
}
