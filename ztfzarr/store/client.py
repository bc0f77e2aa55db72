"""Clients of object stores: where credentials come from, what an option is called, how long to try.

One way for the whole package: what the caller gives, then the environment, then a profile.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from obstore.exceptions import BaseError
from obstore.store import ObjectStore as ObstoreStore
from obstore.store import from_url

from ztfzarr.errors import StoreError
from ztfzarr.store.access import reason

# Options of obstore's HTTP client (obstore.store.ClientConfig), which it wants apart from those of the store.
CLIENT_OPTIONS: Final = (
    "allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type", "http1_only",
    "http2_keep_alive_interval", "http2_keep_alive_timeout", "http2_keep_alive_while_idle", "http2_only",
    "pool_idle_timeout", "pool_max_idle_per_host", "proxy_ca_certificate", "proxy_excludes", "proxy_url",
    "randomize_addresses", "read_timeout", "root_certificate", "timeout", "user_agent",
)  # fmt: skip
ENVIRONMENT: Final = {"s3": "AWS", "s3a": "AWS", "gs": "GOOGLE", "az": "AZURE", "abfs": "AZURE", "abfss": "AZURE"}
RETRY_OPTIONS: Final = ("max_retries", "retry_timeout")

# A shard is up to 40 MB: 0.7 MB/s at least. With obstore's own defaults, waits of up to 15 s between retries, a
# wrong endpoint is a matter of minutes; with these it is 4-6 s where nobody listens, a minute where packets
# vanish, and a fault in a tenth of the requests still fails one in 10^13.
TIMEOUTS: Final = {"connect_timeout": "5s", "timeout": "60s"}
MAX_RETRIES: Final = 12
RETRY_SECONDS: Final = 60.0
LONGEST_WAIT: Final = timedelta(seconds=5)


def make_client(url: str, options: Mapping[str, str]) -> ObstoreStore:
    """Make a client of an object store.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``; gs://, az:// and http:// are passed to obstore.
    options : mapping of str
        By obstore's names, with or without ``aws_``: ``access_key_id``, ``secret_access_key``, ``token``,
        ``endpoint``, ``region``, ``skip_signature``…; of its HTTP client, such as ``allow_http``, ``timeout``;
        ``max_retries``, ``retry_timeout`` (seconds); and ``profile``, of ``~/.aws``.

    Raises
    ------
    StoreError
        If an option is not known or not valid.
    """
    config = {name: value for name, value in options.items() if name not in (*CLIENT_OPTIONS, *RETRY_OPTIONS)}
    plain = {"allow_http": "true"} if url.startswith("http://") else {}
    client = TIMEOUTS | plain | _client_options(url, options)
    profile = config.pop("profile", None) or _profile_of_environment(url, config)
    more: dict[str, Any] = _profile(profile) if profile else {}
    more.setdefault("config", {}).update(config)
    try:
        store: ObstoreStore = from_url(url, client_options=client, retry_config=_retries(options), **more)  # type: ignore[call-overload]
    except (BaseError, ValueError) as error:
        raise StoreError(reason(error)) from None
    return store


def _client_options(url: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return options of the HTTP client: those given, else those of the environment, such as AWS_ALLOW_HTTP.

    obstore reads the environment itself, but what is given here takes its place as a whole.
    """
    prefix = ENVIRONMENT.get(url.partition("://")[0], "AWS")
    found = {name: os.environ.get(f"{prefix}_{name.upper()}") for name in CLIENT_OPTIONS}
    return {name: value for name, value in found.items() if value} | {
        name: options[name] for name in CLIENT_OPTIONS if name in options
    }


def _retries(options: Mapping[str, str]) -> dict[str, Any]:
    try:
        tries = int(options.get("max_retries", MAX_RETRIES))
        seconds = float(options.get("retry_timeout", RETRY_SECONDS))
    except ValueError:
        raise StoreError("max_retries and retry_timeout (seconds): expected numbers") from None
    wait = {"init_backoff": timedelta(seconds=0.1), "max_backoff": LONGEST_WAIT, "base": 2}
    return {"max_retries": tries, "retry_timeout": timedelta(seconds=seconds), "backoff": wait}


def _profile_of_environment(url: str, config: Mapping[str, str]) -> str | None:
    """Return AWS_PROFILE, unless keys are given, which come first."""
    given = {name.lower().removeprefix("aws_") for name in (*config, *os.environ)}
    keys = given & {"access_key_id", "skip_signature", "web_identity_token_file"}
    return os.environ.get("AWS_PROFILE") if url.startswith("s3") and not keys else None


def _profile(name: str) -> dict[str, Any]:
    """Return what a profile of ``~/.aws`` says, for obstore; its keys are asked for when they are needed."""
    try:
        import boto3
        import botocore.session
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise StoreError(f"profile {name}: profiles need boto3: pip install 'ztfzarr[aws]'") from None
    try:
        session = botocore.session.Session(profile=name)
        provider = Boto3CredentialProvider(boto3.Session(botocore_session=session))
        endpoint = session.get_scoped_config().get("endpoint_url")
    except (BotoCoreError, ValueError):
        raise StoreError(f"profile {name}: not found, or without credentials") from None
    return {"credential_provider": provider, "config": {"endpoint": endpoint} if endpoint else {}}
