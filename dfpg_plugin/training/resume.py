"""Find the state of an earlier run, load it, and give it to a model."""

import logging
import re
from pathlib import Path

from basicsr.models.base_model import BaseModel
from basicsr.utils import check_resume, get_root_logger

from dfpg_plugin.checks import UserError, check_file
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.models.resuming import with_given_options
from dfpg_plugin.options.completing import RunOptions
from dfpg_plugin.options.reading import Options
from dfpg_plugin.runs.checkpoints import (
    MODELS,
    STATES,
    has_checksums,
    iterations_of,
    load_set,
    load_state,
    set_aside,
)


def load_resume_state(options: RunOptions) -> tuple[RunOptions, dict | None]:
    """Return the options and the state to go on from: see :func:`find_state`.

    The options name the state and, under ``path:pretrain_network_*``, the networks saved with it.
    """
    state, paths = find_state(options.plain)
    return (options if state is None else options.with_paths(paths)), state


def find_state(opt: Options) -> tuple[dict | None, dict]:
    """Return the training state that ``path:resume_state`` or ``--auto_resume`` asks for, or None for a new run.

    Return the section ``path`` with the state's file and its networks, too, as BasicSR sets them. The state is loaded
    to the CPU; BasicSR needs a GPU (train.py:85) and stops at any other file that ends in ``.state`` (train.py:75).

    With ``--auto_resume`` a set of which something is missing or damaged is skipped for an older one, and the log says
    so. Raises UserError where there are sets and none is whole, and for a named state that is not whole.
    """
    if opt["auto_resume"]:
        return _newest_whole_set(opt)
    if not opt["path"].get("resume_state"):
        return None, opt["path"]
    path = check_file("path:resume_state", opt["path"]["resume_state"])
    is_of_a_set = path.parent.name == STATES and re.fullmatch(r"\d+", path.stem)
    state = load_set(path.parent.parent, int(path.stem)) if is_of_a_set else load_state(path)
    return state, _paths_of(opt, state, path)


def resume(model: BaseModel, state: dict) -> None:
    """Give a model its state under the given options, and those of BasicSR the best metrics, which they forget."""
    if not isinstance(model, MendedModel):
        state = with_given_options(model, state)
    model.resume_training(state)
    if not hasattr(model, "best_metric_results") and state.get("best_metric_results"):
        model.best_metric_results = state["best_metric_results"]


def set_aside_later(options: RunOptions, current_iter: int) -> None:
    """Put the sets after ``current_iter`` aside and say where: the run has gone back, and they are not its own."""
    if options.rank == 0 and (folder := set_aside(options.folder, current_iter)) is not None:
        get_root_logger().info(
            f"Checkpoints after iteration {current_iter}, of an earlier course, are now in {folder}."
        )


def _newest_whole_set(opt: Options) -> tuple[dict | None, dict]:
    folder = Path(opt["path"]["training_states"]).parent
    # not get_root_logger: called before BasicSR's own loop opens its log, it would leave that without one
    logger = logging.getLogger("basicsr")
    found, reasons = iterations_of(folder), []
    for current_iter in found:
        try:
            state = load_set(folder, current_iter)
            _check_networks(opt, folder, current_iter)
        except UserError as error:
            logger.warning(f"Iteration {current_iter} is skipped for an older one: {error}")
            reasons.append(str(error))
            continue
        return state, _paths_of(opt, state, folder / STATES / f"{current_iter}.state")
    if found:
        raise UserError(
            f"--auto_resume: none of the {len(found)} states in {folder / STATES} is whole. The newest: {reasons[0]} "
            "Restore one of them with its networks, or start without --auto_resume, which puts this run aside."
        )
    logger.info(f"No state to resume in {folder / STATES}: a new run.")
    return None, opt["path"]


def _check_networks(opt: Options, folder: Path, current_iter: int) -> None:
    """Raise UserError where a set of BasicSR's own, which has no checksums, lacks a network of the options."""
    if has_checksums(folder, current_iter):
        return
    for key in opt:
        if key.startswith("network_") and key not in (opt["path"].get("ignore_resume_networks") or []):
            file = folder / MODELS / f"net_{key.removeprefix('network_')}_{current_iter}.pth"
            if not file.is_file():
                raise UserError(f"{file} is missing.")


def _paths_of(opt: Options, state: dict, path: Path) -> dict:
    """Return the section ``path`` that names a state and its networks."""
    if (total_iter := int(opt["train"]["total_iter"])) < state["iter"]:
        raise UserError(
            f"train:total_iter: {total_iter} is below {state['iter']}, the iteration of {path}. Raise it, or name an "
            "earlier state by path:resume_state."
        )
    resumed = {**opt, "path": {**opt["path"], "resume_state": str(path)}}
    check_resume(resumed, state["iter"])
    return resumed["path"]
