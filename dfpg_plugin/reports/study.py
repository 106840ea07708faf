"""What ``basicsr study`` runs: train several option files with several seeds, test them on the same sets, report.

Every run is a process of its own (``basicsr train``, ``basicsr test``) and is called after its option file and seed.
What an interrupted study has finished is kept: run it again.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from basicsr.utils import get_root_logger

from dfpg_plugin.checks import UserError, check_file, make_folder
from dfpg_plugin.evaluation.image_sources import BLURRED, SHARP
from dfpg_plugin.evaluation.records import MANIFEST
from dfpg_plugin.files import read_json, sha256_of
from dfpg_plugin.models.priors import sized_to_prior
from dfpg_plugin.options.completing import output_root
from dfpg_plugin.options.plugins import load_plugins
from dfpg_plugin.options.reading import read_option_file
from dfpg_plugin.reports.methods import RESULTS

REFERENCES = (BLURRED, SHARP)


@dataclass(frozen=True)
class StudyRun:
    """One option file, trained with one seed."""

    file: str
    seed: int

    @property
    def label(self) -> str:
        """The method's name in the report: the option file's."""
        return Path(self.file).stem

    @property
    def name(self) -> str:
        """The run's name in ``experiments/`` and ``results/``, which lie where the option files say."""
        return f"{self.label}_seed{self.seed}"

    @property
    def weights(self) -> Path:
        """What the training ends with, which is there only where it came to its end."""
        return output_root(read_option_file(self.file)) / "experiments" / self.name / "models" / "net_g_latest.pth"


def run_study(files: Sequence[str], seeds: Sequence[int], test: str, jobs: int, logs: Path) -> dict[str, list[str]]:
    """Train and test everything; return the results' names by label: the references first, then the files in order.

    ``jobs``: how many trainings or tests run at once, each on its share of the CPUs; ``logs``: folder for what the
    processes print. Raises UserError, with the last line of its log, for the first process that fails.
    """
    check_file("--test", test)
    runs = [StudyRun(file, seed) for seed in seeds for file in files]
    for file in files:
        check_file("-opt", file)
    labels = [StudyRun(file, 0).label for file in files]
    if twice := [label for label in labels if labels.count(label) > 1 or label in REFERENCES]:
        raise UserError(f"-opt: {twice[0]} names another file or the test set itself, too. Rename the file.")
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds: {' '.join(map(str, seeds))} names one twice. Name each once.")
    results_folder(test)  # which fails where path:root is missing
    for run in runs:
        _check_earlier(run)
    for file in files:
        network_options(file, Path(), test)  # which fails before the trainings, then, not after them
    make_folder("--out", logs)
    get_root_logger().setLevel(logging.INFO)  # which BasicSR sets for a log file only
    waiting = [run for run in runs if not run.weights.exists()]
    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(lambda run: _train(run, jobs, logs), waiting):
            pass
        for _ in pool.map(lambda run: _test(run, test, jobs, logs), [*REFERENCES, *runs]):
            pass
    by_label = {label: [run.name for run in runs if run.label == label] for label in labels}
    return {name: [name] for name in REFERENCES} | by_label


def results_folder(test: str) -> Path:
    """Return the folder of all results of tests by an option file."""
    return output_root(read_option_file(test)) / RESULTS


def network_options(file: str, weights: Path, test: str) -> list[str]:
    """Return the ``--force_yml`` entries that put a trained file's network into the options of the file ``test``.

    The plugins are those of both.
    """
    opt = read_option_file(file)
    plugins = list(dict.fromkeys([*(read_option_file(test).get("plugins") or []), *(opt.get("plugins") or [])]))
    load_plugins(plugins)
    averaged = ((opt.get("train") or {}).get("ema_decay") or 0) > 0
    entries = {
        "model_type": opt["model_type"],
        "scale": opt.get("scale", 1),
        "plugins": plugins,
        "network_g": sized_to_prior(opt, ["network_g"])["network_g"],
        "path:pretrain_network_g": str(weights),
        "path:param_key_g": "params_ema" if averaged else "params",
    }
    return [f"{key}={json.dumps(value)}" for key, value in entries.items()]


def _check_earlier(run: StudyRun) -> None:
    """Raise UserError where a training of that name is there that another option file began."""
    folder = run.weights.parents[1]
    copy = folder / Path(run.file).name  # with BasicSR's header above
    text = Path(run.file).read_text(encoding="utf-8")
    if folder.exists() and not (copy.is_file() and copy.read_text(encoding="utf-8").endswith(f"\n\n{text}")):
        raise UserError(
            f"{folder}: was trained with other options than {run.file} holds now. Move it away, or rename the file."
        )


def _train(run: StudyRun, jobs: int, logs: Path) -> None:
    forced = [f"name={run.name}", f"manual_seed={run.seed}"]
    arguments = ["train", "-opt", run.file, "--auto_resume", "--force_yml", *forced]
    _basicsr(f"{run.name}: training", arguments, logs / f"train_{run.name}.txt", jobs)


def _test(run: StudyRun | str, test: str, jobs: int, logs: Path) -> None:
    """Test a run, or the reference of that name."""
    name, of_a_run = (run, None) if isinstance(run, str) else (run.name, run)
    if is_tested(name, test, of_a_run):
        return
    flags = ["--images", name] if of_a_run is None else []
    if jobs > 1:  # a process of its own for measuring pays off only where there is a CPU for it
        flags += ["--workers", str(_share(jobs) - 1)]
    forced = [f"name={name}", *(network_options(of_a_run.file, of_a_run.weights, test) if of_a_run else [])]
    arguments = ["test", "-opt", test, *flags, "--force_yml", *forced]
    _basicsr(f"{name}: testing", arguments, logs / f"test_{name}.txt", jobs)


def _share(jobs: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // jobs)


def is_tested(name: str, test: str, run: StudyRun | None) -> bool:
    """Tell whether a finished evaluation is there, by the option file and of the weights that are there now."""
    path = results_folder(test) / name / MANIFEST
    manifest = read_json(path) if path.exists() else {}
    if manifest.get("finished") is None or manifest["option_file"]["sha256"] != sha256_of(test):
        return False
    if run is None:
        return manifest["method"]["images"] == name
    weights = manifest["method"]["weights"]
    return weights is not None and weights["sha256"] == sha256_of(run.weights)


def _basicsr(what: str, arguments: Sequence[str], log: Path, jobs: int) -> None:
    """Run a command of this package in a process of its own, one of ``jobs`` at once, into a log file."""
    get_root_logger().info(what)
    environment = {"OMP_NUM_THREADS": str(_share(jobs))}
    command = [sys.executable, "-m", "dfpg_plugin.cli.main", *arguments]
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment})
    if done.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
        reason = lines[-1].removeprefix("basicsr: error: ")
        raise UserError(f"{what} ended with status {done.returncode}: {reason} The whole output: {log}.")
