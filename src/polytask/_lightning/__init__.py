"""Every private name of Lightning, torchmetrics and torch's loaders that polytask relies on.

The only room to change when one of these packages changes; it knows no other room. Begin with
``_training.py``, which is about the training loop. ``_loaders.py`` is about torch's loaders, ``_metrics.py``
about torchmetrics, and ``_noise.py`` lists the warnings that are silenced. Other rooms import these modules
by name: only ``_training.py`` imports Lightning.
"""
