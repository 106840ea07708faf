"""Run a command that is parsed, and turn what it raises into a line and an exit status."""

import argparse
import sys
import traceback

import dfpg_plugin  # noqa: F401 - registers, and before that lets basicsr be imported

# isort: split
import torch
from basicsr.utils.dist_util import get_dist_info

from dfpg_cli import memory
from dfpg_cli.interruption import TerminatedError
from dfpg_plugin.checks import UserError
from dfpg_plugin.options.checking import OptionsError
from dfpg_plugin.runs.distribution import LostProcessError, stop_group
from dfpg_plugin.training.signals import StoppedBySignalError

USER_ERROR = 2
FAILURE = 1
INTERRUPTED, TERMINATED = 130, 143  # as shells have it: 128 and the signal's number


def run_command(args: argparse.Namespace) -> int:
    """Run a parsed command; return its exit status: 2 for what the user can mend, 1 for a training that failed."""
    try:
        status = args.run(args)
        stop_group()
    except UserError as error:
        _show_cause(args, error)
        return _fail(error, USER_ERROR)
    except torch.OutOfMemoryError as error:
        _show_cause(args, error)
        return _fail(UserError(memory.explain(error, args.command)), USER_ERROR)
    except TerminatedError:
        print("basicsr: terminated", file=sys.stderr)
        return TERMINATED
    except KeyboardInterrupt:
        print("basicsr: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (FloatingPointError, LostProcessError) as error:
        _show_cause(args, error)
        return _fail(error, FAILURE)
    except StoppedBySignalError as stopped:
        print(f"basicsr: {stopped}", file=sys.stderr)
        return stopped.status
    return status or 0


def _show_cause(args: argparse.Namespace, error: Exception) -> None:
    if getattr(args, "traceback", False) or getattr(args, "debug", False):
        traceback.print_exception(error)


def _fail(error: Exception, status: int) -> int:
    message = str(error).strip()
    if not isinstance(error, OptionsError):  # from a data worker it comes with the worker's traceback before it
        message = message.split("\n")[-1].split("UserError: ")[-1]
    rank, world_size = get_dist_info()
    print(f"basicsr: error: {f'process {rank}: ' if world_size > 1 else ''}{message}", file=sys.stderr, flush=True)
    return status
