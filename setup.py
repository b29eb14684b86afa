"""What an installation holds and asks for: a wheel reads HLO text and is light, an editable clone has all.

A clone has its jobs at its top, where `python launch.py --config=configs/JOB.py` finds them. A wheel has them under
`llmjax/home/`: `configs` and `experiments` are names that other people's folders have too.
"""

import os

from setuptools import find_namespace_packages, find_packages, setup

CLONE = "LLMJAX_CLONE" in os.environ
JOBS = () if CLONE else tuple(find_namespace_packages(include=("configs*", "experiments*")))

setup(
    packages=[*find_packages(include=("llmjax*",)), *(f"llmjax.home.{job}" for job in JOBS)],
    package_dir={f"llmjax.home.{job}": job.replace(".", "/") for job in JOBS},
    install_requires=["jinja2>=3.1,<4", "rich>=14", *(["llmjax[models,report]"] if CLONE else [])],
)
