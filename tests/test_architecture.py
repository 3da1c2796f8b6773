"""The house rules, read off the source: who may import whom, what stays light, how long a file may be, no pickles, the paper's map."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE, PAGES, UI = (sorted((ROOT / name).glob("*.py")) for name in ("core", "pages", "ui"))
SHIPPED = [*CORE, *PAGES, *UI, *sorted((ROOT / "benchmarks").glob("*.py")), *sorted(ROOT.glob("*.py"))]
EVERY = [*SHIPPED, *sorted((ROOT / "tests").glob("*.py"))]

LINE = [  # a module of core may import those before it here, and no other; a new module takes its place here
    *("config", "paper"),
    *("clips", "apart", "faces", "tracking", "spectrograms", "convolutions", "networks", "losses", "conformal"),
    *("validity", "metrics", "runs", "laboratory"),
    *("drawing", "demo", "labels", "corpora", "probe", "inventory", "doctor"),
    *("datasets", "fetch", "cluster", "extraction", "prepare", "classifiers", "gan", "capture", "stacks", "protocol"),
    *("vocoder", "examples", "comparison"),
    *("evaluation", "augmentation", "mixing", "pipeline", "studio", "passage", "steering", "gallery", "browsing", "shipping", "voicing"),
    "audition",
    *("jobs", "errands", "sweep", "seat", "remote", "figures", "report", "commands", "experiments", "__main__"),
]
WITHOUT_TORCH = ["config", "paper", "conformal", "validity", "runs", "laboratory", "protocol", "jobs"]  # so that pages open at once
TRAINING = ["convolutions", "networks", "losses", "classifiers", "gan", "metrics", "runs"]  # runs on a bare GPU machine too
ONLY = {  # packages that these modules may import, together with every module of core that they import
    "config": set(),
    "paper": set(),
    "conformal": {"numpy"},
    "validity": {"numpy", "scipy"},
    **{module: {"numpy", "torch", "safetensors"} for module in TRAINING},
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path, *, lazy: bool = True) -> set[str]:
    """Modules a file imports, `core.x` for the project's own; without `lazy` only those loaded with the file itself."""

    def walk(node):
        for child in ast.iter_child_nodes(node):
            if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if not lazy and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            if isinstance(child, ast.ImportFrom):
                base = ".".join(filter(None, (path.parent.name if child.level else "", child.module)))
                yield from (f"{base}.{a.name}" for a in child.names) if base in ("core", "ui", "pages") else (base,)
            yield from walk(child)

    return {".".join(m.split(".")[:2]) if m.split(".")[0] in ("core", "ui", "pages") else m.split(".")[0] for m in walk(tree(path))}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def reached(path: Path, *, lazy: bool) -> set[str]:
    """What a file imports, and what the project's modules that it imports do, and so on."""
    seen: set[str] = set()
    todo = imported(path, lazy=lazy)
    while todo:
        module = todo.pop()
        seen.add(module)
        source = ROOT / (module.replace(".", "/") + ".py")
        if source.is_file() and module.split(".")[0] in ("core", "ui", "pages"):
            todo |= imported(source, lazy=lazy) - seen
    return seen


def packages(modules: set[str]) -> set[str]:
    """Those that are neither the project's nor the standard library's."""
    return {m for m in modules if m.split(".")[0] not in ("core", "ui", "pages") and m not in sys.stdlib_module_names}


def test_the_reader_of_imports_sees_every_form(tmp_path):
    (tmp_path / "core").mkdir()
    source = tmp_path / "core" / "x.py"
    source.write_text(
        "import numpy.linalg\nfrom . import a\nfrom .b import c\nfrom core import d\nimport core.e.f\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import g\ndef f():\n    from torch import nn\n    from core.h import i\n"
    )
    now = {"numpy", "core.a", "core.b", "core.d", "core.e", "typing"}
    assert imported(source, lazy=False) == now
    assert imported(source) == now | {"g", "torch", "core.h"}


@pytest.mark.parametrize("path", [p for p in CORE if p.name != "__init__.py"], ids=name)
def test_core_imports_only_what_stands_before_it(path):
    assert path.stem in LINE, f"give core/{path.name} its place in LINE (tests/test_architecture.py)"
    before = {f"core.{m}" for m in LINE[: LINE.index(path.stem)]}
    assert {m for m in imported(path) if m.split(".")[0] in ("core", "ui", "pages", "app", "streamlit")} <= before


def test_the_package_itself_imports_nothing_of_its_own():
    assert {m for m in imported(ROOT / "core" / "__init__.py") if m.startswith("core")} == set()


@pytest.mark.parametrize("path", [*UI, *PAGES], ids=name)
def test_ui_stands_below_pages_and_pages_beside_each_other(path):
    assert {m for m in imported(path) if m.split(".")[0] in ("pages", "app") or m in ("core.__main__",)} == set()


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_a_page_never_loads_torch(path):
    assert "torch" not in imported(path)
    assert "torch" not in reached(path, lazy=False)


@pytest.mark.parametrize("path", [*PAGES, *ROOT.glob("app.py")], ids=name)
def test_caches_live_in_ui(path):
    assert re.findall(r"cache_(?:data|resource)\b", path.read_text()) == []


@pytest.mark.parametrize("module", ONLY)
def test_light_modules_stay_light(module):
    path = ROOT / "core" / f"{module}.py"
    if not path.exists():
        pytest.skip(f"there is no core/{module}.py yet")
    assert packages(reached(path, lazy=True)) <= ONLY[module]


def test_pages_open_without_torch():
    """Loads them in a process of its own, one after the other, so that the first that brings torch in is named."""
    modules = [f"core.{m}" for m in WITHOUT_TORCH if (ROOT / "core" / f"{m}.py").exists()]
    script = "import importlib, sys\nfor m in sys.argv[1:]:\n    importlib.import_module(m)\n    assert 'torch' not in sys.modules, m"
    answer = subprocess.run([sys.executable, "-c", script, *modules], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("path", EVERY, ids=name)
def test_no_file_holds_two_ideas(path):
    lines, most = len(path.read_text().splitlines()), 180 if path in PAGES else 450
    assert lines <= most, f"{name(path)} has {lines} lines, more than {most}: split it by idea"


@pytest.mark.parametrize("path", SHIPPED, ids=name)
def test_no_pickle_is_ever_loaded(path):
    faults = []
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        called, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        if re.search(r"\b(pickle|cPickle|dill|cloudpickle|joblib|shelve|marshal)\.(load|loads|open|Unpickler)$|\bread_pickle$", called):
            faults.append((node.lineno, called))
        if called == "torch.load" and given.get("weights_only") != "True":
            faults.append((node.lineno, "torch.load without weights_only=True"))
        if given.get("allow_pickle", "False") != "False":
            faults.append((node.lineno, "allow_pickle"))
    assert faults == []


def entries():
    """The map of the paper: whatever in core.paper has a tag and a function."""
    if not (ROOT / "core" / "paper.py").exists():
        return []
    values = vars(importlib.import_module("core.paper")).values()
    lists = [list(v.values()) if isinstance(v, dict) else v for v in values if isinstance(v, tuple | list | dict)]
    return [e for v in lists for e in v if hasattr(e, "tag") and hasattr(e, "function")]


@pytest.mark.parametrize("entry", entries(), ids=lambda e: e.tag)
def test_every_entry_of_the_map_resolves(entry):
    functions = [f for f in re.split(r"[,\s]+", entry.function or "") if f]
    assert functions or "Eq" not in entry.tag
    for function in functions:
        module, *attributes = function.removeprefix("core.").replace(":", ".").split(".")
        found = importlib.import_module(f"core.{module}")
        for attribute in attributes:
            found = getattr(found, attribute)


@pytest.mark.parametrize("n", range(1, 12))
def test_every_equation_is_named_where_it_is_computed(n):
    if not entries():
        pytest.skip("there is no core/paper.py yet")
    texts = [p.read_text() for p in CORE if p.name != "paper.py"]
    named = re.compile(rf"\bEqs?\.? [(),\d and]*\({n}\)")  # "Eq. (2)", "Eqs (1), (2) and (3)"
    assert any(named.search(text) for text in texts), f"no docstring in core names Eq. ({n})"
