"""The trained weights that ship with the package: `manifest.json` and the files it names."""

__all__: list[str] = []
