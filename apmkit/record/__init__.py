"""The hot path: spans of the open trace, sampling, metric series, propagation.

Everything here runs on the application's own stack: memory only, no lock, no I/O, no logging.
"""
