"""BasicSR's SRModel without the defects that a subclass can mend, under its own training loop and under ours.

Each method names what it mends in BasicSR 1.4.2; ``docs/basicsr_defects.md`` says what a user sees of it.
"""

import os
from collections.abc import Iterable, Mapping

import torch
from basicsr.models.sr_model import SRModel
from basicsr.utils.dist_util import master_only
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from dfpg_plugin.checks import UserError
from dfpg_plugin.files import save_whole
from dfpg_plugin.models.model_checks import check_restored, explaining
from dfpg_plugin.models.nonfinite import StepCheck
from dfpg_plugin.models.optimizers import build_optimizer, scheduler_class
from dfpg_plugin.models.resuming import with_given_options
from dfpg_plugin.models.validation import validate
from dfpg_plugin.options.schema import TrainingStep, Val
from dfpg_plugin.speed.acceleration import Acceleration, autocast, channels_last
from dfpg_plugin.speed.tiles import restore_in_tiles

BASICSR_SCHEDULERS = ("MultiStepLR", "MultiStepRestartLR", "CosineAnnealingRestartLR")
BEST = "best"


class MendedModel(SRModel):
    """A base for models; not registered itself."""

    def __init__(self, opt: dict) -> None:
        if opt["num_gpu"] == 0:
            # the small initial weights make denormal activations, which are slow on a CPU; threads that start later
            # inherit the flag, hence before the first tensor
            torch.set_flush_denormal(True)
        self.val_options = Val.read("val", opt.get("val"))
        self.acceleration = Acceleration.read(opt.get("train") or {})
        self.acceleration.start()
        super().__init__(opt)
        self.scaler = self.acceleration.scaler(self.device)
        processes = opt.get("world_size", 1) if opt["dist"] else 1
        self.check = StepCheck(self.device, TrainingStep.read("train", opt.get("train")).astray_factor, processes)

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Wrap for several processes on CPUs too: BasicSR asks for a CUDA device (base_model.py:98)."""
        if self.acceleration.compile and self.opt["num_gpu"] > 1 and not self.opt["dist"]:
            raise UserError("train:compile: needs one process for each GPU. Start with torchrun, or set num_gpu: 1.")
        net = self.acceleration.compiled(channels_last(net.to(self.device)), self.device)
        if self.opt["dist"] and self.device.type == "cpu":
            return DistributedDataParallel(net, find_unused_parameters=self.opt.get("find_unused_parameters", False))
        return super().model_to_device(net)

    def feed_data(self, data: Mapping[str, Tensor]) -> None:
        """Take ``lq`` and, where there is one, ``gt``, both (B,3,H,W), in the memory layout of the network.

        Pinned memory is copied while the GPU still works on the last batch, for which BasicSR waits (sr_model.py:90).
        """
        self.lq: Tensor = self._on_device(data["lq"])
        if "gt" in data:
            self.gt: Tensor = self._on_device(data["gt"])

    def _on_device(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)

    def get_optimizer(self, optim_type: str, params: Iterable, lr: float, **kwargs: object) -> torch.optim.Optimizer:
        """Build any optimizer of ``torch.optim``, fused where torch has it so: BasicSR knows Adam only.

        ``fused: false`` in the options asks for torch's plain one (base_model.py:107).
        """
        return build_optimizer(optim_type, params, lr, kwargs)

    def setup_schedulers(self) -> None:
        """Build any scheduler of ``torch.optim.lr_scheduler``; a constant rate where none is named.

        It is stepped every iteration. BasicSR knows three of its own and needs one (base_model.py:113-121).
        """
        options = dict(self.opt["train"].get("scheduler") or {"type": "ConstantLR", "factor": 1.0})
        if options.get("type") in BASICSR_SCHEDULERS:
            super().setup_schedulers()
            return
        build = scheduler_class(options.pop("type", None))
        self.schedulers = [build(optimizer, **options) for optimizer in self.optimizers]

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Step the schedulers, then warm up linearly: rate * current_iter / warmup_iter before ``warmup_iter``.

        BasicSR's chained schedulers start from the last warm-up rate and stay below for ever (base_model.py:181); here
        they go on from their own last rate.
        """
        for scheduler in self.schedulers:
            for group, lr in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = lr
            if current_iter > 1:
                scheduler.step()
        if current_iter < warmup_iter:
            scheduled = [scheduler.get_last_lr() for scheduler in self.schedulers]
            self._set_lr([[lr * current_iter / warmup_iter for lr in rates] for rates in scheduled])

    @torch.no_grad()
    def model_ema(self, decay: float = 0.999) -> None:
        """Average the weights and copy the buffers, which BasicSR leaves at their first values (base_model.py:75)."""
        net = self.get_bare_model(self.net_g)
        average_all = get_ema_multi_avg_fn(decay)
        average_all(list(self.net_g_ema.parameters()), list(net.parameters()), None)
        for average, buffer in zip(self.net_g_ema.buffers(), net.buffers(), strict=True):
            average.copy_(buffer)

    @torch.no_grad()
    def reduce_loss_dict(self, loss_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Average over the processes; BasicSR waits for the GPU besides (base_model.py:378)."""
        values = torch.stack([value.detach().float().mean() for value in loss_dict.values()])
        if self.opt["dist"]:
            distributed.all_reduce(values)
            values /= self.opt["world_size"]
        return dict(zip(loss_dict, values, strict=True))

    def get_current_log(self) -> dict[str, float]:
        """Return the logged values, which are fetched from the GPU here. Raises NonFiniteLossError."""
        self.check.settle()
        return dict(zip(self.log_dict, torch.stack(list(self.log_dict.values())).tolist(), strict=True))

    @torch.no_grad()
    def test(self) -> None:
        """Restore ``lq`` with the EMA's weights where there are any, without the wrapper for several processes.

        BasicSR calls the wrapper on one rank alone, whose buffers then wait for the others (sr_model.py:125). ``val``:
        ``pad_to`` pads by reflection to a multiple for networks that need one, ``tile`` restores larger images in tiles
        of so many px, which overlap by ``tile_overlap`` (32), ``amp`` computes in ``bfloat16`` or ``float16``.
        """
        net = getattr(self, "net_g_ema", None) or self.get_bare_model(self.net_g)
        val, scale = self.val_options, self.opt.get("scale") or 1

        def restore(image: Tensor) -> Tensor:
            height, width = image.shape[-2:]
            padded = F.pad(image, (0, -width % val.pad_to, 0, -height % val.pad_to), mode="reflect")
            with autocast(val.amp, self.device), explaining(net, padded):
                restored = net(padded)
            check_restored(restored, (*padded.shape[:2], *(scale * side for side in padded.shape[2:])), net)
            return restored[..., : height * scale, : width * scale].float()

        was_training = net.training
        net.eval()
        with torch.compiler.set_stance("force_eager"):  # images of many sizes: a compilation for each would take longer
            if val.tile is None:
                self.output = restore(self.lq)
            else:
                self.output = restore_in_tiles(restore, self.lq, val.tile, val.tile_overlap, scale)
        net.train(was_training)

    def nondist_validation(self, dataloader: DataLoader, current_iter: int, tb_logger: object, save_img: bool) -> None:
        """Validate as BasicSR does; keep ``net_g_best.pth`` by the first metric on the first set validated."""
        validate(self, dataloader, current_iter, tb_logger, save_img)
        records = getattr(self, "best_metric_results", None)
        if not self.is_train or not records:
            return
        first = next(iter(records))
        record = next(iter(records[first].values()))
        if dataloader.dataset.opt["name"] == first and record["iter"] == current_iter:  # type: ignore[attr-defined]
            self.save_generator(BEST)

    def dist_validation(self, dataloader: DataLoader, current_iter: int, tb_logger: object, save_img: bool) -> None:
        """Validate in all processes, an image in each: BasicSR does in the first alone (sr_model.py:134)."""
        self.nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def save_generator(self, label: int | str) -> None:
        """Save ``net_g_{label}.pth`` in BasicSR's layout: ``params`` and, with an EMA, ``params_ema``."""
        ema = getattr(self, "net_g_ema", None)
        nets, keys = ([self.net_g], ["params"]) if ema is None else ([self.net_g, ema], ["params", "params_ema"])
        self.save_network(nets, "net_g", label, param_key=keys)

    @master_only
    def save_network(
        self,
        net: nn.Module | list[nn.Module],
        net_label: str,
        current_iter: int | str,
        param_key: str | list = "params",
    ) -> None:
        """Write ``{net_label}_{current_iter}.pth``, whole or not at all; -1 stands for ``latest``.

        BasicSR writes in place and goes on with "Just ignore it" where that fails (base_model.py:225-240). Raises
        UserError instead.
        """
        nets = net if isinstance(net, list) else [net]
        keys = param_key if isinstance(param_key, list) else [param_key]
        label = "latest" if current_iter == -1 else current_iter
        states = {k: self.get_bare_model(n).state_dict() for n, k in zip(nets, keys, strict=True)}
        content = {k: {name: value.cpu() for name, value in state.items()} for k, state in states.items()}
        save_whole(content, os.path.join(self.opt["path"]["models"], f"{net_label}_{label}.pth"))

    @master_only
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write ``{current_iter}.state`` in BasicSR's layout, whole or not at all (base_model.py:323-338)."""
        if current_iter == -1:
            return
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "best_metric_results": self._best_as_plain_values(),
            **self.extra_state(),
        }
        save_whole(state, os.path.join(self.opt["path"]["training_states"], f"{current_iter}.state"))

    def extra_state(self) -> dict:
        """Return what else belongs in the training state, as plain values: BasicSR reads only its own keys."""
        return {}

    def check_extra_state(self, resume_state: dict) -> None:
        """Raise UserError where ``resume_state`` belongs to another run than the options describe."""

    def resume_training(self, resume_state: dict) -> None:
        """Go on from a state with the given options and the best metrics so far.

        BasicSR takes the earlier options from it and forgets the best metrics (base_model.py:350-353).
        """
        self.check_extra_state(resume_state)
        super().resume_training(state := with_given_options(self, resume_state))
        if state["best_metric_results"]:
            self.best_metric_results = state["best_metric_results"]

    def _best_as_plain_values(self) -> dict:
        """Return the records without NumPy's numbers, which a safe load refuses."""
        records = getattr(self, "best_metric_results", {})
        return {
            name: {metric: {**record, "val": float(record["val"])} for metric, record in metrics.items()}
            for name, metrics in records.items()
        }
