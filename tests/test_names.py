"""The one validator of file names, row by row of what must be refused, respelled or kept."""

from __future__ import annotations

import os
import posixpath
import uuid
from pathlib import Path, PureWindowsPath

import pytest
from django.core.exceptions import SuspiciousFileOperation
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from hypothesis import example, given, strategies as st

from queued_storage.names import (
    STAGING_DIRECTORY,
    alternative_name,
    clean_directory,
    clean_name,
    escape,
    fit,
    generation_name,
    logical_name,
    record_key,
)

REFUSED = [
    "",
    ".",
    "..",
    "/",
    "//",
    "./",
    "/etc/passwd",
    "//host/share",
    "../x",
    "a/../x",
    "a/../../x",
    "a/b/..",
    "a/",
    "a/.",
    "a/..",
    "..\\x",
    "..\\..\\x",
    "../..\\x",
    "a\\..\\..\\x",
    "\\x",
    "\\\\host\\share",
    "a\\",
    "C:\\x",
    "C:x",
    "C:/x",
    "c:",
    "./C:x",
    "\x00",
    "a\x00.png",
    "a\nb",
    "a\rb",
    "a\r\nX: y",
    "a\tb",
    "\x1b[31mred",
    "a\x7f",
    *(f"a{chr(code)}b" for code in range(0x80, 0xA0)),
    *(f"a{chr(code)}b" for code in range(0x20)),
    *(f"{mark}gnp.exe" for mark in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"),
    "\ufeffx",
    "x\ufeff",
    "a\u2028b",
    "a\u2029b",
    "a\ufffe",
    "a\uffff",
    "\ud800",
    "a\udfffb",
    "a\udcffb",
    "\ud83d\ude00",
    "x" * 256,
    "d/" + "x" * 256 + "/x",
    "é" * 128,
    "/".join(["d"] * 513),
    "d/" * 600 + "x",
    "/".join(["\u00e9" * 100] * 6),
    "x" * 5000,
    "x" * 10_000_000,
    "http://169.254.169.254/x",
    "http:/x",
    "http:\\\\x",
    "file:///etc/passwd",
    "s3+v4.x-y://bucket/key",
    "http:",
    f"{STAGING_DIRECTORY}/staging/x",
    f"{STAGING_DIRECTORY}/x",
    STAGING_DIRECTORY,
    f"./{STAGING_DIRECTORY}/x",
    STAGING_DIRECTORY.upper() + "/x",
]

RESPELLED = [
    ("a/./b", "a/b"),
    ("./a", "a"),
    ("././a", "a"),
    ("a//b", "a/b"),
    ("a///.//b", "a/b"),
    ("a\\b", "a/b"),
    ("a\\.\\b", "a/b"),
    ('=HYPERLINK("http://e")', '=HYPERLINK("http:/e")'),
    (Path("a/b"), "a/b"),
    (Path("./a"), "a"),
    (PureWindowsPath("a\\b"), "a/b"),
    (lazystr("a/b"), "a/b"),
    (mark_safe("a/b"), "a/b"),
]

KEPT = [
    "x",
    "photos/2026/11/image_0001.jpg",
    "\uff0e\uff0e/x",
    "\u2024\u2024/b",
    "\ufe52\ufe52/b",
    "\uff0fx",
    "x" * 255,
    "é" * 127,
    "/".join(["d" * 203] * 4) + "/" + "x" * 208,
    "x.tar.gz" + ".z" * 100,
    "CON",
    "NUL.txt",
    "aux",
    "COM1",
    "LPT0",
    ".htaccess",
    "web.config",
    ".user.ini",
    ".git/config",
    ".ssh/authorized_keys",
    "x.php",
    "x.php.jpg",
    "x.phtml",
    "x.svg",
    "x.html",
    "soap",
    "A.TXT",
    "a.txt",
    "e\u0301",
    "\u00e9",
    "\u0130stanbul/\u0131I.txt",
    "a ",
    " a",
    " ",
    "a.",
    "...",
    "....",
    "..a",
    "a/.../b",
    "-rf",
    "--help",
    "~",
    "~root/x",
    "$(id)",
    "`id`",
    "a;b",
    "a|b",
    "a?b#c",
    "a&b",
    "a+b",
    "%2e%2e/x",
    "..%2fx",
    "%00",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "{{7*7}}",
    "{% debug %}",
    '=HYPERLINK("e")',
    "+1",
    "@x",
    "a'--",
    'a"; DROP',
    "12:30.txt",
    "a/C:x",
    "a/http:/x",
    "ab:c",
    f"a/{STAGING_DIRECTORY}/x",
    f"{STAGING_DIRECTORY}2/x",
    "👩\u200d👩\u200d👧.png",
    "🏴\U000e0067\U000e0062\U000e007f.png",
    "你好/नमस्ते.txt",
]


class Sly(str):
    """A string that tells another story each time."""

    def __str__(self) -> str:
        return "../other"

    def replace(self, *args: object) -> str:  # type: ignore[override]
        """Lie."""
        return "../other"

    def split(self, *args: object) -> list[str]:  # type: ignore[override]
        """Lie."""
        return ["..", "other"]


def outcome(name: object) -> str | None:
    """Return the clean name, or None if it is refused."""
    try:
        return clean_name(name)
    except SuspiciousFileOperation:
        return None


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: ascii(name[:30]))
def test_a_hostile_name_is_refused(name: str) -> None:
    """Every name of this table is refused before anything can exist under it, also where save() would shorten."""
    with pytest.raises(SuspiciousFileOperation):
        clean_name(name)


@pytest.mark.parametrize(("name", "spelling"), RESPELLED, ids=ascii)
def test_one_path_has_one_spelling(name: object, spelling: str) -> None:
    """Another spelling of a path becomes the one spelling, as a plain str."""
    assert clean_name(name) == spelling
    assert type(clean_name(name)) is str


@pytest.mark.parametrize("name", KEPT, ids=lambda name: ascii(name[:30]))
def test_an_odd_name_is_kept_byte_for_byte(name: str) -> None:
    """A name that harms no path is neither refused nor changed."""
    assert clean_name(name) == name
    assert fit(name) == name


@pytest.mark.parametrize("name", [b"x", None, 1, ["x"], object(), memoryview(b"x")], ids=ascii)
def test_what_is_no_string_is_a_type_error(name: object) -> None:
    """Other types are refused with a sentence that says what to pass."""
    with pytest.raises(TypeError, match=r"must be a str or a pathlib path, not \w+"):
        clean_name(name)


def test_a_str_subclass_is_read_once() -> None:
    """What a subclass of str answers later has no influence."""
    assert clean_name(Sly("a/b")) == "a/b"
    assert type(clean_name(Sly("a"))) is str


def test_a_lazy_string_is_read_once() -> None:
    """A lazy string is evaluated once, so that what was checked is what is used."""
    answers = iter(["a/b", "../x"])

    class Lazy:
        def __str__(self) -> str:
            return next(answers)

    assert clean_name(lazystr(Lazy())) == "a/b"
    assert next(answers) == "../x"


def test_the_error_shows_the_name_escaped_and_says_why() -> None:
    """The message of a refusal is one short line of ASCII with the reason, whatever the name is."""
    with pytest.raises(SuspiciousFileOperation) as caught:
        clean_name("a\x1b[31m\n" + "é" * 4000)
    message = str(caught.value)
    assert message.startswith("Refused the file name 'a\\x1b[31m\\n\\xe9")
    assert message.endswith("': it contains U+001B.")
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 300


CVES = {
    "CVE-2021-28658": ["../hax0rd.txt", "..\\..\\hax0rd.txt", "../..\\hax0rd.txt", "/tmp/hax0rd.txt", "\\tmp\\x"],
    "CVE-2021-31542": ["..", ".", "a/..", "/..", "\\..", "tmp/../../path", "/tmp/../path", "\\tmp\\..\\path"],
    "CVE-2021-45452": ["../../etc/x", "..\\path", "tmp\\..\\path", "a/../../../x"],
    "CVE-2024-39330": ["a/..", "../a/", "dir/", "dir/.", "/absolute/x", "a/b/../../../c"],
}


@pytest.mark.parametrize(("cve", "name"), [(cve, name) for cve, names in CVES.items() for name in names])
@pytest.mark.parametrize("function", [clean_name, fit])
def test_names_of_published_holes_are_refused(cve: str, name: str, function: object) -> None:
    """The names that got past Django once are refused, in the validator and where save() shortens."""
    with pytest.raises(SuspiciousFileOperation):
        function(name)  # type: ignore[operator]


hostile = st.text(
    st.one_of(
        st.sampled_from(list("aA.x/\\: ~%\x00\n\x7f\u202e\ufeff\ud800é")),
        st.characters(),
    ),
    max_size=40,
)


@given(hostile)
@example("a\\..")
@example(".\\./x")
@example("x" * 256)
def test_cleaning_is_idempotent_and_never_leaves_the_root(name: str) -> None:
    """A clean name stays as it is, is a normal relative path, and lies below any root it is joined to."""
    cleaned = outcome(name)
    if cleaned is not None:
        assert clean_name(cleaned) == cleaned
        assert posixpath.normpath(cleaned) == cleaned
        assert os.path.abspath(os.path.join("/root", cleaned)).startswith("/root/")
        assert len(cleaned.encode()) <= 1024


@given(hostile, hostile)
@example("a//b", "a/b")
@example("a\\b", "a/b")
def test_two_records_never_share_a_path(first: str, second: str) -> None:
    """Two different clean names are two different paths, also after normpath()."""
    one, two = outcome(first), outcome(second)
    if one is not None and two is not None and one != two:
        assert posixpath.normpath(one) != posixpath.normpath(two)


@given(st.text(st.sampled_from("ab./\\"), max_size=12))
def test_a_path_without_traversal_is_only_respelled(name: str) -> None:
    """What is accepted is the same path as before: nothing is resolved, cut or dropped but empty and dot steps."""
    cleaned = outcome(name)
    steps = name.replace("\\", "/").split("/")
    if cleaned is None:
        assert name == "" or ".." in steps or steps[0] == "" or steps[-1] in ("", ".")
    else:
        assert cleaned.split("/") == [step for step in steps if step not in ("", ".")]


@pytest.mark.parametrize(
    ("path", "directory"),
    [
        ("", ""),
        (".", ""),
        ("./", ""),
        (".\\", ""),
        ("a", "a"),
        ("a/", "a"),
        ("a//", "a"),
        ("a/.", "a"),
        ("a/./b/", "a/b"),
    ],
)
def test_listdir_takes_the_root_and_a_trailing_slash(path: str, directory: str) -> None:
    """A directory may be spelled in more ways than a file, and has one spelling afterwards."""
    assert clean_directory(path) == directory


@pytest.mark.parametrize(
    "path", ["/", "//", "/.", "..", "./..", "a/..", "a\\..", "/a", "C:", "http:", "a\n", STAGING_DIRECTORY, "x" * 256]
)
def test_listdir_refuses_what_save_refuses(path: str) -> None:
    """A directory outside the root, or the staging directory, cannot be listed."""
    with pytest.raises(SuspiciousFileOperation):
        clean_directory(path)


@given(st.one_of(hostile, st.text(max_size=300)), st.integers(0, 250))
def test_escaped_text_is_one_short_line_of_ascii(text: str, limit: int) -> None:
    """Whatever goes in, printable ASCII comes out, within the limit."""
    escaped = escape(text, limit)
    assert escaped.isascii()
    assert escaped.isprintable()
    assert len(escaped) <= limit


def test_escape_shows_plain_text_as_it_is_and_marks_a_cut() -> None:
    """Plain text is not changed, a long one ends in dots after exactly the limit."""
    assert escape('it\'s "x"') == 'it\'s "x"'
    assert escape("é\n\x1b\ud800\\") == "\\xe9\\n\\x1b\\ud800\\\\"
    assert escape("x" * 200) == "x" * 200
    assert escape("x" * 201) == "x" * 197 + "..."
    assert escape(ValueError("a\nb")) == "a\\nb"


def test_the_record_key_is_the_same_for_ever() -> None:
    """The key is a fixed function of alias and name; a change would orphan every row and cache entry."""
    assert record_key("default", "a/b.txt") == uuid.UUID("30ea7cfd-c193-5d4b-acf0-065d1add5e07")


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
@example("a", "b", "ab", "")
@example("s", "É", "s", "é")
@example("s", "a ", "s", "a")
def test_two_names_or_storages_never_share_a_key(alias: str, name: str, other_alias: str, other: str) -> None:
    """Case, padding, normalisation and the border between alias and name all count."""
    if (alias, name) != (other_alias, other) and "\0" not in alias + other_alias:
        assert record_key(alias, name) != record_key(other_alias, other)


component = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)


@given(
    st.lists(component, min_size=1, max_size=30), st.integers(1, 10**6), st.sampled_from(["", ".txt", ".tar.gz", "."])
)
@example(["d" * 200] * 5 + ["y" * 10], 7, ".txt")
@example(["d" * 253, "d" * 253, "d" * 253, "d" * 252, "y"], 7, ".jpeg")
@example(["é" * 120], 7, "." + "e" * 127)
@example(["é" * 60], 7, ".e" * 60)
@example([".htaccess"], 2, "")
def test_the_place_of_a_generation_is_a_clean_name_of_its_own(parts: list[str], generation: int, ending: str) -> None:
    """However long the name is, its other place keeps to the limits, begins and ends alike and is never the same."""
    name = outcome("/".join(parts) + ending)
    if name is None:
        return
    place = generation_name(name, generation)
    assert clean_name(place) == place != name
    assert generation_name(name, generation) != place
    assert place[0] == name[0]
    extension = os.path.splitext(name.rpartition("/")[2])[1]
    assert place.endswith(extension) or len(extension.encode()) > 128
    if len(name.encode()) < 100:
        assert logical_name(place) == (name, generation)


def test_a_generation_shows_in_the_name_before_the_last_extension() -> None:
    """The place can be read by people: directory, stem, generation, chance, extension."""
    place = generation_name("d/report.tar.gz", 3)
    assert place.startswith("d/report.tar.g3-")
    assert place.endswith(".gz")
    assert len(place) == len("d/report.tar.g3-0123456789abcdef.gz")
    with pytest.raises(ValueError, match="from 1 on"):
        generation_name("x", 0)
    with pytest.raises(SuspiciousFileOperation):
        generation_name("../x", 1)


@pytest.mark.parametrize(
    "name", ["x", "d/x.txt", "x.g0-0123456789abcdef", "x.g2-0123", "x.g2-0123456789ABCDEF.txt", ".g2-x"]
)
def test_other_names_are_no_generation(name: str) -> None:
    """A name that was not made by generation_name() is not mistaken for one."""
    assert logical_name(name) is None


@pytest.mark.parametrize(
    ("name", "fitted"),
    [
        ("x" * 256, "x" * 255),
        ("d/" + "x" * 300 + ".txt", "d/" + "x" * 251 + ".txt"),
        ("a" * 200 + "." + "b" * 100, "a" * 154 + "." + "b" * 100),
        ("a" * 200 + "." + "b" * 200, "a" * 200 + "." + "b" * 54),
        ("é" * 130 + ".é", "é" * 126 + ".é"),
        ("d" * 256 + "/x", "d" * 255 + "/x"),
        ("a\\" + "x" * 256, "a/" + "x" * 255),
    ],
)
def test_a_component_that_is_too_long_is_cut_and_keeps_its_extension(name: str, fitted: str) -> None:
    """For save(), an over-long component becomes 255 bytes, cut between characters before the extension."""
    assert fit(name) == fitted == clean_name(fitted)


@pytest.mark.parametrize("name", [name for name in REFUSED if len(name) != 256 and not name.startswith(("d/x", "é"))])
def test_cutting_makes_nothing_legal_but_length(name: str) -> None:
    """What is refused for another reason than a long component, or is over 1024 bytes, is refused here, too."""
    with pytest.raises(SuspiciousFileOperation):
        fit(name)


def test_cutting_never_makes_a_scheme() -> None:
    """A cut that would end the first component in a colon is refused."""
    with pytest.raises(SuspiciousFileOperation):
        fit("a" * 254 + ":" + "x" * 10 + "/x")


def alter(stem: str, extension: str) -> str:
    """Put what a storage puts between stem and extension."""
    return f"{stem}_1234567{extension}"


@pytest.mark.parametrize(
    ("name", "max_length", "other"),
    [
        ("d/x.tar.gz", None, "d/x_1234567.tar.gz"),
        (".htaccess", None, ".htaccess_1234567"),
        ("x" * 255, None, "x" * 247 + "_1234567"),
        ("é" * 127, None, "é" * 123 + "_1234567"),
        ("abcdefghij.txt", 14, "ab_1234567.txt"),
        ("/".join(["d" * 203] * 4) + "/" + "x" * 208, None, "/".join(["d" * 203] * 4) + "/" + "x" * 200 + "_1234567"),
        ("x.tar.gz" + ".z" * 40, None, "x_1234567.tar.gz" + ".z" * 40),
        ("x.tar.gz" + ".z" * 100, None, "x.tar.gz" + ".z" * 99 + "_1234567.z"),
    ],
)
def test_another_name_keeps_to_every_limit(name: str, max_length: int | None, other: str) -> None:
    """A storage's own scheme is used, and the stem gives way to the limits in bytes and in characters."""
    assert alternative_name(name, alter, max_length) == other


@pytest.mark.parametrize(("name", "max_length"), [("abcde.txt", 10), ("a.txt", 3), ("dir/a", 4)])
def test_no_other_name_is_a_clear_error(name: str, max_length: int) -> None:
    """Where nothing would be left of the stem, the error says which limit was too small."""
    with pytest.raises(SuspiciousFileOperation, match=f"max_length={max_length}"):
        alternative_name(name, alter, max_length)


@given(component, component, st.integers(1, 300))
def test_another_name_is_clean_and_short_enough(stem: str, extension: str, max_length: int) -> None:
    """For every clean name, the other one is clean, different and within max_length, or there is none."""
    name = outcome(f"d/{stem}.{extension}")
    if name is None:
        return
    try:
        other = alternative_name(name, alter, max_length)
    except SuspiciousFileOperation:
        assert max_length < len(name) + 8
    else:
        assert clean_name(other) == other != name
        assert len(other) <= max_length
