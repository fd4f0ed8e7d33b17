"""The engine process. Its files are run as a script, not imported, but for wire.py, which both sides share."""
