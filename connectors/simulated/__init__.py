"""A self-made exchange with its own matching, margin and liquidation engine, speaking Hyperliquid's protocol over loopback.

It shares no code with the monitor, so that what it does to its accounts is a check of what the monitor said it would do. Read
``markets.py``, ``accounts.py``, ``book.py``, then ``exchange.py``, ``liquidation.py`` and ``simulation.py``.
"""
