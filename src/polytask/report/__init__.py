"""From the records that runs leave to one HTML page, or to files of figures.

What it is for: it reads run folders and comparisons and shows them. It never uses a model, and reading
records imports no torch.

Begin with ``_sections.py``, which lists the sections of the page in order. To add a figure, add a `Chart` to
a section (``_curve_sections.py``, ``_tradeoff_section.py``, ``_gradient_section.py`` or
``_affinity_section.py``), or write a function from a `Collection` to a `Section` and list it there: the page
and the files show it without further changes. `collect` (``_collect.py``, ``_comparison.py``,
``_records.py``) reads a `Collection`; charts are plain data (``_charts.py``), which ``_plotly.py`` renders
for the page (``_page.py``, ``page/``) and ``_figures.py`` with matplotlib. ``_live.py`` serves the page of a
running training.
"""

from polytask.report._collect import collect
from polytask.report._entries import Collection
from polytask.report._figures import write_figures
from polytask.report._live import LiveServer
from polytask.report._page import page

__all__ = ["Collection", "LiveServer", "collect", "page", "write_figures"]
