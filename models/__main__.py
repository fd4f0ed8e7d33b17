"""Start `cardinal-models`, or say what is missing where only the server was installed."""

import sys


def main() -> int:
    """Run the command line; return the exit code."""
    try:
        from models.cli import main as run  # noqa: PLC0415 - what it imports comes with an extra
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"cardinal-models: {error.name} is not installed: pip install 'cardinal-serving[models]', "
            "or in a clone: .venv/bin/pip install --constraint constraints.txt --editable '.[models]'\n"
        )
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
