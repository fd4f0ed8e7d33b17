"""Simulates a queue for capacity planning, as `cardinal simulate` prints and draws it. Not part of the server."""
