"""What an installation holds and asks for: a wheel reads HLO text and is light, an editable clone has all.

A clone has its jobs at its top, where `python launch.py --config=configs/JOB.py` finds them. A wheel has them under
`llmjax/home/`: `configs` and `experiments` are names that other people's folders have too.
"""

import os
import shutil
from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup
from setuptools.command.build_py import build_py

CLONE = "LLMJAX_CLONE" in os.environ
JOBS = () if CLONE else tuple(find_namespace_packages(include=("configs*", "experiments*")))


class Build(build_py):
    """Puts launch.py beside the jobs of a wheel: it is a module, and setuptools would put it at the top."""

    def run(self) -> None:
        super().run()
        if not CLONE:
            home = Path(self.build_lib) / "llmjax" / "home"
            home.mkdir(parents=True, exist_ok=True)
            shutil.copy("launch.py", home)


setup(
    cmdclass={"build_py": Build},
    packages=[*find_packages(include=("llmjax*",)), *(f"llmjax.home.{job}" for job in JOBS)],
    package_dir={f"llmjax.home.{job}": job.replace(".", "/") for job in JOBS},
    install_requires=["jinja2>=3.1,<4", "rich>=14", "shtab>=1.7,<2", *(["llmjax[models,report]"] if CLONE else [])],
)
