"""Training and predicting on arrays, for `polytask.trainer`, `polytask.estimator` and `polytask.predictor`.

What it is for: it trains a `polytask.System` in several calls on batches ``(inputs, {task: target})``, turns
columns of labels into targets, and predicts rows. It knows no configs, run folders or command line.

Begin with `Session` in ``_session.py``, which holds a System and gives each call a Lightning Trainer;
``_epoch_history.py`` keeps the values of its epochs, ``_keep_best.py`` the weights of the best one.
``_label_codes.py`` turns labels into numbers and back; ``_predict_rows.py`` predicts.
"""
