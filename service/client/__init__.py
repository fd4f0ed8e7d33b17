"""The client SDK: classify pictures with a Cardinal server over gRPC. Imports nothing of the server.

>>> from service.client import Client
>>> with Client("127.0.0.1:8001") as client:  # doctest: +SKIP
...     answer = client.classify("photo.jpg", model="sknet50")
...     print(answer.best.label, answer.best.score)
"""

from service.client.client import AsyncClient, Client
from service.client.messages import Answer, CardinalError, Picture, ScoredClass

__all__ = ["Answer", "AsyncClient", "CardinalError", "Client", "Picture", "ScoredClass"]
