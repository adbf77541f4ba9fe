"""How commands end that cannot do what they are asked to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer


@contextmanager
def errors_in_one_line(when_interrupted: str = "Interrupted.") -> Iterator[None]:
    """Exit code 2 for a bad value, 1 for a failure, 130 for Ctrl-C; each with a line instead of a traceback."""
    try:
        yield
    except ValueError as error:
        exit_with(f"Error: {error}", 2)
    except BrokenPipeError:
        raise  # whoever read along, as `head` does, has seen enough
    except (OSError, RuntimeError) as error:
        exit_with(f"Error: {error}", 1)
    except MemoryError as error:
        exit_with(f"Error: There is not enough memory ({error}). Ask for smaller images, or fewer points.", 1)
    except KeyboardInterrupt:
        exit_with(when_interrupted, 130)


def exit_with(message: str, code: int) -> NoReturn:
    """Print a message to standard error, and end the command."""
    typer.echo(message, err=True)
    raise typer.Exit(code)
