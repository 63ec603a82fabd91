"""The record files' folder and columns, as plain data: declaring a recorder must not import pyarrow."""

Columns = tuple[tuple[str, str], ...]
"""Names of columns with Arrow's names of their types."""

FOLDER = "records"
_STEP = (("step", "int64"), ("epoch", "int64"))
GRADIENTS: Columns = (
    *(*_STEP, ("group", "string"), ("task", "string"), ("other", "string"), ("inner", "float64")),
)
WEIGHTS: Columns = (*_STEP, ("task", "string"), ("weight", "float64"), ("effective_weight", "float64"))
LOSSES: Columns = (*_STEP, ("task", "string"), ("loss", "float64"))
AFFINITY: Columns = (
    *(*_STEP, ("form", "string"), ("task", "string"), ("other", "string"), ("affinity", "float64")),
)
