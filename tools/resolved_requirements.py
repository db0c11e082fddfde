"""Print what `pip install --dry-run --report` resolved (its JSON on stdin) as requirements with hashes.

This is what the bill of materials lists and what is searched for known weaknesses."""

from __future__ import annotations

import json
import sys


def requirements(report: dict) -> list[str]:
    """ "name==version --hash=sha256:..." for every archive, by name; a source directory has no hash and is left out."""
    found = []
    for item in report["install"]:
        if "archive_info" in item["download_info"]:
            name, version = item["metadata"]["name"], item["metadata"]["version"]
            found.append(f"{name}=={version} --hash=sha256:{item['download_info']['archive_info']['hashes']['sha256']}")
    return sorted(found, key=str.lower)


if __name__ == "__main__":
    print("\n".join(requirements(json.load(sys.stdin))))
