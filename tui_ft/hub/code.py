"""A model's own Python code: what there is to read before anybody consents to running it. Nothing of it is run or kept here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tui_ft.errors import RequestError
from tui_ft.hub import network
from tui_ft.text import one_line


class CodeFile(BaseModel):
    """One Python file of a repository."""

    model_config = ConfigDict(frozen=True)

    name: str
    bytes: int


class RemoteCode(BaseModel):
    """What consent is asked for: a repository at one commit."""

    model_config = ConfigDict(frozen=True)

    repository: str
    commit: str = Field(description="All 40 digits.", pattern=r"^[0-9a-f]{40}$")
    files: list[CodeFile]
    address: str = Field(description="Where that commit's files are read.")


def remote_code(name: str, revision: str | None = None) -> RemoteCode:
    """The Python files of a model on the Hub as they are at `revision` now.

    Raises:
        RequestError: no such model, no code in it, or the Hub cannot be asked.
    """
    from huggingface_hub import HfApi

    why = network.settle()
    if why:
        raise RequestError(f"the code of {one_line(name, 100)} cannot be listed: {why}", "Consent needs the commit: check the network.")
    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=network.ANSWER_SECONDS)
    except Exception as error:
        raise network.refusal(error, name) from None
    files = [CodeFile(name=file.rfilename, bytes=file.size or 0) for file in info.siblings or [] if file.rfilename.endswith(".py")]
    if not files or not info.sha:
        raise RequestError(f"{one_line(name, 100)} brings no Python file", "Its code lies in another repository, which cannot be consented to here.")
    return RemoteCode(repository=name, commit=info.sha, files=files, address=f"{network.page(name)}/tree/{info.sha}")
