"""The methods that a report compares: results folders under labels, all measured in the same way."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation.image_sources import BLURRED, SHARP
from dfpg_plugin.evaluation.records import Run, read_run

DEFINING_KEYS = ("type", "better", "settings", "uses")  # of a metric's record: the same in all runs of a report
RESULTS = "results"


@dataclass(frozen=True)
class Method:
    """One or several runs under one label. Several runs are, for example, trainings with different seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def is_reference(self) -> bool:
        """Whether the method is the test set itself, blurred or sharp. A reference is shown but takes no rank."""
        return self.runs[0].manifest["method"]["images"] in (BLURRED, SHARP)


def read_methods(arguments: Sequence[str]) -> tuple[Method, ...]:
    """Return the methods that the command line names: each argument is ``RUN`` or ``LABEL=RUN[,RUN...]``.

    A run is a results folder, or the name of a folder in ``results/``. Raises UserError if a run is missing, if a
    method names a run twice or mixes a reference with other runs, or if two methods have the same label.
    """
    methods = tuple(_read_method(argument) for argument in arguments)
    labels = [method.label for method in methods]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UserError(f"report: two methods are called {twice[0]!r}. Write LABEL=RUN to tell them apart.")
    return methods


def _read_method(argument: str) -> Method:
    is_folder = Path(argument).expanduser().is_dir()  # a folder's name may have a "=" in it
    if is_folder or "=" not in argument:
        run = read_run(_find_folder(argument))
        return Method(run.manifest["name"], (run,))
    label, _, names = argument.partition("=")
    method = Method(label, tuple(read_run(_find_folder(name)) for name in names.split(",")))
    _check_runs(method)
    return method


def _check_runs(method: Method) -> None:
    """Raise UserError if a run is named twice, or if pictures of the test set would be averaged with other runs."""
    folders = [run.folder.resolve() for run in method.runs]
    if len(set(folders)) < len(folders):
        raise UserError(f"report: a run of {method.label!r} is named twice. Name each once.")
    references = {run.manifest["method"]["images"] for run in method.runs} & {BLURRED, SHARP}
    if references and len(method.runs) > 1:
        raise UserError(
            f"report: {method.label!r} would average {' and '.join(sorted(references))} pictures with other runs. "
            "Give them labels of their own."
        )


def agreed_metrics(methods: Sequence[Method]) -> dict[str, dict]:
    """Return the record of every metric, by key. Raises UserError, naming the differences, if two runs disagree."""
    found: dict[str, tuple[dict, Path]] = {}
    for run in (run for method in methods for run in method.runs):
        for key, facts in run.manifest["metrics"].items():
            first, folder = found.setdefault(key, (facts, run.folder))
            differences = list_differences(_without_paths(first), _without_paths(facts), DEFINING_KEYS)
            if differences:
                raise UserError(
                    f"{run.folder} and {folder}: {key} was measured in two ways ({'; '.join(differences)}), so that "
                    "its numbers can't be compared. Run one of the tests again."
                )
    return {key: facts for key, (facts, _) in found.items()}


def list_differences(first: dict, second: dict, keys: Sequence[str]) -> list[str]:
    """Return a text such as ``batch_size: 16 / 32`` for every value that differs.

    Nested dictionaries are compared key by key: ``settings:crop_border: 0 / 4``.
    """
    found = []
    for key in keys:
        a, b = first.get(key), second.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += [f"{key}:{text}" for text in list_differences(a, b, sorted({*a, *b}))]
        elif a != b:
            found.append(f"{key}: {a} / {b}")
    return found


def _without_paths(facts: dict) -> dict:
    """Return a metric's record without the path of any file whose digest is recorded."""
    settings = {key: value for key, value in facts["settings"].items() if f"{key}_sha256" not in facts["uses"]}
    return {**facts, "settings": settings}


def _find_folder(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if re.fullmatch(r"[^/]+", name) and Path(RESULTS, name).is_dir():
        return Path(RESULTS, name)
    raise UserError(f"report: {name} is no results folder, nor a run in {RESULTS}/ (working directory: {Path.cwd()}).")
