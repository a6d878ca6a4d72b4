"""Aliases and tags of registered models, set in MLflow: what is so already is not written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow_words import is_gone


class Teller:
    def __init__(self, client: Any) -> None:
        self._client = client
        self.written = 0
        self.refused: list[str] = []

    def tell(self, write: Mapping[str, Any]) -> None:
        client, name = self._client, write["name"]
        model = self._asked(name, lambda: client.get_registered_model(name))
        if model is None:
            return
        present = {alias: str(version) for alias, version in dict(model.aliases).items()}
        for alias, version in write.get("aliases", {}).items():
            if present.get(alias) != str(version):
                self._done(name, partial(client.set_registered_model_alias, name, alias, str(version)))
        for alias, version in write.get("dropped", {}).items():
            if present.get(alias) == str(version):
                self._done(name, partial(client.delete_registered_model_alias, name, alias))
        for version, tags in write.get("tags", {}).items():
            known = self._asked(f"{name} {version}", partial(client.get_model_version, name, str(version)))
            for key, value in {} if known is None else tags.items():
                if known.tags.get(key) != value:
                    self._done(name, partial(client.set_model_version_tag, name, str(version), key, value))

    def _done(self, what: str, write: Callable[[], object]) -> None:
        before = len(self.refused)
        self._asked(what, write)
        self.written += len(self.refused) == before

    def _asked(self, what: str, ask: Callable[[], Any]) -> Any:
        """None where MLflow refuses it; what is no refusal of this one write ends all of them."""
        try:
            return ask()
        except MlflowException as error:
            if not is_gone(error):
                raise
            self.refused.append(f"{what}: {error.message}"[:500])
            return None
