"""Run a parsed command. Turn an error into one line and an exit status."""

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
INTERRUPTED, TERMINATED = 130, 143  # 128 plus the number of the signal, as in shells


def run_command(args: argparse.Namespace) -> int:
    """Run a parsed command; return its exit status.

    0: done. 1: a training failed, or ``restore`` left out faces or files. 2: an error that the user can mend. 130:
    Ctrl-C. 143: SIGTERM.
    """
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
    if not isinstance(error, OptionsError):  # an error from a data worker has the worker's traceback before the message
        message = message.split("\n")[-1].split("UserError: ")[-1]
    rank, world_size = get_dist_info()
    print(f"basicsr: error: {f'process {rank}: ' if world_size > 1 else ''}{message}", file=sys.stderr, flush=True)
    return status
