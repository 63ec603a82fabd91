"""The console that commands print to, which does not read names and messages as markup."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def plain_console(quiet: bool = False) -> "Console":
    """A console that does not change strings or break lines.

    Args:
        quiet: Whether nothing is printed.

    Example:
        >>> plain_console().print("[bold]digit[/parity] :warning:")
        [bold]digit[/parity] :warning:
    """
    from rich.console import Console

    return Console(quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False)
