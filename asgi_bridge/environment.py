"""The environment file of a process."""

from .errors import ConfigurationError
from .extras import install

__all__ = ["load_environment"]


def load_environment(path: str) -> None:
    """Read a file of ``NAME=value`` lines into the environment. Variables that are set already stay as they are.

    Args:
        path: Of the file, in UTF-8.

    Raises:
        ConfigurationError: It cannot be read, or python-dotenv is not installed.
    """
    try:
        from dotenv import load_dotenv  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ConfigurationError(f"an environment file needs python-dotenv: {install('dev')}") from None
    try:
        with open(path, encoding="utf-8") as lines:
            load_dotenv(stream=lines)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"the environment file {path} cannot be read: {exc}") from None
