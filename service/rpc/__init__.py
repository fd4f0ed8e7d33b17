"""The gRPC door: protobuf -> request, answer -> protobuf, error -> code. Nothing more."""

from service.rpc.classifier import Classifier
from service.rpc.server import RpcServer

__all__ = ["Classifier", "RpcServer"]
