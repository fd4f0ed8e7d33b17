"""From many small requests to few large engine calls: the envelope, the plan, and the queue that follows it."""

from service.batching.queue import BatchQueue, QueueAnswer, QueuePolicy, Urgency
from service.batching.scheduler import Bounds

__all__ = ["BatchQueue", "Bounds", "QueueAnswer", "QueuePolicy", "Urgency"]
