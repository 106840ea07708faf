"""Deep Feature Prior Guided Face Deblurring (DFPGNet, WACV 2022) as a plugin for BasicSR.

Importing this package registers its components in BasicSR's registries.
"""

__version__ = "0.2.0"

from dfpg_plugin import compat

compat.provide_functional_tensor()  # before the first import of basicsr

from dfpg_plugin.archs import (  # noqa: E402
    adapted_net_arch,
    ca_discriminator_arch,
    dfpgnet_arch,
    extractors_arch,
    prior_guided_arch,
    spandrel_arch,
    vggface_arch,
)
from dfpg_plugin.data import deblur_test_dataset, face_blur_dataset, face_pair_dataset  # noqa: E402
from dfpg_plugin.losses import prior_loss  # noqa: E402
from dfpg_plugin.metrics import (  # noqa: E402
    identity_similarity,
    lpips_distance,
    pyiqa_metric,
    ssim_3d,
    vggface_distance,
)
from dfpg_plugin.models import dfpg_model, loading  # noqa: E402

compat.provide_stylegan2_ops()  # these need basicsr
compat.mend_adam_betas()
compat.mend_jpeg_quality()
compat.mend_loading(loading.load_network)
compat.allow_numpy_numbers()

__all__ = [
    "__version__",
    "adapted_net_arch",
    "ca_discriminator_arch",
    "deblur_test_dataset",
    "dfpg_model",
    "dfpgnet_arch",
    "extractors_arch",
    "face_blur_dataset",
    "face_pair_dataset",
    "identity_similarity",
    "lpips_distance",
    "prior_guided_arch",
    "prior_loss",
    "pyiqa_metric",
    "spandrel_arch",
    "ssim_3d",
    "vggface_arch",
    "vggface_distance",
]
