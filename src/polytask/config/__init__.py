"""Configs: read, merged, overridden, resolved, checked and built.

What it is for: it turns YAML files, command line overrides and the config in a checkpoint into objects, and
decides what a ``_target_`` may name. It knows the other rooms by import path only, so that reading a config
imports no torch, and it knows no run folders, stages or commands.

Begin with `Config` in ``_config.py``. In the order of their work: ``_read.py`` (YAML to plain data),
``_overrides.py`` (``key=value``), ``_references.py`` (``$@a.b``), ``_resolve.py`` (a ``_target_`` to the
object that it names), ``_kinds.py`` and ``_trust.py`` (what it may be), ``_check.py`` with ``_signatures.py``
(all problems at once), ``_build.py``. ``_project.py`` imports a project's modules, ``_locations.py`` names
lines of files in messages. ``_shaping.py`` says which keys shape the weights.
"""

from polytask.config._config import Config, closest
from polytask.config._project import follow_parent
from polytask.config._shaping import shaping

__all__ = ["Config", "closest", "follow_parent", "shaping"]
