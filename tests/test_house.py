"""The house picture, checked: arrows between modules, one dependency list, notebooks never imported."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fvlfp"

#: part -> parts of fvlfp it may import; `errors` and the package itself (its version) are open to all.
MAY_IMPORT = {
    "errors": set(),
    "values": set(),
    "metrics": set(),
    "methods": set(),
    "output_folder": set(),
    "toml": set(),
    "options": {"methods"},
    "config": {"methods", "options", "toml"},
    "cdfp": set(),
    "dsop": set(),
    "fpf": set(),
    "robust": set(),
    "peers": {"robust"},
    "suppression": set(),
    "arrays": set(),
    "files": set(),
    "kernel": set(),
    "baselines": {"dsop", "metrics"},
    "data": {"arrays", "values", "files", "toml"},
    "clip": {"arrays", "config", "files"},
    "training": {
        *(
            "config",
            "options",
            "data",
            "clip",
            "cdfp",
            "dsop",
            "fpf",
            "peers",
            "suppression",
            "baselines",
            "metrics",
        ),
    },
    "federation": {"config", "options", "files", "training", "dsop", "fpf", "peers", "robust", "baselines"},
    "audit": {"values", "kernel", "metrics", "output_folder"},
    "runs": {
        *(
            "arrays",
            "config",
            "files",
            "output_folder",
            "data",
            "clip",
            "dsop",
            "fpf",
            "baselines",
            "training",
            "metrics",
        ),
        *("federation", "audit"),
    },
    "course": {
        *("clip", "config", "files", "kernel", "output_folder", "runs", "toml"),
        *(
            "cdfp",
            "dsop",
            "fpf",
            "peers",
            "robust",
            "suppression",
            "metrics",
            "data",
            "audit",
        ),  # graded steps: references
    },
    "exits": set(),
    "console": {"files", "output_folder"},
    "cli_encode": {"clip", "data", "runs", "exits"},
    "cli_runs": {"data", "runs", "exits", "console", "output_folder"},
    "cli_course": {"config", "course", "exits", "console"},
    "cli": {
        *("config", "data", "clip", "audit", "runs", "exits", "console", "output_folder"),
        *("cli_encode", "cli_runs", "cli_course"),
    },
}
#: heavy packages -> the parts that may import them
HEAVY = {
    "flwr": {"federation", "runs"},
    "torch": {
        *("clip", "cdfp", "dsop", "suppression", "baselines", "training", "federation", "runs", "course"),
    },
    "open_clip": {"clip"},
    "safetensors": {"clip", "federation", "runs"},
}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names}
                if node.module == "fvlfp"
                else {node.module or ""}
            )
    return found


MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE
)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows(path):
    part = part_of(path)
    assert part in MAY_IMPORT, f"a new part of the house: say in this test what {part} may import"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "fvlfp" and rest and rest != "__version__":
            target = rest.split(".")[0]
            assert target in MAY_IMPORT[part] | {part, "errors"}, f"{part} must not import {name}"
        if top in HEAVY:
            assert part in HEAVY[top], f"{part} must not import {top}"
        assert top not in ("notebooks", "tests", "pickle"), f"{part} imports {top}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_are_documented(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is for"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


#: functions that are still longer than the limit; nothing may be added
STILL_LONG = {"audit_retrieval", "leakage", "load"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_functions_are_short(path):
    """60 lines at most, docstring included; most have fewer than 40."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name not in STILL_LONG:
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"


def test_conda_and_pip_lists_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    lines = (ROOT / "environment.yml").read_text().splitlines()
    start = lines.index("  - pip:")
    listed = [line.strip().removeprefix("- ").strip('"') for line in lines[start + 1 :] if line.strip()]
    assert listed == ["-e .", *wanted]


def test_a_clean_import_is_light():
    code = (
        "import fvlfp, fvlfp.config, sys; print(*{'torch', 'flwr', 'open_clip', 'pandas'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_a_lesson_starts_without_what_it_may_never_use():
    """Each of these takes a tenth of a second to several seconds of the first cell."""
    late = (
        "{'torchvision', 'open_clip', 'seaborn', 'sklearn', 'fairlearn', 'torch._dynamo', 'scipy.optimize',"
        " 'scipy.special', 'flwr', 'jinja2'}"
    )
    names = "from fvlfp import Config, prepare, train, predict; from fvlfp.audit import audit, compare"
    code = f"{names}; import sys; print(*{late} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_the_audit_needs_no_torch():
    code = "import fvlfp.audit, sys; print(*{'torch', 'flwr', 'open_clip'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_every_public_name_is_there():
    import fvlfp

    for name in fvlfp.__all__:
        assert getattr(fvlfp, name) is not None


def test_the_house_picture_names_every_part():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = text.split("```")[1]
    for path in PACKAGE.iterdir():
        if path.suffix == ".py" and path.name != "__init__.py":
            assert f" {path.name} " in picture.replace("\n", " \n "), (
                f"{path.name} is not in the house picture"
            )
        elif (path / "__init__.py").is_file():
            assert f" {path.name}/ " in picture, path.name
    for name in set(re.findall(r"`((?:fvlfp|tests|notebooks|data_prep|benchmarks)/[a-z_/.0-9]+)`", text)):
        assert (ROOT / name).exists(), f"CONTRIBUTING.md speaks of {name}"


def test_no_module_name_is_used_twice():
    names = [path.stem for path in MODULES if path.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))


def test_parts_form_no_circle():
    """Follow the arrows that `test_arrows` admits: no part is reached from itself."""

    def reached(part: str, seen: frozenset[str] = frozenset()) -> set[str]:
        assert part not in seen, f"a circle through {part}"
        return set().union(*({to} | reached(to, seen | {part}) for to in MAY_IMPORT[part]))

    for part in MAY_IMPORT:
        reached(part)


def test_the_version_stands_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "fvlfp.__version__"}
    version = __import__("fvlfp").__version__
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert newest and newest[1] == version


def test_the_workflow_calls_targets_that_exist():
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    called = set(re.findall(r"run: make ([a-z-]+)", (ROOT / ".github/workflows/ci.yml").read_text()))
    assert called and called <= made


def test_whatever_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for names in project.get("optional-dependencies", {}).values() for name in names]
    wanted = project["dependencies"] + extras
    declared = {re.split(r"[<>=\[; ]", name)[0].lower().replace("-", "_") for name in wanted}
    module = {"open_clip_torch": "open_clip", "scikit_learn": "sklearn", "pillow": "PIL"}
    known = {module.get(name, name) for name in declared} | set(sys.stdlib_module_names)
    known |= {"fvlfp", "deploy", "data_prep", "benchmarks", "IPython"}  # IPython comes with ipykernel
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "deploy").glob("*.py"), *(ROOT / "data_prep").glob("*.py")]:
        unknown = {name.split(".")[0] for name in imports(path)} - known
        assert not unknown, f"{path} imports {unknown}, which pyproject.toml does not declare"
