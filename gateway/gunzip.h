/* Unpacking gzip as a stream: zlib behind one door. */
#ifndef GATEWAY_GUNZIP_H
#define GATEWAY_GUNZIP_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"

enum { GUNZIP_PIECE_BYTES = 64 * 1024 };

struct gunzip;
struct gunzip *gunzip_new(void); /* NULL without memory */
void gunzip_free(struct gunzip **g);

/* Unpacks from *in, which it moves on, up to GUNZIP_PIECE_BYTES into *out (valid until the next call; empty:
 * all of *in is used up). -1 and *err (ERR_BAD_REQUEST): this is no gzip, or damaged. */
int gunzip_step(struct gunzip *g, struct str *in, struct str *out, struct err *err);

/* Whether what came so far is whole. */
bool gunzip_whole(const struct gunzip *g);

#endif
