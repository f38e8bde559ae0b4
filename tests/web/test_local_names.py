"""Names of variables become short where that is all that they stand for, and stay as they are everywhere else."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pushserver.web import modules
from pushserver.web.local_names import shorten_locals

from ..support.server import ROOT

MODULES = {path.name: path.read_text() for path in (ROOT / "static").glob("*.js")}
NPM = Path(__file__).parents[1] / "support" / "npm"
TEXT = re.compile(r'"(?:[^"\\\n]|\\.)*"|(?<=[=(,])/(?:[^/\\\n]|\\.)+/\w*')  # strings and regular expressions
# A name behind a dot is a member, behind three it is spread; before a colon it is a key, but for that of `a ? b : c`.
NAME = re.compile(r"#[\w$]+|(?<![\w$])(?<!(?<!\.\.)\.)(?!\$\{)[A-Za-z_$][\w$]*(?![\w$]| *:)|(?<=\?)[A-Za-z_$][\w$]*")


@pytest.mark.parametrize(
    ("script", "short"),
    [
        ("function add(first,second){return first+second}", "function add(a,b){return a+b}"),
        ("let take=(item)=>{let text=item.text;show(text)};", "let take=(a)=>{let b=a.text;show(b)};"),
        ("let first=(items)=>{let [head,...rest]=items;return rest};", "let first=(a)=>{let [b,...c]=a;return c};"),
        ("let all=(items)=>{for(let item of items)show(item)};", "let all=(a)=>{for(let b of a)show(b)};"),
        ("class A{put(item){this.#a=item}get(item){return item??a}}", "class A{put(a){this.#a=a}get(b){return b??a}}"),
    ],
)
def test_variables_and_parameters_become_short(script: str, short: str) -> None:
    assert shorten_locals(script) == short


@pytest.mark.parametrize(
    "script",
    [
        "let read=({text})=>text;",  # a key of what is passed
        "function make(id){return{id,at:1}}",
        "function make(at){return{at:1}}",
        "function say(name){return `Hello, ${name}`}",
        "function pick(one){return is?one:0}",
        "let seen=1;function see(seen){return seen}",  # a name of the top
        'class A{text(text){return"text"}}',  # of a member
        "function put(){document.title=location.href}",
        "let find=/text|more/g;",
    ],
)
def test_a_name_that_may_be_something_else_stays(script: str) -> None:
    assert shorten_locals(script) == script


def test_a_letter_that_is_in_use_is_not_given_again() -> None:
    assert shorten_locals("function f(other){return a(other)+b}") == "function f(c){return a(c)+b}"


def same_but_for_names(one: str, other: str) -> bool:
    """Whether two scripts are equal when each name of the one stands for one of the other."""
    one, other = TEXT.sub('""', one), TEXT.sub('""', other)
    pairs = {pair for pair in zip(NAME.findall(one), NAME.findall(other), strict=True) if pair[0][0] != "#"}
    is_one_to_one = len(pairs) == len({name for name, _ in pairs}) == len({name for _, name in pairs})
    return is_one_to_one and NAME.sub("", one) == NAME.sub("", other)


@pytest.mark.full
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_a_compiler_makes_the_same_of_the_script_with_long_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NPM / name, tmp_path)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=tmp_path, check=True, capture_output=True)
    short = modules.join("page.js", MODULES)
    monkeypatch.setattr(modules, "shorten_locals", lambda script: script)
    long = modules.join("page.js", MODULES)
    assert len(short) < len(long) * 0.95
    command = ["node_modules/.bin/esbuild", "--minify", "--format=esm"]
    made = [
        subprocess.run(command, cwd=tmp_path, input=text, check=True, capture_output=True, text=True).stdout
        for text in (long, short)
    ]
    assert same_but_for_names(*made)
