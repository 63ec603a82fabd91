"""The command line: arguments, printing, exit codes, and the project that ``polytask init`` writes.

Begin with ``_main.py``. Its modules import nothing heavy at the top, so that ``--help`` answers at once.
"""

from polytask.cli._main import COMMANDS, main, parse, parser

__all__ = ["COMMANDS", "main", "parse", "parser"]
