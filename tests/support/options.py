"""How tests have models served, where it does not matter how."""

from service.batching import Bounds
from service.engines import LiteOptions, SimulatedOptions
from service.latency_tables import TABLES
from service.machine import Machine
from service.repository import ServingOptions
from service.repository.lineup import EngineChoice

TABLE = "310p/se_resnext50"


def serving_options(engine: EngineChoice) -> ServingOptions:
    return ServingOptions(
        engine=engine,
        devices=None,
        machine=Machine(ascend_nodes=(), cpu_model="", cpu_flags=frozenset()),
        engine_threads=1,
        pins_threads=None,
        load_timeout_s=20,
        engine_timeout_s=20,
        max_batch_rows=4,
        bounds=Bounds(max_rows=64, max_device_s=60),
        profile_s=0.05,
        state_folder=None,
        max_image_pixels=1_000_000,
        openvino_precision="f32",
        openvino_cache=None,
        lite=LiteOptions(),
        lite_python=None,
        ascend_target=None,
        simulated=SimulatedOptions(table=TABLE, latency_s=TABLES[TABLE]),
    )
