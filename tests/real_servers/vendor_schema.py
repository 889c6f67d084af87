"""Run in an environment with a vendor's own package: compare our part of a schema with the vendor's.

Usage: ``python vendor_schema.py MODULE < ours.json``; prints what differs, as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from google.protobuf import descriptor_pool


def main() -> None:
    importlib.import_module(sys.argv[1])
    pool = descriptor_pool.Default()
    differences = []
    for name, fields in json.load(sys.stdin).items():
        try:
            theirs: Any = pool.FindMessageTypeByName(name)
            known = {each.name: [each.number, each.type] for each in theirs.fields}
        except KeyError:
            try:
                theirs = pool.FindEnumTypeByName(name)
            except KeyError:
                differences.append(f"{name} is not there")
                continue
            known = {each.name: [each.number, 0] for each in theirs.values}
        differences += [
            f"{name}.{field} is {known.get(field)}, not {ours}"
            for field, ours in fields.items()
            if known.get(field) != ours
        ]
    print(json.dumps(differences))


if __name__ == "__main__":
    main()
