"""The core (margin, clusters, cascades: pure and synchronous) and the one place that wires everything together."""
