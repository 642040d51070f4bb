"""The command line: `fieldmark COMMAND`, a command a module of `pipeline.commands`.

People's tables and progress go to standard error, answers to standard output. Exit status: 0 done, 1 the job failed,
2 the call or the job file is wrong, 3 the store is held by another run, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import sys

import typer

from pipeline.clean_stop import CleanStop
from pipeline.commands import audit, demo, explain, export, gc, init, predict, query, results, run, status
from pipeline.commands.speaking import say
from pipeline.job_error import JobError
from pipeline.store_held import StoreHeld

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Classify images by their field marks: descriptors, guided crops, optimal transport, on Ray.",
)
for module in (demo, init, run, status, results, predict, explain, audit, query, export, gc):
    app.command()(getattr(module, module.__name__.rsplit(".", 1)[1]))


def main() -> None:
    """Entry point: turns errors and signals into one clear message and an exit status."""
    with CleanStop() as stop:
        try:
            app()
        except JobError as error:
            say(str(error), "red")
            sys.exit(2)
        except StoreHeld as error:
            say(str(error), "red")
            sys.exit(3)
        except SystemExit:
            if stop.received is not None:  # typer gives an interrupted command a status of its own
                sys.exit(stop.status)
            raise
        except KeyboardInterrupt:
            sys.exit(stop.status)
        except Exception as error:
            from pipeline.failure import explain_failure

            say(explain_failure(error), "red")
            sys.exit(1)
