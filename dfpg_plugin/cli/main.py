"""Start the command by ``python -m dfpg_plugin.cli.main``, as launchers of version 0.1 do. The command is dfpg_cli."""

import sys

from dfpg_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
