"""The command `cardinal`: parse and print, nothing more."""

import argparse
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from service import __version__, settings
from service.settings import Settings, SettingsError
from service.simulation.options import add_options

if TYPE_CHECKING:
    from service.engines import EngineOrder

_USAGE_ERROR = 2


class CommandError(Exception):
    """The command cannot do what it was asked; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    # As process 1 of a container nothing else would end it before the server has its own handlers. What takes long
    # to import is therefore imported where it is used.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (SettingsError, CommandError) as error:
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

    simulate = commands.add_parser("simulate", help="simulate the queue on a latency curve, to plan capacity")
    simulate.set_defaults(run=_simulate)
    add_options(simulate)

    doctor = commands.add_parser("doctor", help="tell what this machine can run, and why not")
    doctor.set_defaults(run=_doctor)

    profile = commands.add_parser("profile", help="draw how long batches take, as a running server measured")
    profile.set_defaults(run=_profile)
    profile.add_argument("model")
    profile.add_argument("--server", default="http://127.0.0.1:8000", help="(default http://127.0.0.1:8000)")

    bench = commands.add_parser("bench", help="measure on this machine").add_subparsers(required=True)
    engine = bench.add_parser("engine", help="what it costs that an engine has a process of its own")
    engine.set_defaults(run=_bench_engine)
    engine.add_argument(
        "bundle",
        type=Path,
        nargs="?",
        help="a version of a model, <model>/<version>; without it, an engine that does next to nothing",
    )
    engine.add_argument("--engine", default="auto", help="as for serve (default auto)")
    engine.add_argument("--runs", type=int, default=300)
    serve_bench = bench.add_parser("serve", help="images a second of queue and engine, beside plain loops")
    serve_bench.set_defaults(run=_bench_serve)
    serve_bench.add_argument("bundle", type=Path, help="a version of a model, <model>/<version>")
    serve_bench.add_argument("--seconds", type=float, default=60.0, help="in all (default 60)")

    table = commands.add_parser("settings", help="print all settings as a Markdown table")
    table.set_defaults(run=_settings)
    return parser


def _serve(options: argparse.Namespace) -> int:
    file = options.config or os.environ.get("CARDINAL_CONFIG")
    flags = {name: value for name, value in vars(options).items() if name in Settings.model_fields}
    chosen = settings.load(flags, os.environ, Path(file) if file else None)
    for warning in settings.misspelt(os.environ):
        print(f"cardinal: {warning}", file=sys.stderr)
    from service.logs import set_up
    from service.server import CannotStart, run_server

    set_up(chosen.log_format, chosen.log_level)
    try:
        reasons = run_server(chosen, is_check=options.check)
    except CannotStart as error:
        raise CommandError(str(error)) from error
    for reason in reasons:
        print(f"cardinal: {reason}", file=sys.stderr)
    return 1 if reasons else 0


def _classify(options: argparse.Namespace) -> int:
    from service.client import CardinalError, Client

    try:
        bodies = [path.read_bytes() for path in options.images]
        with Client(options.address) as client:
            answer = client.classify(*bodies, model=options.model, top_k=options.top_k)
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    except CardinalError as error:
        raise CommandError(str(error)) from error
    for path, classes in zip(options.images, answer.results, strict=True):
        print(path)
        for scored in classes:
            print(f"  {scored.score:7.2%}  {scored.label}")
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from service.doctor import Probe, examine

    file = os.environ.get("CARDINAL_CONFIG")
    chosen = settings.load({"model_repository": "."}, os.environ, Path(file) if file else None)
    print(examine(Probe.here(chosen)))
    return 0


def _profile(options: argparse.Namespace) -> int:
    from service.profile import NoProfile, drawn, fetch

    try:
        print(drawn(fetch(options.server, options.model)))
    except NoProfile as error:
        raise CommandError(str(error)) from error
    return 0


def _bench_engine(options: argparse.Namespace) -> int:
    from service.bench import compare, idle_order

    order = _ways(options.bundle, options.engine)[-1] if options.bundle else idle_order()
    print(_measured(compare, order, options.runs))
    return 0


def _bench_serve(options: argparse.Namespace) -> int:
    from service.bench import pace

    print(_measured(pace, _ways(options.bundle, "openvino")[0], options.seconds))
    return 0


def _ways(bundle: Path, engine: str) -> "tuple[EngineOrder, ...]":
    """Find what the settings would have run this bundle on the first device."""
    from service.machine import Machine
    from service.repository import BundleError, line_up, load_bundle
    from service.server import serving_options

    chosen = settings.load({"model_repository": ".", "engine": engine}, os.environ)
    try:
        return line_up(load_bundle(bundle.resolve()), serving_options(chosen, Machine.look())).engines[0]
    except BundleError as error:
        raise CommandError(str(error)) from error


def _measured(measure: Callable[..., Awaitable[object]], *words: object) -> object:
    import anyio

    from service.errors import EngineFault

    try:
        return anyio.run(measure, *words, backend_options={"use_uvloop": True})
    except (EngineFault, ImportError) as error:
        raise CommandError(str(error)) from error


def _simulate(options: argparse.Namespace) -> int:
    from service.simulation.command import run
    from service.simulation.study import CannotSimulate

    try:
        run(options, partial(print, flush=True))
    except CannotSimulate as error:
        raise CommandError(str(error)) from error
    return 0


def _settings(_: argparse.Namespace) -> int:
    print(settings.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
