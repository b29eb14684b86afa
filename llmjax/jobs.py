"""Where the jobs of configs/ lie: in the clone that holds this package, or in the package as it was installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


def run_job(words: Sequence[str]) -> int:
    """Runs a job by its launch.py: `configs/JOB.py[:ARG]` and launch.py's flags. Returns the exit status."""
    package = Path(__file__).resolve().parent
    home = package.parent if (package.parent / "launch.py").is_file() else package / "home"
    sys.path.insert(0, str(home))
    if not (home / "launch.py").is_file():
        print(f"error: {home}: holds no launch.py: install llmjax again.", file=sys.stderr)
        return 2
    import launch

    named = [word for word in words if not word.startswith("-")][:1]
    rest = [word for word in words if word not in named]
    return launch.main(["llmjax run", *(f"--config={_config(name, home)}" for name in named), *rest])


def _config(name: str, home: Path) -> str:
    """Returns where a job's config is: as it was named, or among the jobs that lie with the package."""
    file = name.partition(":")[0]
    return name if Path(file).exists() or not (home / file).exists() else str(home / name)
