# SPDX-License-Identifier: GPL-2.0-or-later
"""What `./inv` starts, with Python's -I: finds our packages and runs the command line.

With -I neither PYTHON* nor the current folder has a say in what is imported.
"""

import sys
from pathlib import Path

# our packages, whatever the current directory has (a kernel tree has a folder kernel, too)
if not sys.flags.safe_path:  # started by hand, without -I
    del sys.path[0]
sys.path.insert(0, str(Path(__file__).parent.parent))

from blockyard.ci.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
