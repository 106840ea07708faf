"""The only place that works around BasicSR 1.4.2 from outside.

What a subclass can mend is mended there (``models/mended_model.py``, ``data/``), what only an own loop can mend is
mended in ``training/``. What is left stands here: each patch names its defect, the versions it applies to and the
condition under which it can be removed, and does nothing where the defect is absent.
"""

import importlib.util
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass

FUNCTIONAL_TENSOR = "torchvision.transforms.functional_tensor"


@dataclass(frozen=True)
class Patch:
    """One workaround: what breaks without it, where, and whether it is in force in this process."""

    name: str
    defect: str
    applies_to: str
    remove_when: str
    active: Callable[[], bool]


def provide_functional_tensor() -> None:
    """Let ``import basicsr`` find the torchvision module that torchvision 0.17 removed.

    ``basicsr/data/degradations.py:8`` imports ``rgb_to_grayscale`` from it, and every submodule of basicsr imports that
    file. Does nothing where torchvision still has the module or where another package provided it already.
    """
    if FUNCTIONAL_TENSOR in sys.modules or importlib.util.find_spec(FUNCTIONAL_TENSOR) is not None:
        return
    from torchvision.transforms.functional import rgb_to_grayscale

    module = types.ModuleType(FUNCTIONAL_TENSOR)
    module.__dict__.update(rgb_to_grayscale=rgb_to_grayscale, provided_by=__name__)
    sys.modules[FUNCTIONAL_TENSOR] = module


def mend_stock_resume(load_resume_state: Callable[[dict], dict | None]) -> None:
    """Let BasicSR's own ``train_pipeline`` resume where there is no GPU.

    ``basicsr/train.py:85-86`` asks for the current CUDA device and moves the whole state there. Does nothing where CUDA
    is available. ``load_resume_state`` replaces that function: it takes BasicSR's options and returns the state or
    None.
    """
    import torch

    if torch.cuda.is_available():
        return
    import basicsr.train

    basicsr.train.load_resume_state = load_resume_state


def _stock_resume_is_mended() -> bool:
    train = sys.modules.get("basicsr.train")
    return train is not None and train.load_resume_state.__module__ != "basicsr.train"


PATCHES = (
    Patch(
        name="functional_tensor",
        defect="`import basicsr` fails: torchvision.transforms.functional_tensor is gone (data/degradations.py:8)",
        applies_to="basicsr <= 1.4.2 with torchvision >= 0.17",
        remove_when="basicsr imports rgb_to_grayscale from torchvision.transforms.functional",
        active=lambda: getattr(sys.modules.get(FUNCTIONAL_TENSOR), "provided_by", None) == __name__,
    ),
    Patch(
        name="stock_resume",
        defect="resuming under `train --stock` needs a GPU (train.py:85-86)",
        applies_to="basicsr <= 1.4.2 without CUDA, `basicsr train --stock` only",
        remove_when="basicsr loads the state with map_location='cpu'",
        active=_stock_resume_is_mended,
    ),
)
