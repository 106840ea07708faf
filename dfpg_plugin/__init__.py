"""Deep Feature Prior Guided Face Deblurring (DFPGNet, WACV 2022) as a plugin for BasicSR.

Importing this package registers its components in BasicSR's registries. The names in ``__all__`` are the interface in
Python. The names in ``_LAZY`` are imported at their first use, because their modules import more packages.
"""

__version__ = "0.2.0"

from importlib import import_module
from typing import TYPE_CHECKING

from dfpg_plugin import compat

compat.provide_functional_tensor()  # before the first import of basicsr

from dfpg_plugin.archs import (  # noqa: E402, F401 - importing registers
    adapted_net_arch,
    ca_discriminator_arch,
    dfpgnet_arch,
    extractors_arch,
    prior_guided_arch,
    spandrel_arch,
    vggface_arch,
)
from dfpg_plugin.data import deblur_test_dataset, face_blur_dataset, face_pair_dataset  # noqa: E402, F401
from dfpg_plugin.data.degradation import blur  # noqa: E402
from dfpg_plugin.data.kernels import synthesise_kernels  # noqa: E402
from dfpg_plugin.losses.prior_loss import prior_loss  # noqa: E402 - registers as well
from dfpg_plugin.metrics import (  # noqa: E402, F401
    identity_similarity,
    lpips_distance,
    pyiqa_metric,
    vggface_distance,
)
from dfpg_plugin.metrics.ssim_3d import ssim_3d  # noqa: E402 - registers as well
from dfpg_plugin.models import dfpg_model, loading  # noqa: E402, F401

compat.provide_stylegan2_ops()  # this patch and the next three change modules of basicsr
compat.mend_adam_betas()
compat.mend_jpeg_quality()
compat.mend_loading(loading.load_network)
compat.allow_numpy_numbers()

_LAZY = {  # name: the module that defines it
    "DFPGRestorer": "dfpg_plugin.restoration.restorer",
    "Settings": "dfpg_plugin.restoration.settings",
    "load_network": "dfpg_plugin.restoration.network",
    "register_in_spandrel": "dfpg_plugin.restoration.in_spandrel",
}

if TYPE_CHECKING:
    from dfpg_plugin.restoration.in_spandrel import register_in_spandrel
    from dfpg_plugin.restoration.network import load_network
    from dfpg_plugin.restoration.restorer import DFPGRestorer
    from dfpg_plugin.restoration.settings import Settings
else:

    def __getattr__(name: str) -> object:
        """Import a name of :data:`_LAZY` at its first use (PEP 562). Raises AttributeError for any other name."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return found


def __dir__() -> list[str]:
    """Return the names in this module, and those of :data:`_LAZY` that are not imported yet."""
    return sorted({*globals(), *_LAZY})


__all__ = [
    "DFPGRestorer",
    "Settings",
    "__version__",
    "blur",
    "load_network",
    "prior_loss",
    "register_in_spandrel",
    "ssim_3d",
    "synthesise_kernels",
]
