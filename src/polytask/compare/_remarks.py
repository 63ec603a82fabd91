"""Remarks on a comparison's numbers: ``remarks.json``."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from polytask._errors import UserError, one_line
from polytask._files import write_text

FILE = "remarks.json"


@dataclass(frozen=True)
class Remarks:
    """Notes printed below a table.

    Attributes:
        left_out: Rows that are not in the table, and why.
        broken: How many trials of a row failed or had a metric that is not finite.
        chosen: The values of the best trial of a row.
        unnamed: Rows of earlier commands that the last one did not name, with the number of trained runs.

    Example:
        >>> Remarks(broken={"uw-base": 2}).lines(trials=3)
        ['Trials that failed or had a metric that is not finite: 2 of 3 of uw-base.']
    """

    left_out: Mapping[str, str] = field(default_factory=dict)
    broken: Mapping[str, int] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)
    unnamed: Mapping[str, int] = field(default_factory=dict)

    def lines(self, trials: int) -> list[str]:
        """The remarks as sentences.

        Args:
            trials: How many settings were tried for each row.
        """
        found = [f"Left out: {name} {why}." for name, why in self.left_out.items()]
        if self.unnamed:
            found.append(
                f"Not in this table: {', '.join(self.unnamed)}, which are trained and were not named this "
                "time. Ranks, tests and Holm's correction cover the rows of this table only."
            )
        if self.broken:
            counts = ", ".join(f"{count} of {trials} of {name}" for name, count in self.broken.items())
            found.append(f"Trials that failed or had a metric that is not finite: {counts}.")
        if self.chosen:
            settings = "; ".join(f"{name}: {setting}" for name, setting in self.chosen.items())
            found.append(f"Chosen by validation: {settings}.")
        return found


def write_remarks(folder: Path, remarks: Remarks) -> None:
    """Write a comparison's remarks, and replace earlier ones.

    Args:
        folder: The comparison's folder.
        remarks: All of them.
    """
    write_text(folder / FILE, json.dumps(asdict(remarks), indent=1))


def read_remarks(folder: Path) -> Remarks:
    """The remarks of a comparison; none if its folder has no such file.

    Args:
        folder: The comparison's folder.

    Raises:
        UserError: If the file is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return Remarks()
    try:
        return Remarks(**{name: dict(values) for name, values in json.loads(file.read_text()).items()})
    except (ValueError, TypeError, AttributeError, OSError) as error:
        found = one_line(error)
        raise UserError(
            str(file), "must contain a comparison's remarks", found, "Run `polytask compare` again"
        ) from error
