/* User ids of a sandbox's own.
 *
 * On disk everything belongs to the 65536 ids from SANDPIPER_SANDBOXD_UID_BASE on, whichever sandbox wrote
 * it. Each sandbox runs as 65536 others, its own, for the kernel counts much by user id, outside every
 * cgroup: inotify instances, epoll watches, pages of pipes, descriptors in flight, queued signals. With
 * shared ids one sandbox could use up what all others need. Idmapped mounts (mount_setattr(2), Linux 5.12; as
 * layers of overlayfs, 5.19) show the ones as the others.
 *
 * No dependency on any library: the cell is a static program. */
#ifndef SANDBOXD_IDS_H
#define SANDBOXD_IDS_H

#include <stdint.h>

enum { IDS_COUNT = 65536 };

/* A user namespace that maps disk_base.. to run_base.., and root to itself (overlayfs keeps files of its own,
 * as root). A descriptor, or -1 with errno. */
int ids_namespace(uint32_t disk_base, uint32_t run_base);

/* A detached mount of path (a descriptor), with that mapping unless ids is -1. -1 with errno. */
int ids_tree(const char *path, int ids);

#endif
