/* Deficit round robin over tenants: who may feed how much next (Shreedhar and Varghese, 1995).
 *
 * Each round gives every tenant with waiting work one quantum; what it cannot use because its window is full
 * is forfeited. A tenant whose quantum the budget cut short is served the rest of it first in the next call:
 * otherwise the same ones would be cut each time. Pure. */
#ifndef MODEL_DRR_H
#define MODEL_DRR_H

#include <stddef.h>
#include <stdint.h>

struct drr_tenant {
    int32_t tenant;
    int32_t room;    /* entries that its window still takes */
    int32_t waiting; /* rows known to wait (an upper bound is fine) */
    int32_t deficit; /* kept between calls by the owner; starts at 0 */
    int32_t grant;   /* result: how many it may feed now */
};

/* Shares `budget` among t[0..n), starting at index *turn (advanced, so that the next call starts elsewhere).
 * Returns what was granted in all. */
int32_t drr_share(struct drr_tenant *t, size_t n, int32_t quantum, int32_t budget, size_t *turn);

#endif
