"""Defects found in review: each test names a promise of the core that it breaks."""
