"""Which network of a training is the best: by the first metric on the first validation set."""

from collections.abc import Mapping

BEST = "best"  # the label of the best generator's file, net_g_best.pth


def first_validation_set(opt: Mapping) -> str | None:
    """Return the name of the first validation set in the option file, or None without one."""
    sets = (options["name"] for key, options in (opt.get("datasets") or {}).items() if key.split("_")[0] == "val")
    return next(sets, None)


def forget_best(opt: Mapping, records: Mapping) -> None:
    """Change the records, so that the next value of the first metric on the first validation set is the best."""
    if (record := _record(opt, records)) is not None:
        record.update(val=float("-inf" if record["better"] == "higher" else "inf"), iter=-1)


def best_iteration(opt: Mapping, records: Mapping) -> int | None:
    """Return the iteration of the best value, or None if there is no value yet. ``records``: BasicSR's best metrics."""
    record = _record(opt, records)
    return None if record is None or record["iter"] < 0 else record["iter"]


def _record(opt: Mapping, records: Mapping) -> dict | None:
    return next(iter(records.get(first_validation_set(opt), {}).values()), None)
