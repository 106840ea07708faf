"""BasicSR's SRModel without the defects that a subclass can mend, for BasicSR's training loop and this package's.

Each method names the defect of BasicSR 1.4.2 that it mends. ``docs/basicsr_defects.md`` says what a user sees of it.
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
from dfpg_plugin.models.best_network import BEST, best_iteration, first_validation_set
from dfpg_plugin.models.model_checks import check_restored, explaining
from dfpg_plugin.models.nonfinite import StepCheck
from dfpg_plugin.models.optimizers import build_optimizer, check_length, scheduler_class
from dfpg_plugin.models.resuming import with_given_options
from dfpg_plugin.models.validation import validate
from dfpg_plugin.options.schema import TrainingStep, Val
from dfpg_plugin.speed.acceleration import Acceleration, autocast, channels_last
from dfpg_plugin.speed.tiles import restore_in_tiles

BASICSR_SCHEDULERS = ("MultiStepLR", "MultiStepRestartLR", "CosineAnnealingRestartLR")


class MendedModel(SRModel):
    """The base class of this package's models. MendedModel itself is not registered."""

    def __init__(self, opt: dict) -> None:
        if opt["num_gpu"] == 0:
            # small initial weights make denormal activations, which are slow on a CPU; set before the first tensor,
            # because only threads that start later inherit the setting
            torch.set_flush_denormal(True)
        self.val_options = Val.read("val", opt.get("val"))
        self.acceleration = Acceleration.read(opt.get("train") or {})
        self.acceleration.start()
        super().__init__(opt)
        self.scaler = self.acceleration.scaler(self.device)
        processes = opt.get("world_size", 1) if opt["dist"] else 1
        self.check = StepCheck(self.device, TrainingStep.read("train", opt.get("train")).astray_factor, processes)

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move a network to the device, compile it if the options say so, and wrap it for several processes.

        CPUs are supported. BasicSR asks for a CUDA device (base_model.py:98). Raises UserError if ``train:compile`` is
        true and one process has several GPUs.
        """
        if self.acceleration.compile and self.opt["num_gpu"] > 1 and not self.opt["dist"]:
            raise UserError("train:compile: needs one process for each GPU. Start with torchrun, or set num_gpu: 1.")
        net = self.acceleration.compiled(channels_last(net.to(self.device)), self.device)
        if self.opt["dist"] and self.device.type == "cpu":
            return DistributedDataParallel(net, find_unused_parameters=self.opt.get("find_unused_parameters", False))
        return super().model_to_device(net)

    def feed_data(self, data: Mapping[str, Tensor]) -> None:
        """Copy ``lq`` and ``gt``, if there is one, to the device: (B,3,H,W), with the channels last in memory.

        Pinned memory is copied while the GPU still works on the last batch. BasicSR waits first (sr_model.py:88-90).
        """
        self.lq: Tensor = self._on_device(data["lq"])
        if "gt" in data:
            self.gt: Tensor = self._on_device(data["gt"])

    def _on_device(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)

    def get_optimizer(self, optim_type: str, params: Iterable, lr: float, **kwargs: object) -> torch.optim.Optimizer:
        """Build any optimizer of ``torch.optim``, fused if torch can. BasicSR knows only Adam (base_model.py:107).

        ``fused: false`` in the options asks for torch's implementation that is not fused.
        """
        return build_optimizer(optim_type, params, lr, kwargs)

    def setup_schedulers(self) -> None:
        """Build a scheduler of BasicSR or ``torch.optim.lr_scheduler``. The rate is constant if none is named.

        Schedulers are stepped every iteration. BasicSR knows only its own and needs one (base_model.py:113-121).
        """
        options = dict(self.opt["train"].get("scheduler") or {"type": "ConstantLR", "factor": 1.0})
        if options.get("type") in BASICSR_SCHEDULERS:
            super().setup_schedulers()
            return
        build = scheduler_class(options.pop("type", None))
        self.schedulers = [build(optimizer, **options) for optimizer in self.optimizers]
        for scheduler in self.schedulers:
            check_length(scheduler, self.opt["train"].get("total_iter"))

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Step the schedulers. Before ``warmup_iter``, set the rates to rate * current_iter / warmup_iter.

        A scheduler computes each rate from the last one. Here this is the scheduler's own last rate. In BasicSR it is
        the last warm-up rate, so that the rate stays too low for ever (base_model.py:181).
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
        """Average the weights and copy the buffers. BasicSR leaves buffers at their first values (base_model.py:75)."""
        net = self.get_bare_model(self.net_g)
        average_all = get_ema_multi_avg_fn(decay)
        average_all(list(self.net_g_ema.parameters()), list(net.parameters()), None)
        for average, buffer in zip(self.net_g_ema.buffers(), net.buffers(), strict=True):
            average.copy_(buffer)

    @torch.no_grad()
    def reduce_loss_dict(self, loss_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean of each loss over all processes, on the device. BasicSR waits here (base_model.py:378)."""
        values = torch.stack([value.detach().float().mean() for value in loss_dict.values()])
        if self.opt["dist"]:
            distributed.all_reduce(values)
            values /= self.opt["world_size"]
        return dict(zip(loss_dict, values, strict=True))

    def get_current_log(self) -> dict[str, float]:
        """Fetch the logged values from the GPU and return them. Raises NonFiniteLossError or AstrayError."""
        self.check.settle()
        return dict(zip(self.log_dict, torch.stack(list(self.log_dict.values())).tolist(), strict=True))

    @torch.no_grad()
    def test(self) -> None:
        """Restore ``lq`` with the averaged weights if there are any, and without the wrapper for several processes.

        BasicSR calls the wrapper in one process, which then waits for the others to take its buffers (sr_model.py:129).
        Keys of ``val``: ``pad_to`` pads by reflection to a multiple of so many px, for networks that need a multiple.
        ``tile`` restores larger images in tiles of so many px, which overlap by ``tile_overlap`` px (32). ``amp``
        computes in ``bfloat16`` or ``float16``. Raises UserError if the network fails or returns another size.
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
        with torch.compiler.set_stance("force_eager"):  # images have many sizes: compiling for each would take longer
            if val.tile is None:
                self.output = restore(self.lq)
            else:
                self.output = restore_in_tiles(restore, self.lq, val.tile, val.tile_overlap, scale)
        net.train(was_training)

    def nondist_validation(self, dataloader: DataLoader, current_iter: int, tb_logger: object, save_img: bool) -> None:
        """Validate as BasicSR does. Save ``net_g_best.pth`` if the first metric on the first set is the best so far."""
        validate(self, dataloader, current_iter, tb_logger, save_img)
        name: str = dataloader.dataset.opt["name"]  # type: ignore[attr-defined]
        best = best_iteration(self.opt, getattr(self, "best_metric_results", {}))
        if self.is_train and name == first_validation_set(self.opt) and best == current_iter:
            self.save_generator(BEST)

    def dist_validation(self, dataloader: DataLoader, current_iter: int, tb_logger: object, save_img: bool) -> None:
        """Validate in all processes, each with some of the images. BasicSR uses only the first (sr_model.py:133)."""
        self.nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def save_generator(self, label: int | str) -> None:
        """Save ``net_g_{label}.pth`` in BasicSR's layout: ``params`` and, if weights are averaged, ``params_ema``."""
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
        """Write ``{net_label}_{current_iter}.pth``, whole or not at all. An iteration of -1 is named ``latest``.

        Raises UserError if that fails. BasicSR writes in place, and after an error goes on with "Just ignore it"
        (base_model.py:225-240).
        """
        nets = net if isinstance(net, list) else [net]
        keys = param_key if isinstance(param_key, list) else [param_key]
        label = "latest" if current_iter == -1 else current_iter
        content = {}
        for key, one in zip(keys, nets, strict=True):
            content[key] = {name: value.cpu() for name, value in self.get_bare_model(one).state_dict().items()}
        save_whole(content, os.path.join(self.opt["path"]["models"], f"{net_label}_{label}.pth"))

    @master_only
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write ``{current_iter}.state`` in BasicSR's layout, whole or not at all. Write nothing for -1.

        Raises UserError if that fails. BasicSR goes on with "Just ignore it" (base_model.py:323-338).
        """
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
        """Return further entries of the training state, as plain values. BasicSR reads only its own entries."""
        return {}

    def check_extra_state(self, resume_state: dict) -> None:
        """Raise UserError if ``resume_state`` is of another run than the options describe."""

    def resume_training(self, resume_state: dict) -> None:
        """Load a training state and its best metrics. Options that were changed since then take effect.

        BasicSR goes on with the earlier options and forgets the best metrics (base_model.py:350-353).
        """
        self.check_extra_state(resume_state)
        state = with_given_options(self, resume_state)
        super().resume_training(state)
        if state["best_metric_results"]:
            self.best_metric_results = state["best_metric_results"]

    def _best_as_plain_values(self) -> dict:
        """Return the best metrics as plain floats. torch's safe loading refuses NumPy's numbers."""
        records = getattr(self, "best_metric_results", {})
        return {
            name: {metric: {**record, "val": float(record["val"])} for metric, record in metrics.items()}
            for name, metrics in records.items()
        }
