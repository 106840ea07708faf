"""Seconds of a training step against those of a plain implementation of the paper, on the same CPUs.

    python benchmarks/train_step.py                      # freshly initialised, then after 200 iterations (an hour)
    python benchmarks/train_step.py --iterations 0       # freshly initialised only

The paper's networks and losses at batch 2 and 128 px, with the demo's prior in VGGFace's place, on real faces. The
plain step is written below as one would in BasicSR: channels first, a generator forward for each update, the prior of
the sharp face once for each, torch's default Adam, denormal numbers as they come. All sides are processes of their own,
start from the same weights and optimizer states, and take turns, step by step, on the same batches. The share of
convolutions is that of the step's own convolutions, forward and backward, measured alone in the same process.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from side_by_side import Convolutions, batches, profile, publish, seconds_of, spread
from torch.nn import functional as F

import dfpg_plugin  # noqa: F401 - before basicsr

# isort: split
from basicsr.archs import build_network
from basicsr.models import build_model

from dfpg_plugin.losses.prior_loss import prior_loss

NETWORKS = {
    "network_g": {"type": "DFPGNet"},
    "network_d": {"type": "CAFeatureDiscriminator"},
    "network_prior": {"type": "VGGFaceFeatureExtractor", "weights": "stand-in"},
}
SMALL = {"num_feat": 16, "num_block": 1, "num_prior_block": 1, "squeeze_factor": 4}  # of --small
LEARNING_RATES = {"g": 1e-4, "d": 1e-5}
# with Adam's own 1e-8, a weight whose gradient is nearly 0 moves a whole step by the sign of a rounding error, and
# after some steps the losses of any two ways to compute it part
EPS = 1e-4
PLAIN = "plain"
SIDES: dict[str, dict] = {PLAIN: {}, "DFPGModel": {}, "amp: bfloat16": {"amp": "bfloat16"}}  # and options under `train`
LOSSES = ("l_d_real", "l_d_fake", "l_g_pix", "l_g_prior", "l_g_gan")
Step = Callable[[torch.Tensor, torch.Tensor], dict[str, float]]


class Ours:
    """``DFPGModel``."""

    def __init__(
        self,
        state: Path | None,
        world: tuple[int, int] = (0, 1),
        num_gpu: int = 0,
        networks: dict[str, dict] = NETWORKS,
        **train: object,
    ) -> None:
        torch.manual_seed(0)
        rank, processes = world
        self.model = build_model({
            "model_type": "DFPGModel", "num_gpu": num_gpu, "is_train": True, "scale": 1, "path": {}, "datasets": {},
            "dist": processes > 1, "rank": rank, "world_size": processes,
            **{key: dict(options) for key, options in networks.items()},
            "train": {
                "pixel_opt": {"type": "L1Loss"}, "prior_opt": {"type": "PriorLoss"},
                "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.05},
                **{f"optim_{key}": {"type": "Adam", "lr": lr, "eps": EPS} for key, lr in LEARNING_RATES.items()},
                **train,
            },
        })  # fmt: skip
        if state is not None:
            load(state, self.model.net_g, self.model.net_d, self.model.optimizers)

    def step(self, lq: torch.Tensor, gt: torch.Tensor) -> dict[str, float]:
        """Train one step; return its losses."""
        self.model.feed_data({"lq": lq, "gt": gt})
        self.model.optimize_parameters(1)
        return self.model.get_current_log()

    def save(self, file: Path) -> None:
        """Write the weights and the optimizers' states."""
        optimizers = [optimizer.state_dict()["state"] for optimizer in self.model.optimizers]
        torch.save([self.model.net_g.state_dict(), self.model.net_d.state_dict(), *optimizers], file)


class Plain:
    """The same step, written plainly."""

    def __init__(self, state: Path | None, device: str = "cpu", networks: dict[str, dict] = NETWORKS) -> None:
        torch.manual_seed(0)
        torch.set_flush_denormal(False)
        nets = (build_network(dict(options)).to(device) for options in networks.values())
        self.net_g, self.net_d, self.net_prior = nets
        self.optimizer_g = torch.optim.Adam(self.net_g.parameters(), lr=LEARNING_RATES["g"], eps=EPS)
        self.optimizer_d = torch.optim.Adam(self.net_d.parameters(), lr=LEARNING_RATES["d"], eps=EPS)
        if state is not None:
            load(state, self.net_g, self.net_d, [self.optimizer_g, self.optimizer_d])

    def step(self, lq: torch.Tensor, gt: torch.Tensor) -> dict[str, float]:
        """Train one step; return its losses."""
        _, estimated = self.net_g(lq, return_priors=True)
        target = self.net_prior(gt)
        real, fake = self.net_d(target), self.net_d([p.detach() for p in estimated])
        l_d_real = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        l_d_fake = F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
        self.optimizer_d.zero_grad()
        (l_d_real + l_d_fake).backward()
        self.optimizer_d.step()

        self.net_d.requires_grad_(False)
        restored, estimated = self.net_g(lq, return_priors=True)
        target = self.net_prior(gt)
        l_g_pix = F.l1_loss(restored, gt)
        l_g_prior = prior_loss(self.net_d.attend(estimated), self.net_d.attend(target))
        logits = self.net_d(estimated)
        l_g_gan = 0.05 * F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        self.optimizer_g.zero_grad()
        (l_g_pix + l_g_prior + l_g_gan).backward()
        self.optimizer_g.step()
        self.net_d.requires_grad_(True)
        losses = (l_d_real, l_d_fake, l_g_pix, l_g_prior, l_g_gan)
        return dict(zip(LOSSES, torch.stack(losses).tolist(), strict=True))


def shrink(small: bool) -> None:
    """Let all networks of this process be small ones, or not."""
    NETWORKS["network_g"].update(SMALL if small else {})


def load(state: Path, net_g: torch.nn.Module, net_d: torch.nn.Module, optimizers: list) -> None:
    """Load what ``Ours.save`` wrote."""
    weights_g, weights_d, *states = torch.load(state, weights_only=True)
    net_g.load_state_dict(weights_g)
    net_d.load_state_dict(weights_d)
    for optimizer, content in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": content})


def serve(side: str, state: Path, small: bool, connection: Connection) -> None:
    """Train the batches that come, and answer with seconds and losses; after None, with what the step spends."""
    shrink(small)
    trained = Plain(state) if side == PLAIN else Ours(state, **SIDES[side])
    connection.send("ready")
    while (batch := connection.recv()) is not None:
        start = time.perf_counter()
        losses = trained.step(*batch)
        connection.send((time.perf_counter() - start, losses))
    last = connection.recv()
    with Convolutions() as noted:
        trained.step(*last)
    connection.send((seconds_of(noted.calls), profile(lambda: trained.step(*last))))


def compare(what: str, state: Path, args: argparse.Namespace) -> list[dict]:
    """Let all sides train in turns; return the table's rows."""
    context = get_context("spawn")
    pipes = {}
    for side in SIDES:
        pipes[side], there = context.Pipe()
        context.Process(target=serve, args=(side, state, args.small, there), daemon=True).start()
        pipes[side].recv()
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    differences: dict[str, list[float]] = {side: [] for side in SIDES}
    data = list(batches(args.steps + 1, args.batch, args.size, seed=1))
    for i, batch in enumerate(data):
        losses = {}
        for side, pipe in pipes.items():
            pipe.send(batch)
            taken, losses[side] = pipe.recv()
            if i:
                seconds[side].append(taken)
            differences[side].append(max(abs(losses[PLAIN][name] - losses[side][name]) for name in LOSSES))
        print(f"  step {i}: " + ", ".join(f"{side} {times[-1]:.2f} s" for side, times in seconds.items() if times))
    rows = []
    for side, pipe in pipes.items():
        pipe.send(None)
        pipe.send(data[-1])
        alone, work = pipe.recv()
        print(f"  {side}: " + ", ".join(f"{kind} {part:.0%}" for kind, part in work.items()))
        rows.append({
            "weights": what,
            "step": side,
            "s": spread(seconds[side]),
            "times as fast": spread([a / b for a, b in zip(seconds[PLAIN], seconds[side], strict=True)]),
            f"losses differ at most, {len(data)} steps": f"{max(differences[side]):.1e}",
            "convolutions alone / step": f"{alone / statistics.median(seconds[side]):.0%}",
        })  # fmt: skip
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=200, help="of training before the second comparison")
    parser.add_argument("--trained", type=Path, help="a file for what these give; used where it is there already")
    parser.add_argument("--steps", type=int, default=10, help="that are timed, of each side")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=128, help="px")
    parser.add_argument("--small", action="store_true", help="a small generator, to see that all of it works")
    parser.add_argument("--json", help="write the table to this file as well")
    args = parser.parse_args()
    shrink(args.small)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "fresh.pt"
        Ours(None).save(fresh)
        rows += compare("fresh", fresh, args)
        if args.iterations:
            trained = args.trained or Path(folder) / "trained.pt"
            if not trained.exists():
                ours = Ours(None)
                for lq, gt in batches(args.iterations, args.batch, args.size):
                    ours.step(lq, gt)
                ours.save(trained)
                del ours
            rows += compare(f"after {args.iterations} iterations", trained, args)
    title = f"A training step of DFPG at batch {args.batch}, {args.size} px; medians of {args.steps} steps in turns"
    publish(rows, title, args.json)


if __name__ == "__main__":
    main()
