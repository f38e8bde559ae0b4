"""The script of a live page: all its modules as one, small, and by rules that the modules keep."""

from __future__ import annotations

import gzip
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from pushserver.web.modules import compact, join

from ..support.server import ROOT, Running

MODULES = {path.name: path.read_text() for path in (ROOT / "static").glob("*.js")}
WEIGHT = 10_000  # bytes, of all modules of the page
TOP_LEVEL = re.compile(r"^(?:export )?(?:async )?(?:const|let|class|function) (\w+)", re.MULTILINE)


def test_a_page_loads_one_script_that_is_small(server: Running) -> None:
    response = server.http.get("/static/page.js", headers={"Accept-Encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    first = server.http.get("/static/boot.js").content  # so short that it is sent as it is
    assert int(response.headers["content-length"]) + len(gzip.compress(first)) < WEIGHT
    assert "import" not in response.text


def test_every_module_can_be_loaded_by_itself(server: Running) -> None:
    for name in MODULES:
        text = server.http.get(f"/static/{name}").text
        assert "@type" not in text
        assert name in ("boot.js", "page.js") or "export " in text


def test_a_module_comes_after_those_that_it_imports_and_once() -> None:
    modules = {
        "a.js": 'import { b } from "./b.js";\nimport { c } from "./c.js";\nb(c);\n',
        "b.js": 'import { c } from "./c.js";\nexport function b() {}\n',
        "c.js": "export const c = 1;\n",
    }
    assert join("a.js", modules) == "let $a=1;function $b(){}\n$b($a);"


def test_strings_stay_as_they_are_and_private_names_become_short() -> None:
    module = """class A {
  /** @type {number} what it counts */ #count = 1; // of "all"
  text = `a, b: ${this.#count + 1} = #count`;
  other = "#count , x";
}
"""
    assert compact(module) == 'class A{#count=1;text=`a, b: ${this.#count + 1} = #count`;other="#count , x"}\n'
    assert join("a", {"a": module}) == 'class A{#a=1;text=`a, b: ${this.#a + 1} = #count`;other="#count , x"}\n'


def test_numbers_stand_where_they_are_used_and_other_constants_become_short() -> None:
    module = 'const FIRST_MS = 1_000; // milliseconds\nconst NAME = "x";\nlater(-FIRST_MS, NAME, "FIRST");\n'
    assert join("a", {"a": module}) == 'let $a="x";later(-1000,$a,"FIRST");'


def test_what_modules_share_becomes_short_but_for_members_of_that_name() -> None:
    modules = {"a": 'import { ask } from "./b.js";\nother.ask([...ask(1)]);\n', "b.js": "export function ask() {}\n"}
    assert join("a", modules) == "function $a(){}\nother.ask([...$a(1)]);"


def test_a_field_that_has_only_a_type_is_for_people() -> None:
    assert compact("class A {\n  /** @type {Element} */ region;\n  /** @type {number} */ #at;\n}\n") == "class A{#at}\n"


def test_the_modules_keep_the_rules_by_which_they_are_joined() -> None:
    names = Counter(name for module in MODULES.values() for name in TOP_LEVEL.findall(module))
    assert [name for name, times in names.items() if times > 1] == []
    for module in MODULES.values():
        assert not re.search(r"[-+] [-+]", module), "space between them means something"
        strings = re.findall(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`', module)
        assert not [text for text in strings if re.search(r"\bconst\b", text)]
        assert [text for text in strings if re.search(r"/\*\*| // |\b[A-Z]+_[A-Z]+\b", text)] == []
        imports = [line for line in module.splitlines() if line.startswith("import ")]
        assert all(re.fullmatch(r'import { [\w, ]+ } from "\./\w+\.js";', line) for line in imports)


def test_an_exported_name_stands_for_nothing_else() -> None:
    exported = re.compile(r"^export (?:async )?(?:class|const|function) (\w+)", re.MULTILINE)
    names = "|".join(name for module in MODULES.values() for name in exported.findall(module))
    others = (  # a member, a parameter, a variable, a method
        rf"\b(?:{names}):|\((?:{names})\) =>|^ +(?:const|let) [^=]*\b(?:{names})\b"
        rf"|^  (?:async |get )?(?:{names})\(.*{{$"
    )
    strings = re.compile(r'"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`')
    for name, module in MODULES.items():
        code = re.sub(r"/\*\*.*?\*/|(?:^|(?<= ))(?://|import ).*", "", module, flags=re.MULTILINE)
        assert not [text for text in strings.findall(code) if re.search(rf"\b(?:{names})\b", text)], name
        assert not re.search(others, strings.sub('""', code), re.MULTILINE), name


@pytest.mark.full
def test_what_is_sent_is_javascript(tmp_path: Path) -> None:
    sent = {name: compact(module) for name, module in MODULES.items()} | {"page.js": join("page.js", MODULES)}
    for name, text in sent.items():
        path = tmp_path / name.replace(".js", ".mjs")
        path.write_text(text)
        subprocess.run(["node", "--check", path], check=True)
