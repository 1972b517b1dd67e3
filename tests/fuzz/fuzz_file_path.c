/* Paths of files: one that is accepted stays below the directory it is relative to. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/file_path.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str path = str_make((const char *)data, size), rest = path, name;
    struct err err = ERR_INIT;
    if (file_path_check(path, &err) != 0) {
        if (err.code != ERR_BAD_FILE || err.msg[0] == '\0')
            abort();
        return 0;
    }
    if (size > FILE_PATH_MAX || memchr(data, '\0', size) != NULL || !file_paths_clash(path, path))
        abort();
    while (str_split(&rest, '/', &name))
        if (name.n == 0 || name.n > FILE_NAME_MAX || str_eq_c(name, ".") || str_eq_c(name, ".."))
            abort();
    return 0;
}
