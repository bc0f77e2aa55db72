"""Why an object store was not reached, in one line, without what the answer tells of credentials."""

from __future__ import annotations

import re
from typing import Final

STATUS: Final = re.compile(r"status code: (\d{3})(?: ([A-Z][A-Za-z ]+))?")
CODE: Final = re.compile(r"<Code>(\w{1,60})</Code>")
RETRIES: Final = re.compile(r"after (\d+) retries")
SPENT: Final = re.compile(r"after (\d+) retries, max_retries: (\d+)")
METADATA_SERVER: Final = "169.254.169.254"  # where clouds hand out credentials to their own machines

DENIED: Final = "access denied{detail}: check the credentials, the region and what they are allowed"


def reason(error: Exception) -> str:
    """Say why an object store was not reached.

    Parameters
    ----------
    error : Exception
        Of obstore's. Its text quotes requests and answers, which may hold names of keys and signatures: what is
        known of it is said in our words.
    """
    text = str(error)
    status, code = STATUS.search(text), CODE.search(text)
    detail = f" ({' '.join(found[1] for found in (status, code) if found)})" if status or code else ""
    if METADATA_SERVER in text:
        return "no credentials: give them in the environment, as a profile, or as storage options"
    if code and code[1] == "NoSuchBucket":
        return f"no such bucket{detail}"
    if "PermissionDenied" in type(error).__name__ or "Unauthenticated" in type(error).__name__:
        return DENIED.format(detail=detail)
    if status and status[1] in ("401", "403"):
        return DENIED.format(detail=detail)
    if status:
        return f"the server answers {status[1]} {(status[2] or '').strip()}".rstrip() + _tried(text)
    if "BadScheme" in text:
        return "the endpoint is http, not https: give the storage option allow_http=true if that is meant"
    if "HTTP error" in text or "Http" in text:
        return "the server cannot be reached, or does not answer" + _tried(text)
    return text.splitlines()[0]


def lost(error: Exception) -> bool:
    """Say whether an answer was lost that obstore did not ask for again.

    It repeats what it knows to be repeatable; not a conditional put, a delete or a page of a listing whose answer
    did not come or broke off. All that we ask for may be asked again.
    """
    text = str(error)
    spent = SPENT.search(text)
    return "HTTP error" in text and "BadScheme" not in text and (spent is None or int(spent[1]) < int(spent[2]))


def _tried(text: str) -> str:
    tries = RETRIES.search(text)
    return f" (after {tries[1]} retries)" if tries else ""
