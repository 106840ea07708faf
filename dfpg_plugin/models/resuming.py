"""Combine a training state with the options of this start. Changed options take effect, and the log names them.

torch's ``load_state_dict`` takes every hyperparameter from the state. An option that was changed between two starts of
a training would then be logged and have no effect.
"""

import json
import warnings
from collections.abc import Iterator, Mapping

from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dfpg_plugin.checks import UserError
from dfpg_plugin.models.best_network import first_validation_set, forget_best

OPTIONS = "options"  # the state's key for the options of the run, see compared_options
COMPARED = ("manual_seed", "model_type", "scale", "datasets", "train", "val")  # and every network
TYPES = "types"  # the state's key for the names of the optimizers' and schedulers' classes
IN_ORDER = ("optim_g", "optim_d")  # the order in which models of BasicSR and of this package build their optimizers
NO_OPTION = {"lr", "params"}  # entries of a parameter group that are no options: the schedule sets lr
IMPLEMENTATION = {"fused", "foreach", "capturable", "differentiable"}  # always those of the newly built optimizer
INSTEAD = "Set it as it was, or begin a new run from the weights by path:pretrain_network_g."
MOMENTA = {"betas", "momentum"}  # options that a scheduler with cycle_momentum changes
SIGNS = {"betas", "momentum", "lr_decay", "alpha", "rho", "etas", "max_iter"}  # options that tell optimizers apart
NEEDS_STATE = {"amsgrad", "centered"}  # options that need values for each weight, kept from the first step on
OTHER_SCHEDULE = "train:scheduler: other options"
MOVING = {  # entries of a scheduler's state that follow from its options and the iteration
    *("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial", "verbose"),
    *("base_lrs", "T_cur", "T_i"),
}


def types_of(model: BaseModel) -> dict[str, list[str]]:
    """Return the names of the classes of a model's optimizers and schedulers."""
    parts = {"optimizers": model.optimizers, "schedulers": model.schedulers}
    return {name: [type(part).__name__ for part in of_model] for name, of_model in parts.items()}


def compared_options(opt: Mapping) -> dict:
    """Return the options that shape a training, as plain values that a safe load accepts."""
    kept = {key: value for key, value in opt.items() if key in COMPARED or key.startswith("network_")}
    return json.loads(json.dumps(kept, default=str))


def with_given_options(model: BaseModel, state: Mapping) -> dict:
    """Return a copy of ``state`` with the options of a newly built model's optimizers and schedulers.

    A changed rate or schedule goes on as if the run had begun with it. Unchanged values stay equal bit by bit. Best
    values are kept for the validation sets and metrics that the options still name, unless a metric's own options were
    changed. The log names those of :func:`compared_options` that have changed. Raises UserError for another type of
    optimizer, and for a new option that needs values which the earlier run did not keep, such as ``amsgrad``.
    """
    given, saved = compared_options(model.opt), state.get(OPTIONS)
    best = _best_records(given, state)
    counts = {len(part) for part in (model.optimizers, model.schedulers, state["optimizers"], state["schedulers"])}
    if len(counts) > 1:  # a state of another model: the model's own check raises
        return {**state, "best_metric_results": best}
    changes: list[str] = []
    pairs = [_carried_over(model, state, i, changes) for i in range(len(model.optimizers))]
    if saved is not None:
        changes = [change for change in changes if change != OTHER_SCHEDULE]  # named below, by the option
        named = {_key(change) for change in changes}
        changes += [text for text in _differences(saved, given) if _key(text) not in named]
    if changes:
        text = "; ".join(dict.fromkeys(changes))
        get_root_logger().info(f"Changed since iteration {state['iter']}, and in effect from now on: {text}.")
    states = {"optimizers": [pair[0] for pair in pairs], "schedulers": [pair[1] for pair in pairs]}
    return {**state, **states, "best_metric_results": best}


def _carried_over(model: BaseModel, state: Mapping, i: int, changes: list[str]) -> tuple[dict, dict]:
    """Return the states of optimizer ``i`` and its scheduler with the given options. Add each change to ``changes``."""
    optimizer, scheduler = model.optimizers[i], model.schedulers[i]
    optimizer_state, scheduler_state = state["optimizers"][i], state["schedulers"][i]
    saved = optimizer_state["param_groups"]
    key = _option_key(model.opt, i)
    _check_type(key, optimizer, saved[0], _saved_type(state, "optimizers", i))
    changed = _changed_options(optimizer, scheduler, saved[0])
    schedule = list(_changed_schedule(scheduler, scheduler_state, _saved_type(state, "schedulers", i)))
    for name, (old, new) in changed.items():
        # alpha: the optimizer is RMSprop, which makes room for momentum only in its first step
        if new and not old and (name in NEEDS_STATE or (name == "momentum" and "alpha" in saved[0])):
            raise UserError(f"{key}:{name}: {new} can't go on from a state of {old}. {INSTEAD}")
        changes.append(f"{key}:{name.removeprefix('initial_')} {_as_list(old)} -> {_as_list(new)}")
    changes += schedule
    names = {*changed, *IMPLEMENTATION}
    if schedule or "initial_lr" in changed:
        _replay(scheduler, state["iter"])
        scheduler_state = scheduler.state_dict()
        names = set(optimizer.param_groups[0]) - {"params"}
    groups = [dict(group) for group in saved]
    for group, own in zip(groups, optimizer.param_groups, strict=False):  # torch raises if their numbers differ
        group.update({name: own[name] for name in names if name in own})
    return {**optimizer_state, "param_groups": groups}, scheduler_state


def _key(change: str) -> str:
    return change.split(" ")[0]


def _differences(saved: Mapping, given: Mapping, above: str = "") -> Iterator[str]:
    """Yield a text for every value that differs, such as ``train:pixel_opt:loss_weight 1.0 -> 0.5``."""
    for key in dict.fromkeys([*saved, *given]):
        old, new = saved.get(key), given.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{above}{key}:")
        elif old != new:
            yield f"{above}{key} {'not set' if old is None else old} -> {'not set' if new is None else new}"


def _option_key(opt: Mapping, i: int) -> str:
    named = [key for key in IN_ORDER if opt["train"].get(key)]
    return f"train:{named[i]}" if i < len(named) else f"optimizer {i}"


def _saved_type(state: Mapping, part: str, i: int) -> str | None:
    """Return the saved name of a class, or None. States of BasicSR and of earlier versions have no such names."""
    return state[TYPES][part][i] if TYPES in state else None


def _check_type(key: str, optimizer: Optimizer, saved: Mapping, saved_type: str | None) -> None:
    """Raise UserError if the saved optimizer is of another type. Without a saved name, its options tell the type."""
    name = type(optimizer).__name__
    if saved_type is None:
        decoupled = optimizer.defaults.get("decoupled_weight_decay", False)
        is_same = SIGNS & saved.keys() == SIGNS & optimizer.defaults.keys()
        is_same = is_same and saved.get("decoupled_weight_decay", decoupled) == decoupled
    else:
        is_same = saved_type == name
    if not is_same:
        raise UserError(
            f"{key}:type: {name} can't go on from a state of {saved_type or 'another optimizer'}. {INSTEAD}"
        )


def _changed_options(optimizer: Optimizer, scheduler: LRScheduler, saved: Mapping) -> dict[str, tuple]:
    """Return the saved value and the given value of every option that differs, by its name."""
    passed_over = NO_OPTION | IMPLEMENTATION | (MOMENTA if getattr(scheduler, "cycle_momentum", False) else set())
    own = optimizer.param_groups[0]
    names = [name for name in own if name in saved and name not in passed_over]
    return {name: (saved[name], own[name]) for name in names if _as_list(saved[name]) != _as_list(own[name])}


def _changed_schedule(scheduler: LRScheduler, saved: Mapping, saved_type: str | None) -> Iterator[str]:
    """Yield a text for every difference between a scheduler's options and the saved ones."""
    own, own_type = scheduler.state_dict(), type(scheduler).__name__
    is_same_type = saved_type == own_type
    if saved_type is None:
        is_same_type = own.keys() - MOVING == saved.keys() - MOVING
    if not is_same_type:
        yield f"train:scheduler:type {saved_type or 'another'} -> {own_type}"
        return
    differing = [n for n in own if n in saved and n not in MOVING and _as_list(saved[n]) != _as_list(own[n])]
    for name in differing:
        if not name.startswith("_"):
            yield f"train:scheduler:{name} {_as_in_yaml(saved[name])} -> {_as_in_yaml(own[name])}"
    if differing and all(name.startswith("_") for name in differing):  # what OneCycleLR makes of pct_start, say
        yield OTHER_SCHEDULE


def _replay(scheduler: LRScheduler, iteration: int) -> None:
    """Step a new scheduler as ``iteration`` iterations do. The first iteration makes no step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a scheduler's step without a step of the optimizer
        for _ in range(iteration - 1):
            scheduler.step()


def _as_list(value: object) -> object:
    """Return a tuple as a list, and any other value as it is."""
    return list(value) if isinstance(value, tuple) else value


def _as_in_yaml(value: object) -> object:
    """Return a value as the YAML has it. BasicSR and torch keep the list of milestones as a Counter."""
    return sorted(value) if isinstance(value, Mapping) else _as_list(value)


def _best_records(given: Mapping, state: Mapping) -> dict:
    """Return the best values of the sets and metrics that the options name now.

    A metric that was added, or whose options were changed, starts anew. BasicSR would fail at an added metric. A state
    of an earlier version does not hold the options: of these, only a changed ``better`` shows.
    """
    metrics = _metrics(given)
    names = {options["name"] for options in (given.get("datasets") or {}).values()}
    before = _metrics(state[OPTIONS]) if OPTIONS in state else metrics
    best: dict[str, dict] = {}
    for dataset, records in (state.get("best_metric_results") or {}).items():
        if dataset not in names:
            continue
        best[dataset] = {}
        for name, options in metrics.items():
            better = options.get("better", "higher")
            new = {"better": better, "val": float("-inf" if better == "higher" else "inf"), "iter": -1}
            record = records.get(name, new)
            is_same = record["better"] == better and before.get(name) == options
            best[dataset][name] = record if is_same else new
    if _chooser(state) != (first_validation_set(given), next(iter(metrics), None)):
        forget_best(given, best)  # the best network's file was chosen by another set or metric
    return best


def _chooser(state: Mapping) -> tuple[str | None, str | None]:
    """Return the set and the metric that have chosen the best network of a state's run."""
    if OPTIONS in state:
        return first_validation_set(state[OPTIONS]), next(iter(_metrics(state[OPTIONS])), None)
    records = state.get("best_metric_results") or {}
    first = next(iter(records), None)  # as earlier versions chose
    return first, next(iter(records.get(first, {})), None)


def _metrics(options: Mapping) -> Mapping:
    return (options.get("val") or {}).get("metrics") or {}
