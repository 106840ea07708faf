"""The only place that changes BasicSR 1.4.2, and other packages, from outside.

A defect that a subclass can mend is mended there (``models/mended_model.py``, ``data/``). A defect that only another
loop can mend is mended in ``training/``. All other defects are mended here, each by a patch. :data:`PATCHES` names each
patch's defect, the versions that have the defect, and the condition for removing the patch.
``docs/basicsr_defects.md`` lists every defect, and the place that mends it.
"""

import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.optim import Optimizer

FUNCTIONAL_TENSOR = "torchvision.transforms.functional_tensor"
FUSED_ACT, UPFIRDN2D = "basicsr.ops.fused_act.fused_act", "basicsr.ops.upfirdn2d.upfirdn2d"
EXTENSIONS = {FUSED_ACT: "fused_act_ext", UPFIRDN2D: "upfirdn2d_ext"}  # module: its name for its CUDA extension


@dataclass(frozen=True)
class Patch:
    """A change of another package."""

    name: str
    defect: str  # what fails without the patch, and the place as file:line
    applies_to: str  # the versions that have the defect
    remove_when: str  # the change in the other package that makes the patch needless
    active: Callable[[], bool]  # tells whether the patch is in force in this process


def provide_functional_tensor() -> None:
    """Let ``import basicsr`` find a module that torchvision 0.17 removed.

    ``basicsr/data/degradations.py:8`` imports ``rgb_to_grayscale`` from this module, and ``import basicsr`` imports
    that file. Does nothing if torchvision still has the module, or if another package has provided the module.
    """
    if FUNCTIONAL_TENSOR in sys.modules or importlib.util.find_spec(FUNCTIONAL_TENSOR) is not None:
        return
    from torchvision.transforms.functional import rgb_to_grayscale

    module = types.ModuleType(FUNCTIONAL_TENSOR)
    module.__dict__.update(rgb_to_grayscale=rgb_to_grayscale, provided_by=__name__)
    sys.modules[FUNCTIONAL_TENSOR] = module


def provide_stylegan2_ops() -> None:
    """Compute in plain torch what BasicSR's CUDA extensions compute for the networks of StyleGAN2 and GFPGAN.

    pip does not build these extensions. Without them, the activation fails (``ops/fused_act/fused_act.py:65``). The
    resampling fails on GPUs; on CPUs BasicSR uses another function (``ops/upfirdn2d/upfirdn2d.py:154``). The first and
    second derivatives are BasicSR's: its autograd functions call the two functions below. An extension that was built
    stays in use.
    """
    for function, (name, extension) in zip((fused_bias_act, upfirdn2d), EXTENSIONS.items(), strict=True):
        module = importlib.import_module(name)
        if not hasattr(module, extension):
            provided = types.SimpleNamespace(**{function.__name__: function}, provided_by=__name__)
            setattr(module, extension, provided)


def fused_bias_act(
    input: "Tensor", bias: "Tensor", output: "Tensor", act: int, grad: int, slope: float, scale: float
) -> "Tensor":
    """Return leaky_relu(input + bias) * scale for ``input`` (B,C,...) and ``bias``, which is (C) or empty.

    If ``grad`` is 1, ``input`` and ``bias`` are gradients. The sign of ``output``, the activation's former result,
    then selects the slope: 1 or ``slope``. BasicSR passes only 3 as ``act``, which stands for leaky ReLU.
    """
    import torch

    del act
    if bias.numel():
        input = input + bias.view(1, -1, *[1] * (input.ndim - 2))
    return torch.where((output if grad else input) > 0, input, slope * input) * scale


def upfirdn2d(input: "Tensor", kernel: "Tensor", *up_down_pad: int) -> "Tensor":
    """Return images (N,H,W,1) upsampled, padded, filtered with ``kernel`` (h,w) and downsampled.

    BasicSR's function for CPUs computes the result. ``up_down_pad``: its arguments ``up_x``, ``up_y``, ``down_x``,
    ``down_y``, ``pad_x0``, ``pad_x1``, ``pad_y0`` and ``pad_y1``.
    """
    native = importlib.import_module(UPFIRDN2D).upfirdn2d_native
    return native(input[..., 0].unsqueeze(1), kernel, *up_down_pad).squeeze(1).unsqueeze(-1)


def _stylegan2_ops_are_provided() -> bool:
    found = [getattr(sys.modules.get(name), extension, None) for name, extension in EXTENSIONS.items()]
    return any(getattr(extension, "provided_by", None) == __name__ for extension in found)


def mend_adam_betas() -> None:
    """Let BasicSR's models give Adam ``betas`` with a whole number in them, such as GFPGAN's (0, 0.99).

    Since 2.6, torch refuses a pair of a whole number and a fraction. ``BaseModel.get_optimizer``
    (``models/base_model.py:105``) then passes 0.0 for 0. Nothing else changes.
    """
    from basicsr.models.base_model import BaseModel

    get_optimizer = BaseModel.get_optimizer
    if get_optimizer.__module__ == __name__:
        return

    @functools.wraps(get_optimizer, assigned=("__doc__",))
    def with_floats(self: BaseModel, optim_type: str, params: object, lr: float, **kwargs: object) -> "Optimizer":
        if isinstance(betas := kwargs.get("betas"), tuple | list):
            kwargs["betas"] = tuple(float(beta) if isinstance(beta, int) else beta for beta in betas)
        return get_optimizer(self, optim_type, params, lr, **kwargs)

    BaseModel.get_optimizer = with_floats


def mend_jpeg_quality() -> None:
    """Let the data sets of BasicSR and GFPGAN draw a JPEG quality that is a fraction, which OpenCV refuses.

    ``add_jpg_compression`` (``data/degradations.py:746``) then rounds the quality down.
    """
    from basicsr.data import degradations

    add_jpg_compression = degradations.add_jpg_compression
    if add_jpg_compression.__module__ == __name__:
        return

    @functools.wraps(add_jpg_compression, assigned=("__doc__",))
    def with_whole_quality(img: "NDArray", quality: float = 90) -> "NDArray":
        return add_jpg_compression(img, int(quality))

    degradations.add_jpg_compression = with_whole_quality


def allow_numpy_numbers() -> None:
    """Let torch's safe load read NumPy's float64 numbers. These are plain data and execute nothing.

    GFPGAN's landmark files hold such numbers (``gfpgan/data/ffhq_degradation_dataset.py:49``). Since torch 2.6,
    ``torch.load`` is safe by default.
    """
    import numpy as np
    import torch

    if not _numpy_numbers_are_allowed():
        number: Callable = np.float64().__reduce__()[0]
        names = [(number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]  # of NumPy 1 and 2
        torch.serialization.add_safe_globals([*names, np.dtype, type(np.dtype(np.float64))])


def _numpy_numbers_are_allowed() -> bool:
    import numpy as np
    import torch

    return type(np.dtype(np.float64)) in torch.serialization.get_safe_globals()


def mend_loading(load_network: Callable) -> None:
    """Let BasicSR's models load weights that other trainings saved, and say in one line why a file does not fit.

    ``BaseModel.load_network`` (``models/base_model.py:277``) removes no wrapper's name but ``module.``. If
    ``strict_load_g`` is false, that method raises no error even if none of the weights fits. The argument
    ``load_network`` replaces that method.
    """
    from basicsr.models.base_model import BaseModel

    BaseModel.load_network = load_network


def mend_stock_resume(load_resume_state: Callable[[dict], dict | None]) -> None:
    """Let BasicSR's own ``train_pipeline`` resume where there is no GPU.

    ``load_resume_state`` in ``basicsr/train.py:85-86`` asks for the current CUDA device and loads the whole state to
    that device. The argument replaces that function: it takes BasicSR's options and returns the state, or None for a
    new run. Does nothing if CUDA is available.
    """
    import torch

    if torch.cuda.is_available():
        return
    import basicsr.train

    basicsr.train.load_resume_state = load_resume_state


def read_forced_value(text: str) -> object:
    """Return what BasicSR's ``--force_yml`` makes of a value (options.py:58-80). A list is evaluated as Python."""
    return importlib.import_module("basicsr.utils.options")._postprocess_yml_value(text)


def _is_replaced(module: str, name: str) -> bool:
    """Tell whether a module of BasicSR is imported, and has under ``name`` a function that another module defines."""
    found = sys.modules.get(module)
    return found is not None and attrgetter(name)(found).__module__ != module


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
        active=lambda: _is_replaced("basicsr.train", "load_resume_state"),
    ),
    Patch(
        name="stylegan2_ops",
        defect="StyleGAN2's networks, and GFPGAN's, fail: no CUDA extensions (ops/fused_act, ops/upfirdn2d)",
        applies_to="basicsr <= 1.4.2 installed without BASICSR_EXT=True, the activation everywhere, resampling on GPUs",
        remove_when="basicsr computes both without its extensions",
        active=_stylegan2_ops_are_provided,
    ),
    Patch(
        name="adam_betas",
        defect="GFPGANModel can't be built: torch's Adam refuses its betas (0, 0.99) (models/base_model.py:105)",
        applies_to="basicsr <= 1.4.2 with torch >= 2.6",
        remove_when="gfpgan asks for (0.0, 0.99)",
        active=lambda: _is_replaced("basicsr.models.base_model", "BaseModel.get_optimizer"),
    ),
    Patch(
        name="jpeg_quality",
        defect="GFPGAN's data set fails: OpenCV takes only whole JPEG qualities (data/degradations.py:746)",
        applies_to="basicsr <= 1.4.2 with OpenCV 4.14 and 5",
        remove_when="basicsr rounds the quality",
        active=lambda: _is_replaced("basicsr.data.degradations", "add_jpg_compression"),
    ),
    Patch(
        name="loading",
        defect="weights of torch.compile or Lightning are refused; strict_load_g: false may load nothing",
        applies_to="basicsr <= 1.4.2",
        remove_when="basicsr removes such names, and refuses a file of which it loads nothing",
        active=lambda: _is_replaced("basicsr.models.base_model", "BaseModel.load_network"),
    ),
    Patch(
        name="numpy_numbers",
        defect="GFPGAN's landmark file can't be loaded (gfpgan/data/ffhq_degradation_dataset.py:49)",
        applies_to="gfpgan <= 1.3.8 with torch >= 2.6",
        remove_when="gfpgan ships landmarks without NumPy's numbers",
        active=_numpy_numbers_are_allowed,
    ),
)
