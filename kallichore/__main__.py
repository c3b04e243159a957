"""``python -m kallichore`` is the server, as ``kcserver`` is."""

from __future__ import annotations

import sys

from kallichore.cli.kcserver import main

if __name__ == "__main__":
    sys.exit(main())
