"""Batching: many small requests become few large engine calls. plan.py decides, queue.py carries it out."""

from service.batching.queue import BatchQueue, QueueAnswer, QueuePolicy

__all__ = ["BatchQueue", "QueueAnswer", "QueuePolicy"]
