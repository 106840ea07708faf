"""Checkpoints: the networks and the training state of an iteration, together and whole, or not there at all.

A set is what BasicSR writes, ``models/net_*_{iter}.pth`` and ``training_states/{iter}.state``, and
``training_states/{iter}.sha256``, which ``sha256sum --check`` reads in the experiment's folder. Whatever model writes
them, they are written beside the run, looked through, and moved to their places, the state after its networks.
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
from dfpg_plugin.files import load_pytorch, save_whole, sha256_of, whole_file
from dfpg_plugin.models.resuming import TYPES, types_of
from dfpg_plugin.runs.randomness import random_states

STAGING = ".saving"
MODELS, STATES = "models", "training_states"
CHECKSUM = re.compile(rf"([0-9a-f]{{64}})  ((?:{MODELS}|{STATES})/[\w.-]+)")
LATEST = -1  # BasicSR's number for the networks at the end, which have no state
NEEDED = {"iter", "optimizers", "schedulers"}


def save_checkpoint(model: BaseModel, epoch: int, current_iter: int, keep: int | None = None) -> None:
    """Save the set of an iteration, or for :data:`LATEST` the networks alone; every process has to call it.

    Afterwards no more than ``keep`` sets are left, of BasicSR's too; the best and the latest networks always are.
    Raises UserError where the files can't be written: what was there before is then still there.
    """
    rank, folder = model.opt["rank"], Path(model.opt["path"]["experiments_root"])
    states = random_states()
    with _beside_the_run(model, folder) as staging:
        model.save(epoch, current_iter)
        if rank != 0:
            return
        state = _look_through(staging, folder, current_iter)
        if current_iter != LATEST:
            _complete_state(staging / STATES / f"{current_iter}.state", state, model, states)
            _write_checksums(staging, current_iter)
        _move(staging, folder)
    if keep is not None and current_iter != LATEST:
        remove_old(folder, keep)


def load_set(folder: Path, current_iter: int) -> dict:
    """Return the training state of a set below ``folder``; raise UserError, saying which file is not as it was."""
    path = folder / STATES / f"{current_iter}.state"
    for name, wanted in _read_checksums(folder, current_iter).items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file} is missing.")
        if sha256_of(file) != wanted:
            raise UserError(f"{file} is damaged: its checksum is another.")
    for network in sorted((folder / MODELS).glob(f"net_*_{current_iter}.pth")):
        load_pytorch(network)  # of a set without checksums, that is, of BasicSR's
    return load_state(path)


def load_state(path: Path) -> dict:
    """Read a training state; raise UserError, naming the file, for anything else."""
    state = load_pytorch(path)
    if not isinstance(state, dict) or not state.keys() >= NEEDED:
        raise UserError(f"{path} is not a training state: expected {', '.join(sorted(NEEDED))}.")
    return state


def has_checksums(folder: Path, current_iter: int) -> bool:
    """Tell whether a set was written here, and so names its files itself."""
    return (folder / STATES / f"{current_iter}.sha256").is_file()


def iterations_of(folder: Path) -> list[int]:
    """Return the iterations of which there is a state, whole or not, the newest first."""
    found = [path.stem for path in (folder / STATES).glob("*.state") if re.fullmatch(r"\d+", path.stem)]
    return sorted(map(int, found), reverse=True)


def remove_old(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` sets, the state before its networks. Raises UserError where that fails."""
    with _explained(folder):
        for current_iter in iterations_of(folder)[keep:]:
            for path in _files_of(folder, current_iter):
                path.unlink(missing_ok=True)


def set_aside(folder: Path, current_iter: int) -> Path | None:
    """Move the sets of later iterations, which a run that goes back leaves behind, and a later best, to a folder.

    Return it, or None where there are none. Left where they were, they would count as the newest of this run:
    ``keep_checkpoints`` would remove what it saves, and ``--auto_resume`` go on from them.
    """
    later = [iteration for iteration in iterations_of(folder) if iteration > current_iter]
    if not later:
        return None
    aside = folder / f"abandoned_{get_time_str()}"
    with _explained(folder):
        for key in (MODELS, STATES):
            (aside / key).mkdir(parents=True, exist_ok=True)
        files = [path for iteration in later for path in _files_of(folder, iteration)]
        for path in (*files, *_later_best(folder, current_iter)):
            path.rename(aside / path.relative_to(folder))
    return aside


def _later_best(folder: Path, current_iter: int) -> list[Path]:
    """Return the best networks, if they were kept after a state, which then does not know their metric."""
    state = folder / STATES / f"{current_iter}.state"
    if not state.exists():  # it was saved in another folder
        return []
    written = state.stat().st_mtime_ns
    return [best for best in (folder / MODELS).glob("net_*_best.pth") if best.stat().st_mtime_ns > written]


def _files_of(folder: Path, current_iter: int) -> list[Path]:
    """Return the files of a set that are there, its state before its networks."""
    states = [folder / STATES / f"{current_iter}.{suffix}" for suffix in ("sha256", "state")]
    return [*(path for path in states if path.exists()), *(folder / MODELS).glob(f"net_*_{current_iter}.pth")]


def settle(folder: Path) -> None:
    """Finish the move that a killed process had begun, and remove what it had not finished writing."""
    staging = folder / STAGING
    if _is_complete(staging):
        _move(staging, folder)
    shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _beside_the_run(model: BaseModel, folder: Path) -> Iterator[Path]:
    """Let the model write into an empty folder within its own, on the same disk."""
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
    """Tell whether a set was written: its checksums are, last of all, and are the last to be moved."""
    try:
        return any((staging / STATES).glob("*.sha256"))
    except OSError:
        return False


def _make_empty(staging: Path) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    with _explained(staging):
        for key in (MODELS, STATES):
            (staging / key).mkdir(parents=True)


def _look_through(staging: Path, folder: Path, current_iter: int) -> dict:
    """Return the training state, of :data:`LATEST` an empty one.

    Raises UserError unless all can be read: BasicSR's models go on where they can't write (base_model.py:225).
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


def _complete_state(path: Path, state: dict, model: BaseModel, states: list[dict]) -> None:
    """Write ``state`` with what BasicSR's models forget: all random states, the best metrics, the optimizers' types."""
    best = getattr(model, "best_metric_results", {})
    added = {"random": states, TYPES: types_of(model)}
    save_whole({"best_metric_results": _plain(best), **state, **added}, path)


def _plain(value: object) -> object:
    """Return records without NumPy's numbers, which a safe load refuses."""
    if isinstance(value, Mapping):
        return {str(key): _plain(v) for key, v in value.items()}
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
    """Move everything to its place: networks, the state, its checksums, so that a state has its networks."""
    order = sorted((staging / MODELS).glob("*"))
    order += sorted((staging / STATES).glob("*"), key=lambda path: path.suffix == ".sha256")
    with _explained(folder):
        for path in order:
            _flush(path)
        for path in order:
            target = folder / path.relative_to(staging)
            target.parent.mkdir(exist_ok=True)
            os.replace(path, target)
        for key in (MODELS, STATES):
            _flush(folder / key)


def _flush(path: Path) -> None:
    """Write a file's, or a folder's, content to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError) if path.is_dir() else nullcontext():  # some file systems can't flush a folder
            os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: can't be written ({error.strerror}). Make room or free the folder, then resume; "
            "earlier checkpoints are untouched."
        ) from error
