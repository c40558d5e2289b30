"""What the sources may not do: run text, a shell or a pickle, unpack archives, trust remote code, ask unknown servers.

They are read as Python reads them, with imports resolved, so that another name for a function hides nothing. Hostile
input is handed to the doors themselves in test_security.py; book/threats.md says why.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]

# What the sources say ---------------------------------------------------------------------------------------------

RULES: dict[str, tuple[str, ...]] = {
    "runs text as code": ("eval", "exec", "compile", "__import__", "code.interact", "runpy.run_path", "torch.hub.load"),
    "runs a shell": ("os.system", "os.popen", "pty.spawn", "subprocess.getoutput", "subprocess.getstatusoutput")
    + ("asyncio.create_subprocess_shell",),
    "reads a pickle": ("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads")
    + ("shelve.open", "joblib.load", "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads")
    + ("pandas.read_pickle", "torch.jit.load", "torch.serialization.load"),
    "writes a pickle": ("pickle.dump", "pickle.dumps", "pickle.Pickler", "joblib.dump", "torch.save"),
    "unpacks an archive": ("shutil.unpack_archive", "tarfile.open", "tarfile.TarFile"),
    "reads YAML that may make objects": ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load")
    + ("yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader"),
    "names a temporary file before it makes it": ("tempfile.mktemp",),
    "trusts any server": ("ssl._create_unverified_context", "ssl.CERT_NONE"),
}
"""By what it does, the names that do it. A loader that runs code unless told not to stands in `NEEDS` instead."""

NEEDS = {"torch.load": "weights_only", "torch.hub.load_state_dict_from_url": "weights_only"}
"""Calls that must say `...=True`, themselves or in the dictionary of options that they are given."""

FORBIDDEN = {
    "shell": ("runs a shell", (False,)),
    "trust_remote_code": ("trusts remote code", (False,)),
    "allow_pickle": ("reads a pickle", (False,)),
    "weights_only": ("reads a pickle", (True,)),
    "check_hash": ("trusts any server", (True,)),
}
"""Keywords and keys of options: the rule, and the values that keep it."""

UNPACKING = ("extract", "extractall")
"""Methods of archives: whatever they are called on, the library has no use for them."""

_CHAPTER, _CHANGES = "notebooks/20_published.ipynb", "book/changes.md"
ALLOWED = {
    ("clasp_lib/speaking.py", "writes a pickle", "pickle.dumps"): "for its digest; nobody reads it",
    ("clasp_lib/paper_tiny/files.py", "writes a pickle", "torch.save"): "stands in for what is published as a pickle",
    ("clasp_lib/paper_tiny/fusions.py", "writes a pickle", "torch.save"): "the same",
    ("book/_ext/docstrings.py", "runs text as code", "exec"): "imports of this library, from its own syntax tree",
    ("book/_ext/docstrings.py", "runs text as code", "compile"): "the same",
    (_CHAPTER, "runs text as code", "exec"): "what a pickle may ask for, shown and refused",
    (_CHAPTER, "runs text as code", "eval"): "the same",
    (_CHAPTER, "writes a pickle", "pickle.dumps"): "the same",
    (_CHAPTER, "writes a pickle", "torch.save"): "the same",
    (_CHAPTER, "reads a pickle", "pickle.loads"): "one that the chapter has just made, to show that it acts",
    (_CHANGES, "runs text as code", "exec"): "what a pickle may ask for, refused by the converter",
    (_CHANGES, "writes a pickle", "torch.save"): "the same",
}
"""What breaks a rule and does no harm: the file, the rule, by what; and why."""


class Finding(NamedTuple):
    """A rule that a line breaks, and by what."""

    rule: str
    line: int
    what: str


def scan(code: str) -> list[Finding]:
    """What a piece of Python does that the rules are about."""
    tree = ast.parse(code)
    names = _imported(tree)
    options = _dictionaries(tree)
    banned = {name: rule for rule, known in RULES.items() for name in known}
    found = []
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*":
                    found.append(Finding("hides its names", line, f"from {node.module} import *"))
        elif isinstance(node, ast.Name | ast.Attribute):
            if rule := banned.get(_dotted(node, names) or ""):
                found.append(Finding(rule, line, _dotted(node, names) or ""))
            if isinstance(node, ast.Attribute) and node.attr in UNPACKING:
                found.append(Finding("unpacks an archive", line, f".{node.attr}"))
        elif isinstance(node, ast.Call):
            found += _called(node, names, options, banned, line)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    found += _given(key.value, value, line)
    return sorted(set(found), key=lambda finding: finding.line)


def _imported(tree: ast.AST) -> dict[str, str]:
    """What each name that an import makes stands for, wherever the import is."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    names[alias.asname] = alias.name
                else:
                    names[alias.name.partition(".")[0]] = alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _dotted(node: ast.AST, names: dict[str, str]) -> str | None:
    """`t.load` as "torch.load"."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value, names)
        return before and f"{before}.{node.attr}"
    return None


def _dictionaries(tree: ast.AST) -> dict[str, list[ast.Dict]]:
    """Dictionaries that are written out and given a name; of `a, b = 1, {...}` too."""
    found: dict[str, list[ast.Dict]] = {}
    for node in ast.walk(tree):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            for name, value in pairs:
                if isinstance(name, ast.Name) and isinstance(value, ast.Dict):
                    found.setdefault(name.id, []).append(value)
    return found


def _called(
    node: ast.Call, names: dict[str, str], options: dict[str, list[ast.Dict]], banned: dict[str, str], line: int
) -> list[Finding]:
    """What is wrong with the arguments of a call."""
    called, found = _dotted(node.func, names), []
    for keyword in node.keywords:
        if keyword.arg:
            found += _given(keyword.arg, keyword.value, line)
    if called == "getattr" and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
        hidden = f"{_dotted(node.args[0], names)}.{node.args[1].value}"
        if hidden in NEEDS or hidden in banned:
            found.append(Finding(banned.get(hidden, "reads a pickle"), line, hidden))
    if needed := NEEDS.get(called or ""):
        starred = [k.value.id for k in node.keywords if k.arg is None and isinstance(k.value, ast.Name)]
        written = [each for name in starred for each in options.get(name, [])]
        keys = [key.value for each in written for key in each.keys if isinstance(key, ast.Constant)]
        if needed not in [keyword.arg for keyword in node.keywords] + keys:
            found.append(Finding("reads a pickle", line, str(called)))
    return found


def _given(name: str, value: ast.AST, line: int) -> list[Finding]:
    """A keyword or key, and what it is given."""
    rule, allowed = FORBIDDEN.get(name, ("", ()))
    if not rule:
        return []
    is_right = isinstance(value, ast.Constant) and any(value.value is right for right in allowed)
    return [] if is_right else [Finding(rule, line, f"{name}={ast.unparse(value)}")]


def sources() -> dict[str, str]:
    """All Python that ships, builds the book, or stands in it: files, chapters and the cells of pages."""
    found: dict[str, str] = {}
    for folder in ("clasp_lib", "book", "benchmarks", "notebooks/coursework"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            found[path.relative_to(ROOT).as_posix()] = path.read_text("utf-8")
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        found[path.relative_to(ROOT).as_posix()] = "\n\n".join(c.source for c in cells if c.cell_type == "code")
    for path in sorted((ROOT / "book").rglob("*.md")):
        blocks = re.findall(
            r"^```\{code-cell\} ipython3\n(.*?)^```$", path.read_text("utf-8"), re.DOTALL | re.MULTILINE
        )
        cells = [re.sub(r"\A(?:---\n.*?\n---\n|(?::[^\n]*\n)+)", "", block, flags=re.DOTALL) for block in blocks]
        found[path.relative_to(ROOT).as_posix()] = "\n\n".join(cells)
    return found


SOURCES = sources()


def test_the_sources_are_all_there() -> None:
    assert sum(name.startswith("clasp_lib/") for name in SOURCES) >= 150
    assert sum(name.endswith(".ipynb") for name in SOURCES) >= 21
    assert "notebooks/21_paper.ipynb" in SOURCES and "import" in SOURCES["book/results.md"]


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("runs text as code", "eval('1')"),
        ("runs text as code", "list(map(eval, x))"),
        ("runs text as code", "import builtins as b\nexec('x')"),
        ("runs text as code", "__import__('os')"),
        ("runs a shell", "import subprocess as s\ns.run('ls', shell=True)"),
        ("runs a shell", "import subprocess\nsubprocess.run('ls', shell=flag)"),
        ("runs a shell", "options = {'shell': True}"),
        ("runs a shell", "from os import system as quiet\nquiet('ls')"),
        ("runs a shell", "def f():\n    import os\n    return os.popen('ls')"),
        ("reads a pickle", "import pickle as p\np.loads(b'')"),
        ("reads a pickle", "from pickle import Unpickler\nclass Mine(Unpickler): ..."),
        ("reads a pickle", "import torch\ntorch.load('x')"),
        ("reads a pickle", "import torch as t\nt.load('x', weights_only=False)"),
        ("reads a pickle", "import torch\ngetattr(torch, 'load')('x')"),
        ("reads a pickle", "from torch import load\no = {'map_location': 'cpu'}\nload('x', **o)"),
        ("reads a pickle", "import numpy as np\nnp.load('x', allow_pickle=True)"),
        ("reads a pickle", "o = {'allow_pickle': True}"),
        ("writes a pickle", "import torch\ntorch.save(x, 'y')"),
        ("unpacks an archive", "import zipfile\nzipfile.ZipFile('x').extractall('y')"),
        ("unpacks an archive", "archive.extract(name)"),
        ("unpacks an archive", "import tarfile\ntarfile.open('x')"),
        ("unpacks an archive", "from shutil import unpack_archive\nunpack_archive('x')"),
        ("reads YAML that may make objects", "import yaml\nyaml.load(x, Loader=yaml.SafeLoader)"),
        ("trusts remote code", "AutoModel.from_pretrained('x', trust_remote_code=True)"),
        ("trusts remote code", "AutoModel.from_pretrained('x', trust_remote_code=trusted)"),
        ("trusts any server", "import ssl\nssl._create_unverified_context()"),
        ("trusts any server", "load_state_dict_from_url(url, check_hash=False)"),
        ("names a temporary file before it makes it", "from tempfile import mktemp\nmktemp()"),
        ("hides its names", "from os import *"),
    ],
)
def test_a_line_that_breaks_a_rule_is_found(rule: str, code: str) -> None:
    assert rule in [finding.rule for finding in scan(code)]


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "import re\nre.compile('x')",
        "import torch\ntorch.load('x', weights_only=True)",
        "import torch\no, n = {'weights_only': True}, 1\ntorch.load('x', **o)",
        "import subprocess\nsubprocess.run(['ls'])",
        "import numpy as np\nnp.load('x', mmap_mode='r')",
        "import yaml\nyaml.safe_load('x')",
        "AutoModel.from_pretrained('x', trust_remote_code=False)",
        "open_index(folder, verify=verify)",
    ],
)
def test_what_keeps_the_rules_is_left_alone(code: str) -> None:
    assert scan(code) == []


def test_nothing_in_the_sources_breaks_a_rule() -> None:
    found = {(name, each.rule, each.what) for name, code in SOURCES.items() for each in scan(code)}
    assert sorted(found - set(ALLOWED)) == [], "mend it, or write into ALLOWED why it can do no harm"
    assert sorted(set(ALLOWED) - found) == [], "is allowed and no longer there"


LIBRARY = {name: code for name, code in SOURCES.items() if name.startswith("clasp_lib/")}

AUTO = ("AutoConfig", "AutoModel", "AutoModelForCTC", "AutoTokenizer", "AutoFeatureExtractor", "AutoProcessor")


def test_transformers_is_told_not_to_ask_whether_to_run_code() -> None:
    """Left to itself it asks on the terminal "Do you wish to run the custom code?", and whoever types y runs it."""
    silent = []
    for name, code in LIBRARY.items():
        for node in ast.walk(ast.parse(code)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = ast.unparse(node.func.value).rpartition(".")[2]
            told = "trust_remote_code" in [keyword.arg for keyword in node.keywords]
            if node.func.attr == "from_pretrained" and owner in (*AUTO, "kind") and not told:
                silent.append(f"{name}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert silent == []


FETCHING = {
    "huggingface_hub.hf_hub_download": {"clasp_lib/model.py", "clasp_lib/published_corpora/clips.py"},
    "huggingface_hub.snapshot_download": {"clasp_lib/costs.py"},  # with local_files_only: it looks at what is there
    "torch.hub.download_url_to_file": {"clasp_lib/corpus.py"},
    "torch.hub.load_state_dict_from_url": {"clasp_lib/encoders/spectrogram.py"},
}
"""Functions that fetch from a network, and the files of the library that use them."""

CLIENTS = ("requests", "httpx", "aiohttp", "urllib.request", "urllib3", "http.client", "ftplib", "smtplib", "socket")


def test_what_is_fetched_is_fetched_where_it_is_known() -> None:
    used: dict[str, set[str]] = {}
    for name, code in LIBRARY.items():
        tree = ast.parse(code)
        names = _imported(tree)
        for node in ast.walk(tree):
            dotted = _dotted(node, names) if isinstance(node, ast.Name | ast.Attribute) else None
            if dotted in FETCHING:
                used.setdefault(dotted, set()).add(name)
            for client in CLIENTS if dotted != "http.client.HTTPException" else ():  # an error, which is caught
                assert not (dotted or "").startswith(f"{client}."), f"{name} uses {dotted}"
    assert used == FETCHING


ADDRESSES = {
    "raw.githubusercontent.com": {"clasp_lib/corpus.py"},  # Brown, whose SHA-256 is known
    "arxiv.org": {"clasp_lib/model_card.py"},  # in the card that a saved model gets
    "www.w3.org": {"clasp_lib/report/charts.py"},  # the name of a format, never asked for
    "host": {"clasp_lib/index/milvus_connection.py"},  # in messages and help
    "localhost": {"clasp_lib/cli/index.py"},
}
"""Hosts of addresses in the library's code, without its docstrings, and where they stand."""


def test_every_address_in_the_code_is_known() -> None:
    found: dict[str, set[str]] = {}
    for name, code in LIBRARY.items():
        tree = ast.parse(code)
        told = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
                for host in re.findall(r"https?://(?:\[[^\]]*\])?([\w.-]+)", node.value):
                    found.setdefault(host, set()).add(name)
    assert found == ADDRESSES


VARIABLES = {"CLASP_CACHE", "CLASP_PROFILE", "LOCAL_RANK", "MILVUS_TOKEN", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"} | {
    "TQDM_DISABLE",
    "WORLD_SIZE",
}
"""What the library reads of the environment. One of them is a secret; the hub's token it leaves to the hub's client."""


ASKING = ("os.environ.get", "os.environ.setdefault", "os.getenv")


def test_the_library_reads_no_other_variable() -> None:
    read = set()
    for code in LIBRARY.values():
        for node in ast.walk(ast.parse(code)):
            asked = None
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ASKING:
                asked = node.args[0]
            elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
                asked = node.slice
            if asked is not None:
                assert isinstance(asked, ast.Constant), ast.unparse(node)
                read.add(asked.value)
    assert read == VARIABLES


def test_no_command_takes_a_secret_as_an_option() -> None:
    """What stands on a command line is seen by everybody on the machine, and kept in histories and reports."""
    from clasp_lib.cli import COMMANDS

    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        importlib.import_module(f"clasp_lib.cli.{command}").add_arguments(parser)
        options = [option for action in parser._actions for option in action.option_strings]
        assert "--help" in options
        assert [option for option in options if re.search("token|password|secret|key", option)] == []


def test_the_repository_holds_no_secret() -> None:
    kinds = re.compile(
        rb"\bhf_[A-Za-z0-9]{30,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bAKIA[0-9A-Z]{16}\b|\bsk-[A-Za-z0-9]{32,}"
        rb"|-----BEGIN (?:RSA |EC |OPENSSH )?PRIVATE KEY|\bpypi-[A-Za-z0-9_-]{40,}"
    )
    assert kinds.search(b"token = hf_" + b"a" * 34) and kinds.search(b"-----BEGIN" + b" PRIVATE KEY-----")
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    held = [str(file) for file in files if file.is_file() and kinds.search(file.read_bytes())]
    assert held == []


# What comes along ---------------------------------------------------------------------------------------------------

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

SAFE_FROM = {
    "torch": ("2.6", "before, a checkpoint could run code in spite of weights_only (CVE-2025-32434)"),
    "transformers": ("4.48", "before, some checkpoints were unpickled whole (CVE-2024-11392 to 11394)"),
    "gradio": ("5.0", "before, files of the server could be read (CVE-2024-47164 and others)"),
}
"""Lower bounds that are there for the sake of safety."""


@pytest.mark.parametrize("name", SAFE_FROM)
def test_no_version_with_a_known_hole_is_accepted(name: str) -> None:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    (asked,) = {r for group in groups for r in map(Requirement, group) if r.name == name}
    least = max(Version(each.version) for each in asked.specifier if each.operator == ">=")
    assert least >= Version(SAFE_FROM[name][0]), SAFE_FROM[name][1]


FREE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla Public|Unlicense|CC0|HPND|Zlib|0BSD|Public Domain"
    r"|Historical Permission|LGPL|GNU Lesser",
    re.IGNORECASE,
)
KNOWN_LICENCES = {
    "axe-playwright-python": "MIT, with axe-core in it, MPL-2.0; its wheel says nothing",
    "codespell": "GPL-2: a program that the tests call, and no part of anything here",
    "espeakng-loader": "MIT itself; it carries eSpeak NG, GPL-3: an optional part, named in NOTICE",
}
"""Direct dependencies whose metadata does not say what holds, and what does."""


def test_every_direct_dependency_is_free_software() -> None:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    unclear, seen = {}, 0
    for name in sorted({Requirement(line).name for group in groups for line in group}):
        try:
            about = metadata(name)
        except PackageNotFoundError:
            continue
        seen += 1
        classes = [line for line in about.get_all("Classifier") or () if line.startswith("License")]
        said = " ".join([about.get("License-Expression") or "", (about.get("License") or "")[:300], *classes])
        if not FREE.search(said) and name not in KNOWN_LICENCES:
            unclear[name] = said.strip() or "says nothing"
    assert seen >= 15
    assert unclear == {}


def test_workflows_have_no_more_rights_than_they_need() -> None:
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert len(files) >= 3
    for file in files:
        text = file.read_text("utf-8")
        flow = yaml.safe_load(text)
        assert flow["permissions"]["contents"] == "read", file.name
        assert "pull_request_target" not in text and "secrets." not in text, file.name
        steps = [step for job in flow["jobs"].values() for step in job["steps"]]
        assert not [step for step in steps if "${{" in str(step.get("run", ""))], "a title could become a command"
        foreign = [step["uses"] for step in steps if not step.get("uses", "actions/").startswith("actions/")]
        assert foreign == [], f"{file.name}: pin them to a commit"
