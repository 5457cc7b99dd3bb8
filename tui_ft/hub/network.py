"""Whether the Hub answers, how long it is waited for, and what its refusals mean in plain words.

`HF_ENDPOINT` and the proxy variables are the client library's own business: everything here goes through its session.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from tui_ft.errors import RequestError
from tui_ft.text import one_line

PROBE_SECONDS = 4.0
"""How long a first answer of the Hub is waited for. The client alone retries a dead network for minutes."""
ANSWER_SECONDS = 10.0
"""How long one later answer is waited for; the client's own default is for ever."""
LOG_IN = "log in: F4 at the wizard's Model step, or `hf auth login`"


def endpoint() -> str:
    """The Hub's address as a person may see it, without a password in it."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def page(name: str, kind: str = "model") -> str:
    """The address of a repository's page, where its licence is accepted and its files are read."""
    return f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{name}"


def is_offline() -> bool:
    """Whether fetching is forbidden: by HF_HUB_OFFLINE, or since the Hub did not answer this process."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@lru_cache(maxsize=1)
def settle() -> str:
    """Make this process fit for the Hub: waits are bounded, and where it does not answer, only the cache is used from here on.

    Asks once a process, `PROBE_SECONDS` at most.

    Returns:
        Why there is no Hub, in words; empty where there is one.
    """
    bound_waits()
    if is_offline():
        return "HF_HUB_OFFLINE is set"
    why = unreachable()
    if why:
        go_offline()
    return why


def bound_waits() -> None:
    """No request of this process waits for ever: the client's default has no time limit where a caller names none."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def bounded():  # type: ignore[no-untyped-def] # the class is httpx's in version 1 of the library and httpx2's in version 2
        client = default_client_factory()
        client.timeout = ANSWER_SECONDS
        return client

    set_client_factory(bounded)


def go_offline() -> None:
    """From here on this process fetches nothing."""
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:  # it takes a copy when it is imported
        sys.modules["datasets"].config.HF_HUB_OFFLINE = True


def unreachable(timeout: float = PROBE_SECONDS) -> str:
    """Why the Hub does not answer, in words; empty where it does.

    In a thread that is left behind when it is late: a dead name server holds a look-up for half a minute, and no timeout reaches in there.
    """
    from huggingface_hub.utils import get_session

    session = get_session()  # made here: on a busy machine the imports alone can take longer than a network may
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(_probe(session, timeout)), daemon=True)
    thread.start()
    thread.join(timeout)
    return found[0] if found else f"{endpoint()} does not answer within {timeout:.0f} seconds"


def _probe(session: Any, timeout: float) -> str:
    from huggingface_hub import constants

    try:
        answer = session.head(constants.ENDPOINT, timeout=timeout, follow_redirects=False)
    except Exception as error:  # a wrong proxy address alone raises kinds of three libraries
        return f"{endpoint()} cannot be reached: {_cause(error)}"
    if answer.status_code == 407:
        return "the proxy wants a password (HTTPS_PROXY)"
    return f"{endpoint()} is out of order: it answers {answer.status_code}" if answer.status_code >= 500 else ""


def _cause(error: BaseException) -> str:
    """The innermost reason, which alone says what is wrong with a network."""
    for link in reversed(_chain(error)):
        if isinstance(link, socket.gaierror):
            return "its name is not known here (DNS)"
        if isinstance(link, ConnectionRefusedError):
            return "the connection was refused"
    return one_line(str(error) or type(error).__name__, 200)


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def is_network(error: BaseException) -> bool:
    """Whether it is the connection that failed, not the request. The class is httpx's or httpx2's, by the library's version."""
    return any(kind.__name__ == "TransportError" for link in _chain(error) for kind in type(link).__mro__)


def explained(error: BaseException, name: str, kind: str = "model") -> RequestError | None:
    """What a person can do about a refusal of the Hub; None where it is not about the Hub.

    Args:
        name: the repository asked for.
        kind: model or dataset.
    """
    from huggingface_hub import errors

    chain, shown = _chain(error), f"the {kind} {one_line(name, 100)}"

    def any_is(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if any_is(errors.GatedRepoError):
        return RequestError(f"{shown} is gated", f"Accept its licence at {page(name, kind)}, then {LOG_IN}.")
    if any_is(errors.DisabledRepoError):
        return RequestError(f"{shown} was disabled by the Hub", f"{page(name, kind)} may say why.")
    if any_is(errors.RevisionNotFoundError):
        return RequestError(f"{shown} has no such revision", "Check model.revision: a branch, tag or commit.")
    if any_is(errors.RepositoryNotFoundError):
        return RequestError(
            f"there is no {kind} {one_line(name, 100)} on the Hub, or it is private", f"Check the spelling; for a private one {LOG_IN}."
        )
    status = next((link.response.status_code for link in chain if isinstance(link, errors.HfHubHTTPError)), None)
    if status == 401:
        return RequestError("the Hub refuses the token", f"It may have expired: {LOG_IN}; where HF_TOKEN is set, it wins.")
    if status == 403:
        return RequestError(
            f"{shown} is closed to your token", f"See {page(name, kind)}; a fine-grained token needs the right to read gated repositories."
        )
    if status == 429:
        return RequestError("the Hub says that too much was asked of it from here", f"Wait some minutes, or {LOG_IN}.")
    if any_is(errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) or is_network(error):
        why = settle() or "the connection broke"
        return RequestError(f"{shown} is not on this machine and the Hub cannot be reached: {why}", "Check the network, or name a local folder.")
    return None


def refusal(error: BaseException, name: str, kind: str = "model") -> RequestError:
    """As `explained`, with words for what a mirror or a proxy may answer in place of the Hub as well."""
    message = f"the Hub's answer on the {kind} {one_line(name, 100)} makes no sense: {one_line(error, 200)}"
    return explained(error, name, kind) or RequestError(message, "See HF_ENDPOINT and the proxy.")
