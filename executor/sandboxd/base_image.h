/* The base image: what a sandbox's root file system holds before anything is written to it. */
#ifndef SANDBOXD_BASE_IMAGE_H
#define SANDBOXD_BASE_IMAGE_H

#include <stdint.h>

#include "base/err.h"

#define BASE_LAYER "base"

/* Makes <data_dir>/base anew: the skeleton and the supervisor. Ids inside start at uid_base. */
int base_image_make(const char *data_dir, const char *supervisor, uint32_t uid_base, struct err *err);

/* Makes <data_dir>/blank.img, an empty ext4 file system of so many bytes. */
int base_image_make_blank(const char *data_dir, int64_t bytes, struct err *err);

#endif
