/* Deficit round robin. */
#include "model/drr.h"

static int32_t min32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Gives one tenant its quantum, or what the budget had cut off it the last time; returns what it takes. */
static int32_t serve(struct drr_tenant *t, int32_t quantum, int32_t budget)
{
    int32_t want = min32(t->room, t->waiting) - t->grant;
    if (want <= 0) {
        t->deficit = 0;
        return 0;
    }
    if (t->deficit == 0)
        t->deficit = quantum;
    int32_t take = min32(min32(want, t->deficit), budget);
    t->deficit = take == want ? 0 : t->deficit - take;
    t->grant += take;
    return take;
}

int32_t drr_share(struct drr_tenant *t, size_t n, int32_t quantum, int32_t budget, size_t *turn)
{
    for (size_t i = 0; i < n; i++)
        t[i].grant = 0;
    int32_t left = budget;
    while (n > 0 && left > 0) {
        int32_t before = left;
        for (size_t i = 0; i < n && left > 0; i++) {
            struct drr_tenant *next = &t[*turn % n];
            left -= serve(next, quantum, left);
            if (next->deficit == 0) /* otherwise the budget is over, and the next call begins with it */
                *turn = (*turn + 1) % n;
        }
        if (left == before)
            break; /* nobody can take more */
    }
    return budget - left;
}
