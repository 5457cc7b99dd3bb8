"""Logging in to the Hub and out: the token goes where the Hub's own tools keep it, and nowhere else."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tui_ft.errors import RequestError
from tui_ft.hub import network
from tui_ft.text import one_line

FROM_ENVIRONMENT = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class Account(BaseModel):
    """Who is logged in on this machine. The texts are foreign; the token itself is never among them."""

    model_config = ConfigDict(frozen=True)

    user: str | None = Field(None, description="None where nobody is, or where the Hub could not be asked.")
    role: str | None = Field(None, description="What the token may do: read, write, fineGrained.")
    has_token: bool = False
    variable: str | None = Field(None, description="The environment variable that the token comes from; it wins over any login.")
    file: str = Field("", description="Where the Hub's tools keep a token.")
    problem: str = Field("", description="Why the token's owner is not known, in words.")


def account() -> Account:
    """Who is logged in; asks the Hub where there is a token."""
    from huggingface_hub import constants, get_token

    variable = next((name for name in FROM_ENVIRONMENT if os.environ.get(name)), None)
    known = {"has_token": bool(get_token()), "variable": variable, "file": constants.HF_TOKEN_PATH}
    if not known["has_token"]:
        return Account(**known)
    why = network.settle()
    if why:
        return Account(**known, problem=why)
    try:
        user, role = _owner(None)
    except RequestError as error:
        return Account(**known, problem=error.message)
    return Account(**known, user=user, role=role)


def log_in(token: SecretStr) -> Account:
    """Check the token with the Hub and have the Hub's library keep it, in its own file alone.

    Raises:
        RequestError: it is no token, the Hub refuses it, or the Hub cannot be asked; nothing was kept.
    """
    import huggingface_hub

    text = token.get_secret_value().strip()
    if not text or not text.isascii() or any(char.isspace() for char in text):
        raise RequestError("that is no token", f"Copy it whole from {network.endpoint()}/settings/tokens; it begins with hf_.")
    why = network.settle()
    if why:
        raise RequestError(f"a token can only be checked with the Hub: {why}", "Check the network and try again.")
    _owner(text)
    try:
        huggingface_hub.login(token=text, add_to_git_credential=False)
    except OSError as error:
        raise RequestError(f"the token cannot be kept: {error.strerror}", "Check the folder that HF_HOME names.") from None
    except ValueError:
        raise RequestError("that token belongs to an organization", "Log in with a token of your own account.") from None
    return account()


def log_out() -> Account:
    """Delete the tokens that the Hub's library keeps on this machine; one in the environment stays."""
    import huggingface_hub

    try:
        huggingface_hub.logout()
    except OSError as error:
        if not any(os.environ.get(name) for name in FROM_ENVIRONMENT):  # else it only says that the environment still holds one, as `Account` does
            raise RequestError(f"the token cannot be deleted: {one_line(error, 200)}", "Check the folder that HF_HOME names.") from None
    return account()


def _owner(token: str | None) -> tuple[str, str | None]:
    """(user, role) of a token; None is the one that is kept. No error repeats the token, nor holds the request that carries it."""
    from huggingface_hub import HfApi

    try:
        answer = HfApi().whoami(token=token)
        return str(answer["name"]), ((answer.get("auth") or {}).get("accessToken") or {}).get("role")
    except Exception as error:
        refusal = network.explained(error, "account", "account")
        status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        raise RequestError("the Hub does not know this token", f"Make a new one at {network.endpoint()}/settings/tokens.")
    raise refusal or RequestError("the Hub's answer on this token makes no sense", "See HF_ENDPOINT.")
