"""What ``basicsr test`` runs: the trained model on every test set of the options."""

from basicsr.models import build_model
from basicsr.utils import get_root_logger, set_random_seed
from basicsr.utils.dist_util import get_dist_info

from dfpg_plugin.training.loop import build_loaders, validate
from dfpg_plugin.training.option_checks import try_metrics
from dfpg_plugin.training.options import Options
from dfpg_plugin.training.output import prepare_output, run_log


def evaluate(opt: Options, option_file: str) -> None:
    """Restore and measure every ``test`` and ``val`` set of completed and checked options, into ``results/<name>``."""
    opt["rank"], opt["world_size"] = get_dist_info()
    set_random_seed(opt["manual_seed"] + opt["rank"])
    with run_log() as open_log:
        loaders = build_loaders(opt, "test") + build_loaders(opt, "val")
        try_metrics(opt)
        model = build_model(opt)
        prepare_output(opt, option_file, open_log, new=True)
        for loader in loaders:
            get_root_logger().info(f"Testing {loader.dataset.opt['name']}...")  # type: ignore[attr-defined]
            validate(opt, model, [loader], opt["name"], None)
