"""A Ray cluster of two small nodes on this machine, in a process of its own.

Its address is the first line of the output; it answers each line of the input when it is done.

``kill``: SIGKILL for everything of the second node. ``add``: another second node. The end of the input ends
the cluster.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from typing import Any

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


def main() -> None:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # paths of sockets must be short
    cluster = Cluster(
        initialize_head=True, head_node_args={**NODE, "include_dashboard": False, "temp_dir": folder}
    )
    second = cluster.add_node(**NODE)
    print(cluster.address, flush=True)
    try:
        for line in sys.stdin:
            if line.strip() == "kill":
                cluster.remove_node(second, allow_graceful=False)
            else:
                second = cluster.add_node(**NODE)
            print("done", flush=True)
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
