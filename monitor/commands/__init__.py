"""What each command does; ``monitor/cli.py`` only declares them. Every function returns the exit code."""
