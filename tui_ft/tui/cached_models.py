"""A child process: the models (or with the argument `dataset`, the datasets) in the Hub's cache on this machine, as JSON, smallest first.

The scan walks the disk, so it is never done in the terminal's own process.
"""

from __future__ import annotations

import json
import sys


def main() -> int:
    from huggingface_hub import CacheNotFound, scan_cache_dir

    kind = sys.argv[1] if len(sys.argv) > 1 else "model"
    try:
        repositories = [repository for repository in scan_cache_dir().repos if repository.repo_type == kind]
    except CacheNotFound:
        repositories = []
    except (OSError, ValueError) as error:
        print(json.dumps({"error": f"the Hub's cache cannot be read: {error}"}))
        return 2
    rows = [{"name": repository.repo_id, "bytes": repository.size_on_disk} for repository in repositories]
    print(json.dumps(sorted(rows, key=lambda row: row["bytes"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
