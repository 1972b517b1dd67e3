/* Names of templates. */
#include "model/template.h"

#include <string.h>

static bool is_part(struct str s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '\0' || (strchr(plain, s.p[i]) == NULL && (i == 0 || strchr("._-", s.p[i]) == NULL)))
            return false;
    return s.n > 0;
}

bool template_valid(struct str name)
{
    struct str rest = name, head = name;
    if (name.n >= TEMPLATE_BYTES || name.n == 0)
        return false;
    const char *slash = memchr(name.p, '/', name.n);
    if (slash != NULL) {
        str_split(&rest, '/', &head);
        if (!is_part(head))
            return false;
    }
    const char *colon = memchr(rest.p, ':', rest.n);
    if (colon == NULL)
        return is_part(rest);
    str_split(&rest, ':', &head);
    return is_part(head) && is_part(rest);
}

static bool covers(struct str entry, struct str name)
{
    struct str rest = name, untagged = name;
    if (memchr(entry.p, ':', entry.n) == NULL)
        str_split(&rest, ':', &untagged);
    return str_eq(entry, untagged);
}

bool template_allowed(const char *list, struct str name)
{
    struct str rest = str_trim(str_of(list)), entry;
    if (str_eq_c(rest, "*"))
        return true;
    if (str_eq_c(rest, "none"))
        return false;
    while (str_split(&rest, ',', &entry))
        if (covers(str_trim(entry), name))
            return true;
    return false;
}

int template_list_check(const char *list, struct err *err)
{
    struct str rest = str_trim(str_of(list)), entry;
    if (str_eq_c(rest, "*") || str_eq_c(rest, "none"))
        return 0;
    while (str_split(&rest, ',', &entry))
        if (!template_valid(str_trim(entry)))
            return err_set(err, ERR_CONFIG,
                           "templates with commas between them are needed, or * for all, or none");
    return 0;
}
