# SPDX-License-Identifier: GPL-2.0-or-later
"""Entry point of `./inv`: puts the checkout on sys.path and runs the command line.

`./inv` starts it with `python -I`, so PYTHON* and the current folder do not affect imports.
"""

import sys
from pathlib import Path

# the checkout comes first: the current folder may be a kernel tree, with a folder `kernel`
if not sys.flags.safe_path:  # started by hand, without -I
    del sys.path[0]
sys.path.insert(0, str(Path(__file__).parent.parent))

from blockyard.ci.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
