"""The address of a server as config.py gives it: checked, and whether it is this machine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from vaultvec.errors import EngineError, SettingsError


@dataclass(frozen=True, slots=True)
class Address:
    """A server's base address, checked. `local` is true when it is this machine."""

    url: str
    host: str
    local: bool

    @property
    def encrypted(self) -> bool:
        """Whether certificates are needed; loading them takes 30 ms a client, so plain HTTP goes without."""
        return self.url.lower().startswith("https:")


def parse_address(url: str, setting: str) -> Address:
    """Check an address from config.py. Raises SettingsError with one line that names the setting."""
    example = f"expected something like http://127.0.0.1:11434; set {setting} in config.py"
    text = url.strip()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise SettingsError(f"{setting} is not an address that can be read, {example}") from None
    if parts.username is not None or parts.password is not None:
        raise SettingsError(f"{setting} carries a name or password before '@'; leave it out ({example})")
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in text) or port == 0:
        raise SettingsError(f"{setting} is {url!r}, {example}")
    if parts.query or parts.fragment:
        raise SettingsError(f"{setting} must end before '?' and '#', {example}")
    return Address(text.rstrip("/"), host, _is_local(host))


def client_error(error: Exception, missing: str) -> EngineError:
    """Why there is no HTTP client: `missing` is not installed, or the environment names a proxy that it cannot use."""
    if isinstance(error, ModuleNotFoundError):
        return EngineError(missing)
    return EngineError(
        f"the proxy that the environment names (ALL_PROXY, HTTP_PROXY, HTTPS_PROXY) cannot be used ({error}); "
        "unset it, or for a SOCKS proxy run: pip install httpx[socks]"
    )


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified
