"""Cardinal: serves image classification on Ascend NPUs, and on any CPU, over HTTP and gRPC."""

__version__ = "0.1.0"
