"""A network and a mount namespace of this program's own: packets are dropped and file systems filled in there."""

import os
import sys


def in_a_namespace():
    """This program again, inside. Returns when it is."""
    if "SP_CHAOS_INSIDE" in os.environ:
        return
    if os.geteuid() != 0:
        sys.exit(f"{sys.argv[0]}: needs root, for a network namespace and a file system of its own")
    os.environ["SP_CHAOS_INSIDE"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", "--", "sh", "-c",
                          'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv])
