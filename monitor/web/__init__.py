"""What people and machines look at: the HTTP API, the live stream, the page and ``/metrics``.

Everything here reads a ``Hub`` that the shell publishes into; nothing here calls back into the core.
"""
