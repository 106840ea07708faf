"""The methods that a report compares: results folders under labels, measured in one way."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation.image_sources import BLURRED, SHARP
from dfpg_plugin.evaluation.records import Run, read_run

IDENTICAL = ("type", "better", "settings", "uses")  # of a metric, in all runs
RESULTS = "results"


@dataclass(frozen=True)
class Method:
    """One or several runs, trainings with different seeds say, under one label."""

    label: str
    runs: tuple[Run, ...]

    @property
    def is_reference(self) -> bool:
        """Whether it is the test set itself, blurred or sharp, which is shown and takes no rank."""
        return self.runs[0].manifest["method"]["images"] in (BLURRED, SHARP)


def read_methods(arguments: Sequence[str]) -> tuple[Method, ...]:
    """Return the methods that ``RUN`` and ``LABEL=RUN[,RUN...]`` arguments name.

    A run is a results folder, or a name below ``results/``. Raises UserError for what is not there or twice.
    """
    methods = []
    for argument in arguments:
        label, equals, names = ("", "", argument) if Path(argument).expanduser().is_dir() else argument.partition("=")
        if not equals:
            names = argument
        runs = tuple(read_run(_folder(name)) for name in (names.split(",") if equals else [names]))
        methods.append(Method(label if equals else runs[0].manifest["name"], runs))
        _check_one_method(methods[-1])
    labels = [method.label for method in methods]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UserError(f"report: two methods are called {twice[0]!r}. Write LABEL=RUN to tell them apart.")
    return tuple(methods)


def _check_one_method(method: Method) -> None:
    """Raise UserError where a run is there twice, or where runs of different kinds would be averaged."""
    folders = [run.folder.resolve() for run in method.runs]
    if len(set(folders)) < len(folders):
        raise UserError(f"report: a run of {method.label!r} is named twice. Name each once.")
    kinds = {run.manifest["method"]["images"] for run in method.runs} & {BLURRED, SHARP}
    if kinds and len(method.runs) > 1:
        raise UserError(
            f"report: {method.label!r} would average {' and '.join(sorted(kinds))} pictures with other runs. "
            "Give them labels of their own."
        )


def agreed_metrics(methods: Sequence[Method]) -> dict[str, dict]:
    """Return what is recorded of every metric. Raises UserError, naming the keys, where two runs differ in it."""
    found: dict[str, tuple[dict, str]] = {}
    for run in (run for method in methods for run in method.runs):
        for key, facts in run.manifest["metrics"].items():
            first, where = found.setdefault(key, (facts, str(run.folder)))
            if differences := "; ".join(differing(_what_counts(first), _what_counts(facts), IDENTICAL)):
                raise UserError(
                    f"{run.folder} and {where}: {key} was measured in two ways ({differences}), so that its numbers "
                    "can't be compared. Run one of the tests again."
                )
    return {key: facts for key, (facts, _) in found.items()}


def differing(first: dict, second: dict, keys: Sequence[str]) -> list[str]:
    """Return ``key: a / b`` for every value that differs, of nested options each key alone."""
    found = []
    for key in keys:
        a, b = first.get(key), second.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += [f"{key}:{text}" for text in differing(a, b, sorted({*a, *b}))]
        elif a != b:
            found.append(f"{key}: {a} / {b}")
    return found


def _what_counts(facts: dict) -> dict:
    """Return a metric's record without the paths of files whose digests are there."""
    settings = {k: v for k, v in facts["settings"].items() if f"{k}_sha256" not in facts["uses"]}
    return {**facts, "settings": settings}


def _folder(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if re.fullmatch(r"[^/]+", name) and Path(RESULTS, name).is_dir():
        return Path(RESULTS, name)
    raise UserError(f"report: {name} is no results folder, nor a run in {RESULTS}/ (working directory: {Path.cwd()}).")
