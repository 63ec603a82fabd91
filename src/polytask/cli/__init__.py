"""The command line: arguments, printing, exit codes, and the project that ``polytask init`` writes.

``_main.py`` runs a command and turns errors into exit codes; begin there. ``_parser.py`` has all arguments,
``_run_commands.py`` fit, validate, test, predict and check, and every other command with arguments of its own
has a module ``_<command>_command.py``, which ``_parser.py`` lists.

Only this room prints. It does not know how a run is trained or compared: it calls `polytask.experiment`,
`polytask.compare` and `polytask.report`, and nothing imports it. Its modules import nothing heavy at the top,
so that ``--help`` answers at once.
"""

from polytask.cli._main import main
from polytask.cli._parser import COMMANDS, parse, parser

__all__ = ["COMMANDS", "main", "parse", "parser"]
