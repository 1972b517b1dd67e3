/* The hooks of a batch's items. Sealing costs more than all else that is done to an item, so a secret that
 * was just sealed is not sealed again; and hooks that bring none share one, which is made up for the batch.
 */
#ifndef GATEWAY_BATCH_HOOKS_H
#define GATEWAY_BATCH_HOOKS_H

#include "webhook_input.h"

/* Zeroed: no secret yet. Secrets are in clear here until batch_hooks_deinit. */
struct batch_hooks {
    char made[WEBHOOK_SECRET_TEXT_BYTES]; /* the shared one; empty: nobody needed it */
    struct webhook_sealed made_sealed;
    char given[WEBHOOK_SECRET_TEXT_BYTES]; /* the last that an item brought */
    struct webhook_sealed given_sealed;
};
void batch_hooks_deinit(struct batch_hooks *b);

/* Reads an item's {"url", "secret"}. The url stays a view into the document. -1 and *err. */
int batch_hook_read(struct batch_hooks *b, const struct webhook_rules *r, int32_t tenant,
                    const struct json_value *v, struct webhook_hook *out, struct err *err);

/* The batch's own hook has the shared secret when it brought none. */
void batch_hooks_share(const struct batch_hooks *b, struct webhook_input *own);

#endif
