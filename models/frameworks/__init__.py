"""The networks in training frameworks: description and weights <-> a module that can be trained.

Each module here imports its framework, and is imported only where that is installed.
"""
