"""The house rules, read off the source.

Who may import whom, what stays light, how long a file may be, no pickles, the paper's map.
"""

import ast
import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE, PAGES, UI = (sorted((ROOT / name).rglob("*.py")) for name in ("core", "pages", "ui"))
SHIPPED = [
    *CORE,
    *PAGES,
    *UI,
    *sorted((ROOT / "benchmarks").glob("*.py")),
    *sorted(ROOT.glob("*.py")),
]
EVERY = [*SHIPPED, *sorted((ROOT / "tests").rglob("*.py"))]

GROUND = {"files", "paper", "config"}  # what every package of core may import
BELOW = {  # part of core -> other parts that it may import; inside a package there is no cycle
    "files": set(),
    "paper": set(),
    "config": {"paper"},
    "runs": GROUND,
    "media": {*GROUND, "runs"},
    "models": {*GROUND, "runs"},
    "conformal": {*GROUND, "runs"},
    "data": {*GROUND, "runs", "media"},
    "evaluation": {*GROUND, "runs", "data", "media", "models", "conformal"},
    "experiments": {*GROUND, "runs", "data", "media", "models", "conformal", "evaluation"},
    "inference": {*GROUND, "runs", "data", "media", "models", "conformal", "evaluation"},
}
RAY = ROOT / "core" / "experiments" / "ray_cluster"  # the only package that imports Ray
WITHOUT_TORCH = [  # so that pages open at once
    *(
        "files",
        "config.settings",
        "config.presets",
        "config.serialisation",
        "paper.equations",
        "paper.published",
        "runs.directory",
        "runs.store",
        "conformal.prediction",
        "conformal.validity",
        "conformal.analysis",
    ),
    *("evaluation.protocol", "experiments.jobs"),
]
# packages that these modules may import, together with every module of core that they import
ONLY = {
    "config/settings": set(),
    "config/serialisation": set(),
    "config/presets": set(),
    "paper/published": set(),
    "paper/equations": set(),
    "files": {"numpy"},
    "runs/store": {"numpy"},
    "conformal/prediction": {"numpy"},
    "conformal/validity": {"numpy", "scipy"},
    "evaluation/metrics": {"numpy"},
    **{
        str(p.relative_to(ROOT / "core").with_suffix("")): {"numpy", "torch", "safetensors"}
        for p in (ROOT / "core" / "models").rglob("*.py")
    },
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def for_each(paths):
    """Makes one test of a test of one file: it runs it for all and names every file that fails."""

    def over_all(test):
        def test_all():
            faults = []
            for path in paths:
                try:
                    test(path)
                except AssertionError as e:
                    faults.append(f"{name(path)}: {e}")
            assert faults == [], "\n".join(faults)

        return test_all

    return over_all


@functools.cache
def imported(path: Path, *, lazy: bool = True) -> frozenset[str]:
    """Modules a file imports, dotted in full for the project's own.

    Without `lazy` only those loaded with the file itself.
    """

    def walk(node):
        for child in ast.iter_child_nodes(node):
            if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if (
                not lazy
                and isinstance(child, ast.If)
                and "TYPE_CHECKING" in ast.unparse(child.test)
            ):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            if isinstance(child, ast.ImportFrom):
                assert not child.level, f"{path}: write the whole name of the package"
                for alias in child.names:
                    inside = f"{child.module}.{alias.name}"
                    yield inside if is_module(inside) else child.module
            yield from walk(child)

    return frozenset(m if m.split(".")[0] in OURS else m.split(".")[0] for m in walk(tree(path)))


OURS = ("core", "ui", "pages", "app")


@functools.cache
def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def source(module: str) -> Path:
    place = ROOT.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def reached(path: Path, *, lazy: bool) -> set[str]:
    """What a file imports, and what the project's modules that it imports do, and so on."""
    seen: set[str] = set()
    todo = set(imported(path, lazy=lazy))
    while todo:
        module = todo.pop()
        seen.add(module)
        if module.split(".")[0] in OURS and source(module).is_file():
            todo |= imported(source(module), lazy=lazy) - seen
    return seen


def packages(modules: set[str]) -> set[str]:
    """Those that are neither the project's nor the standard library's."""
    return {m for m in modules if m.split(".")[0] not in OURS and m not in sys.stdlib_module_names}


def test_the_reader_of_imports_sees_every_form(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "import numpy.linalg\nfrom core.config import settings\nfrom core.models import gan\n"
        "from core.runs.directory import Run\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import g\ndef f():\n    from torch import nn\n"
        "    from core.data.labels import x\n"
    )
    now = {"numpy", "core.config.settings", "core.models.gan", "core.runs.directory", "typing"}
    assert imported(file, lazy=False) == now
    assert imported(file) == now | {"g", "torch", "core.data.labels"}


@for_each(CORE)
def test_core_imports_only_what_lies_below(path):
    here = path.relative_to(ROOT / "core").with_suffix("").parts[0]
    may = {here, *BELOW.get(here, (*BELOW, "cli"))}  # the command line imports all
    found = {m.split(".")[1] for m in imported(path) if m.startswith("core.")}
    assert found <= may, f"{here} may not import {sorted(found - may)}"
    assert not {"streamlit", "ui", "pages", "app"} & {m.split(".")[0] for m in imported(path)}
    assert "ray" not in imported(path) or path.parent == RAY
    if path.stem == "__init__":
        assert imported(path) == set()


@pytest.mark.parametrize("top", [*BELOW, "cli", "ui"])
def test_modules_of_a_package_form_no_cycle(top):
    folder = ROOT / ("ui" if top == "ui" else f"core/{top}")
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in folder.rglob("*.py")}
    left = {m: imported(p) & set(names) for m, p in names.items()}
    while free := [m for m, needs in left.items() if not needs & set(left)]:
        left = {m: needs for m, needs in left.items() if m not in free}
    assert left == {}


@for_each([*UI, *PAGES])
def test_pages_stand_on_their_own_parts_and_these_on_widgets_and_session(path):
    layers = (
        "session",
        "widgets",
    )  # what comes first is imported by what comes later, and by every page's own parts
    found = {m for m in imported(path) if m.split(".")[0] in OURS}
    assert not {m for m in found if m.split(".")[0] in ("pages", "app") or m == "core.__main__"}
    here = path.relative_to(ROOT).with_suffix("").parts[1]
    if here in layers:
        assert {m.split(".")[1] for m in found if m.startswith("ui.")} <= {
            "theme",
            *layers[: layers.index(here) + 1],
        }


@for_each(PAGES)
def test_a_page_never_loads_torch(path):
    assert "torch" not in imported(path)
    assert "torch" not in reached(path, lazy=False)


@for_each([*PAGES, *ROOT.glob("router.py")])
def test_caches_live_in_ui(path):
    assert re.findall(r"cache_(?:data|resource)\b", path.read_text()) == []


@pytest.mark.parametrize("module", ONLY)
def test_light_modules_stay_light(module):
    assert packages(reached(ROOT / "core" / f"{module}.py", lazy=True)) <= ONLY[module]


def test_pages_open_without_torch():
    """Loads them in a process of its own, one after the other, so that the first that brings torch
    in is named.
    """
    modules = [f"core.{m}" for m in WITHOUT_TORCH]
    script = (
        "import importlib, sys\nfor m in sys.argv[1:]:\n    importlib.import_module(m)\n"
        "    assert 'torch' not in sys.modules, m"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, *modules], cwd=ROOT, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr


@for_each(EVERY)
def test_no_file_holds_two_ideas(path):
    lines = len(path.read_text().splitlines())
    most = 220 if path in PAGES else 420 if path in SHIPPED else 560
    assert lines <= most, f"{name(path)} has {lines} lines, more than {most}: split it by idea"


@for_each([*CORE, *UI, *PAGES])
def test_a_function_fits_on_a_screen(path):
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    most = {name: n for name, n in long.items() if n > 60}
    if name(path) == "core/models/gan.py":
        most.pop("step", None)  # one step of G and D stands whole
    assert most == {}


def test_a_package_holds_at_most_eight_modules():
    folders = {p.parent for p in [*CORE, *UI]} - {ROOT / "core", ROOT / "ui"}
    counts = {name(f): len([p for p in f.glob("*.py") if p.stem != "__init__"]) for f in folders}
    assert {f: n for f, n in counts.items() if n > 8} == {}


@for_each([*CORE, *UI, *PAGES])
def test_nobody_uses_the_private_names_of_another_module(path):
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS
        for alias in node.names
        if is_module(f"{node.module}.{alias.name}")
    }
    used = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in aliases
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
    }
    assert used == set()


@for_each(sorted((ROOT / "tests").rglob("test_*.py")))
def test_no_test_imports_another_test(path):
    found = {m for m in imported(path, lazy=True) if m.split(".")[-1].startswith("test_")}
    modules = {
        f"{n.module}.{a.name}"
        for n in ast.walk(tree(path))
        if isinstance(n, ast.ImportFrom) and n.module
        for a in n.names
    }
    assert not found | {m for m in modules if ".test_" in m}


@for_each(SHIPPED)
def test_no_pickle_is_ever_loaded(path):
    faults = []
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        called, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        if re.search(
            r"\b(pickle|cPickle|dill|cloudpickle|joblib|shelve|marshal)\.(load|loads|open|Unpickler)$|\bread_pickle$",
            called,
        ):
            faults.append((node.lineno, called))
        if called == "torch.load" and given.get("weights_only") != "True":
            faults.append((node.lineno, "torch.load without weights_only=True"))
        if given.get("allow_pickle", "False") != "False":
            faults.append((node.lineno, "allow_pickle"))
    assert faults == []


def entries():
    """The map of the paper: whatever in core.paper.equations has a tag and a function."""
    values = vars(importlib.import_module("core.paper.equations")).values()
    lists = [
        list(v.values()) if isinstance(v, dict) else v
        for v in values
        if isinstance(v, tuple | list | dict)
    ]
    return [e for v in lists for e in v if hasattr(e, "tag") and hasattr(e, "function")]


@pytest.mark.parametrize("entry", entries(), ids=lambda e: e.tag)
def test_every_entry_of_the_map_resolves(entry):
    functions = [f for f in re.split(r"[,\s]+", entry.function or "") if f]
    assert functions or "Eq" not in entry.tag
    for function in functions:
        module, _, attributes = function.partition(":")
        found = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)


@pytest.mark.parametrize("n", range(1, 12))
def test_every_equation_is_named_where_it_is_computed(n):
    texts = [p.read_text() for p in CORE if p.name != "paper.py"]
    named = re.compile(rf"\bEqs?\.? [(),\d and]*\({n}\)")  # "Eq. (2)", "Eqs (1), (2) and (3)"
    assert any(named.search(text) for text in texts), f"no docstring in core names Eq. ({n})"
