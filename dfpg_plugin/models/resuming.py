"""A training state under the options that are given now: what was changed in them takes effect, and is said.

``load_state_dict`` of torch takes every hyperparameter from the state. An option that was changed between two starts of
a training would then be logged and have no effect.
"""

import warnings
from collections.abc import Iterator, Mapping

from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dfpg_plugin.checks import UserError

TYPES = "types"  # the state's key for the names of the optimizers' and schedulers' classes
IN_ORDER = ("optim_g", "optim_d")  # as every model of BasicSR and of this package builds them
NO_OPTION = {"lr", "params"}  # of a group: the rate at this iteration is the schedule's
HOW = {"fused", "foreach", "capturable", "differentiable"}  # how it is computed: always as it is built now
INSTEAD = "Set it as it was, or begin a new run from the weights by path:pretrain_network_g."
MOMENTA = {"betas", "momentum"}
SIGNS = {"betas", "momentum", "lr_decay", "alpha", "rho", "etas", "max_iter"}  # tell types of optimizers apart
NEEDS_STATE = {"amsgrad", "centered"}  # what an optimizer keeps for them was not gathered
MOVING = {  # of a scheduler: what follows from its options and the iteration
    *("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial", "verbose"),
    *("base_lrs", "T_cur", "T_i"),
}


def types_of(model: BaseModel) -> dict[str, list[str]]:
    """Return the names of the classes of a model's optimizers and schedulers."""
    parts = {"optimizers": model.optimizers, "schedulers": model.schedulers}
    return {name: [type(part).__name__ for part in of_model] for name, of_model in parts.items()}


def with_given_options(model: BaseModel, state: Mapping) -> dict:
    """Return ``state`` with the rates, schedules and other options of a newly built model's optimizers.

    A changed rate or schedule goes on as if the run had begun with it. What the options leave as it was keeps its bits.
    The best metrics are those that the options still name. Raises UserError for another type of optimizer.
    """
    best = _best_records(model.opt, state.get("best_metric_results") or {})
    counts = {len(part) for part in (model.optimizers, model.schedulers, state["optimizers"], state["schedulers"])}
    if len(counts) > 1:  # a state of another model, which says so itself
        return {**state, "best_metric_results": best}
    changes: list[str] = []
    pairs = [_carried_over(model, state, i, changes) for i in range(len(model.optimizers))]
    if changes:
        text = "; ".join(dict.fromkeys(changes))
        get_root_logger().info(f"Changed since iteration {state['iter']}, and in effect from now on: {text}.")
    optimizers, schedulers = ([pair[i] for pair in pairs] for i in range(2))
    return {**state, "optimizers": optimizers, "schedulers": schedulers, "best_metric_results": best}


def _carried_over(model: BaseModel, state: Mapping, i: int, changes: list[str]) -> tuple[dict, dict]:
    """Return the states of an optimizer and its scheduler under the given options; add to ``changes`` what is new."""
    optimizer, scheduler = model.optimizers[i], model.schedulers[i]
    of_optimizer, of_scheduler = state["optimizers"][i], state["schedulers"][i]
    saved = of_optimizer["param_groups"]
    key = _option_key(model.opt, i)
    _check_type(key, optimizer, saved[0], _saved_type(state, "optimizers", i))
    changed = _changed_options(optimizer, scheduler, saved[0])
    schedule = list(_changed_schedule(scheduler, of_scheduler, _saved_type(state, "schedulers", i)))
    for name, (old, new) in changed.items():
        if new and not old and (name in NEEDS_STATE or (name == "momentum" and "alpha" in saved[0])):
            raise UserError(f"{key}:{name}: {new} can't go on from a state of {old}. {INSTEAD}")
    changes += [
        f"{key}:{name.removeprefix('initial_')} {_plain(old)} -> {_plain(new)}" for name, (old, new) in changed.items()
    ]
    changes += schedule
    names = {*changed, *HOW}
    if schedule or "initial_lr" in changed:
        _replay(scheduler, state["iter"])
        of_scheduler = scheduler.state_dict()
        names = set(optimizer.param_groups[0]) - {"params"}
    groups = [dict(group) for group in saved]
    for group, own in zip(groups, optimizer.param_groups, strict=False):  # torch says where there are others
        group.update({name: own[name] for name in names if name in own})
    return {**of_optimizer, "param_groups": groups}, of_scheduler


def _option_key(opt: Mapping, i: int) -> str:
    named = [key for key in IN_ORDER if opt["train"].get(key)]
    return f"train:{named[i]}" if i < len(named) else f"optimizer {i}"


def _saved_type(state: Mapping, part: str, i: int) -> str | None:
    """Return the name of a class; None for states of BasicSR's and of earlier versions, which do not hold it."""
    return state[TYPES][part][i] if TYPES in state else None


def _check_type(key: str, optimizer: Optimizer, saved: Mapping, saved_type: str | None) -> None:
    name = type(optimizer).__name__
    if saved_type is None:
        own_way = optimizer.defaults.get("decoupled_weight_decay", False)
        is_same = SIGNS & saved.keys() == SIGNS & optimizer.defaults.keys()
        is_same = is_same and saved.get("decoupled_weight_decay", own_way) == own_way
    else:
        is_same = saved_type == name
    if not is_same:
        raise UserError(
            f"{key}:type: {name} can't go on from a state of {saved_type or 'another optimizer'}. {INSTEAD}"
        )


def _changed_options(optimizer: Optimizer, scheduler: LRScheduler, saved: Mapping) -> dict[str, tuple]:
    """Return the saved and the given value of every option that differs."""
    moved_by_schedule = MOMENTA if getattr(scheduler, "cycle_momentum", False) else set()
    own = optimizer.param_groups[0]
    names = [name for name in own if name in saved and name not in NO_OPTION | HOW | moved_by_schedule]
    return {name: (saved[name], own[name]) for name in names if _plain(saved[name]) != _plain(own[name])}


def _changed_schedule(scheduler: LRScheduler, saved: Mapping, saved_type: str | None) -> Iterator[str]:
    """Yield a text for every difference between a scheduler and a saved one."""
    own = scheduler.state_dict()
    is_same = own.keys() - MOVING == saved.keys() - MOVING if saved_type is None else None
    if is_same is False or saved_type not in (None, type(scheduler).__name__):
        yield f"train:scheduler:type {saved_type or 'another'} -> {type(scheduler).__name__}"
        return
    for name in own:
        if name in saved and name not in MOVING and _plain(saved[name]) != _plain(own[name]):
            yield f"train:scheduler:{name} {_in_words(saved[name])} -> {_in_words(own[name])}"


def _replay(scheduler: LRScheduler, iteration: int) -> None:
    """Step a new scheduler to where it is after ``iteration`` iterations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch expects a step of the optimizer before each
        for _ in range(iteration - 1):
            scheduler.step()


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _in_words(value: object) -> object:
    """Return a value as a YAML has it: BasicSR and torch count milestones."""
    return sorted(value) if isinstance(value, Mapping) else _plain(value)


def _best_records(opt: Mapping, saved: Mapping) -> dict:
    """Return the best values of the metrics that the options name; BasicSR knows no metric that is added later."""
    metrics = (opt.get("val") or {}).get("metrics") or {}
    best: dict[str, dict] = {}
    for dataset, records in saved.items():
        best[dataset] = {}
        for name, options in metrics.items():
            better = options.get("better", "higher")
            new = {"better": better, "val": float("-inf" if better == "higher" else "inf"), "iter": -1}
            record = records.get(name, new)
            best[dataset][name] = record if record["better"] == better else new
    return best
