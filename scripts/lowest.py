#!/usr/bin/env python3
"""Prints the lowest version that pyproject.toml allows of each published requirement, as constraints of pip.

    python scripts/lowest.py [EXTRA ...]

Those of the package and of the named extras; of all extras if none is named.
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[[\w,-]+\])?(>=|==)(?P<floor>[\w.]+?)(\.\*)?(,.*)?")


def floors(extras: list[str]) -> dict[str, str]:
    """The lowest version by name.

    Args:
        extras: The extras whose requirements count besides those of the package; all if there is none.
    """
    project = tomllib.loads(PROJECT.read_text())["project"]
    optional = project["optional-dependencies"]
    requirements = list(project["dependencies"])
    for extra in extras or optional:
        requirements += optional[extra]
    found: dict[str, str] = {}
    for requirement in requirements:
        match = REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise SystemExit(f"{PROJECT.name}: a requirement must begin with >= or ==, got '{requirement}'")
        if found.setdefault(match["name"], match["floor"]) != match["floor"]:
            raise SystemExit(f"{PROJECT.name}: '{match['name']}' must have one lowest version")
    return found


if __name__ == "__main__":
    print("\n".join(f"{name}=={floor}" for name, floor in floors(sys.argv[1:]).items()))
