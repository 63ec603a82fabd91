"""Writes `batch.svg`, the way of one batch.

python docs/make_batch_picture.py
"""

from html import escape
from pathlib import Path

DOCS = Path(__file__).parent
WIDTH, HEIGHT = 880, 808
FONT = "font-family='Helvetica, Arial, sans-serif'"
MAIN, SIDE, BOX, SMALL = 90, 560, 390, 260
STEPS = (
    (20, "batch", "what a data loader yields"),
    (116, "BatchAdapter", "where inputs, targets and task ids are in a batch"),
    (212, "model", "backbone → representation → heads"),
    (356, "MultiTaskLoss", "one loss for each task; missing labels masked"),
    (452, "weighting", "how the tasks are balanced"),
    (548, "backward", "a plain backward, or the engine's for gradients by task"),
    (724, "optimizer", "one step of all parameters"),
)


def box(x: int, y: int, width: int, title: str, text: str, fill: str = "#eef3fb") -> list[str]:
    middle = x + width // 2
    return [
        f"<rect x='{x}' y='{y}' width='{width}' height='56' rx='6' fill='{fill}' stroke='#4a6fa5'/>",
        f"<text x='{middle}' y='{y + 24}' {FONT} font-size='15' font-weight='bold' "
        f"text-anchor='middle' fill='#1d2b40'>{escape(title)}</text>",
        f"<text x='{middle}' y='{y + 43}' {FONT} font-size='13' "
        f"text-anchor='middle' fill='#44546a'>{escape(text)}</text>",
    ]


def arrow(points: str, dashed: bool = False) -> str:
    dashes = " stroke-dasharray='5 4'" if dashed else ""
    return (
        f"<polyline points='{points}' fill='none' stroke='#4a6fa5' stroke-width='1.6'{dashes} "
        "marker-end='url(#head)'/>"
    )


def label(x: int, y: int, text: str) -> str:
    style = f"{FONT} font-size='13' font-style='italic' fill='#1d2b40'"
    return f"<text x='{x}' y='{y}' {style}>{escape(text)}</text>"


def picture() -> str:
    """The picture as SVG."""
    middle, side, right = MAIN + BOX // 2, SIDE + SMALL // 2, MAIN + BOX
    parts = [part for y, title, text in STEPS for part in box(MAIN, y, BOX, title, text)]
    parts += box(SIDE, 356, SMALL, "metrics", "over the labelled rows of an epoch", "#f3f6ee")
    parts += box(SIDE, 452, SMALL, "log", "metrics.csv, TensorBoard, callbacks", "#f3f6ee")
    parts += [
        f"<rect x='{MAIN}' y='636' width='{BOX}' height='56' rx='6' fill='#fbf5e6' stroke='#b08a2e'/>",
        f"<text x='{middle}' y='669' {FONT} font-size='14' text-anchor='middle' fill='#1d2b40'>"
        ".grad of shared and task parameters</text>",
    ]
    # Down the main column.
    parts += [
        arrow(f"{middle},76 {middle},114"),
        arrow(f"{middle},172 {middle},210"),
        label(middle + 10, 196, "inputs"),
        arrow(f"{middle},268 {middle},354"),
        label(middle + 10, 296, "outputs by task"),
        arrow(f"{middle},412 {middle},450"),
        label(middle + 10, 436, "losses by task"),
        arrow(f"{middle},508 {middle},546"),
        label(middle + 10, 532, "a scalar, or weights"),
        arrow(f"{middle},604 {middle},634"),
        arrow(f"{middle},692 {middle},722"),
    ]
    # Targets, and what the metrics are given.
    parts += [
        arrow(f"{right},144 {side},144 {side},354"),
        label(right + 12, 136, "targets by task"),
        arrow(f"{side},332 {middle + 120},332 {middle + 120},354"),
        arrow(f"{middle},312 {side - 30},312 {side - 30},354"),
        arrow(f"{side},412 {side},450"),
        arrow(f"{right},384 {SIDE - 26},384 {SIDE - 26},480 {SIDE - 2},480"),
    ]
    # What only some weightings need; the step changes the model.
    parts += [
        arrow(f"{MAIN + 20},548 {MAIN + 20},510", dashed=True),
        label(MAIN + 30, 532, "Gramian or Jacobian"),
        arrow(f"{MAIN},752 44,752 44,240 {MAIN - 2},240", dashed=True),
        label(52, 316, "new values"),
    ]
    size = f"viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}'"
    head = f"<svg xmlns='http://www.w3.org/2000/svg' {size}>"
    marker = (
        "<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' "
        "orient='auto-start-reverse'><path d='M0 0 10 5 0 10z' fill='#4a6fa5'/></marker></defs>"
    )
    ground = f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>"
    return "\n".join([head, marker, ground, *parts, "</svg>", ""])


if __name__ == "__main__":
    (DOCS / "batch.svg").write_text(picture())
