/* Leak checking at the right moment. */
#include "base/leaks.h"

#include <stddef.h>

/* LeakSanitizer's public interface (sanitizer/lsan_interface.h); absent in other builds. */
extern void __lsan_do_leak_check(void) __attribute__((weak));

void leaks_check(void)
{
    if (__lsan_do_leak_check != NULL)
        __lsan_do_leak_check();
}
