"""What fit, validate, test, predict and check do with a config: no argument parsing, no printing.

Begin with ``_commands.py``. It knows System, callbacks, configs and run folders, but not the command line.
"""
