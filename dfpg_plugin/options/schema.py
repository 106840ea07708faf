"""Every key of an option file that this package or BasicSR defines: type, default and meaning.

What a component takes (a network, a loss, a metric) is read from its signature instead, and the keys of a data set from
its own section.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge
from pydantic import Strict, model_validator

from dfpg_plugin.checks import UserError
from dfpg_plugin.options.section import (
    Expected,
    From0,
    From1,
    Key,
    Number,
    Positive,
    Precision,
    Section,
    Seed,
    Share,
    Text,
    Texts,
    Whole,
    YesOrNo,
)

OURS = ("MendedModel",)
DFPG = ("DFPGModel",)
BASICSR = ("SRModel",)
Devices = Annotated[Annotated[int, Strict(), Ge(0)] | Literal["auto"], Expected("auto or a whole number from 0")]
STOP, SKIP = "stop", "skip"
HIGHER, LOWER = "higher", "lower"


class Component(Section):
    """A component by its registered name. Its other keys are the arguments of that component."""

    type: Text | None = Key(None, "The registered name. `basicsr list` prints all names.")


class Loss(Component):
    """A loss."""

    FORMS: ClassVar = {"*_weight": (Number, "The factor of the loss, or of a part of the loss.")}


class Optimizer(Section):
    """An optimizer of torch.optim. Its other keys are the arguments of that class."""

    type: Text = Key(..., "The name of the class, such as Adam.")
    lr: Positive = Key(..., "The learning rate at the start.")


class Scheduler(Section):
    """A learning rate scheduler of torch.optim or BasicSR, for all optimizers. It is stepped every iteration."""

    type: Text | None = Key(None, "The name of the class, such as StepLR.")
    step_size: From1 | None = Key(None, "Iterations between two changes, for StepLR.", read_by=())
    gamma: Positive | None = Key(None, "The factor of a change.", read_by=())


class NonFinite(Section):
    """What a training does about a step whose losses or gradients are not finite."""

    action: Annotated[Literal["stop", "skip"], Expected("stop or skip")] = Key(
        STOP, "`stop` ends the training. `skip` leaves the weights as they are and goes on with the next batch."
    )
    limit: From0 = Key(10, "Batches that may be skipped in one start of the training.")


class DataSet(Section):
    """A data set, and how its images are loaded. Its other keys are those of the class."""

    FORMS: ClassVar = {"dataroot_*": (Text, "A folder of images.")}

    name: Text | None = Key(None, "The name in logs and in the results' folders. By default the key of the set.")
    type: Text | None = Key(None, "The registered name of the class.")
    phase: Text | None = Key(None, "`train`, `val` or `test`. Set from the key of the set.")
    # Any: a data set of another package may take something else
    scale: From1 | Any = Key(None, "The factor between lq's and gt's size. Set from the key `scale`.")
    seed: From0 | Any = Key(None, "The seed of the random numbers of the samples. By default manual_seed in training.")
    batch_size_per_gpu: From1 | None = Key(None, "Images of a batch, for each GPU. Training needs it.")
    num_worker_per_gpu: From0 = Key(0, "Processes that load images, for each GPU. 0: the training's own process.")
    dataset_enlarge_ratio: Positive = Key(1, "How often an epoch goes through the images.")
    prefetch_mode: Annotated[Literal["cuda", "cpu"], Expected("cuda, or nothing")] | None = Key(
        None, "`cuda` copies the next batch to the GPU while the GPU still works on this one. Training refuses `cpu`."
    )
    num_prefetch_queue: From1 = Key(1, "Batches that are loaded ahead, for BasicSR's prefetch_mode cpu.")
    pin_memory: YesOrNo = Key(False, "Whether batches lie in pinned memory, from which copies to a GPU are faster.")
    persistent_workers: YesOrNo = Key(False, "Whether the loading processes live longer than an epoch.")
    io_backend: dict[str, Any] | None = Key(None, "`type: disk` or `type: lmdb`: where the images lie.")
    use_shuffle: YesOrNo = Key(True, "Of no effect: training images are always shuffled. BasicSR's files hold it.")
    gt_size: From1 | Any = Key(None, "The side of the training crops, in px.", read_by=())


class DataSetKeys(Section):
    """A base for the keys that a data set of this package reads besides those of :class:`DataSet`."""

    @classmethod
    def of_data_set(cls, where: str, opt: Mapping) -> Self:
        """Return the keys of a data set's options; raise UserError, beginning with ``where``, for others."""
        of_loaders = DataSet.known_to(None) - {"seed"} - set(cls.model_fields)
        own = {key: value for key, value in opt.items() if key not in of_loaders}
        return cls.read(where, own, only_these=True)


class PathSection(Section):
    """Files and folders."""

    FORMS: ClassVar = {
        "pretrain_network_*": (Text, "A file of weights that the network starts with, such as pretrain_network_g."),
        "param_key_*": (Text, "The key in that file under which the weights stand: params or params_ema."),
        "strict_load_*": (YesOrNo, "Whether the weights' names and the network's must be the same."),
    }

    root: Text | None = Key(None, "The folder below which a run writes. By default the working directory.")
    resume_state: Text | None = Key(None, "A training state to go on from.")
    ignore_resume_networks: Texts = Key([], "Networks whose weights are not loaded when a run goes on.")
    experiments_root: Text | None = Key(None, "The folder of a training. Set when the options are completed.")
    results_root: Text | None = Key(None, "The folder of a test. Set when the options are completed.")
    models: Text | None = Key(None, "The folder of the weights. Set when the options are completed.")
    training_states: Text | None = Key(None, "The folder of the states. Set when the options are completed.")
    log: Text | None = Key(None, "The folder of the log. Set when the options are completed.")
    visualization: Text | None = Key(None, "The folder of saved images. Set when the options are completed.")


class TrainingStep(Section):
    """What a training step compares, and how it is computed and watched."""

    amp: Precision | None = Key(None, "The precision in which the generator computes. By default float32.", OURS)
    accumulate: From1 = Key(1, "Parts of a batch that are computed one after the other, which takes less memory.", OURS)
    compile: YesOrNo | None = Key(None, "Whether torch.compile is used. By default on a GPU that can.", OURS)
    cuda_graph: YesOrNo | None = Key(
        None, "Whether a GPU's kernels are recorded and launched together. By default where that is safe.", OURS
    )
    tf32: YesOrNo | None = Key(None, "Whether a GPU may round factors to TF32. By default as torch does.", OURS)
    astray_factor: Positive = Key(
        1e5, "A gradient that is so many times the median of the last 1,000 ends the training.", OURS
    )
    grad_clip_norm: Positive | None = Key(
        None, "The largest norm of a network's gradient. A larger gradient is scaled down to it.", DFPG
    )
    estimated_prior: Annotated[Literal["generator", "restored"], Expected("generator or restored")] = Key(
        "generator", "The prior that is compared: the generator's own estimate, or the restored face's features.", DFPG
    )


class Train(TrainingStep):
    """The training."""

    FORMS: ClassVar = {
        "optim_*": (Optimizer, "The optimizer of a network: optim_g, optim_d."),
        "*_opt": (Loss, "A loss: pixel_opt (Eq. 7), prior_opt (Eq. 9), gan_opt (Eq. 6 and 8), feature_opt, ..."),
    }

    total_iter: From1 = Key(..., "The iterations of the whole training.")
    warmup_iter: Whole = Key(-1, "Iterations in which the learning rate rises from 0 to its start. -1: none.")
    non_finite: NonFinite = Key(NonFinite(), "What to do about losses and gradients that are not finite.")
    scheduler: Scheduler | None = Key(None, "The schedule of the learning rates.")
    net_d_iters: From1 | None = Key(None, "Iterations of D between two of G, in BasicSR's SRGANModel.", read_by=())
    net_d_init_iters: From0 | None = Key(None, "Iterations of D before the first of G, there.", read_by=())
    ema_decay: Share = Key(0, "The decay of the averaged weights at each iteration. 0: none are kept.", BASICSR)


class Metric(Component):
    """A metric of an image. Its other keys are the arguments of the registered function."""

    better: Annotated[Literal["higher", "lower"], Expected("higher or lower")] | None = Key(
        None, "Which values are better: higher or lower."
    )
    crop_border: From0 | None = Key(None, "How many px are cut off at each side before measuring.", read_by=())


class SetMetric(Component):
    """A metric of a whole test set: detection_rate or verification_accuracy."""


class Val(Section):
    """Validation and testing."""

    val_freq: From1 | None = Key(None, "Iterations between two validations. Training needs it.")
    save_img: YesOrNo = Key(False, "Whether restored images are saved. A test without `val` saves them.")
    suffix: Text | None = Key(None, "What a test adds to the names of saved images. By default the run's name.")
    pbar: YesOrNo = Key(False, "Whether a bar shows the progress.")
    metrics: dict[str, Metric] = Key({}, "Metrics of each image, by names of your choice.")
    set_metrics: dict[str, SetMetric] = Key({}, "Metrics of a test set, by names of your choice. For `basicsr test`.")
    batch_size: From1 = Key(16, "Images of a size that `basicsr test` restores together.")
    winograd: YesOrNo = Key(False, "Whether `basicsr test` on a CPU computes 3x3 convolutions by Winograd's way.")
    amp: Precision | None = Key(None, "The precision in which images are restored. By default float32.", OURS)
    pad_to: From1 = Key(1, "Images are padded to multiples of this side before they are restored.", OURS)
    tile: From1 | None = Key(None, "Larger images are restored in tiles of this side, in px.", OURS)
    tile_overlap: From0 = Key(32, "How far tiles overlap, in px.", OURS)

    @model_validator(mode="after")
    def _check_tiles(self) -> Self:
        if self.tile is None and "tile_overlap" in self.model_fields_set:
            raise UserError("tile_overlap: is of no use without tile.")
        if self.tile is not None and 2 * self.tile_overlap >= self.tile:
            raise UserError(
                f"tile: {self.tile} px can't overlap by {self.tile_overlap} px. Raise it, or lower tile_overlap."
            )
        return self


class Wandb(Section):
    """Weights & Biases, which is sent what TensorBoard gets."""

    project: Text | None = Key(None, "The project. Without a project nothing is sent.")
    resume_id: Text | None = Key(None, "The id of the run to go on with.")


class Logger(Section):
    """What is written down while a training runs."""

    print_freq: From1 = Key(100, "Iterations between two lines of the log.")
    save_checkpoint_freq: From1 = Key(5000, "Iterations between two checkpoints.")
    use_tb_logger: YesOrNo = Key(False, "Whether TensorBoard's curves are written.")
    keep_checkpoints: From1 | None = Key(None, "The newest checkpoints that are kept. By default all are.")
    wandb: Wandb = Key(Wandb(), "Weights & Biases.")


class DistParams(Section):
    """Several processes."""

    backend: Text = Key("nccl", "How GPUs exchange gradients: nccl. Without GPUs it is gloo.")
    port: From1 | None = Key(None, "The port on which processes meet, under slurm. By default 29500.")
    timeout: Positive = Key(1800, "Seconds after which a process that waits for another gives up.")


class Options(Section):
    """An option file."""

    FORMS: ClassVar = {"network_*": (Component, "A network: network_g, network_d, network_prior.")}

    name: Text = Key(..., "The name of the run, and of its folder.")
    model_type: Text = Key(..., "The registered name of the model.")
    scale: From1 | None = Key(None, "The factor between lq's and gt's size. Deblurring has 1.")
    num_gpu: Devices = Key("auto", "GPUs that are used. `auto`: all there are.")
    manual_seed: Seed | None = Key(None, "The seed of all random numbers. By default one is drawn.")
    plugins: Texts = Key([], "Python packages that register other components.")
    find_unused_parameters: YesOrNo = Key(False, "For several processes: whether some parameters get no gradient.")
    datasets: dict[str, DataSet] = Key(..., "The data sets: train, val and test, or val_2 and so on.")
    path: PathSection = Key(PathSection(), "Files and folders.")
    train: Train | None = Key(None, "The training. A test has none.")
    val: Val | None = Key(None, "Validation and testing.")
    logger: Logger = Key(Logger(), "What is written down while a training runs.")
    dist_params: DistParams = Key(DistParams(), "Several processes.")
