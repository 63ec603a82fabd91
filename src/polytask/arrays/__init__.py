"""What stands behind `polytask.trainer`, `polytask.estimator` and `polytask.predictor`: training on arrays.

Begin with `Session`. This room knows System and its data, but no configs, run folders or command line.
"""
