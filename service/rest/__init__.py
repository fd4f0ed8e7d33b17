"""The REST door: wire -> request, answer -> wire, error -> status. Nothing more."""

from service.rest.app import RestDoor, build_app
from service.rest.control import build_control_app
from service.rest.listener import HttpListener

__all__ = ["HttpListener", "RestDoor", "build_app", "build_control_app"]
