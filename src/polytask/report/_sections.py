"""The parts of the page, in order."""

from polytask.report._affinity import affinity
from polytask.report._charts import Section
from polytask.report._collection import Collection
from polytask.report._curves import losses, metrics, weights
from polytask.report._gradients import gradients
from polytask.report._tradeoff import trade_offs


def sections(collection: Collection) -> list[Section]:
    """All sections that have charts."""
    parts = (losses, metrics, trade_offs, weights, gradients, affinity)
    return [part(collection) for part in parts]
