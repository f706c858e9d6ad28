"""One error type with a message for people.

Every failure a user can cause or meet is an `Error` whose message is one clear line: it names the file, key or value
at fault and what would be right. The command line prints that line alone; a traceback is a bug, or `--debug`.
"""


class Error(Exception):
    """A failure with a message for people. `exit_code` is what the command line returns."""

    exit_code = 1


class RequestError(Error):
    """The request was wrong: nothing was done. Exit code 2."""

    exit_code = 2


class WorkError(Error):
    """The request was right, the work failed. Exit code 1."""

    exit_code = 1


class Interrupted(WorkError):
    """Stopped by Ctrl-C or SIGTERM at a safe point; the message says how to go on."""
