"""How tests have models served, where it does not matter how."""

from service.repository import ServingOptions


def serving_options(engine: str) -> ServingOptions:
    return ServingOptions(
        engine=engine,
        engine_threads=1,
        load_timeout_s=20,
        engine_timeout_s=20,
        max_batch_rows=4,
        max_queued_rows=64,
        max_image_pixels=1_000_000,
    )
