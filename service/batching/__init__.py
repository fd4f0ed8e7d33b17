"""From many small requests to few large engine calls: the envelope, the plan, and the queue that follows it."""

from service.batching.envelope import Envelope
from service.batching.queue import BatchQueue, QueueAnswer, QueuePolicy, Urgency
from service.batching.scheduler import Bounds, Demanded
from service.batching.tuning import Tuning

__all__ = ["BatchQueue", "Bounds", "Demanded", "Envelope", "QueueAnswer", "QueuePolicy", "Tuning", "Urgency"]
