"""Find the state of an earlier run, load it, and give it to a model."""

import logging
import re
import shutil
from pathlib import Path

from basicsr.models.base_model import BaseModel
from basicsr.utils import check_resume, get_root_logger

from dfpg_plugin.checks import UserError, check_file
from dfpg_plugin.files import whole_file
from dfpg_plugin.models.best_network import BEST, best_iteration, forget_best
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.models.resuming import OPTIONS, with_given_options
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
    """Return the options and the training state to resume, which is None for a new run: see :func:`find_state`.

    The options then name the state's file and, under ``path:pretrain_network_*``, the networks saved with the state. A
    seed that the options do not give is the state's.
    """
    state, paths = find_state(options.plain)
    if state is None:
        return options, None
    if options.seed_is_drawn and OPTIONS in state:
        options = options.with_seed(state[OPTIONS]["manual_seed"])
    return options.with_paths(paths), state


def find_state(opt: Options) -> tuple[dict | None, dict]:
    """Return the training state to resume, and the section ``path`` of the options. The state is None for a new run.

    ``path:resume_state`` names the state's file. ``--auto_resume`` takes the newest state instead. The section names
    the state's file and its networks, as BasicSR's does. The state is loaded to the CPU. BasicSR loads a state to a GPU
    (train.py:85-86), and fails at a ``.state`` file whose name is no number (train.py:75).

    A set is a state with its networks. ``--auto_resume`` skips a set with a missing or damaged file for an older set,
    and the log says so. Raises UserError if there are sets and none is whole, if the named state or its set is not
    whole, and if the state's iteration is above ``train:total_iter``.
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
    """Load a training state into a model. Options that were changed since then take effect.

    BasicSR's own models forget the best metrics of the state. This function sets them.
    """
    if not isinstance(model, MendedModel):
        state = with_given_options(model, state)
    model.resume_training(state)
    if not hasattr(model, "best_metric_results") and state.get("best_metric_results"):
        model.best_metric_results = state["best_metric_results"]


def set_aside_later(options: RunOptions, model: BaseModel, current_iter: int) -> None:
    """Move the checkpoints after ``current_iter`` to another folder: the run goes back and makes its own again."""
    if options.rank != 0:
        return
    folder = set_aside(options.folder, current_iter)
    if folder is not None:
        get_root_logger().info(
            f"The run goes back to iteration {current_iter}. Its later checkpoints are now in {folder}."
        )
    origin = _run_of(Path(options.plain["path"]["resume_state"])) or options.folder
    best_is_gone = folder is not None and (folder / MODELS / f"net_g_{BEST}.pth").exists()
    is_another_runs = isinstance(model, MendedModel) and origin.resolve() != options.folder.resolve()
    if best_is_gone or is_another_runs:  # BasicSR's own models keep no best network
        _find_best_again(model, origin / MODELS, options.folder / MODELS)


def _run_of(state: Path) -> Path | None:
    """Return the folder of the run that a state lies in, or None if it lies in no run's folder."""
    return state.parent.parent if state.parent.name == STATES else None


def _find_best_again(model: BaseModel, origin: Path, models: Path) -> None:
    """Write ``net_g_best.pth`` into ``models`` from the networks in ``origin``, the folder of the resumed run.

    The best network so far is known by its iteration. If that network's file is gone, the best value is forgotten.
    """
    records = getattr(model, "best_metric_results", {})
    iteration = best_iteration(model.opt, records)
    saved = origin / f"net_g_{iteration}.pth"
    if saved.exists():
        with saved.open("rb") as source, whole_file(models / f"net_g_{BEST}.pth") as target:
            shutil.copyfileobj(source, target)
    elif iteration is not None:
        forget_best(model.opt, records)
        get_root_logger().info(
            f"The best network so far, of iteration {iteration}, is not there any more. The best of those to come is "
            "kept."
        )


def _newest_whole_set(opt: Options) -> tuple[dict | None, dict]:
    folder = Path(opt["path"]["training_states"]).parent
    # not get_root_logger: called here, before BasicSR's own loop opens its log, it would leave that loop without a log
    logger = logging.getLogger("basicsr")
    found, reasons = iterations_of(folder), []
    for current_iter in found:
        try:
            state = load_set(folder, current_iter)
            _check_networks(opt, folder, current_iter)
        except UserError as error:
            logger.warning(f"The checkpoint of iteration {current_iter} is skipped for an older one: {error}")
            reasons.append(str(error))
            continue
        return state, _paths_of(opt, state, folder / STATES / f"{current_iter}.state")
    if found:
        raise UserError(
            f"--auto_resume: none of the {len(found)} states in {folder / STATES} is whole. The newest: {reasons[0]} "
            "Restore one of them with its networks, or start without --auto_resume: a new run renames this folder."
        )
    logger.info(f"No state to resume in {folder / STATES}. A new run begins.")
    return None, opt["path"]


def _check_networks(opt: Options, folder: Path, current_iter: int) -> None:
    """Raise UserError if a set without checksums lacks a network of the options. BasicSR's loop writes such sets."""
    if has_checksums(folder, current_iter):
        return
    for key in opt:
        if key.startswith("network_") and key not in (opt["path"].get("ignore_resume_networks") or []):
            file = folder / MODELS / f"net_{key.removeprefix('network_')}_{current_iter}.pth"
            if not file.is_file():
                raise UserError(f"{file} is missing.")


def _paths_of(opt: Options, state: dict, path: Path) -> dict:
    """Return the section ``path`` with the state's file and its networks.

    Raises UserError if the state's iteration is above ``train:total_iter``.
    """
    if (total_iter := int(opt["train"]["total_iter"])) < state["iter"]:
        raise UserError(
            f"train:total_iter: {total_iter} is below {state['iter']}, the iteration of {path}. Raise it, or name an "
            "earlier state by path:resume_state."
        )
    # a state of another run lies beside that run's networks
    run = _run_of(path)
    models = opt["path"]["models"] if run is None else run / MODELS
    resumed = {**opt, "path": {**opt["path"], "resume_state": str(path), "models": str(models)}}
    check_resume(resumed, state["iter"])
    return {**resumed["path"], "models": opt["path"]["models"]}
