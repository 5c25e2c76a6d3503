"""The funnel: what became of every input, level by level, with nothing unaccounted for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Level:
    """One level of the funnel. Everything that came in is kept, dropped, quarantined or pending."""

    name: str
    total: int
    kept: int
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason to count."""
    quarantined: dict[str, int] = field(default_factory=dict)
    """Reason to count."""
    pending: int = 0

    @property
    def difference(self) -> int:
        """What is unaccounted for; anything but 0 is a defect of rr7k or a damaged run folder."""
        return self.total - self.kept - sum(self.dropped.values()) - sum(self.quarantined.values()) - self.pending

    def as_dict(self) -> dict[str, Any]:
        """Return the level for `--json`."""
        return {**asdict(self), "difference": self.difference}
