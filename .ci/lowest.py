"""Print the lowest versions that pyproject.toml declares, as pip's pins; torch apart.

Old wheels of torch bring gigabytes of CUDA, so CI tests with the torch that it has.
"""

import re

import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
for requirement in project["dependencies"]:
    name, floor = re.fullmatch(r"([\w-]+)>=([\w.]+).*", requirement).groups()
    if name != "torch":
        print(f"{name}=={floor}")  # noqa: T201
