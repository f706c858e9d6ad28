"""The command line: one file a command, each parses, calls and prints. Nothing heavy is imported until a command runs.

Results go to stdout, progress to stderr. Exit codes: 0 done, 1 the work failed, 2 the request was wrong.
"""

import sys


def main() -> None:
    """The `llmwright` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit code. Errors become one clear line; `--debug` shows the traceback."""
    import signal

    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, _stop)
    try:
        return _app()(arguments, prog_name="llmwright", standalone_mode=False) or 0
    except (_Stopped, KeyboardInterrupt):
        goes_on = arguments[:1] in (["build"], ["pretrain"], ["pull"])
        print("stopped" + ("; the same command goes on, and does not repeat what is done" if goes_on else ""), file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away
        return 0
    except Exception as error:
        if debug:
            raise
        return _explain(error)


class _Stopped(BaseException):
    """Ctrl-C or SIGTERM. Not KeyboardInterrupt, which the option parser would answer in its own way."""


def _stop(number, frame):
    raise _Stopped


def _explain(error: Exception) -> int:
    """One clear line on stderr; returns the exit code."""
    import errno

    from ..errors import Error

    if isinstance(error, Error):
        print(f"llmwright: {error}", file=sys.stderr)
        return error.exit_code
    if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # a wrong option or argument
        usage = getattr(error, "ctx", None)
        print(f"llmwright: {error.format_message()}", file=sys.stderr)
        if usage is not None:
            print(f"see {usage.command_path} --help", file=sys.stderr)
        return error.exit_code
    if type(error).__name__ in ("Exit", "Abort"):
        return getattr(error, "exit_code", 1)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        print(f"llmwright: the disk is full: {error}", file=sys.stderr)
        return 1
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "out of memory" in str(error):
        print("llmwright: out of memory; `llmwright plan` tells what would fit (smaller batch, context or model)",
              file=sys.stderr)
        return 1
    print(f"llmwright: {type(error).__name__}: {error} (a defect: run again with --debug for the traceback)",
          file=sys.stderr)
    return 1


def _app():
    import typer

    from . import bench, build, chat, embed, evaluate, export, generate, info, plan, prepare, pretrain, pull, serve

    app = typer.Typer(
        add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
        help="From raw text to a language model of your own.",
        epilog="Any command takes --debug, which shows the traceback of an error.",
    )
    app.command("build")(build.build)
    app.command("plan")(plan.plan)
    app.command("pull")(pull.pull)
    app.command("prepare")(prepare.prepare)
    app.command("pretrain")(pretrain.pretrain)
    app.command("eval")(evaluate.evaluate)
    app.command("export")(export.export)
    app.command("embed")(embed.embed)
    app.command("generate")(generate.generate)
    app.command("chat")(chat.chat)
    app.command("serve")(serve.serve)
    app.add_typer(bench.app, name="bench")
    app.command("info")(info.info)

    @app.callback(invoke_without_command=True)
    def _version(version: bool = typer.Option(False, "--version", help="Say which version this is.")) -> None:
        if version:
            from .. import __version__

            print(f"llmwright {__version__}")
            raise typer.Exit()

    return typer.main.get_command(app)
