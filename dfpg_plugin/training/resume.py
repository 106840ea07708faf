"""Find and load the state of an earlier run."""

import logging
import re
from pathlib import Path

from basicsr.utils import check_resume

from dfpg_plugin.checks import UserError, check_file
from dfpg_plugin.files import load_pytorch
from dfpg_plugin.training.options import Options


def load_resume_state(opt: Options) -> dict | None:
    """Return the training state that ``path:resume_state`` or ``--auto_resume`` asks for, or None for a new run.

    Sets ``path:pretrain_network_*`` to the networks saved with it, as BasicSR does. Loads to the CPU; BasicSR needs a
    GPU (train.py:85) and stops at any other file that ends in ``.state`` (train.py:75). A state that can't be read is
    skipped for an older one, and said so. Raises UserError where states are there and none can be read.
    """
    if opt["auto_resume"]:
        folder = Path(opt["path"]["training_states"])
        found = [p for p in folder.glob("*.state") if re.fullmatch(r"\d+", p.stem)]
        candidates = sorted(found, key=lambda p: int(p.stem), reverse=True)
    else:
        given = opt["path"].get("resume_state")
        candidates = [check_file("path:resume_state", given)] if given else []
    for path in candidates:
        try:
            state = _load_state(path)
        except UserError as error:
            if not opt["auto_resume"]:
                raise
            # not get_root_logger: called before BasicSR's own loop opens its log, it would leave that without one
            logging.getLogger("basicsr").warning(f"Skipped, going on from an older state: {error}")
            continue
        opt["path"]["resume_state"] = str(path)
        check_resume(opt, state["iter"])
        return state
    if candidates:
        raise UserError(f"--auto_resume: none of the {len(candidates)} states in {candidates[0].parent} can be read.")
    return None


def _load_state(path: Path) -> dict:
    state = load_pytorch(path)
    if not isinstance(state, dict) or not {"iter", "optimizers", "schedulers"} <= state.keys():
        raise UserError(f"{path} is not a training state: expected iter, optimizers and schedulers.")
    for network in (path.parent.parent / "models").glob(f"net_*_{state['iter']}.pth"):
        load_pytorch(network)  # written before the state, so damaged only by accident
    return state
