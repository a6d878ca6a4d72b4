"""A conversation with a gateway's admin API: calls, answers, and refusals as the errors that they mean."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from gateway.cli.backend import Json
from gateway.cli.failures import CommandFailed, NoAnswer
from gateway.errors import BadRequest, FieldProblem, GateRefused, InvalidInput, TurnoutError, Unauthenticated
from gateway.web.problem_table import TABLE

__all__ = ["AdminClient"]

_MEANING: Mapping[str, type[TurnoutError]] = {row.kind: meaning for meaning, row in TABLE.items()}
"""The end of a problem's type to the error that it stands for: the table that the server wrote it with."""


class AdminClient:
    """Paths are below ``/admin``. A failed call is never tried again on its own. Raises NoAnswer where nothing
    answers, and what the server's problem stands for."""

    def __init__(self, client: httpx.AsyncClient, address: str, *, token_given: bool) -> None:
        self._client = client
        self._address = address
        self._token_given = token_given

    @property
    def address(self) -> str:
        return self._address

    async def call(self, method: str, path: str, body: object = None, *, expected: int | None = None) -> Json:
        headers = {} if expected is None else {"if-match": f'"{expected}"'}
        if body is None:
            return await self.send(method, path, headers=headers)
        return await self.send(method, path, json=body, headers=headers)

    async def list(self, path: str, name: str) -> Sequence[Json]:
        body = await self.call("GET", path)
        rows = body.get(name)
        if not isinstance(rows, list):
            raise CommandFailed(f"{self._address} is no gateway's address: /admin{path} answered without {name!r}")
        return rows

    async def send(self, method: str, path: str, **request: Any) -> Json:
        response = await self.exchange(method, f"/admin{path}", **request)
        if response.is_success:
            return _body(response)
        raise self._refusal(response)

    async def exchange(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Of any path, whatever the status of the answer."""
        try:
            return await self._client.request(method, path, **request)
        except httpx.TimeoutException:
            raise NoAnswer(
                f"{self._address} did not answer in time; it may be busy: look at {self._address}/readyz"
            ) from None
        except httpx.TransportError as error:
            raise NoAnswer(self._unreachable(error)) from None

    def _unreachable(self, error: httpx.TransportError) -> str:
        refused = next((link for link in _chain(error) if isinstance(link, ssl.SSLError)), None)
        if isinstance(refused, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {self._address} is not trusted: {refused.verify_message}. "
                f"Set SSL_CERT_FILE to a PEM file with that certificate, or with the authority that signed it."
            )
        secure = " (does it speak TLS? then write https:// in TURNOUT_URL)" if _ended(error) else ""
        if refused is not None:
            secure = " (does it speak TLS? else write http:// in TURNOUT_URL)"
        return (
            f"no gateway answers at {self._address}: {error or type(error).__name__}{secure}. "
            f"Start one with turnout serve, or unset TURNOUT_URL to work on the store in TURNOUT_HOME."
        )

    def _refusal(self, response: httpx.Response) -> TurnoutError:
        """The server's own words as the error that they mean."""
        body = _body(response)
        detail = str(body.get("detail") or body.get("title") or body.get("error") or response.reason_phrase)
        problems = [_problem(found) for found in body.get("errors") or ()]
        meaning = _MEANING.get(str(body.get("type", "")).rpartition(":")[2])
        if meaning is Unauthenticated and not self._token_given:
            detail += " (no token was given: set TURNOUT_TOKEN)"
        if meaning in (BadRequest, InvalidInput):
            return (BadRequest if meaning is BadRequest else InvalidInput)(detail, *problems)
        if meaning is GateRefused:
            return GateRefused(detail, body.get("report"))
        if meaning is None or meaning is TurnoutError:
            return CommandFailed(f"{self._address} answered {response.status_code}: {detail}", problems=problems)
        return meaning(detail)


def _ended(error: httpx.TransportError) -> bool:
    """A server that speaks TLS hangs up on one who does not."""
    return isinstance(error, httpx.ReadError | httpx.RemoteProtocolError)


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _body(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; what is none is kept as its text."""
    if not response.content:
        return {}
    try:
        body = response.json()
    except ValueError:
        return {"detail": response.text[:500].strip()}
    return body if isinstance(body, dict) else {"items": body}


def _problem(found: Mapping[str, Any]) -> FieldProblem:
    return FieldProblem(str(found.get("field", "")), str(found.get("expected", "")), str(found.get("got", "")))
