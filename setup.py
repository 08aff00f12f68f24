"""One import package, `codec`, whose four parts are top-level folders of this repository."""

from setuptools import find_packages, setup

PARTS = ("bitstream", "datasets", "entropy", "models")

packages = find_packages(
    include=["codec", "codec.io", "codec.training", "codec.zoo", "codec.benchmark"]
)
for part in PARTS:
    packages += [f"codec.{name}" for name in find_packages(include=[part, f"{part}.*"])]

setup(
    packages=packages,
    package_dir={f"codec.{part}": part for part in PARTS},
    package_data={
        "codec": ["py.typed"],
        "codec.benchmark": ["report.html"],
        "codec.zoo": ["manifest.json", "*.safetensors"],
    },
)
