/* /files: placeholder until the transfer code lands. */
#include "api.h"

void files_request(struct api *a, struct http_request *r)
{
    (void)a;
    api_error(r, 501, "not available");
}
