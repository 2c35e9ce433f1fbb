"""Installs a complete mail system below a prefix: what `make install` runs.

    PREFIX/sbin               one small script a command (sendmail, postfix, postconf, ...)
    PREFIX/libexec/postfix    one small script a daemon (master, smtpd, ...)
    PREFIX/lib/postfix        the library and, unless --deps=no, what it depends on
    PREFIX/etc/postfix        default configuration; a file that exists is never replaced
    PREFIX/share/man          manual pages

The scripts start the interpreter with -IS: no environment, no site-packages, no .pth
files, which is what keeps `sendmail` at about 20 ms. Their modules come from lib/postfix alone,
and from --python-path, where a distribution has those that it packages.
No file is set-uid or set-gid.

Dependencies are copied from the environment that this program runs in, so that what
gets installed is what was tested there. For a package: --deps=no, --compile=no, --python-path.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("libmail", "daemons", "commands", "master")

# Other names of commands/sendmail, which looks at the name it is called by.
SENDMAIL_NAMES: Final = ("mailq", "newaliases")

# Shell scripts that other people's scripts call, in the directory of the daemons.
SCRIPTS: Final = SOURCE / "packaging/scripts"
COMMAND_DIRECTORY: Final = b"@command_directory@"

SCRIPT: Final = """\
#!{interpreter} -IS
import sys
{path}
from {module} import main
sys.exit(main({arguments}))
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="install the mail system below a prefix")
    parser.add_argument("--prefix", type=Path, default=Path("/usr/local"))
    parser.add_argument("--destdir", default="", help="put in front of every path written to")
    parser.add_argument("--sysconfdir", default="", help="default: PREFIX/etc/postfix")
    parser.add_argument("--queue-directory", default="", help="default: /var/spool/postfix")
    parser.add_argument("--data-directory", default="", help="default: /var/lib/postfix")
    parser.add_argument(
        "--bindir", default="", help="of mailq and newaliases; default: PREFIX/sbin"
    )
    parser.add_argument("--libexecdir", default="", help="default: PREFIX/libexec/postfix")
    parser.add_argument("--interpreter", default="", help="default: the one running this")
    parser.add_argument("--master-interpreter", default="", help="of master; default: INTERPRETER")
    parser.add_argument("--python-path", default="", help="where else modules are: DIR[:DIR...]")
    parser.add_argument("--deps", choices=("yes", "no"), default="yes")
    parser.add_argument("--compile", choices=("yes", "no"), default="yes")
    parser.add_argument("--configuration", choices=("yes", "no"), default="yes")
    return parser.parse_args()


def copy_tree(source: Path, target: Path, pattern: str = "*") -> None:
    """Copies regular files that match, with modes 0644 and 0755 whatever the umask."""
    for path in sorted(source.rglob(pattern)):
        if path.is_file() and "__pycache__" not in path.parts:
            write(target / path.relative_to(source), path.read_bytes())


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replaces path in one step: a program that is running keeps the old file."""
    make_directory(path.parent)
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.chmod(mode)
    new.replace(path)


def make_directory(path: Path) -> None:
    """Makes path and its missing parents, mode 0755; directories that exist stay as they are."""
    for folder in [*reversed(path.parents), path]:
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(0o755)


def defines(path: Path, name: str) -> bool:
    """Whether the module at path binds the name at its top: main, SERVICE."""
    for node in ast.parse(path.read_bytes()).body:
        match node:
            case ast.FunctionDef(name=bound) if bound == name:
                return True
            case ast.ImportFrom(names=aliases):
                if any((alias.asname or alias.name) == name for alias in aliases):
                    return True
            case ast.AnnAssign(target=ast.Name(id=bound)) if bound == name:
                return True
            case ast.Assign(targets=[ast.Name(id=bound)]) if bound == name:
                return True
    return False


def programs(package: str, entry: str) -> Iterator[tuple[str, str]]:
    """Yields (name, module) of the modules and packages in a folder that define the entry."""
    for path in sorted((SOURCE / package).iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if path.name.startswith("_") or file.suffix != ".py" or not file.is_file():
            continue
        if defines(file, entry):
            yield path.stem.replace("_", "-"), f"{package}.{path.stem}"


def requirement_names(requirements: list[str]) -> list[str]:
    """Distribution names of requirements, without those of an extra."""
    names = []
    for requirement in requirements:
        name, _, marker = requirement.partition(";")
        if "extra" not in marker and (match := re.match(r"[A-Za-z0-9._-]+", name)):
            names.append(match[0])
    return names


def dependencies() -> list[metadata.Distribution]:
    """What pyproject.toml requires and what that requires, as installed here.

    Of the extras, what is installed here.
    """
    with (SOURCE / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)["project"]
    wanted = requirement_names(project["dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        wanted += requirement_names(requirements) if extra != "dev" else []
    found: dict[str, metadata.Distribution] = {}
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name in requirement_names([r for r in project["dependencies"] if ";" not in r]):
                sys.exit(f"install: {name} is not installed in this environment")
            continue  # only needed on other versions of Python
        wanted += requirement_names(found[name].requires or [])
    return list(found.values())


def installed_files(distribution: metadata.Distribution) -> Iterator[tuple[Path, Path]]:
    """Where each file of a distribution is, and its path below the library."""
    root = Path(os.path.realpath(str(distribution.locate_file(""))))
    old_style = distribution.read_text("installed-files.txt")  # by setup.py, without a wheel
    if old_style is None:
        found = [root / str(file) for file in distribution.files or []]
    else:
        information = next(root.glob(f"{distribution.metadata['Name']}*.egg-info"))
        found = [information / line for line in old_style.splitlines()]
    for path in (Path(os.path.normpath(one)) for one in found):
        if path.is_file() and root in path.parents and "__pycache__" not in path.parts:
            yield path, path.relative_to(root)  # others are scripts and compiled files


def copy_dependencies(library: Path) -> None:
    for distribution in dependencies():
        count = 0
        for source, name in installed_files(distribution):
            write(library / name, source.read_bytes())
            count += source.suffix in (".py", ".so")
        if not count:
            sys.exit(f"cannot find the files of {distribution.metadata['Name']}")


def directories(options: argparse.Namespace) -> dict[str, str]:
    """Default values of the parameters that say where things are, for this installation."""
    prefix = Path(os.path.abspath(options.prefix))
    configuration = options.sysconfdir or f"{prefix}/etc/postfix"
    users = options.bindir or f"{prefix}/sbin"
    return {
        "command_directory": f"{prefix}/sbin",
        "config_directory": configuration,
        "daemon_directory": options.libexecdir or f"{prefix}/libexec/postfix",
        "data_directory": options.data_directory or "/var/lib/postfix",
        "mailq_path": f"{users}/mailq",
        "manpage_directory": f"{prefix}/share/man",
        "meta_directory": configuration,
        "newaliases_path": f"{users}/newaliases",
        "queue_directory": options.queue_directory or "/var/spool/postfix",
        "sendmail_path": f"{prefix}/sbin/sendmail",
        "shlib_directory": f"{prefix}/lib/postfix",
    }


def installed_module(defaults: Mapping[str, str]) -> bytes:
    """Text of libmail/config/_installed.py."""
    lines = ['"""Where this installation lives; written by make install."""', "", "DEFAULTS = {"]
    lines += [f"    {name!r}: {value!r}," for name, value in defaults.items()]
    return ("\n".join(lines) + "\n}\n").encode("utf-8", "surrogateescape")


class Installation:
    """The paths of one installation: as seen by programs, and where they are written now."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.names = directories(options)
        self.destdir = options.destdir
        self.interpreter = options.interpreter or os.path.realpath(sys.executable)
        self.master_interpreter = options.master_interpreter or self.interpreter
        self.with_dependencies = options.deps == "yes"
        self.compiled = options.compile == "yes"
        self.path = f"sys.path.insert(0, {self.names['shlib_directory']!r})"
        if options.python_path:
            self.path += f"\nsys.path += {options.python_path.split(':')!r}"

    def target(self, path: str) -> Path:
        return Path(self.destdir + path)

    def library(self) -> None:
        library = self.target(self.names["shlib_directory"])
        for package in PACKAGES:
            shutil.rmtree(library / package, ignore_errors=True)
            copy_tree(SOURCE / package, library / package, "*.py")
        write(library / "libmail/config/_installed.py", installed_module(self.names))
        if self.with_dependencies:
            copy_dependencies(library)
        if self.compiled:
            compileall.compile_dir(library, quiet=2, stripdir=self.destdir or None)

    def script(self, folder: str, name: str, module: str, call: str) -> None:
        interpreter = self.master_interpreter if name == "master" else self.interpreter
        text = SCRIPT.format(interpreter=interpreter, path=self.path, module=module, arguments=call)
        write(self.target(f"{folder}/{name}"), text.encode(), 0o755)

    def commands(self) -> None:
        folder = self.names["command_directory"]
        for name, module in programs("commands", "main"):
            self.script(folder, name, module, "sys.argv[1:]")
        for name in SENDMAIL_NAMES:
            path = self.names[f"{name}_path"]
            link = self.target(path)
            if not link.exists() and not link.is_symlink():
                make_directory(link.parent)
                link.symlink_to(os.path.relpath(f"{folder}/sendmail", os.path.dirname(path)))

    def daemons(self) -> None:
        folder = self.names["daemon_directory"]
        for name, _ in programs("daemons", "SERVICE"):
            self.script(folder, name, "libmail.service.main", f"{name!r}, sys.argv[1:]")
        self.script(folder, "master", "master.main", "sys.argv[1:]")
        commands = self.names["command_directory"].encode("utf-8", "surrogateescape")
        for path in sorted(SCRIPTS.iterdir()):
            text = path.read_bytes().replace(COMMAND_DIRECTORY, commands)
            write(self.target(f"{folder}/{path.name}"), text, 0o755)

    def configuration(self) -> None:
        source = SOURCE / "etc/postfix"
        for path in sorted(source.rglob("*")):
            target = self.target(self.names["config_directory"]) / path.relative_to(source)
            if path.is_file() and not target.exists():
                write(target, path.read_bytes())

    def manual(self) -> None:
        copy_tree(SOURCE / "man", self.target(self.names["manpage_directory"]), "*.[158]")


def main() -> None:
    os.umask(0o022)  # for what compileall writes
    options = arguments()
    installation = Installation(options)
    installation.library()
    installation.commands()
    installation.daemons()
    if options.configuration == "yes":
        installation.configuration()
    installation.manual()


if __name__ == "__main__":
    main()
