"""Where the command line prints: results on standard output, progress and complaints on standard error."""

from rich.console import Console

out, err = Console(), Console(stderr=True)


def tell(line: str) -> None:
    """Print a line of plain text, for people; the terminal wraps it, not we."""
    out.print(line, highlight=False, markup=False, soft_wrap=True)
