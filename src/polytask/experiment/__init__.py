"""What fit, validate, test, predict and check do with a config, as functions that return their results.

`_fit.fit` trains a run, `_evaluate.evaluate` computes metrics on the validation or the test data,
`_evaluate.predict` writes predictions, `_dry_run.dry_run` runs one batch of every stage, and
`_problems.find_problems` checks a config. A `polytask.runs._lookup.Selection` says which config, run and
checkpoint they use. What happens meanwhile is reported to a `_reporter.Reporter`, and errors are raised.

This room knows System, callbacks, configs and run folders. It does not know the command line: it parses no
arguments, prints nothing and has no exit codes. `polytask.cli` and `polytask.compare` both call it. Begin
with ``_fit.py``.
"""
