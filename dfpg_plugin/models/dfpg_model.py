"""The training step of DFPGNet (sections 3.4 and 4.1): one forward pass of the generator G updates D, then G."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from dfpg_plugin.models.captured_step import CapturedStep
from dfpg_plugin.models.critic import Critic
from dfpg_plugin.models.layer_losses import over_layers
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.models.microbatch import Cosines, Estimate, Losses, Part, frozen, gathering
from dfpg_plugin.models.model_checks import (
    check_accumulation,
    check_parts,
    check_range,
    check_restored,
    check_same_prior,
    check_shapes,
    explaining,
)
from dfpg_plugin.models.prior_extractor import PriorExtractor
from dfpg_plugin.models.priors import RESTORED, is_ours, sized_to_prior
from dfpg_plugin.options.schema import TrainingStep
from dfpg_plugin.speed.acceleration import autocast


@MODEL_REGISTRY.register()
class DFPGModel(MendedModel):
    """Train a generator with a deep feature prior.

    All parts come from the YAML:

    - ``network_g``: the generator, any network that maps faces (B,3,H,W) in [0,1] to faces of gt's size.
    - ``network_prior``: the frozen extractor. ``prior_opt``, ``gan_opt`` and ``feature_opt`` need it. If a network
      takes ``prior_channels`` and ``prior_strides`` and the YAML does not give them, they are the extractor's.
    - ``network_d``: the feature discriminator. ``gan_opt`` needs it. Its ``attend``, if any, weights the prior loss.
    - ``train``: the losses ``pixel_opt`` (Eq. 7), ``prior_opt`` (Eq. 9), ``gan_opt`` (Eq. 6, 8) and BasicSR's
      ``perceptual_opt``. Model B2 of Table 4 has ``feature_opt``, a loss between the extractor's features of the
      restored and of the sharp face. Further keys are ``optim_g``, ``optim_d``, ``scheduler``, ``ema_decay``,
      ``grad_clip_norm`` and those of :class:`dfpg_plugin.speed.acceleration.Acceleration`.
    - ``train: estimated_prior``: where the estimate P^ of ``prior_opt`` and ``gan_opt`` comes from. ``generator``, as
      in the paper: from ``network_g``, by ``forward(x, return_priors=True)``. ``restored``, for any other network: P^
      is the extractor's features of the restored face. Gradients pass through the extractor and do not change it.

    The log has every loss term, the mean logits ``out_d_real`` and ``out_d_fake``, and the gradients' norms ``norm_d``
    and ``norm_g``. ``cos_p1`` to ``cos_p3`` are the mean cosines between the channel vectors of P_i and P^_i.
    """

    def __init__(self, opt: dict) -> None:
        check_range(opt)
        super().__init__(sized_to_prior(opt))

    def init_training_settings(self) -> None:
        """Build the extractor, the discriminator and the losses, then what BasicSR builds."""
        self.step_options = TrainingStep.read("train", self.opt["train"])
        self.cri_prior = self._build_if_given("prior_opt")
        self.cri_feature = self._build_if_given("feature_opt")
        self.cosines = self.acceleration.compiled(Cosines(), self.device)
        self.uses_priors = self.cri_prior is not None or self.opt["train"].get("gan_opt") is not None
        self.generator_estimates = self.uses_priors and self.step_options.estimated_prior != RESTORED
        check_parts(self.opt, self.get_bare_model(self.net_g), self.uses_priors)
        check_accumulation(self.opt["train"], self.acceleration.accumulate)
        self.prior: PriorExtractor | None = None
        if self.uses_priors or self.cri_feature is not None:
            self.prior = PriorExtractor.build(self.opt["network_prior"], self.device, self.acceleration)
        self.critic = None if self.opt.get("network_d") is None else self._build_critic()
        super().init_training_settings()
        processes = max(self.opt["num_gpu"], self.opt.get("world_size", 1))
        self.captured = CapturedStep(self.acceleration.recorder(self.device, processes, self._modules()))

    def setup_optimizers(self) -> None:
        """Build ``optim_g``, then append the discriminator's optimizer to ``optimizers``."""
        super().setup_optimizers()
        if self.critic is not None:
            self.optimizers.append(self.critic.optimizer)

    @property
    def net_d(self) -> nn.Module | None:
        """The discriminator under BasicSR's name."""
        return None if self.critic is None else self.critic.net

    @property
    def net_prior(self) -> nn.Module | None:
        """The extractor under the name of its section in the YAML."""
        return None if self.prior is None else self.prior.net

    def optimize_parameters(self, current_iter: int) -> None:
        """Update D, then G (section 4.1). Raises NonFiniteLossError before the update it is about, or AstrayError."""
        self.check.begin(current_iter)
        parts = self.captured.begin(self.lq, self.gt, self.acceleration.accumulate)
        log: Losses = {}
        if self.critic is not None:
            terms = partial(self._discriminator_losses, self.critic)
            log.update(self._update(parts, self.critic.net, self.critic.optimizer, terms, "norm_d"))
        with frozen(self.net_d):
            log.update(self._update(parts, self.net_g, self.optimizer_g, self._generator_losses, "norm_g"))
        self.scaler.update()
        self.check.end()
        self.output = torch.cat([part.restored for part in parts])
        self.log_dict = self.reduce_loss_dict(log)
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def save(self, epoch: int, current_iter: int) -> None:
        """Save the networks, then the training state. Raises NonFiniteLossError or AstrayError before both."""
        self.check.settle()
        self.save_generator(current_iter)
        if self.critic is not None:
            self.save_network(self.critic.net, "net_d", current_iter)
        self.save_training_state(epoch, current_iter)

    def extra_state(self) -> dict:
        """Return ``prior``, the prior network's record of its weights, if it has one, and ``scaler`` for float16."""
        record = None if self.prior is None else self.prior.record
        state = {} if record is None else {"prior": record}
        return {**state, "scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else state

    def check_extra_state(self, resume_state: dict) -> None:
        """Raise UserError if the state was made with another prior: see :func:`check_same_prior`."""
        check_same_prior(resume_state.get("prior"), self.extra_state().get("prior", {}))

    def resume_training(self, resume_state: dict) -> None:
        """Load a training state and the scale that the losses had."""
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
        """Update a network with the losses of all parts of the batch. Return all values for the log.

        ``terms`` returns the losses of a part and other values for the log. ``norm_name``: the gradient's in the log.
        """
        compute = partial(self._gradients, parts, net, optimizer, terms)
        losses, others = self.captured.gradients(norm_name, net, compute)
        self.scaler.unscale_(optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])
        if (clip := self.step_options.grad_clip_norm) is not None:
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
        """Add up the gradients of all parts. Return the means of the losses and of the other values for the log."""
        optimizer.zero_grad(set_to_none=True)
        losses: Losses = {}
        others: Losses = {}
        for i, part in enumerate(parts):
            share = len(part.lq) / len(self.lq)
            with gathering(net, last=i == len(parts) - 1):
                part_losses, part_others = terms(part)
                total = share * torch.stack(list(part_losses.values())).sum()
                self.scaler.scale(total * self.check.factor(part_losses)).backward()
            for sums, values in ((losses, part_losses), (others, part_others)):
                for name, value in values.items():
                    sums[name] = sums.get(name, 0) + share * value.detach()
        return losses, others

    def _estimate(self, part: Part, with_graph: bool) -> Estimate:
        """Return the networks' outputs for a part, and keep them there. ``with_graph``: let gradients reach G.

        Outputs that were kept are returned again if they suffice. D and G thus share one forward pass of G.
        """
        kept = part.estimate
        if kept is not None and (kept.has_graph or not with_graph):
            return kept
        bare = self.get_bare_model(self.net_g)
        target = [] if kept is None else kept.target
        if kept is None and self.prior is not None:
            target = self.prior.target(part.gt)
        estimated: Sequence[Tensor] = ()
        with torch.set_grad_enabled(with_graph):
            with autocast(self.acceleration.amp, self.device), explaining(bare, part.lq):
                if self.generator_estimates:
                    restored, estimated = self.net_g(part.lq, return_priors=True)
                else:
                    restored = self.net_g(part.lq)
            check_restored(restored, part.gt.shape, bare)
            restored = restored.float()
            if self.prior is not None and not self.generator_estimates:
                estimated = self.prior.features(restored)
            part.estimate = Estimate(restored, [p.float() for p in estimated], target)
        check_shapes(part.estimate.estimated, target)
        return part.estimate

    def _discriminator_losses(self, critic: Critic, part: Part) -> tuple[Losses, Losses]:
        """Return the two terms of Eq. 6, and the mean logits."""
        # a whole batch keeps its graph for G's update; with several parts, keeping all graphs would take memory
        estimate = self._estimate(part, with_graph=len(part.lq) == len(self.lq))
        return critic.losses(estimate.target, estimate.estimated)

    def _generator_losses(self, part: Part) -> tuple[Losses, Losses]:
        """Return the weighted terms of Eq. 10 and of the ablations, and the cosines of P and its estimate."""
        estimate = self._estimate(part, with_graph=True)
        restored, estimated, target = estimate.restored, estimate.estimated, estimate.target
        losses: Losses = {}
        if self.cri_pix is not None:
            losses["l_g_pix"] = self.cri_pix(restored, part.gt)
        if self.cri_perceptual is not None:
            percep, style = self.cri_perceptual(restored, part.gt)
            terms = {"l_g_percep": percep, "l_g_style": style}
            losses.update({name: term for name, term in terms.items() if term is not None})
        if self.cri_feature is not None and self.prior is not None:
            features = self.prior.features(restored) if self.generator_estimates else estimated
            losses["l_g_feature"] = over_layers(self.cri_feature, features, target)
        if self.cri_prior is not None:
            with torch.no_grad():
                weighted_target = self._attend(target)
            losses["l_g_prior"] = over_layers(self.cri_prior, self._attend(estimated), weighted_target, others=True)
        if self.critic is not None:
            losses["l_g_gan"] = self.critic.generator_loss(estimated)
        return losses, self.cosines(estimated, target)

    def _attend(self, features: list[Tensor]) -> list[Tensor]:
        return features if self.critic is None else self.critic.attend(features)

    def _modules(self) -> list[nn.Module]:
        """Return all networks and losses of a step."""
        networks = [self.get_bare_model(self.net_g)]
        networks += [] if self.prior is None else [self.prior.net]
        networks += [] if self.critic is None else [self.critic.bare, self.critic.loss]
        losses = (self.cri_pix, self.cri_perceptual, self.cri_feature, self.cri_prior)
        return [*networks, *(loss for loss in losses if loss is not None)]

    def _build_if_given(self, key: str) -> nn.Module | None:
        options = self.opt["train"].get(key)
        return None if options is None else self._build_loss(options)

    def _build_loss(self, options: Mapping) -> nn.Module:
        loss = build_loss(options).to(self.device)
        return self.acceleration.compiled(loss, self.device) if is_ours(loss) else loss

    def _build_critic(self) -> Critic:
        net = self.model_to_device(build_network(self.opt["network_d"]))
        self.print_network(net)
        path = self.opt["path"]
        if path.get("pretrain_network_d") is not None:
            self.load_network(net, path["pretrain_network_d"], path.get("strict_load_d", True), path.get("param_key_d"))
        options = dict(self.opt["train"]["optim_d"])
        optimizer = self.get_optimizer(options.pop("type"), net.parameters(), **options)
        return Critic(net.train(), self._build_loss(self.opt["train"]["gan_opt"]), optimizer)
