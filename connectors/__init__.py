"""The world comes in: bytes become frames, frames become events. Knows venues; knows nothing of margin."""
