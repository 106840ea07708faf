"""Summarise an evaluation in the log: every metric's mean, as BasicSR logs it, and each verification."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from basicsr.utils import get_root_logger

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation.planning import Plan
from dfpg_plugin.evaluation.records import PairDistance, Record, read_chunks, set_file
from dfpg_plugin.evaluation.set_metrics import SetOptions, VerificationOptions
from dfpg_plugin.metrics.verification import verify


def summarise(folder: Path, plan: Plan) -> None:
    """Log the means of every test set whose records lie in ``folder``."""
    for set_plan in plan.sets:
        chunks = read_chunks(set_file(folder, set_plan.name))
        lines = _summary(set_plan.name, (record for _, records in chunks for record in records), plan.set_metrics)
        get_root_logger().info("\n".join(lines))


def _summary(name: str, records: Iterable[Record], set_metrics: Mapping[str, SetOptions]) -> list[str]:
    """Return a set's lines. The records are read one by one, so that memory does not grow with their number."""
    sums: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    without: Counter[str] = Counter()
    pairs: defaultdict[str, list[PairDistance]] = defaultdict(list)
    problems = []
    for record in records:
        for key, value in record.values.items():
            sums[key] += 0.0 if value is None else value
            (without if value is None else counts)[key] += 1
        for key, distances in record.pairs.items():
            pairs[key] += [pair for pair in distances if pair.distance is not None]
        if record.problem is not None:
            problems.append(f"{record.name}: {record.problem}")
    lines = [f"Validation {name}"]
    for key, total in sums.items():
        mean = total / counts[key] if counts[key] else math.nan
        lines.append(f"\t # {key}: {mean:.4f}" + (f"\t({without[key]} images have none)" if without[key] else ""))
    lines += [f"\t # {key}: {_verification(found, set_metrics[key])}" for key, found in pairs.items()]
    if problems:
        lines.append(f"\t not measured: {len(problems)}, the first {problems[0]}")
    return lines


def _verification(pairs: list[PairDistance], options: SetOptions) -> str:
    if not isinstance(options, VerificationOptions):
        raise TypeError("Only a verification has pairs.")
    pairs = sorted(pairs, key=lambda pair: pair.place)
    distances = [pair.distance for pair in pairs if pair.distance is not None]
    is_same = [pair.is_same for pair in pairs]
    try:
        result = verify(distances, is_same, legacy_order=options.legacy_order, seed=options.seed)
    except UserError as error:
        return str(error)
    return f"{result.accuracy:.4f} ({len(pairs)} pairs)"
