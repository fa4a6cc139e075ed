"""Where the backups of one environment lie, by which policy, and with which keys they are sealed and opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runbooks.clients.seal import Opener, Sealer
from runbooks.model.backup import Tier
from runbooks.model.errors import LocalFault, PolicyFault, UsageFault
from runbooks.model.policy_backup import BackupPolicy, Encryption
from runbooks.model.secret import Secret

if TYPE_CHECKING:
    from runbooks.clients.archive import Archive
    from runbooks.clients.metrics import Metrics

KEYS = "BLOOM_DR_KEYS"
"""The environment variable with the paths of private key files, separated by `:`."""
PASSPHRASE = "BLOOM_DR_KEY_PASSPHRASE_FILE"


@dataclass(frozen=True)
class Repository:
    """Reads nothing and reaches nobody until it is asked."""

    environment: str
    """Of the policy; the first segment of every key."""
    policy: BackupPolicy
    archive: Archive
    local: Path | None
    """The root of the local copies; None: there are none."""
    metrics: Metrics
    open_keys: Callable[[Encryption], Opener | None]
    """The private keys given on this machine; None: there are none."""

    @property
    def encryption(self) -> Encryption:
        """PolicyFault if the policy names no keys."""
        if self.policy.encryption is None:
            raise PolicyFault(
                "the policy names no public key to encrypt backups to",
                safe="nothing was dumped and nothing was stored",
                next_step="make a pair with: invoke backup.keys --new FILE; "
                "then put its public key into [backup.encryption] of the policy",
            )
        return self.policy.encryption

    def sealer(self, *also: str) -> Sealer:
        """To the policy's recipients, `also` to these. PolicyFault if one of them cannot be used."""
        return Sealer.to(self.encryption.method, (*self.encryption.recipients, *also))

    def fingerprints(self) -> tuple[str, ...]:
        """Of the policy's recipients. PolicyFault."""
        return self.sealer().fingerprints

    def opener(self) -> Opener | None:
        """With the private keys of this machine; None without any. UsageFault if one cannot be read."""
        return self.open_keys(self.encryption)

    def require_opener(self) -> Opener:
        """UsageFault where there is no private key."""
        opener = self.opener()
        if opener is None:
            raise UsageFault(
                "backups are encrypted, and no private key is given on this machine",
                safe="nothing was read and nothing was changed",
                next_step=f"set {KEYS} to the path of the private key file (mode 0600)",
            )
        return opener

    def tags(self, tier: Tier, part: str) -> dict[str, str]:
        """What the bucket's lifecycle rules go by: only `data` ever gets cold, so that listings stay readable."""
        return {"tier": tier.value, "environment": self.environment, "part": part}

    def upload_class(self, tier: Tier) -> str:
        """A class that can be read at once: what goes cold does so by the lifecycle rule, after it was proved."""
        wanted = self.policy.tiers[tier].storage_class
        return "STANDARD" if wanted in ("GLACIER", "DEEP_ARCHIVE") else wanted


def keys_from(environ: Mapping[str, str]) -> Callable[[Encryption], Opener | None]:
    """How to open the private keys that an environment names."""

    def opened(encryption: Encryption) -> Opener | None:
        named = [path for path in environ.get(KEYS, "").split(":") if path]
        phrase = environ.get(PASSPHRASE)
        return key_files(encryption, [Path(path) for path in named], Path(phrase) if phrase else None)

    return opened


def key_files(encryption: Encryption, paths: Sequence[Path], passphrase: Path | None = None) -> Opener | None:
    """The private keys in these files; None for no file. UsageFault for a file that others may read."""
    if not paths:
        return None
    phrase = None if passphrase is None else Secret(_private(passphrase).rstrip("\r\n"))
    return Opener.having(encryption.method, [Secret(_private(path)) for path in paths], passphrase=phrase)


def _private(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise UsageFault(
                    f"the key file {path} can be read by other users of this machine",
                    safe="nothing was read from it",
                    next_step=f"chmod 600 {path}; if others were on this machine, make a new pair",
                )
            return file.read()
    except UnicodeDecodeError as error:
        raise UsageFault(
            f"{path} is not the text of a private key",
            safe="nothing was changed",
            next_step=f"set {KEYS} to the private key file as its program wrote it (gpg: armoured)",
        ) from error
    except OSError as error:
        raise LocalFault(
            f"the key file {path} cannot be read: {error.strerror}",
            safe="nothing was changed",
            next_step=f"set {KEYS} to the private key file",
        ) from error
