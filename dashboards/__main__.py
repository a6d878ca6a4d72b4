"""``python -m dashboards``: writes config/grafana anew, and says what changed."""

from __future__ import annotations

import sys

from dashboards.generate import FOLDER, files


def main() -> int:
    for name, text in files().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        changed = not path.exists() or path.read_text(encoding="utf-8") != text
        if changed:
            path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{'written  ' if changed else 'unchanged'} {path.relative_to(FOLDER.parent.parent)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
