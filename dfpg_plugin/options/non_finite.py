"""``train:non_finite``: what a training does about a step whose losses or gradients are not finite."""

from collections.abc import Mapping
from dataclasses import dataclass

from dfpg_plugin.checks import UserError, check_choice, check_fields, check_keys

STOP, SKIP = "stop", "skip"


@dataclass(frozen=True)
class NonFiniteOptions:
    """The keys of ``train:non_finite``."""

    action: str = STOP  # or skip: leave the weights as they are and go on with the next batch
    limit: int = 10  # batches that may be skipped in one start of the training

    @classmethod
    def read(cls, given: object) -> "NonFiniteOptions":
        """Check and read the section; None is the default. Raises UserError."""
        key = "train:non_finite"
        if not isinstance(given or {}, Mapping):
            raise UserError(f"{key}: expected options such as `action: skip`, got {given!r}.")
        options: Mapping = given or {}  # type: ignore[assignment]
        check_keys(key, options, ("action", "limit"))
        check_fields(key, cls, options)
        check_choice(f"{key}:action", options.get("action", STOP), (STOP, SKIP))
        if options.get("limit", 0) < 0:
            raise UserError(f"{key}:limit: expected a whole number from 0, got {options['limit']}.")
        return cls(**options)
