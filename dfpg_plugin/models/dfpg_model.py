"""The training step of DFPGNet, sections 3.4 and 4.1: discriminator, then generator, from one generator forward."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from dfpg_plugin.checks import check_feature_maps, check_positive
from dfpg_plugin.models.captured_step import CapturedStep
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.models.microbatch import Cosines, Losses, Part, frozen, gathering
from dfpg_plugin.models.model_checks import (
    check_accumulation,
    check_parts,
    check_range,
    check_restored,
    check_same_prior,
    check_shapes,
    explaining,
)
from dfpg_plugin.models.priors import RESTORED, is_ours, sized_to_prior
from dfpg_plugin.speed.acceleration import autocast, channels_last


@MODEL_REGISTRY.register()
class DFPGModel(MendedModel):
    """Train a generator with a deep feature prior.

    All parts come from the YAML:

    - ``network_g``: the generator, any network that maps (B,3,H,W) in [0,1] to the same.
    - ``network_prior``: the frozen extractor; with ``prior_opt``, ``gan_opt`` or ``feature_opt``. Networks that take
      ``prior_channels`` and ``prior_strides`` and are not told get its.
    - ``network_d``: the feature discriminator; with ``gan_opt``. If it has ``attend``, that weights the prior loss too.
    - ``train``: ``pixel_opt`` (Eq. 7), ``prior_opt`` (Eq. 9), ``gan_opt`` (Eq. 6, 8), and for model B2 of Table 4
      ``feature_opt`` (a loss between the extractor's features of the restored and of the sharp face), each a registered
      loss; BasicSR's ``perceptual_opt``; ``optim_g``, ``optim_d``, ``scheduler``, ``ema_decay``, ``grad_clip_norm``;
      and the keys of :class:`dfpg_plugin.speed.acceleration.Acceleration`.
    - ``train: estimated_prior``: where P^ of ``prior_opt`` and ``gan_opt`` comes from. ``generator``, as in the paper:
      ``network_g`` offers ``forward(x, return_priors=True)``. ``restored``: the extractor's features of the restored
      face, for any other network; gradients pass through the extractor, which stays as it is.

    Logged each time: every term, the mean logits ``out_d_real`` and ``out_d_fake``, the norms of the gradients
    ``norm_d`` and ``norm_g``, and ``cos_p1`` to ``cos_p3``, the mean cosine between the channel vectors of P_i and
    P^_i.
    """

    def __init__(self, opt: dict) -> None:
        check_range(opt)
        super().__init__(sized_to_prior(opt))

    def init_training_settings(self) -> None:
        """Build the extractor, the discriminator and the losses, then what BasicSR builds."""
        train = self.opt["train"]
        self.cri_prior = self._build_loss("prior_opt")
        self.cri_gan = self._build_loss("gan_opt")
        self.cri_feature = self._build_loss("feature_opt")
        self.cosines = self.acceleration.compiled(Cosines(), self.device)
        self.uses_priors = self.cri_prior is not None or self.cri_gan is not None
        self.generator_estimates = self.uses_priors and train.get("estimated_prior") != RESTORED
        check_parts(self.opt, self.get_bare_model(self.net_g), self.uses_priors)
        check_accumulation(train, self.acceleration.accumulate)
        if (clip := train.get("grad_clip_norm")) is not None:
            check_positive("train.grad_clip_norm", clip)
        self.net_prior = self._build_prior()
        self.net_d = self._build_discriminator()
        super().init_training_settings()
        processes = max(self.opt["num_gpu"], self.opt.get("world_size", 1))
        networks = [self.get_bare_model(net) for net in (self.net_g, self.net_prior, self.net_d) if net is not None]
        losses = (self.cri_pix, self.cri_perceptual, self.cri_feature, self.cri_prior, self.cri_gan)
        modules = [*networks, *(loss for loss in losses if loss is not None)]
        self.captured = CapturedStep(self.acceleration.recorder(self.device, processes, modules))

    def setup_optimizers(self) -> None:
        """Build ``optim_g`` and, with a discriminator, ``optim_d``."""
        super().setup_optimizers()
        if self.net_d is not None:
            options = dict(self.opt["train"]["optim_d"])
            self.optimizer_d = self.get_optimizer(options.pop("type"), self.net_d.parameters(), **options)
            self.optimizers.append(self.optimizer_d)

    def optimize_parameters(self, current_iter: int) -> None:
        """One step of D, then one of G (section 4.1). Raises NonFiniteLossError before anything is updated with it."""
        self.check.begin(current_iter)
        parts = self.captured.begin(self.lq, self.gt, self.acceleration.accumulate)
        log: Losses = {}
        if self.net_d is not None:
            log.update(self._update(parts, self.net_d, self.optimizer_d, self._discriminator_losses, "norm_d"))
        with frozen(self.net_d):
            log.update(self._update(parts, self.net_g, self.optimizer_g, self._generator_losses, "norm_g"))
        self.scaler.update()
        self.check.end()
        self.output = torch.cat([part.restored.detach() for part in parts])
        self.log_dict = self.reduce_loss_dict(log)
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def save(self, epoch: int, current_iter: int) -> None:
        """Save the networks, then the training state. Raises NonFiniteLossError."""
        self.check.settle()
        self.save_generator(current_iter)
        if self.net_d is not None:
            self.save_network(self.net_d, "net_d", current_iter)
        self.save_training_state(epoch, current_iter)

    def extra_state(self) -> dict:
        """Return ``prior``, the record of the prior network where it keeps one, and ``scaler`` for float16."""
        record = getattr(self.net_prior, "record", None)
        state = {} if record is None else {"prior": record}
        return {**state, "scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else state

    def check_extra_state(self, resume_state: dict) -> None:
        """Refuse to go on with another prior; states without a record (BasicSR's, older ones) are taken as they are."""
        check_same_prior(resume_state.get("prior"), self.extra_state().get("prior", {}))

    def resume_training(self, resume_state: dict) -> None:
        """Go on from a state, with the scale of the losses that it had."""
        super().resume_training(resume_state)
        if self.scaler.is_enabled() and "scaler" in resume_state:
            self.scaler.load_state_dict(resume_state["scaler"])

    def _update(
        self,
        parts: Sequence[Part],
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        terms: Callable[[Part], tuple[Losses, Losses]],
        norm_name: str,
    ) -> Losses:
        """Update a network with the losses of all parts of the batch; return them, the norm and what else is logged."""
        compute = partial(self._gradients, parts, net, optimizer, terms)
        losses, others = self.captured.gradients(norm_name, net, compute)
        self.scaler.unscale_(optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])
        if (clip := self.opt["train"].get("grad_clip_norm")) is not None:
            nn.utils.clip_grads_with_norm_(net.parameters(), clip, norm)
        step = partial(self.scaler.step, optimizer)
        self.check.update(losses, norm, optimizer, step, self.scaler.is_enabled())
        return {**losses, norm_name: norm, **others}

    def _gradients(
        self,
        parts: Sequence[Part],
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        terms: Callable[[Part], tuple[Losses, Losses]],
    ) -> tuple[Losses, Losses]:
        """Add up the gradients of all parts' losses; return the means of the losses and of what else is logged."""
        optimizer.zero_grad(set_to_none=True)
        losses: Losses = {}
        others: Losses = {}
        for i, part in enumerate(parts):
            share = len(part.lq) / len(self.lq)
            with gathering(net, last=i == len(parts) - 1):
                of_part, beside = terms(part)
                total = share * torch.stack(list(of_part.values())).sum()
                self.scaler.scale(total * self.check.factor(of_part)).backward()
            for sums, values in ((losses, of_part), (others, beside)):
                for name, value in values.items():
                    sums[name] = sums.get(name, 0) + share * value.detach()
        return losses, others

    def _estimate(self, part: Part) -> None:
        """Fill in the prior's features, the restored faces and, where a loss needs them, [P^1, P^2, P^3]."""
        if self.net_prior is not None and not part.target:
            with torch.no_grad():
                part.target = self._features(part.gt)
            check_feature_maps(type(self.net_prior).__name__, part.target)
        bare = self.get_bare_model(self.net_g)
        with autocast(self.acceleration.amp, self.device), explaining(bare, part.lq):
            if self.generator_estimates:
                part.restored, part.estimated = self.net_g(part.lq, return_priors=True)
            else:
                part.restored = self.net_g(part.lq)
        check_restored(part.restored, part.gt.shape, bare)
        part.restored = part.restored.float()
        if self.net_prior is not None and not self.generator_estimates:
            part.estimated = self._features(part.restored)
        part.estimated = [p.float() for p in part.estimated]
        check_shapes(part.estimated, part.target)

    def _features(self, images: Tensor) -> list[Tensor]:
        """Return the extractor's [P1, P2, P3]; one of others may rely on the order (B,C,H,W) in memory."""
        return self.net_prior(images if is_ours(self.net_prior) else images.contiguous())

    def _discriminator_losses(self, part: Part) -> tuple[Losses, Losses]:
        """Eq. 6 on logits: the two terms, and the mean logits."""
        if part.restored is None:
            # the only part's graph serves both updates; of several parts, none is kept
            with torch.set_grad_enabled(len(part.lq) == len(self.lq)):
                self._estimate(part)
        real = self.net_d(part.target)
        fake = self.net_d([p.detach() for p in part.estimated])
        losses = {
            "l_d_real": self.cri_gan(real, True, is_disc=True),
            "l_d_fake": self.cri_gan(fake, False, is_disc=True),
        }
        return losses, {"out_d_real": real.mean(), "out_d_fake": fake.mean()}

    def _generator_losses(self, part: Part) -> tuple[Losses, Losses]:
        """The weighted terms of Eq. 10, and those of the ablations; and the cosines of P and its estimate."""
        if part.restored is None or not part.restored.requires_grad:
            self._estimate(part)
        restored = part.restored
        losses: Losses = {}
        if self.cri_pix is not None:
            losses["l_g_pix"] = self.cri_pix(restored, part.gt)
        if self.cri_perceptual is not None:
            percep, style = self.cri_perceptual(restored, part.gt)
            losses.update({k: v for k, v in (("l_g_percep", percep), ("l_g_style", style)) if v is not None})
        if self.cri_feature is not None:
            features = self._features(restored) if self.generator_estimates else part.estimated
            pairs = zip(features, part.target, strict=True)
            losses["l_g_feature"] = torch.stack([self.cri_feature(p_hat, p) for p_hat, p in pairs]).sum()
        if self.cri_prior is not None:
            with torch.no_grad():
                weighted_target = self._attend(part.target)
            losses["l_g_prior"] = self.cri_prior(self._attend(part.estimated), weighted_target)
        if self.cri_gan is not None:
            logits = self.get_bare_model(self.net_d)(part.estimated)  # bare: no gradient of D to share out
            losses["l_g_gan"] = self.cri_gan(logits, True, is_disc=False)
        return losses, self.cosines(part.estimated, part.target)

    def _attend(self, features: list[Tensor]) -> list[Tensor]:
        """Weight the channels with the discriminator's attention (Eq. 4), where it has one."""
        attend = getattr(self.get_bare_model(self.net_d), "attend", None)
        return features if attend is None else attend(features)

    def _build_loss(self, key: str) -> nn.Module | None:
        options: Mapping | None = self.opt["train"].get(key)
        if options is None:
            return None
        loss = build_loss(options).to(self.device)
        return self.acceleration.compiled(loss, self.device) if is_ours(loss) else loss

    def _build_prior(self) -> nn.Module | None:
        needed = self.uses_priors or self.cri_feature is not None
        if self.opt.get("network_prior") is None or not needed:
            return None
        net = build_network(self.opt["network_prior"]).to(self.device)
        if is_ours(net):
            net = channels_last(net)
        self.acceleration.compiled(net.requires_grad_(False).eval(), self.device)
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
