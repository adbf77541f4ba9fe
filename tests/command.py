"""The command, called in this process."""

from typer.testing import CliRunner

from hf_kakurenbo.cli import app


def run(*args: object, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    given = [str(arg) for arg in args]
    result = CliRunner().invoke(app, given, env={"COLUMNS": "80", **(env or {})}, prog_name="hf-kakurenbo")
    assert result.exception is None or isinstance(result.exception, SystemExit), "a traceback is shown"
    return result.exit_code, result.stdout, result.stderr
