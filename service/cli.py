"""The command `cardinal`: parse and print, nothing more."""

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from service import __version__, settings
from service.client import CardinalError, Client
from service.logs import set_up
from service.server import CannotStart, Server
from service.settings import Settings, SettingsError

_USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (SettingsError, CannotStart, CardinalError) as error:
        print(f"cardinal: {error}", file=sys.stderr)
        return _USAGE_ERROR
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cardinal", description="Image classification server and client.")
    parser.add_argument("--version", action="version", version=f"cardinal {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve the models of a repository")
    serve.set_defaults(run=_serve)
    serve.add_argument("--config", type=Path, default=None, help="TOML file of settings (CARDINAL_CONFIG)")
    serve.add_argument("--check", action="store_true", help="load and verify everything, then end")
    group = serve.add_argument_group(
        "settings", "each can be set by environment variable and TOML file as well"
    )
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else f"default {field.default}"
        text = f"{field.description} ({settings.variable_of(name)}, {default})".replace("%", "%%")
        group.add_argument(
            settings.flag_of(name), dest=name, metavar="VALUE", default=argparse.SUPPRESS, help=text
        )

    classify = commands.add_parser("classify", help="classify pictures with a running server, by gRPC")
    classify.set_defaults(run=_classify)
    classify.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    classify.add_argument("--model", required=True)
    classify.add_argument("--top-k", type=int, default=5)
    classify.add_argument("--address", default="127.0.0.1:8001", help="gRPC address (default 127.0.0.1:8001)")

    table = commands.add_parser("settings", help="print all settings as a Markdown table")
    table.set_defaults(run=_settings)
    return parser


def _serve(options: argparse.Namespace) -> int:
    file = options.config or os.environ.get("CARDINAL_CONFIG")
    flags = {name: value for name, value in vars(options).items() if name in Settings.model_fields}
    chosen = settings.load(flags, os.environ, Path(file) if file else None)
    set_up(chosen.log_format, chosen.log_level)
    for warning in settings.misspelt(os.environ):
        print(f"cardinal: {warning}", file=sys.stderr)
    work = _check if options.check else _run
    return anyio.run(functools.partial(work, chosen), backend_options={"use_uvloop": True})


async def _run(chosen: Settings) -> int:
    await Server(chosen).run()
    return 0


async def _check(chosen: Settings) -> int:
    reasons = await Server(chosen).check()
    for reason in reasons:
        print(f"cardinal: {reason}", file=sys.stderr)
    return 1 if reasons else 0


def _classify(options: argparse.Namespace) -> int:
    try:
        bodies = [path.read_bytes() for path in options.images]
    except OSError as error:
        raise CardinalError(f"{error.filename}: {error.strerror}") from error
    with Client(options.address) as client:
        answer = client.classify(*bodies, model=options.model, top_k=options.top_k)
    for path, classes in zip(options.images, answer.results, strict=True):
        print(path)
        for scored in classes:
            print(f"  {scored.score:7.2%}  {scored.label}")
    return 0


def _settings(_: argparse.Namespace) -> int:
    print(settings.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
