"""The command line: `fieldmark COMMAND`, a command a module of `pipeline.commands`.

People's tables and progress go to standard error, answers to standard output. Exit status: 0 done, 1 the job failed,
2 the call or the job file is wrong, 130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from pipeline.commands import demo, export, init, predict, query, results, run, status
from pipeline.commands.speaking import say
from pipeline.job_error import JobError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Classify images by their field marks: descriptors, guided crops, optimal transport, on Ray.",
)
for module in (demo, init, run, status, results, predict, query, export):
    app.command()(getattr(module, module.__name__.rsplit(".", 1)[1]))


def main() -> None:
    """Entry point: turns errors into one clear message and an exit status."""
    try:
        app()
    except JobError as error:
        say(str(error), "red")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from pipeline.run import explain_failure

        say(explain_failure(error), "red")
        sys.exit(1)
