"""Checkpoints: sets of files that are complete, or not there at all.

A set holds the networks and the training state of one iteration, such as 5000:

- ``models/net_g_5000.pth`` and the other networks, and ``training_states/5000.state``, as BasicSR's models write them;
- ``training_states/5000.sha256``, the checksums. ``sha256sum --check`` reads this file in the experiment's folder.

A model first writes into the folder ``.saving``. The files are then read again, and moved to their places: first the
networks, then the state, then the checksums.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from basicsr.models.base_model import BaseModel
from basicsr.utils import get_time_str

from dfpg_plugin.checks import UserError
from dfpg_plugin.files import load_pytorch, save_whole, sha256_of, whole_file, write_errors_explained
from dfpg_plugin.models.resuming import OPTIONS, TYPES, compared_options, types_of
from dfpg_plugin.runs.randomness import random_states

STAGING = ".saving"  # the folder for files that are not complete yet
MODELS, STATES = "models", "training_states"
CHECKSUM = re.compile(rf"([0-9a-f]{{64}})  ((?:{MODELS}|{STATES})/[\w.-]+)")
LATEST = -1  # BasicSR's number for the networks at the end of a training; they have no state
RESUME = "resume; earlier checkpoints are untouched"  # what to do after a failed save
NEEDED = {"iter", "optimizers", "schedulers"}  # keys of a training state


def save_checkpoint(model: BaseModel, epoch: int, current_iter: int, keep: int | None = None) -> None:
    """Save the set of an iteration, or for :data:`LATEST` only the networks. Every process has to call this function.

    ``keep``: how many of the newest sets are kept; None keeps all. The best and the latest networks are always kept.
    Raises UserError if the files can't be written. Earlier checkpoints then stay as they were.
    """
    rank, folder = model.opt["rank"], Path(model.opt["path"]["experiments_root"])
    of_random_numbers = random_states()
    with _beside_the_run(model, folder) as staging:
        model.save(epoch, current_iter)
        if rank != 0:
            return
        state = _read_again(staging, folder, current_iter)
        if current_iter != LATEST:
            _complete_state(staging / STATES / f"{current_iter}.state", state, model, of_random_numbers)
            _write_checksums(staging, current_iter)
        _move(staging, folder)
    if keep is not None and current_iter != LATEST:
        remove_old(folder, keep)


def load_set(folder: Path, current_iter: int) -> dict:
    """Return the training state of a set below ``folder``.

    Raises UserError, naming the file, if a file of the set is missing or damaged.
    """
    path = folder / STATES / f"{current_iter}.state"
    for name, wanted in _read_checksums(folder, current_iter).items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file} is missing.")
        if sha256_of(file) != wanted:
            raise UserError(f"{file} is damaged: its checksum does not fit.")
    for network in sorted((folder / MODELS).glob(f"net_*_{current_iter}.pth")):
        load_pytorch(network)  # for sets that BasicSR wrote: these have no checksums
    return load_state(path)


def load_state(path: Path) -> dict:
    """Return the training state in a file. Raises UserError, naming the file, if it holds anything else."""
    state = load_pytorch(path)
    if not isinstance(state, dict) or not state.keys() >= NEEDED:
        raise UserError(f"{path} is not a training state: expected {', '.join(sorted(NEEDED))}.")
    return state


def has_checksums(folder: Path, current_iter: int) -> bool:
    """Tell whether a set has checksums. They name the files of the set. BasicSR writes no checksums."""
    return (folder / STATES / f"{current_iter}.sha256").is_file()


def iterations_of(folder: Path) -> list[int]:
    """Return the iterations that have a state, the newest first. Nothing is read: a state may be damaged."""
    found = [path.stem for path in (folder / STATES).glob("*.state") if re.fullmatch(r"\d+", path.stem)]
    return sorted(map(int, found), reverse=True)


def remove_old(folder: Path, keep: int) -> None:
    """Remove all sets but the newest ``keep``. Of each set, the state is removed before the networks.

    Raises UserError if a file can't be removed.
    """
    with write_errors_explained(folder, RESUME):
        for current_iter in iterations_of(folder)[keep:]:
            for path in _files_of(folder, current_iter):
                path.unlink(missing_ok=True)


def set_aside(folder: Path, current_iter: int) -> Path | None:
    """Move the sets after ``current_iter`` into a folder ``abandoned_<time>``. Return the folder, or None without sets.

    A run that goes back to an earlier iteration leaves such sets behind. Left in place, they would count as the newest
    of the run: ``keep_checkpoints`` would remove the new sets, and ``--auto_resume`` would load the old ones. The best
    networks are moved, too, if they were saved after the state of ``current_iter``.
    """
    later = [iteration for iteration in iterations_of(folder) if iteration > current_iter]
    if not later:
        return None
    aside = folder / f"abandoned_{get_time_str()}"
    with write_errors_explained(folder, RESUME):
        for key in (MODELS, STATES):
            (aside / key).mkdir(parents=True, exist_ok=True)
        files = [path for iteration in later for path in _files_of(folder, iteration)]
        for path in (*files, *_later_best(folder, current_iter)):
            path.rename(aside / path.relative_to(folder))
    return aside


def _later_best(folder: Path, current_iter: int) -> list[Path]:
    """Return the best networks that were saved after a state. The state does not hold their metrics."""
    state = folder / STATES / f"{current_iter}.state"
    written = state.stat().st_mtime_ns if state.exists() else 0  # 0: the state is of another run
    return [best for best in (folder / MODELS).glob("net_*_best.pth") if best.stat().st_mtime_ns > written]


def _files_of(folder: Path, current_iter: int) -> list[Path]:
    """Return the existing files of a set: checksums, state, networks."""
    states = [folder / STATES / f"{current_iter}.{suffix}" for suffix in ("sha256", "state")]
    return [*(path for path in states if path.exists()), *(folder / MODELS).glob(f"net_*_{current_iter}.pth")]


def finish_killed_save(folder: Path) -> None:
    """Finish the save of a killed process: move a complete set to its place, and remove an incomplete one."""
    staging = folder / STAGING
    if _is_complete(staging):
        _move(staging, folder)
    shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _beside_the_run(model: BaseModel, folder: Path) -> Iterator[Path]:
    """Let a model write into the empty folder :data:`STAGING`, which lies on the disk of the run's folder."""
    staging, opt = folder / STAGING, model.opt
    try:
        if opt["rank"] == 0:
            _make_empty(staging)
        model.opt = {**opt, "path": {**opt["path"], **{key: str(staging / key) for key in (MODELS, STATES)}}}
        yield staging
    finally:
        model.opt = opt
        if opt["rank"] == 0 and not _is_complete(staging):
            shutil.rmtree(staging, ignore_errors=True)


def _is_complete(staging: Path) -> bool:
    """Tell whether a set is complete. The checksums are written last, and moved last."""
    try:
        return any((staging / STATES).glob("*.sha256"))
    except OSError:
        return False


def _make_empty(staging: Path) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    with write_errors_explained(staging, RESUME):
        for key in (MODELS, STATES):
            (staging / key).mkdir(parents=True)


def _read_again(staging: Path, folder: Path, current_iter: int) -> dict:
    """Return the training state that was written, or for :data:`LATEST` an empty dictionary.

    Raises UserError unless all files can be read. BasicSR's models go on if they can't write (base_model.py:225).
    """
    networks = list((staging / MODELS).iterdir())
    try:
        if not networks:
            raise UserError("no network was written.")
        for path in networks:
            load_pytorch(path)
        return {} if current_iter == LATEST else load_state(staging / STATES / f"{current_iter}.state")
    except UserError as error:
        raise UserError(
            f"{folder}: can't save iteration {current_iter} ({error}) Make room on the disk, then resume; "
            "earlier checkpoints are untouched."
        ) from error


def _complete_state(path: Path, state: dict, model: BaseModel, of_random_numbers: list[dict]) -> None:
    """Write ``state``, and what BasicSR's models leave out.

    These are the random states, the best metrics, the types of the optimizers, and the options.
    """
    best = getattr(model, "best_metric_results", {})
    added = {"random": of_random_numbers, TYPES: types_of(model), OPTIONS: compared_options(model.opt)}
    save_whole({"best_metric_results": _without_numpy(best), **state, **added}, path)


def _without_numpy(value: object) -> object:
    """Return records of best metrics with Python's numbers. A safe load refuses NumPy's."""
    if isinstance(value, Mapping):
        return {str(key): _without_numpy(v) for key, v in value.items()}
    return value if isinstance(value, str | int | None) else float(value)  # type: ignore[arg-type]


def _write_checksums(staging: Path, current_iter: int) -> None:
    files = sorted(path for key in (MODELS, STATES) for path in (staging / key).iterdir())
    lines = [f"{sha256_of(path)}  {path.relative_to(staging)}\n" for path in files]
    with whole_file(staging / STATES / f"{current_iter}.sha256") as file:
        file.write("".join(lines).encode())


def _read_checksums(folder: Path, current_iter: int) -> dict[str, str]:
    if not has_checksums(folder, current_iter):
        return {}
    path = folder / STATES / f"{current_iter}.sha256"
    lines = path.read_bytes().decode(errors="replace").splitlines()
    sums = {match[2]: match[1] for line in lines if (match := CHECKSUM.fullmatch(line))}
    if len(sums) != len(lines) or f"{STATES}/{current_iter}.state" not in sums:
        raise UserError(f"{path} is damaged.")
    return sums


def _move(staging: Path, folder: Path) -> None:
    """Move all files to their places: networks, state, checksums. A state in its place then has its networks."""
    order = sorted((staging / MODELS).glob("*"))
    order += sorted((staging / STATES).glob("*"), key=lambda path: path.suffix == ".sha256")
    with write_errors_explained(folder, RESUME):
        for path in order:
            _flush(path)
        for path in order:
            target = folder / path.relative_to(staging)
            target.parent.mkdir(exist_ok=True)
            os.replace(path, target)
        for key in (MODELS, STATES):
            _flush(folder / key)


def _flush(path: Path) -> None:
    """Write the content of a file or a folder to the disk now."""
    number = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError) if path.is_dir() else nullcontext():  # some file systems can't flush a folder
            os.fsync(number)
    finally:
        os.close(number)
