"""What setup.cfg cannot say: the experiments lie beside the package and travel inside it."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["jmrec*"]), "jmrec.experiments", "jmrec.experiments.data"],
    package_dir={"jmrec.experiments": "experiments"},
)
