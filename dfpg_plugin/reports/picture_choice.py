"""Which pictures a report shows."""

from dataclasses import dataclass

from dfpg_plugin.checks import check_choice

CHOICES = ("random", "worst", "median", "best")


@dataclass(frozen=True)
class PictureChoice:
    """Which images the grid shows: drawn at random, or with the worst, median or best values of the first method."""

    kind: str = "random"  # one of CHOICES
    count: int = 6
    metric: str | None = None  # chosen by this metric's values; None: by the first metric
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the kind."""
        check_choice("--pictures", self.kind, CHOICES)
