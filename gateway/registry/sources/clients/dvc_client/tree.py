"""The files of one commit, whether Git or DVC keeps them, and the hash that the commit holds of each."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dvc.config import Config
from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import Stage

from .commits import Checkout
from .hashes import ALGORITHMS, hash_of, hash_of_listing
from .place import Place

_OF_TOOLS = (".dvc", "dvc.yaml", "dvc.lock", ".dvcignore", ".gitignore", ".gitattributes", ".gitkeep")


@dataclass(frozen=True)
class Tracked:
    """``name`` is below what was asked for; ``algorithm`` ``git`` is Git's own id of a file that DVC has no part in.
    ``digest`` None: the commit has one of the folder that it is in, and none of the file."""

    name: str
    path: str
    size: int | None
    digest: str | None
    algorithm: str


@dataclass
class Tree:
    place: Place
    checkout: Checkout
    repo: Repo
    """Opened at the commit: its working tree is never looked at."""
    path: str
    """From the repository's top."""
    project: Repo | None = None
    _blobs: dict[str, str] | None = None
    _unproven: set[str] = field(default_factory=set)

    @classmethod
    @contextmanager
    def opened(cls, place: Place, checkout: Checkout, scratch: Path) -> Iterator[Tree]:
        os.environ["DVC_SITE_CACHE_DIR"] = str(
            scratch / "site"
        )  # it keeps listings of folders there, and believes them

        def within(root: str, fs: Any = None, **more: Any) -> Repo:
            more["repo_factory"] = within
            return Repo(root, fs=fs, config=_configuration(checkout, scratch, root), **more)

        more = {"rev": checkout.commit, "subrepos": True, "uninitialized": True, "repo_factory": within}
        with Repo(str(checkout.folder), config=_configuration(checkout, scratch, checkout.below), **more) as repo:
            path = place.path if place.path is not None else _declared(repo, place)
            tree = cls(place, checkout, repo, posixpath.normpath(posixpath.join("/", checkout.below, path)).lstrip("/"))
            with tree._project(within) as project:
                tree.project = project
                yield tree

    @contextmanager
    def _project(self, within: Callable[..., Repo]) -> Iterator[Repo]:
        """The DVC project that the path belongs to: a repository may hold several."""
        fs, folder = self.repo.fs, "/" + self.path
        while folder != "/":
            if fs.isdir(posixpath.join(folder, Repo.DVC_DIR)):
                with within(folder, fs=fs, scm=self.repo.scm) as project:
                    yield project
                return
            folder = posixpath.dirname(folder)
        yield self.repo

    def files(self) -> list[Tracked]:
        """All of them, sorted; LookupError where there is nothing at the path."""
        fs = self.repo.dvcfs
        try:
            found = fs.info("/" + self.path)
        except FileNotFoundError:
            raise LookupError(f"commit {self.checkout.commit} has no {self.path}, in Git or under DVC") from None
        if found["type"] != "directory":
            files = [self._tracked(posixpath.basename(self.path), self.path, found)]
        else:
            files = sorted(self._below(self.path), key=lambda file: file.name)
        self.check_listings(files, final=False)
        return files

    def index_stages(self) -> list[Stage]:
        return list((self.project or self.repo).index.stages)

    def index_outs(self) -> list[Output]:
        return [out for out in (self.project or self.repo).index.outs if out.protocol == "local"]

    def outs(self) -> list[Output]:
        """DVC's outputs at the path, above it or below it."""
        own = f"/{self.path}/".replace("//", "/")
        near = [(out, f"{out.fs_path}/") for out in self.index_outs()]
        return [out for out, path in near if own.startswith(path) or path.startswith(own)]

    def named(self, path: str) -> str:
        """A path of the commit as it is written from the repository's top."""
        return posixpath.relpath(path, "/").removeprefix("./")

    def _below(self, folder: str) -> Iterator[Tracked]:
        top = "/" + folder
        for root, _, files in self.repo.dvcfs.fs.walk(top, detail=True, dvcfiles=True):
            for name, info in files.items():
                if "fs_info" not in info or not name.endswith(_OF_TOOLS):
                    path = posixpath.join(root, name)
                    yield self._tracked(posixpath.relpath(path, top), path.lstrip("/"), info)

    def check_listings(self, files: list[Tracked], *, final: bool) -> None:
        """A folder's hash is of its listing, which a remote keeps as a file like any other. ``final``: all files are
        here; before, a folder with files whose own hash nobody has told is passed over."""
        here = {file.path: file for file in files}
        if not final:
            self._unproven = {file.path for file in files if file.digest is None}
        for out in self.outs():
            if not (out.hash_info and out.hash_info.isdir and out.hash_info.value):
                continue
            folder, algorithm = self.named(out.fs_path), out.hash_info.name or "md5"
            rows = [here.get(file.path, file) for file in self._below(folder)]
            known = [(posixpath.relpath(row.path, folder), row.digest) for row in rows if row.digest is not None]
            if len(known) == len(rows):
                self._check_listing(folder, hash_of_listing(known, algorithm), algorithm, out.hash_info.value)
                self._unproven -= {row.path for row in rows}
        if final and self._unproven:
            raise ValueError(
                f"{', '.join(sorted(self._unproven)[:5])}: commit {self.checkout.commit} holds no MD5 of it, or one of "
                "its folder only, so nobody can tell whether its bytes are the right ones; register the whole folder, "
                "or add the file with `dvc add` and commit that"
            )

    def _check_listing(self, folder: str, found: str, algorithm: str, promised: str) -> None:
        if found != promised:
            raise ValueError(
                f"{folder}: the remote's listing of the folder has {algorithm} {found}, and commit "
                f"{self.checkout.commit} says {promised}: it was changed or damaged there, and nothing of it was taken"
            )

    def _tracked(self, name: str, path: str, info: dict[str, Any]) -> Tracked:
        if "fs_info" in info:
            return self._of_git(name, path, info)
        entry = info["dvc_info"]["entry"]
        size = entry.meta.size if entry.meta else None
        known = entry.hash_info
        if known is None or known.name not in ALGORITHMS or not known.value:
            return Tracked(name, path, size, None, "md5")
        return Tracked(name, path, size, known.value, known.name)

    def _of_git(self, name: str, path: str, info: dict[str, Any]) -> Tracked:
        if self._blobs is None:
            self._blobs = self.checkout.blobs(self.path)
        if path not in self._blobs:
            raise ValueError(f"{path} is a symbolic link or a submodule; only files can be registered")
        return Tracked(name, path, info["size"], self._blobs[path], "git")

    def digest(self) -> tuple[str, str]:
        """Of what was asked for: DVC's hash of the file or folder; else one over names and hashes of what is in it."""
        fs = self.repo.dvcfs
        try:
            info = fs.info("/" + self.path)
        except FileNotFoundError:
            raise LookupError(f"commit {self.checkout.commit} has no {self.path}, in Git or under DVC") from None
        known = info.get("dvc_info", {}).get("entry")
        if known is not None and known.hash_info and "fs_info" not in info:
            return known.hash_info.value, known.hash_info.name
        files = self.files()
        if info["type"] != "directory":
            return files[0].digest or "", files[0].algorithm
        listed = "".join(f"{file.name}\0{file.algorithm}:{file.digest}\n" for file in files)
        return hashlib.sha256(listed.encode()).hexdigest(), "sha256-of-listing"

    def refuse_changed(self, files: list[Tracked]) -> None:
        """A file of DVC's that was made again, or came into a folder, and was not added: Git does not see it."""
        if not self.checkout.looked_at:
            return
        changed = [file.path for file in files if self._changed(file)]
        listed = {file.path for file in files}
        for out in self.outs():
            folder = self.checkout.folder / self.named(out.fs_path)
            if out.hash_info and out.hash_info.isdir and self.named(out.fs_path).startswith(self.path):
                here = {str(path.relative_to(self.checkout.folder)) for path in folder.rglob("*") if path.is_file()}
                changed += sorted(path for path in here - listed if not path.endswith(_OF_TOOLS))
        if changed:
            raise ValueError(
                f"{', '.join(changed[:5])}: what lies in {self.checkout.folder} is not what the commit says; `dvc add` "
                f"or `dvc commit` it and commit that, or name the commit: "
                f"dvc:{self.place.repository}@HEAD:{self.place.path}"
            )

    def _changed(self, file: Tracked) -> bool:
        here = self.checkout.folder / file.path
        if file.algorithm == "git" or file.digest is None or not here.is_file():
            return False
        resized = file.size is not None and here.stat().st_size != file.size
        return resized or hash_of(here, file.algorithm) != file.digest

    def size(self, files: list[Tracked]) -> int:
        """In bytes. DVC knows the size of a folder, and of none of the files in it."""
        known = sum(file.size or 0 for file in files)
        return max(known, sum(out.meta.size or 0 for out in self.outs() if out.meta))

    def download(self, file: Tracked, folder: Path, progress: Any) -> Tracked:
        """Into ``folder``, with the hash of what came. ValueError where it is not what the commit means."""
        target = folder / file.name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{file.name!r} leads out of the folder it belongs to")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.repo.dvcfs.get_file("/" + file.path, str(target), callback=progress)
        except FileNotFoundError as error:
            raise LookupError(
                f"{file.path}: commit {self.checkout.commit} names {file.algorithm} {file.digest}, and no remote of "
                "the repository has it; run `dvc push` where it was made"
            ) from error
        found = hash_of(target, file.algorithm)
        if file.digest is not None and found != file.digest:
            raise ValueError(
                f"{file.path}: the remote's file has {file.algorithm} {found}, and commit {self.checkout.commit} says "
                f"{file.digest}: it was changed or damaged there, and nothing of it was taken"
            )
        return replace(file, digest=found)


def _declared(repo: Repo, place: Place) -> str:
    """The path that ``dvc.yaml`` of the commit gives to an artifact."""
    try:
        return str(repo.artifacts.get_path(place.name))
    except Exception as error:  # DVC's own, and YAML's
        raise LookupError(
            f"dvc.yaml has no artifact {place.name!r} at the commit of {place.shortcut} ({error}); declare it under "
            "artifacts: with its path, or name the file: dvc:REPO@REV:PATH"
        ) from error


def _configuration(checkout: Checkout, scratch: Path, root: str) -> dict[str, Any]:
    """An empty cache, copies instead of links, and remotes of a repository here as its own folder writes them."""
    own = {"cache": {"dir": str(scratch / "cache"), "type": "copy"}}
    dvc_folder = checkout.folder / root.lstrip("/") / Repo.DVC_DIR
    if not dvc_folder.is_dir():
        return own
    known = Config(str(dvc_folder), local_dvc_dir=str(dvc_folder))
    if known["core"].get("remote"):
        return {**own, "remote": dict(known["remote"])}
    place = known["cache"].get("dir") or str(dvc_folder / "cache")  # never pushed: what DVC itself would look in
    return {**own, "core": {"remote": "own-cache"}, "remote": {"own-cache": {"url": place}}}
