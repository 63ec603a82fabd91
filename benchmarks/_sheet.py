"""A sheet of small pictures, one for each weighting."""

import io
import math
from collections.abc import Callable, Sequence

import matplotlib
from _table import RESULTS
from PIL import Image
from torch import Tensor

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")


def trace(panel: Axes, paths: Tensor, every: int) -> None:
    """Draw paths ``(steps, starts, 2)`` with a dot where they start and a star where they end."""
    star = {"markersize": 7, "markeredgecolor": "black", "markeredgewidth": 0.3}
    for color, points in zip(COLORS, paths.unbind(1), strict=True):
        panel.plot(*points[::every].mT, color=color, linewidth=1)
        panel.plot(*points[:1].mT, "o", color=color, markersize=2)
        panel.plot(*points[-1:].mT, "*", color=color, **star)


def sheet(name: str, titles: Sequence[str], draw: Callable[[Axes, str], None], caption: str) -> None:
    """Draw a panel for each title, all on the same axes, and write ``results/<name>.png``."""
    columns = 6
    lines = math.ceil(len(titles) / columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(1.75 * columns, 1.75 * lines + 0.4), sharex=True, sharey=True, squeeze=False
    )
    for place, panel in enumerate(axes.flat):
        if place < len(titles):
            draw(panel, titles[place])
            panel.set_title(titles[place], fontsize=8, pad=3)
            panel.tick_params(labelsize=6, length=2, labelbottom=place + columns >= len(titles))
        else:
            panel.set_axis_off()
    figure.suptitle(caption, fontsize=9, y=0.995)
    figure.tight_layout(pad=0.4, rect=(0, 0, 1, 0.98))
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    pyplot.close(figure)
    # A palette makes the file a third as large.
    Image.open(drawn).convert("RGB").quantize(64).save(RESULTS / f"{name}.png", optimize=True)
