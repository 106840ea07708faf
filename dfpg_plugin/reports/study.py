"""``basicsr study``: train several option files with several seeds, and test all of them on the same sets.

Each training and each test is a process of its own: ``basicsr train`` or ``basicsr test``. A run has the name of its
option file and its seed, for example ``dfpg_seed0``. A study that was interrupted goes on when it is started again.
Finished trainings and tests are not repeated.
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
from dfpg_plugin.files import read_json, sha256_of, write_errors_explained
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
        """The method's name in the report: the option file's name without the extension."""
        return Path(self.file).stem

    @property
    def name(self) -> str:
        """The name of the run's folders in ``experiments/`` and in ``results/``."""
        return f"{self.label}_seed{self.seed}"

    @property
    def weights(self) -> Path:
        """The weights that the training writes at its end. The file exists only after that."""
        return output_root(read_option_file(self.file)) / "experiments" / self.name / "models" / "net_g_latest.pth"


def run_study(files: Sequence[str], seeds: Sequence[int], test: str, jobs: int, logs: Path) -> dict[str, list[str]]:
    """Train and test everything. Return the results' names by label: the references, then the files in order.

    ``jobs``: how many processes run at once; they share the CPUs equally. ``logs``: the folder for the processes'
    output. Raises UserError for wrong arguments before the first training. Raises UserError, with the last line of the
    log, for the first process that fails.
    """
    runs = [StudyRun(file, seed) for seed in seeds for file in files]
    _check_study(files, seeds, test, runs)
    make_folder("--out", logs)
    get_root_logger().setLevel(logging.INFO)  # BasicSR sets the level only if there is a log file
    tested: dict[str, StudyRun | None] = {**dict.fromkeys(REFERENCES), **{run.name: run for run in runs}}
    untrained = [run for run in runs if not run.weights.exists()]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda run: _train(run, jobs, logs), untrained))
        list(pool.map(lambda name: _test(name, tested[name], test, jobs, logs), tested))
    results = {name: [name] for name in REFERENCES}
    for run in runs:
        results.setdefault(run.label, []).append(run.name)
    return results


def _check_study(files: Sequence[str], seeds: Sequence[int], test: str, runs: Sequence[StudyRun]) -> None:
    check_file("--test", test)
    for file in files:
        check_file("-opt", file)
    labels = [Path(file).stem for file in files]
    if twice := [label for label in labels if labels.count(label) > 1 or label in REFERENCES]:
        raise UserError(
            f"-opt: {twice[0]} is also the name of another option file or of the test set's pictures. Rename the file."
        )
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds: {' '.join(map(str, seeds))} names a seed twice. Name each seed once.")
    results_folder(test)  # raises if path:root is missing
    if not isinstance(read_option_file(test).get("path"), dict):
        raise UserError(f"{test}: the section `path` is missing. Write `path:` and below it `pretrain_network_g: ~`.")
    for run in runs:
        _check_earlier_training(run)
    for file in files:
        network_options(file, Path(), test)  # raises now, not after the trainings


def results_folder(test: str) -> Path:
    """Return the folder that holds the results of all tests with an option file."""
    return output_root(read_option_file(test)) / RESULTS


def network_options(file: str, weights: Path, test: str) -> list[str]:
    """Return the ``--force_yml`` entries that test a training's network with the options of the file ``test``.

    ``file``: the training's options. The entries name the plugins of both files.
    """
    opt = read_option_file(file)
    plugins_of_test = read_option_file(test).get("plugins") or []
    plugins = list(dict.fromkeys([*plugins_of_test, *(opt.get("plugins") or [])]))
    load_plugins(plugins)
    has_ema = ((opt.get("train") or {}).get("ema_decay") or 0) > 0
    entries = {
        "model_type": opt["model_type"],
        "scale": opt.get("scale", 1),
        "plugins": plugins,
        "network_g": sized_to_prior(opt, ["network_g"])["network_g"],
        "path:pretrain_network_g": str(weights),
        "path:param_key_g": "params_ema" if has_ema else "params",
    }
    return [f"{key}={json.dumps(value)}" for key, value in entries.items()]


def _check_earlier_training(run: StudyRun) -> None:
    """Raise UserError if a training with the run's name has other options than the run's file has now."""
    folder = run.weights.parents[1]
    if not folder.exists():
        return
    text = Path(run.file).read_text(encoding="utf-8")
    copy = folder / Path(run.file).name  # BasicSR has put a header above the options
    if not (copy.is_file() and copy.read_text(encoding="utf-8").endswith(f"\n\n{text}")):
        raise UserError(
            f"{folder}: was trained with other options than {run.file} holds now. Move it away, or rename the file."
        )


def _train(run: StudyRun, jobs: int, logs: Path) -> None:
    forced = [f"name={run.name}", f"manual_seed={run.seed}"]
    arguments = ["train", "-opt", run.file, "--auto_resume", "--force_yml", *forced]
    _run_command(f"{run.name}: training", arguments, logs / f"train_{run.name}.txt", jobs)


def _test(name: str, run: StudyRun | None, test: str, jobs: int, logs: Path) -> None:
    """Test a trained run unless this is done already. If ``run`` is None, ``name`` is a reference: blurred or sharp."""
    if is_tested(name, test, run):
        return
    flags = ["--images", name] if run is None else []
    if jobs > 1:
        flags += ["--workers", str(_cpus_each(jobs) - 1)]  # the test's first process needs a CPU itself
    forced = [] if run is None else network_options(run.file, run.weights, test)
    arguments = ["test", "-opt", test, *flags, "--force_yml", f"name={name}", *forced]
    _run_command(f"{name}: testing", arguments, logs / f"test_{name}.txt", jobs)


def _cpus_each(jobs: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // jobs)


def is_tested(name: str, test: str, run: StudyRun | None) -> bool:
    """Tell whether a finished test used the file ``test`` as it is now, and the run's weights as they are now.

    ``run`` is None for a reference, which has no weights.
    """
    path = results_folder(test) / name / MANIFEST
    manifest = read_json(path) if path.exists() else {}
    if manifest.get("finished") is None or manifest["option_file"]["sha256"] != sha256_of(test):
        return False
    if run is None:
        return manifest["method"]["images"] == name
    weights = manifest["method"]["weights"]
    return weights is not None and weights["sha256"] == sha256_of(run.weights)


def _run_command(what: str, arguments: Sequence[str], log: Path, jobs: int) -> None:
    """Run a ``basicsr`` command in a process of its own, and write its output to a log file.

    ``jobs``: how many such processes run at once. Raises UserError if the command fails.
    """
    get_root_logger().info(what)
    environment = {**os.environ, "OMP_NUM_THREADS": str(_cpus_each(jobs))}
    command = [sys.executable, "-m", "dfpg_cli.main", *arguments]
    with write_errors_explained(log):
        output = log.open("w", encoding="utf-8")
    with output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    if done.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
        reason = lines[-1].removeprefix("basicsr: error: ")
        raise UserError(f"{what} ended with status {done.returncode}: {reason} The whole output: {log}.")
