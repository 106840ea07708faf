"""The training step of DFPGNet, sections 3.4 and 4.1: discriminator, then generator, from one generator forward."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from dfpg_plugin.checks import UserError, check_positive
from dfpg_plugin.models.mended_model import MendedModel

Losses = dict[str, Tensor]
PRIOR_IDENTITY = ("weights_sha256", "input", "layers", "feature_scale")  # of its record; the file's name may change


@MODEL_REGISTRY.register()
class DFPGModel(MendedModel):
    """Train a generator with a deep feature prior.

    All parts come from the YAML:

    - ``network_g``: the generator. With ``prior_opt`` or ``gan_opt`` it must offer ``forward(x, return_priors=True)``.
    - ``network_prior``: the frozen extractor; with ``prior_opt``, ``gan_opt`` or ``feature_opt``.
    - ``network_d``: the feature discriminator; with ``gan_opt``. If it has ``attend``, that weights the prior loss too.
    - ``train``: ``pixel_opt`` (Eq. 7), ``prior_opt`` (Eq. 9), ``gan_opt`` (Eq. 6, 8), and for model B2 of Table 4
      ``feature_opt`` (a loss between the extractor's features of the restored and of the sharp face), each a registered
      loss; BasicSR's ``perceptual_opt``; ``optim_g``, ``optim_d``, ``scheduler``, ``ema_decay``, ``grad_clip_norm``.

    Logged each time: every term, the mean logits ``out_d_real`` and ``out_d_fake``, the norms of the gradients
    ``norm_d`` and ``norm_g``, and ``cos_p1`` to ``cos_p3``, the mean cosine between the channel vectors of P_i and
    P^_i.
    """

    def init_training_settings(self) -> None:
        """Build the extractor, the discriminator and the losses, then what BasicSR builds."""
        train = self.opt["train"]
        self.cri_prior = self._build_loss("prior_opt")
        self.cri_gan = self._build_loss("gan_opt")
        self.cri_feature = self._build_loss("feature_opt")
        self.uses_priors = self.cri_prior is not None or self.cri_gan is not None
        self._check_parts()
        if (clip := train.get("grad_clip_norm")) is not None:
            check_positive("train.grad_clip_norm", clip)
        self.net_prior = self._build_prior()
        self.net_d = self._build_discriminator()
        super().init_training_settings()

    def setup_optimizers(self) -> None:
        """Build ``optim_g`` and, with a discriminator, ``optim_d``."""
        super().setup_optimizers()
        if self.net_d is not None:
            options = dict(self.opt["train"]["optim_d"])
            self.optimizer_d = self.get_optimizer(options.pop("type"), self.net_d.parameters(), **options)
            self.optimizers.append(self.optimizer_d)

    def optimize_parameters(self, current_iter: int) -> None:
        """One step of D, then one of G (section 4.1). Raises NonFiniteLossError before anything is updated with it."""
        with torch.no_grad():
            target = None if self.net_prior is None else self.net_prior(self.gt)
        restored, estimated = self._generate()
        self._check_shapes(estimated, target)
        log: Losses = {}
        if self.net_d is not None:
            losses, logits = self._discriminator_losses(target, estimated)
            norm = self._step(losses, self.net_d, self.optimizer_d, current_iter)
            log.update(losses, **logits, norm_d=norm)
        with self._frozen_discriminator():
            losses = self._generator_losses(restored, estimated, target)
            norm = self._step(losses, self.net_g, self.optimizer_g, current_iter)
        log.update(losses, norm_g=norm)
        log.update(self._cosines(estimated, target))
        self.output = restored.detach()
        self.log_dict = self.reduce_loss_dict({name: value.detach() for name, value in log.items()})
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def save(self, epoch: int, current_iter: int) -> None:
        """Save the networks, then the training state."""
        self.save_generator(current_iter)
        if self.net_d is not None:
            self.save_network(self.net_d, "net_d", current_iter)
        self.save_training_state(epoch, current_iter)

    def extra_state(self) -> dict:
        """Return ``prior``: the record of the prior network, where it keeps one."""
        record = getattr(self.net_prior, "record", None)
        return {} if record is None else {"prior": record}

    def check_extra_state(self, resume_state: dict) -> None:
        """Refuse to go on with another prior; states without a record (BasicSR's, older ones) are taken as they are."""
        then, now = resume_state.get("prior"), self.extra_state().get("prior", {})
        if then is None:
            return
        if differing := [key for key in PRIOR_IDENTITY if then.get(key) != now.get(key)]:
            raise UserError(
                f"network_prior: another {', '.join(differing)}. This run was started with {_describe_prior(then)}, "
                f"now {_describe_prior(now)}. Use the same, or start a new run with path:pretrain_network_g."
            )

    def _generate(self) -> tuple[Tensor, list[Tensor]]:
        """Return the restored face and, where a loss needs them, [P^1, P^2, P^3]."""
        if not self.uses_priors:
            return self.net_g(self.lq), []
        return self.net_g(self.lq, return_priors=True)

    def _discriminator_losses(self, target: list[Tensor], estimated: list[Tensor]) -> tuple[Losses, Losses]:
        """Eq. 6 on logits: the two terms, and the mean logits."""
        real = self.net_d(target)
        fake = self.net_d([p.detach() for p in estimated])
        losses = {
            "l_d_real": self.cri_gan(real, True, is_disc=True),
            "l_d_fake": self.cri_gan(fake, False, is_disc=True),
        }
        return losses, {"out_d_real": real.mean(), "out_d_fake": fake.mean()}

    def _generator_losses(self, restored: Tensor, estimated: list[Tensor], target: list[Tensor] | None) -> Losses:
        """The weighted terms of Eq. 10, and those of the ablations."""
        losses: Losses = {}
        if self.cri_pix is not None:
            losses["l_g_pix"] = self.cri_pix(restored, self.gt)
        if self.cri_perceptual is not None:
            percep, style = self.cri_perceptual(restored, self.gt)
            losses.update({k: v for k, v in (("l_g_percep", percep), ("l_g_style", style)) if v is not None})
        if self.cri_feature is not None:
            pairs = zip(self.net_prior(restored), target, strict=True)
            losses["l_g_feature"] = torch.stack([self.cri_feature(p_hat, p) for p_hat, p in pairs]).sum()
        if self.cri_prior is not None:
            with torch.no_grad():
                weighted_target = self._attend(target)
            losses["l_g_prior"] = self.cri_prior(self._attend(estimated), weighted_target)
        if self.cri_gan is not None:
            logits = self.get_bare_model(self.net_d)(estimated)  # bare: no gradient of D to share out
            losses["l_g_gan"] = self.cri_gan(logits, True, is_disc=False)
        return losses

    def _step(self, losses: Losses, net: nn.Module, optimizer: torch.optim.Optimizer, current_iter: int) -> Tensor:
        """Update a network; return the norm of its gradient, before it is clipped."""
        self.check_finite(losses, current_iter)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        norm = nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])
        self.check_finite({f"the gradient of {' + '.join(losses)}": norm}, current_iter)
        if (clip := self.opt["train"].get("grad_clip_norm")) is not None:
            nn.utils.clip_grads_with_norm_(net.parameters(), clip, norm)
        optimizer.step()
        return norm

    @staticmethod
    def _check_shapes(estimated: list[Tensor], target: list[Tensor] | None) -> None:
        """Refuse estimates that can't be compared with the prior, naming what sets their channels."""
        shapes = [[tuple(p.shape[1:]) for p in features] for features in (estimated, target or [])]
        if estimated and shapes[0] != shapes[1]:
            raise UserError(
                f"network_g: its prior estimates have shapes {shapes[0]}, network_prior's features {shapes[1]}. "
                "Set network_g's prior_channels, or network_prior's layers."
            )

    def _attend(self, features: list[Tensor]) -> list[Tensor]:
        """Weight the channels with the discriminator's attention (Eq. 4), where it has one."""
        attend = getattr(self.get_bare_model(self.net_d), "attend", None)
        return features if attend is None else attend(features)

    @contextmanager
    def _frozen_discriminator(self) -> Iterator[None]:
        """Keep gradients out of D and CA, while they still flow through them (Fig. 4b)."""
        if self.net_d is None:
            yield
            return
        self.net_d.requires_grad_(False)
        try:
            yield
        finally:
            self.net_d.requires_grad_(True)

    @staticmethod
    @torch.no_grad()
    def _cosines(estimated: list[Tensor], target: list[Tensor] | None) -> Losses:
        pairs = enumerate(zip(estimated, target or [], strict=False), start=1)
        return {f"cos_p{i}": F.cosine_similarity(p_hat.float(), p, dim=1).mean() for i, (p_hat, p) in pairs}

    def _build_loss(self, key: str) -> nn.Module | None:
        options: Mapping | None = self.opt["train"].get(key)
        return None if options is None else build_loss(options).to(self.device)

    def _build_prior(self) -> nn.Module | None:
        if self.opt.get("network_prior") is None:
            return None
        net = build_network(self.opt["network_prior"]).to(self.device).to(memory_format=torch.channels_last)
        net.requires_grad_(False)
        get_root_logger().info(f"Prior features: {type(net).__name__} from {getattr(net, 'source', 'its options')}.")
        return net

    def _build_discriminator(self) -> nn.Module | None:
        if self.opt.get("network_d") is None:
            return None
        net = self.model_to_device(build_network(self.opt["network_d"]))
        self.print_network(net)
        path = self.opt["path"]
        if path.get("pretrain_network_d") is not None:
            self.load_network(net, path["pretrain_network_d"], path.get("strict_load_d", True), path.get("param_key_d"))
        return net.train()

    def _check_parts(self) -> None:
        """Refuse losses without the network that they need, and a discriminator that nothing trains."""
        needs_prior = self.uses_priors or self.cri_feature is not None
        if needs_prior and self.opt.get("network_prior") is None:
            raise UserError("network_prior: missing, but train.prior_opt, gan_opt or feature_opt needs its features.")
        if (self.cri_gan is None) != (self.opt.get("network_d") is None):
            raise UserError("network_d and train.gan_opt: one is there without the other. Add it, or remove both.")
        if self.opt.get("network_d") is not None and self.opt["train"].get("optim_d") is None:
            raise UserError("train.optim_d: missing, network_d needs an optimizer.")
        net = self.get_bare_model(self.net_g)
        if self.uses_priors and "return_priors" not in signature(net.forward).parameters:
            raise UserError(
                f"network_g: {type(net).__name__} estimates no prior, but train.prior_opt or gan_opt needs one. "
                "Use DFPGNet, or remove both."
            )


def _describe_prior(record: Mapping) -> str:
    if not record:
        return "no known prior"
    origin = f"{record.get('file')}, {record.get('channel_order')}, {record.get('input')}"
    details = f"layers {record.get('layers')}, feature_scale {record.get('feature_scale')}"
    return f"weights {str(record.get('weights_sha256'))[:12]}... ({origin}, {details})"
