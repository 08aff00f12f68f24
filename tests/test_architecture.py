"""Laws of the whole tree: who may import whom, what is public, what `import codec` costs."""

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import codec

ROOT = Path(__file__).parent.parent
PARTS = ("bitstream", "datasets", "entropy", "models")

# What stands right of a part's name is all it may import of this package.
MAY_IMPORT = {
    "bitstream": {"bitstream", "errors"},
    "datasets": {"datasets", "errors", "gaussians", "cameras", "io"},
    "entropy": {"entropy", "errors"},
    "models": {"models", "entropy", "errors", "gaussians", "cameras"},
}

SOURCES = sorted(
    path
    for folder in (*PARTS, "codec", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if not any(ROOT / "codec" / part in path.parents for part in PARTS)  # links to the parts
)
MODULES = ["codec"]
for found in pkgutil.walk_packages(codec.__path__, "codec."):
    if not found.name.endswith(".__main__"):  # it runs the command
        MODULES.append(found.name)


def imported(path):
    """Absolute names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ids(path):
    return str(path.relative_to(ROOT))


def test_every_folder_is_looked_at():
    folders = {path.relative_to(ROOT).parts[0] for path in SOURCES}
    assert folders >= {*PARTS, "codec", "tests"}
    assert len(MODULES) > len(PARTS)


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_imports_point_down(path):
    part = path.relative_to(ROOT).parts[0]
    if part in MAY_IMPORT:
        ours = {name.split(".")[1] for name in imported(path) if name.startswith("codec.")}
        assert ours <= MAY_IMPORT[part]
        assert "codec" not in {name for name in imported(path) if name.count(".") == 0}


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_nobody_imports_a_part_by_its_bare_folder_name(path):
    # It would load a second copy of the module, with classes that are not the same.
    assert not {name for name in imported(path) if name.split(".")[0] in PARTS}


CONNECT = {"ftplib", "http", "httpx", "requests", "smtplib", "socket", "ssl", "urllib", "urllib3"}
UNPICKLE = {"dill", "joblib", "marshal", "pickle", "shelve"}


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_the_package_connects_to_nothing_and_unpickles_nothing(path):
    if path.relative_to(ROOT).parts[0] in ("benchmarks", "tests"):
        return
    assert not {name.split(".")[0] for name in imported(path)} & (CONNECT | UNPICKLE)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert "weights_only=True" in ast.unparse(node)


@pytest.mark.parametrize("name", MODULES)
def test_all_is_the_truth(name):
    module = importlib.import_module(name)
    source = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    offered = set(getattr(module, "__all__", ()))
    assert all(hasattr(module, public) for public in offered)
    public = {name for name in defined(source) if not name.startswith("_")}
    if Path(module.__file__).name == "__init__.py":
        # A package offers what it imports from itself, besides what it defines.
        assert public | set(offered_from_below(source)) <= offered
    else:
        assert public <= offered
        assert not offered & set(offered_from_below(source))


def defined(source):
    """Functions and classes that a module defines at its top level."""
    for node in source.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


def offered_from_below(source):
    """Names that a module imports from this package at its top level."""
    for node in source.body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("codec."):
            yield from (alias.asname or alias.name for alias in node.names)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", ["codec", "codec.bitstream", "codec.errors"])
def test_importing_it_loads_neither_torch_nor_numpy(name):
    program = f"import sys, {name}; print(*sorted({{'torch', 'numpy'}} & sys.modules.keys()))"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == ""


def test_every_module_says_what_it_is():
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] != "tests":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
