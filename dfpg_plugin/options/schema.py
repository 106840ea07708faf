"""Every key of an option file that this package or BasicSR defines: type, default and meaning.

Other keys are defined elsewhere. The arguments of a network, a loss or a metric stand in its signature. The keys of a
data set of this package stand in its class ``Options``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge
from pydantic import Strict, model_validator
from typing_extensions import Self

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

# the models that read a key, with their subclasses
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

    FORMS: ClassVar = {"*_weight": (Number, "The factor by which the loss, or a part of the loss, is multiplied.")}


class Optimizer(Section):
    """An optimizer of torch.optim. Its other keys are the arguments of that class."""

    type: Text = Key(..., "The name of the class, such as Adam.")
    lr: Positive = Key(..., "The learning rate at the start.")


class Scheduler(Section):
    """A learning rate scheduler of torch.optim or BasicSR, for all optimizers. Each iteration is one step of it."""

    type: Text | None = Key(None, "The name of the class, such as StepLR.")
    step_size: From1 | None = Key(None, "Iterations between two changes of the rate, for StepLR.", read_by=())
    gamma: Positive | None = Key(None, "The factor by which a change multiplies the rate.", read_by=())


class NonFinite(Section):
    """What a training does about a step whose losses or gradients are not finite."""

    action: Annotated[Literal["stop", "skip"], Expected("stop or skip")] = Key(
        STOP,
        "`stop` ends the training. `skip` leaves out that update of G or D, and goes on with the next batch.",
    )
    limit: From0 = Key(10, "How many batches may be skipped from a start of the training to its end.")


class DataSet(Section):
    """A data set, and how its images are loaded. Its other keys are those of its class."""

    FORMS: ClassVar = {"dataroot_*": (Text, "A folder of images.")}

    name: Text | None = Key(None, "The name in logs and in the results' folders. By default the key of the set.")
    type: Text | None = Key(None, "The registered name of the class.")
    phase: Text | None = Key(None, "`train`, `val` or `test`. Set from the key of the set.")
    # Any: a data set of another package may take other values
    scale: From1 | Any = Key(None, "The side of gt divided by the side of lq. Set from the file's key `scale`.")
    seed: From0 | Any = Key(None, "The seed of the samples' random numbers. By default manual_seed in training.")
    batch_size_per_gpu: From1 | None = Key(None, "Images in a batch, for each GPU. Training needs this key.")
    num_worker_per_gpu: From0 = Key(0, "Processes that load images, for each GPU. 0: the training's own process.")
    dataset_enlarge_ratio: Positive = Key(1, "How often an epoch goes through the images.")
    prefetch_mode: Annotated[Literal["cuda", "cpu"], Expected("cuda, or nothing")] | None = Key(
        None, "`cuda` copies the next batch to the GPU during a training step. Training refuses `cpu`."
    )
    num_prefetch_queue: From1 = Key(1, "Batches that are loaded ahead, for BasicSR's prefetch_mode cpu.")
    pin_memory: YesOrNo = Key(False, "Whether batches lie in pinned memory. Copies from there to a GPU are faster.")
    persistent_workers: YesOrNo = Key(False, "Whether the loading processes live longer than an epoch.")
    io_backend: dict[str, Any] | None = Key(None, "Where the images lie: `type: disk` or `type: lmdb`.")
    use_shuffle: YesOrNo = Key(True, "Without effect: training images are always shuffled. BasicSR's files hold it.")
    gt_size: From1 | Any = Key(None, "The side of the training crops, in px.", read_by=())


class DataSetKeys(Section):
    """A base for the own keys of a data set of this package. :class:`DataSet` has the keys that all data sets share."""

    @classmethod
    def of_data_set(cls, where: str, opt: Mapping) -> Self:
        """Return a data set's own keys from its options ``opt``, without those that all data sets share.

        Raises UserError, beginning with ``where``, for an unknown key or a wrong value.
        """
        shared = DataSet.known_to(None) - {"seed"} - set(cls.model_fields)
        own = {key: value for key, value in opt.items() if key not in shared}
        return cls.read(where, own, only_these=True)


class PathSection(Section):
    """Files and folders."""

    FORMS: ClassVar = {
        "pretrain_network_*": (Text, "The file of weights to start with. `shipped`: the one in this package."),
        "param_key_*": (Text, "The key of the weights in that file, such as params or params_ema."),
        "strict_load_*": (YesOrNo, "Whether that file must have exactly the network's weights. By default true."),
    }

    root: Text | None = Key(None, "The folder below which a run writes. By default the working directory.")
    resume_state: Text | None = Key(None, "The file of a training state. The training goes on from this state.")
    ignore_resume_networks: Texts = Key([], "Networks whose weights are not loaded when a training goes on.")
    experiments_root: Text | None = Key(None, "The folder of a training. Set when the options are completed.")
    results_root: Text | None = Key(None, "The folder of a test. Set when the options are completed.")
    models: Text | None = Key(None, "The folder of the weights. Set when the options are completed.")
    training_states: Text | None = Key(None, "The folder of the training states. Set when the options are completed.")
    log: Text | None = Key(None, "The folder of the log. Set when the options are completed.")
    visualization: Text | None = Key(None, "The folder of saved images. Set when the options are completed.")


class TrainingStep(Section):
    """The keys of a training step: the prior, the arithmetic, and the checks of gradients."""

    amp: Precision | None = Key(None, "The precision in which the generator computes. By default float32.", OURS)
    accumulate: From1 = Key(1, "The number of parts of a batch. Parts are computed in turn, in less memory.", OURS)
    compile: YesOrNo | None = Key(
        None, "Whether torch.compile is used. By default on GPUs, for networks made for it.", OURS
    )
    cuda_graph: YesOrNo | None = Key(
        None, "Whether a GPU's kernels are recorded and launched together. By default if that is safe.", OURS
    )
    tf32: YesOrNo | None = Key(None, "Whether a GPU may round factors to TF32. By default torch decides.", OURS)
    astray_factor: Positive = Key(
        1e5, "The training ends if a gradient's norm is above the median of the last 1,000 times this factor.", OURS
    )
    grad_clip_norm: Positive | None = Key(
        None, "The largest norm of a network's gradient. A larger gradient is scaled down to this norm.", DFPG
    )
    estimated_prior: Annotated[Literal["generator", "restored"], Expected("generator or restored")] = Key(
        "generator", "The prior in the loss: the generator's own estimate, or the features of the restored face.", DFPG
    )


class Train(TrainingStep):
    """The training."""

    FORMS: ClassVar = {
        "optim_*": (Optimizer, "The optimizer of a network: optim_g, optim_d."),
        "*_opt": (Loss, "A loss: pixel_opt (Eq. 7), prior_opt (Eq. 9), gan_opt (Eq. 6 and 8), feature_opt, ..."),
    }

    total_iter: From1 = Key(..., "The number of iterations of the whole training.")
    warmup_iter: Whole = Key(-1, "The number of iterations in which the learning rate rises from 0. -1: none.")
    non_finite: NonFinite = Key(NonFinite(), "What to do about losses and gradients that are not finite.")
    scheduler: Scheduler | None = Key(None, "The schedule of the learning rates. For DFPGModel by default constant.")
    net_d_iters: From1 | None = Key(None, "SRGANModel updates D in each iteration, and G once in so many.", read_by=())
    net_d_init_iters: From0 | None = Key(None, "SRGANModel updates only D in so many iterations at first.", read_by=())
    ema_decay: Share = Key(0, "The decay of the weights' moving average at each iteration. 0: no average.", BASICSR)


class Metric(Component):
    """A metric of an image. Its other keys are the arguments of the registered function."""

    better: Annotated[Literal["higher", "lower"], Expected("higher or lower")] | None = Key(
        None, "Which values are better: higher or lower. By default higher."
    )
    crop_border: From0 | None = Key(None, "How many px are cut off at each side before measuring.", read_by=())


class SetMetric(Component):
    """A metric of a whole test set: detection_rate or verification_accuracy."""


class Val(Section):
    """Validation and testing."""

    val_freq: From1 | None = Key(None, "Iterations between two validations. Training needs this key.")
    save_img: YesOrNo = Key(False, "Whether restored images are saved. A test without `val` saves them.")
    suffix: Text | None = Key(None, "The end of the names of a test's saved images. By default the run's name.")
    pbar: YesOrNo = Key(False, "Whether a bar shows the progress.")
    metrics: dict[str, Metric] = Key({}, "Metrics of each image, by names of your choice.")
    set_metrics: dict[str, SetMetric] = Key({}, "Metrics of a test set, by names of your choice. For `basicsr test`.")
    batch_size: From1 = Key(16, "How many images of equal size `basicsr test` restores together.")
    winograd: YesOrNo = Key(False, "Whether `basicsr test` computes 3x3 convolutions on a CPU by Winograd's method.")
    amp: Precision | None = Key(None, "The precision in which images are restored. By default float32.", OURS)
    pad_to: From1 = Key(1, "The sides of images are padded to multiples of so many px before the restoration.", OURS)
    tile: From1 | None = Key(None, "The side of a tile, in px. Larger images are restored in tiles.", OURS)
    tile_overlap: From0 = Key(32, "The width of the overlap of two tiles, in px.", OURS)

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
    """Weights & Biases. It gets the curves of TensorBoard."""

    project: Text | None = Key(None, "The project. Without a project nothing is sent.")
    resume_id: Text | None = Key(None, "The id of the run to go on with.")


class Logger(Section):
    """The log, the curves and the checkpoints of a training."""

    print_freq: From1 = Key(100, "Iterations between two lines of the log.")
    save_checkpoint_freq: From1 = Key(5000, "Iterations between two checkpoints.")
    use_tb_logger: YesOrNo = Key(False, "Whether curves are written for TensorBoard.")
    keep_checkpoints: From1 | None = Key(None, "How many of the newest checkpoints are kept. By default all.")
    wandb: Wandb = Key(Wandb(), "Weights & Biases.")


class DistParams(Section):
    """The communication of several processes."""

    backend: Text = Key("nccl", "The library by which GPUs exchange gradients. Without GPUs, nccl means gloo.")
    port: From1 | None = Key(None, "The port at which processes meet, under slurm. By default 29500.")
    timeout: Positive = Key(1800, "A process gives up after waiting so many seconds for another process.")


class Options(Section):
    """An option file."""

    FORMS: ClassVar = {"network_*": (Component, "A network: network_g, network_d, network_prior.")}

    name: Text = Key(..., "The name of the run, and of its folder.")
    model_type: Text = Key(..., "The registered name of the model.")
    scale: From1 | None = Key(None, "The side of gt divided by the side of lq. For deblurring 1.")
    num_gpu: Devices = Key("auto", "The number of GPUs in use. `auto`: all.")
    manual_seed: Seed | None = Key(None, "The seed of all random numbers. By default a random seed.")
    plugins: Texts = Key([], "Python packages that register further components.")
    find_unused_parameters: YesOrNo = Key(False, "Set true if several processes train and parameters get no gradient.")
    datasets: dict[str, DataSet] = Key(..., "The data sets: train, val, test, and further ones such as val_2.")
    path: PathSection = Key(PathSection(), "Files and folders.")
    train: Train | None = Key(None, "The training. A test has none.")
    val: Val | None = Key(None, "Validation and testing.")
    logger: Logger = Key(Logger(), "The log, the curves and the checkpoints of a training.")
    dist_params: DistParams = Key(DistParams(), "The communication of several processes.")
