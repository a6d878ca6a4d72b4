"""``python -m gateway.cli``: the ``turnout`` command of this very interpreter."""

from __future__ import annotations

from gateway.cli.entry import main

if __name__ == "__main__":
    main()
