"""Every metric of the server, on a registry of its own.

Labels are bounded: a model or version that is not served is counted as "", a door is one of two, a code one of
errors.py. Base units throughout.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

# 0.5 ms (a small model on an NPU) to 30 s (the default deadline).
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
# 1 to the largest gear that Ascend tools are used with.
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """All metrics as attributes; made once, by the server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        served = ("model", "version")
        self.requests = Counter(
            "cardinal_requests",
            "Requests answered, by the code of the answer (OK or an error's code).",
            (*served, "door", "code"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "cardinal_request_seconds",
            "Time from a request's arrival to its answer.",
            (*served, "door"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "cardinal_stage_seconds",
            "Time that an answered request spent in each stage: decode, queue, engine, encode.",
            (*served, "stage"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.requests_in_progress = Gauge(
            "cardinal_requests_in_progress", "Requests being answered.", ("door",), registry=self.registry
        )
        self.batch_rows = Histogram(
            "cardinal_batch_rows",
            "Rows of callers in each batch that an engine ran.",
            served,
            buckets=_ROWS,
            registry=self.registry,
        )
        self.batch_padding_rows = Counter(
            "cardinal_batch_padding_rows",
            "Rows added to fill a batch up to its gear.",
            served,
            registry=self.registry,
        )
        self.batches = Counter(
            "cardinal_batches",
            "Batches that an engine ran, by the gear and why it was run: full, idle, held or deadline.",
            (*served, "gear", "reason"),
            registry=self.registry,
        )
        self.admissions = Counter(
            "cardinal_admissions",
            "Requests at the queue: admitted, refused as full or late, or expired there.",
            (*served, "verdict"),
            registry=self.registry,
        )
        self.prediction_error_seconds = Histogram(
            "cardinal_prediction_error_seconds",
            "How far the end of a request's last batch was from what was predicted when it was admitted.",
            served,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.queue_rows = Gauge(
            "cardinal_queue_rows", "Rows waiting for an engine.", served, registry=self.registry
        )
        self.queue_device_seconds = Gauge(
            "cardinal_queue_device_seconds",
            "Device time that the waiting rows will take: the signal to scale on.",
            served,
            registry=self.registry,
        )
        self.coalesced_images = Counter(
            "cardinal_coalesced_images",
            "Images that were answered with another one of the same bytes, which was being answered already.",
            served,
            registry=self.registry,
        )
        self.cache_hits = Counter(
            "cardinal_cache_hits",
            "Images whose answer was looked for in the cache and found.",
            served,
            registry=self.registry,
        )
        self.cache_misses = Counter(
            "cardinal_cache_misses",
            "Images whose answer was looked for in the cache and not found.",
            served,
            registry=self.registry,
        )
        self.cache_evictions = Counter(
            "cardinal_cache_evictions",
            "Answers that the cache forgot to make room.",
            registry=self.registry,
        )
        self.cache_bytes = Gauge(
            "cardinal_cache_bytes", "Memory of the answers in the cache.", registry=self.registry
        )
        self.engine_restarts = Counter(
            "cardinal_engine_restarts",
            "Engine processes started again after a fault.",
            (*served, "device"),
            registry=self.registry,
        )
        self.engine_ready = Gauge(
            "cardinal_engine_ready",
            "1 while the engine on this device can take a batch.",
            (*served, "device"),
            registry=self.registry,
        )
        self.fallovers = Counter(
            "cardinal_fallovers",
            "Times that a model fell over to the CPU, since all of its NPUs had failed.",
            served,
            registry=self.registry,
        )
        self.model_ready = Gauge(
            "cardinal_model_ready", "1 while the model answers requests.", served, registry=self.registry
        )
        self.model_info = Gauge(
            "cardinal_model_info",
            "1 for each model that was loaded, with what runs it.",
            (*served, "network", "engine", "untrained"),
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
