"""`python -m llmjax`: the `llmjax` command."""

import sys

from llmjax.cli import main

if __name__ == "__main__":
    sys.exit(main())
