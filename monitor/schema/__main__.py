"""Rewrite the schema files: ``python -m monitor.schema``."""

from __future__ import annotations

from monitor.schema import FOLDER, write_schemas

if __name__ == "__main__":
    write_schemas(FOLDER)
