"""The packages of the wheel: what lies in zflib/, and the files of data/ as zflib.shipped. All else: pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["zflib*"]), "zflib.shipped"], package_dir={"zflib.shipped": "data"})
