"""Which pictures a report shows. The command's arguments need it, and matplotlib, which draws them, takes a second."""

from dataclasses import dataclass

from dfpg_plugin.checks import check_choice

CHOICES = ("random", "worst", "median", "best")


@dataclass(frozen=True)
class PictureChoice:
    """Which images the grid shows: drawn, or those with the worst, median or best values of the first method."""

    kind: str = "random"  # one of CHOICES
    count: int = 6
    metric: str | None = None  # by which; default: the first
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the kind."""
        check_choice("--pictures", self.kind, CHOICES)
