"""The frozen network of a DFPGModel. Its features of a sharp face are the prior."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from basicsr.archs import build_network
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from dfpg_plugin.checks import check_feature_maps
from dfpg_plugin.models.priors import is_ours
from dfpg_plugin.speed.acceleration import Acceleration, channels_last


@dataclass(frozen=True)
class PriorExtractor:
    """The network that computes the features [P1, P2, P3] of a face."""

    net: nn.Module

    @classmethod
    def build(cls, options: Mapping, device: torch.device, acceleration: Acceleration) -> "PriorExtractor":
        """Build the network from the options ``network_prior``, frozen and in eval mode."""
        net = build_network(options).to(device)
        if is_ours(net):
            net = channels_last(net)
        acceleration.compiled(net.requires_grad_(False).eval(), device)
        get_root_logger().info(f"Prior features: {type(net).__name__} from {getattr(net, 'source', 'its options')}.")
        return cls(net)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the features of images (B,3,H,W) in [0,1]. Gradients flow back to the images."""
        # a network of another package may rely on the order (B,C,H,W) in memory
        return self.net(images if is_ours(self.net) else images.contiguous())

    @torch.no_grad()
    def target(self, gt: Tensor) -> list[Tensor]:
        """Return the features of sharp faces, without a graph. Raises UserError unless they are maps (B,C,H,W)."""
        features = self.features(gt)
        check_feature_maps(type(self.net).__name__, features)
        return features

    @property
    def record(self) -> dict | None:
        """Return the network's own record of its weights, for the training state. None: the network has no record."""
        return getattr(self.net, "record", None)
