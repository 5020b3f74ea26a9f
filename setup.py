"""What pyproject.toml cannot say: the folder `notebooks` is installed as `fvlfp/course/lessons`."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["fvlfp*"]), "fvlfp.course.lessons"],
    package_dir={"fvlfp.course.lessons": "notebooks"},
)
