"""The sections of the page, in order: add a section here."""

from polytask.report._affinity_section import affinity
from polytask.report._charts import Section
from polytask.report._curve_sections import losses, metrics, weights
from polytask.report._entries import Collection
from polytask.report._gradient_section import gradients
from polytask.report._tradeoff_section import trade_offs


def sections(collection: Collection) -> list[Section]:
    """All sections of the page.

    Args:
        collection: The runs to show.
    """
    parts = (losses, metrics, trade_offs, weights, gradients, affinity)
    return [part(collection) for part in parts]
